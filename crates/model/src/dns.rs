use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// The DNS server of a node: names of Services, and all others from those who know them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Dns {
    /// Where pods and programs of this node ask it, on port 53. The node has these addresses for nothing else.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_usual_addresses"))]
    pub addresses: Vec<IpAddr>,
    /// Domain of the cluster.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_usual_zone"))]
    pub zone: String,
    /// Pod networks of the cluster. Reverse names in them and in the cluster IP networks are asked nowhere else, and no
    /// name outside the cluster may lead into them.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub networks: Vec<IpNet>,
    /// Who knows all other names; empty: those of the node's `/etc/resolv.conf`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub upstreams: Vec<NameServer>,
    /// By whose certificates servers prove themselves that are asked over TLS, in PEM; empty: those that this system trusts.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub authorities: String,
    /// Who knows the names at and below some domains.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub stubs: Vec<Stub>,
}

/// A domain with servers of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Stub {
    /// The domain.
    pub zone: String,
    /// Who knows its names.
    pub upstreams: Vec<NameServer>,
}

/// A server that knows names: `192.0.2.53`, `192.0.2.53:5353`, `tls://192.0.2.53`, `tls://192.0.2.53:853#dns.example`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameServer {
    /// Where it is.
    pub address: SocketAddr,
    /// The name or address in its certificate, if it is asked over TLS (RFC 7858), and never in clear.
    pub tls: Option<Box<str>>,
}

impl Dns {
    /// Where it is asked unless something else is said. The prefix of the second one spells "selve".
    pub const ADDRESSES: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(169, 254, 25, 10)),
        IpAddr::V6(Ipv6Addr::new(0xfd73, 0x656c, 0x7665, 0, 0, 0, 0, 0x53)),
    ];

    /// The domain unless another is said.
    pub const ZONE: &str = "cluster.local";
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            addresses: Dns::ADDRESSES.into(),
            zone: Dns::ZONE.to_owned(),
            networks: Vec::new(),
            upstreams: Vec::new(),
            authorities: String::new(),
            stubs: Vec::new(),
        }
    }
}

impl From<SocketAddr> for NameServer {
    fn from(address: SocketAddr) -> Self {
        NameServer { address, tls: None }
    }
}

/// The text names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoNameServer;

impl FromStr for NameServer {
    type Err = NoNameServer;

    fn from_str(text: &str) -> Result<Self, NoNameServer> {
        let at = |text: &str, port: u16| {
            let plain = || text.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, port));
            let address = text.parse().or_else(|_| plain()).map_err(|_| NoNameServer)?;
            if address.port() > 0 { Ok(address) } else { Err(NoNameServer) }
        };
        let Some(secure) = text.strip_prefix("tls://") else { return at(text, 53).map(NameServer::from) };
        let (address, name) = secure.split_once('#').map_or((secure, None), |(address, name)| (address, Some(name)));
        let address = at(address, 853)?;
        let name = match name {
            None => address.ip().to_string(),
            Some(name) if is_domain(name) || name.parse::<IpAddr>().is_ok() => name.to_ascii_lowercase(),
            Some(_) => return Err(NoNameServer),
        };
        Ok(NameServer { address, tls: Some(name.into()) })
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tls {
            None => self.address.fmt(f),
            Some(name) if **name == *self.address.ip().to_string() => write!(f, "tls://{}", self.address),
            Some(name) => write!(f, "tls://{}#{name}", self.address),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for NameServer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name of labels of letters, digits, hyphens and underscores.
pub fn is_domain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(feature = "serde")]
fn is_usual_addresses(addresses: &[IpAddr]) -> bool {
    addresses == Dns::ADDRESSES
}

#[cfg(feature = "serde")]
fn is_usual_zone(zone: &str) -> bool {
    zone == Dns::ZONE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_as_text() {
        for (text, shown) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("tls://192.0.2.53", "tls://192.0.2.53:853"),
            ("tls://192.0.2.53#192.0.2.53", "tls://192.0.2.53:853"),
            ("tls://2001:db8::53#DNS.example", "tls://[2001:db8::53]:853#dns.example"),
            ("tls://192.0.2.53:8853#dns.example", "tls://192.0.2.53:8853#dns.example"),
        ] {
            let server: NameServer = text.parse().unwrap();
            assert_eq!(server.to_string(), shown);
            assert_eq!(shown.parse(), Ok(server), "{text}");
        }
        for text in
            ["", "dns.example", "192.0.2.53:0", "tls://dns.example", "tls://192.0.2.53#", "tls://192.0.2.53#a b"]
        {
            assert_eq!(text.parse::<NameServer>(), Err(NoNameServer), "{text}");
        }
    }
}
