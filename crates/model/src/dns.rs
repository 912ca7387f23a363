use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
    pub upstreams: Vec<SocketAddr>,
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
    pub upstreams: Vec<SocketAddr>,
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
            stubs: Vec::new(),
        }
    }
}

/// An address with or without a port: 53 if it says none.
pub fn dns_server(text: &str) -> Option<SocketAddr> {
    let plain = || Some(SocketAddr::new(text.parse().ok()?, 53));
    text.parse().ok().filter(|server: &SocketAddr| server.port() > 0).or_else(plain)
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
