//! `spec.dns` of a `Cluster`.

use std::net::IpAddr;

use schemars::JsonSchema;
use selvedge_model::{Dns, NameServer, is_domain};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema;

/// More addresses are of no use to a resolver.
const MOST: usize = 8;

/// The DNS server of edge nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct DnsSpec {
    /// Whether edge nodes answer DNS. Without it those do on which Services are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// Where pods and programs of a node ask, on port 53: what `clusterDNS` of the kubelet says.
    #[serde(deserialize_with = "own_addresses")]
    #[schemars(schema_with = "schema::addresses")]
    pub(crate) addresses: Vec<IpAddr>,
    /// Domain of the cluster: what `clusterDomain` of the kubelet says.
    #[schemars(schema_with = "schema::domain")]
    pub(crate) zone: Domain,
    /// Who knows all other names, addresses with or without a port, over TLS with `tls://` in front; empty: those of each node's `/etc/resolv.conf`.
    #[schemars(schema_with = "schema::servers")]
    pub(crate) upstreams: Vec<DnsServer>,
    /// Certificate authorities of servers that are asked over TLS, in PEM; empty: those that each node trusts.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("maxLength" = 65536))]
    pub(crate) authorities: String,
    /// Who knows the names at and below some domains.
    #[schemars(extend("maxItems" = 64))]
    pub(crate) stubs: Vec<StubSpec>,
}

/// A domain with servers of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StubSpec {
    /// The domain.
    #[schemars(schema_with = "schema::domain")]
    pub(crate) zone: Domain,
    /// Who knows its names, addresses with or without a port.
    #[serde(deserialize_with = "some_servers")]
    #[schemars(schema_with = "schema::servers")]
    pub(crate) upstreams: Vec<DnsServer>,
}

/// A domain name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Domain(pub(crate) String);

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_domain(&text) { Ok(Domain(text)) } else { Err(D::Error::custom(format!("\"{text}\" is no domain"))) }
    }
}

/// An address with or without a port, or `tls://` and that, perhaps with `#` and the name in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DnsServer(pub(crate) NameServer);

impl Serialize for DnsServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DnsServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map(DnsServer)
            .map_err(|_| D::Error::custom(format!("\"{text}\" is no address, with or without a port")))
    }
}

impl Default for DnsSpec {
    fn default() -> Self {
        DnsSpec {
            enabled: None,
            addresses: Dns::ADDRESSES.into(),
            zone: Domain(Dns::ZONE.to_owned()),
            upstreams: Vec::new(),
            authorities: String::new(),
            stubs: Vec::new(),
        }
    }
}

fn own_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let addresses = Vec::<IpAddr>::deserialize(deserializer)?;
    let unusable = |address: &&IpAddr| {
        let scoped = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        scoped || address.is_unspecified() || address.is_loopback() || address.is_multicast()
    };
    if let Some(address) = addresses.iter().find(unusable) {
        return Err(D::Error::custom(format!("{address} is not an address that pods can ask")));
    }
    if addresses.is_empty() {
        return Err(D::Error::custom("is empty; `enabled: false` has none answer DNS"));
    }
    if addresses.len() > MOST { Err(D::Error::custom(format!("holds more than {MOST}"))) } else { Ok(addresses) }
}

fn some_servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DnsServer>, D::Error> {
    let servers = Vec::<DnsServer>::deserialize(deserializer)?;
    if servers.is_empty() { Err(D::Error::custom("is empty")) } else { Ok(servers) }
}
