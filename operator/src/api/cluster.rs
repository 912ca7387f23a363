//! `Cluster` and `Community` of `selvedge.dev/v1alpha1`.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use selvedge_model::{Balance, DatapathMode, FirewallBackend, ServiceMode};
use serde::Deserialize;

use super::fields::{Selector, prefixes, word};

/// Default of `spec.certificateDays`.
pub(crate) const CERTIFICATE_DAYS: u32 = 30;

/// Annotation of the own cluster.
pub(crate) const ROTATE_CA: &str = "selvedge.dev/rotate-ca";

/// A cluster: its networks, and for the own one all settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClusterSpec {
    /// Another cluster, named here so that nothing of ours overlaps it.
    #[serde(default)]
    pub(crate) remote: bool,
    /// Pod networks of the cloud nodes.
    #[serde(rename = "clusterCIDRs", deserialize_with = "prefixes")]
    pub(crate) cluster_cidrs: Vec<IpNet>,
    /// Cluster IP networks.
    #[serde(rename = "serviceCIDRs", deserialize_with = "prefixes")]
    pub(crate) service_cidrs: Vec<IpNet>,
    /// Pools from which edge nodes without `spec.podCIDRs` get theirs.
    #[serde(rename = "edgePodCIDRs", default, deserialize_with = "prefixes")]
    pub(crate) edge_pod_cidrs: Vec<IpNet>,
    /// Prefix length of an edge node's IPv4 pod network.
    #[serde(default = "mask_size")]
    pub(crate) edge_mask_size: u8,
    /// Prefix length of an edge node's IPv6 pod network.
    #[serde(default = "mask_size6")]
    pub(crate) edge_mask_size6: u8,
    #[serde(default = "edge_selector")]
    pub(crate) edge_selector: Selector,
    #[serde(default = "connector_selector")]
    pub(crate) connector_selector: Selector,
    /// Where edges call the connector.
    #[serde(default)]
    pub(crate) connector: ConnectorSpec,
    #[serde(default)]
    pub(crate) services: ServicesSpec,
    #[serde(default, deserialize_with = "word")]
    pub(crate) datapath: DatapathMode,
    #[serde(default, deserialize_with = "word")]
    pub(crate) firewall: FirewallBackend,
    #[serde(default)]
    pub(crate) cni: CniSpec,
    /// Validity of a node's certificate; it is renewed after two thirds.
    #[serde(default = "certificate_days")]
    pub(crate) certificate_days: u32,
    /// Nodes whose certificates count no longer, and that get none until they are taken off this list.
    #[serde(default)]
    pub(crate) revoked: Vec<String>,
    /// How long delivery of credentials may take: so long everybody trusts both authorities at each step of a change.
    #[serde(default = "rotation_grace")]
    pub(crate) rotation_grace_seconds: u64,
    /// The annotation [`ROTATE_CA`]: each new value asks for a new certificate authority.
    #[serde(skip)]
    pub(crate) rotate_ca: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ConnectorSpec {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) port: NonZeroU16,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ServicesSpec {
    #[serde(deserialize_with = "word")]
    pub(crate) edge: ServiceMode,
    #[serde(deserialize_with = "word")]
    pub(crate) cloud: ServiceMode,
    #[serde(deserialize_with = "word")]
    pub(crate) balance: Balance,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct CniSpec {
    pub(crate) network: String,
    pub(crate) bridge: String,
    pub(crate) mtu: u32,
    pub(crate) hairpin: bool,
}

/// Edge nodes with tunnels to each other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CommunitySpec {
    /// `<cluster>.<node>`.
    #[serde(default)]
    pub(crate) members: Vec<String>,
}

impl Default for ConnectorSpec {
    fn default() -> Self {
        let port = const { NonZeroU16::new(4500).unwrap() };
        ConnectorSpec { addresses: Vec::new(), port }
    }
}

impl Default for ServicesSpec {
    fn default() -> Self {
        // Cloud nodes have kube-proxy.
        ServicesSpec { edge: ServiceMode::Kernel, cloud: ServiceMode::Off, balance: Balance::Random }
    }
}

impl Default for CniSpec {
    fn default() -> Self {
        CniSpec { network: "selvedge".to_owned(), bridge: "br-selvedge".to_owned(), mtu: 1400, hairpin: true }
    }
}

fn mask_size() -> u8 {
    24
}

fn mask_size6() -> u8 {
    64
}

fn certificate_days() -> u32 {
    CERTIFICATE_DAYS
}

fn rotation_grace() -> u64 {
    24 * 60 * 60
}

fn edge_selector() -> Selector {
    Selector::role("edge")
}

fn connector_selector() -> Selector {
    Selector::role("connector")
}
