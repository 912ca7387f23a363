//! `Cluster` of `selvedge.dev/v1alpha1`.

use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use kube::CustomResource;
use schemars::JsonSchema;
use selvedge_model::{Balance, DatapathMode, Distribution, FirewallBackend, ServiceMode};
use serde::{Deserialize, Serialize};

use super::agent::AgentSpec;
use super::dns::DnsSpec;
use super::fields::{Selector, Word, prefixes, word};
use super::schema;
use super::status::Condition;

/// Default of `spec.certificateDays`.
pub(crate) const CERTIFICATE_DAYS: u32 = 30;

/// Annotation of the own cluster.
pub(crate) const ROTATE_CA: &str = "selvedge.dev/rotate-ca";

/// A cluster: its networks, and for the own one all settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "selvedge.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    category = "selvedge",
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A cluster: its networks, and for the own one all settings of its fabric.",
    printcolumn(name = "Remote", type_ = "boolean", json_path = ".spec.remote"),
    printcolumn(name = "Edges", type_ = "integer", json_path = ".status.edges"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Degraded\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.remote || size(self.serviceCIDRs) > 0", "message": "serviceCIDRs of the own cluster is empty"},
    {"rule": "self.remote || size(self.connector.addresses) > 0",
     "message": "connector.addresses of the own cluster is empty"},
]))]
pub(crate) struct ClusterSpec {
    /// Another cluster, named here so that nothing of ours overlaps it.
    #[serde(default)]
    pub(crate) remote: bool,
    /// From where the pod networks of cloud nodes are known. `nodes`: `spec.podCIDRs` of each (Flannel, bridge, host-gw,
    /// k3s). `calico`: its IPAM blocks. `cluster`: all of `clusterCIDRs` is behind the connector (Cilium, Kube-OVN).
    #[serde(default, deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<PodNetworks>")]
    pub(crate) pod_networks: PodNetworks,
    /// Pod networks of the cloud nodes.
    #[serde(rename = "clusterCIDRs", deserialize_with = "prefixes")]
    #[schemars(schema_with = "schema::networks")]
    pub(crate) cluster_cidrs: Vec<IpNet>,
    /// Cluster IP networks.
    #[serde(rename = "serviceCIDRs", deserialize_with = "prefixes")]
    #[schemars(schema_with = "schema::networks")]
    pub(crate) service_cidrs: Vec<IpNet>,
    /// Pools from which edge nodes without `spec.podCIDRs` get theirs.
    #[serde(rename = "edgePodCIDRs", default, deserialize_with = "prefixes")]
    #[schemars(schema_with = "schema::networks")]
    pub(crate) edge_pod_cidrs: Vec<IpNet>,
    /// Prefix length of an edge node's IPv4 pod network.
    #[serde(default = "mask_size")]
    #[schemars(schema_with = "schema::integer::<8, 30>")]
    pub(crate) edge_mask_size: u8,
    /// Prefix length of an edge node's IPv6 pod network.
    #[serde(default = "mask_size6")]
    #[schemars(schema_with = "schema::integer::<16, 126>")]
    pub(crate) edge_mask_size6: u8,
    /// Labels that an edge node must all carry.
    #[serde(default = "edge_selector")]
    #[schemars(extend("minProperties" = 1))]
    pub(crate) edge_selector: Selector,
    /// Labels that the connector's node must all carry.
    #[serde(default = "connector_selector")]
    #[schemars(extend("minProperties" = 1))]
    pub(crate) connector_selector: Selector,
    /// Where edges call the connector.
    #[serde(default)]
    pub(crate) connector: ConnectorSpec,
    /// Who serves cluster IPs, and from where nodes know the Services.
    #[serde(default)]
    pub(crate) services: ServicesSpec,
    /// The DNS server of edge nodes.
    #[serde(default)]
    pub(crate) dns: DnsSpec,
    /// How ESP is done: `auto` takes the kernel's where there is one.
    #[serde(default, deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<DatapathMode>")]
    pub(crate) datapath: DatapathMode,
    /// Which firewall the rules are written for: `auto` takes nftables where it works.
    #[serde(default, deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<FirewallBackend>")]
    pub(crate) firewall: FirewallBackend,
    /// The CNI network of edge nodes.
    #[serde(default)]
    pub(crate) cni: CniSpec,
    /// Validity of a node's certificate; it is renewed after two thirds.
    #[serde(default = "certificate_days")]
    #[schemars(schema_with = "schema::integer::<1, 825>")]
    pub(crate) certificate_days: u32,
    /// Agents and connector as pods. Without it the nodes have them from packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<AgentSpec>,
    /// Nodes whose certificates count no longer, and that get none until they are taken off this list.
    #[serde(default)]
    #[schemars(schema_with = "schema::node_names")]
    pub(crate) revoked: Vec<String>,
    /// How long delivery of credentials may take: so long everybody trusts both authorities at each step of a change.
    #[serde(default = "rotation_grace")]
    #[schemars(schema_with = "schema::integer::<0, 31_536_000>")]
    pub(crate) rotation_grace_seconds: u64,
    /// The annotation [`ROTATE_CA`]: each new value asks for a new certificate authority.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) rotate_ca: Option<String>,
}

/// From where the pod networks of cloud nodes are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PodNetworks {
    #[default]
    Nodes,
    Calico,
    Cluster,
}

impl Word for PodNetworks {
    const WORDS: &'static [(&'static str, Self)] =
        &[("nodes", Self::Nodes), ("calico", Self::Calico), ("cluster", Self::Cluster)];
}

/// Where edges call the connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ConnectorSpec {
    /// Public addresses, tried in turn.
    #[schemars(schema_with = "schema::addresses")]
    pub(crate) addresses: Vec<IpAddr>,
    /// UDP port.
    #[schemars(schema_with = "schema::integer::<1, 65535>")]
    pub(crate) port: NonZeroU16,
}

/// Who serves cluster IPs, and from where nodes know the Services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ServicesSpec {
    /// On edge nodes.
    #[serde(deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<ServiceMode>")]
    pub(crate) edge: ServiceMode,
    /// On cloud nodes, which mostly have kube-proxy.
    #[serde(deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<ServiceMode>")]
    pub(crate) cloud: ServiceMode,
    /// How an endpoint is chosen for a new connection.
    #[serde(deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<Balance>")]
    pub(crate) balance: Balance,
    /// Which endpoints come first: those on the client's node and then those in its zone, those in its zone, or none.
    #[serde(deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<Distribution>")]
    pub(crate) distribution: Distribution,
    /// Networks of the addresses of nodes at which node ports are served; empty: at all but loopback.
    #[serde(deserialize_with = "prefixes")]
    #[schemars(schema_with = "schema::networks")]
    pub(crate) node_port_addresses: Vec<IpNet>,
    /// `config`: the Services are part of each node's configuration; `api`: the agent reads them from the API at hand;
    /// `auto`: `api` if the operator lives in a cluster.
    #[serde(deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<ServicesFrom>")]
    pub(crate) source: ServicesFrom,
}

/// From where nodes know the Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ServicesFrom {
    #[default]
    Auto,
    Config,
    Api,
}

impl Word for ServicesFrom {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("config", Self::Config), ("api", Self::Api)];
}

/// The CNI network of edge nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct CniSpec {
    /// Name of the network and of its file.
    #[schemars(schema_with = "schema::plain_name::<64>")]
    pub(crate) network: String,
    /// Bridge the pods hang on.
    #[schemars(schema_with = "schema::plain_name::<15>")]
    pub(crate) bridge: String,
    /// MTU of the pods, in bytes.
    #[schemars(schema_with = "schema::integer::<1280, 65535>")]
    pub(crate) mtu: u32,
    /// Whether a pod reaches itself through its Service.
    pub(crate) hairpin: bool,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClusterStatus {
    /// `Ready`: the settings are in force. `Degraded`: something is refused, here or in any other object.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub(crate) conditions: Vec<Condition>,
    /// Nodes that have a configuration, edge nodes included.
    #[schemars(schema_with = "schema::count")]
    pub(crate) nodes: u32,
    /// Edge nodes that have a configuration, Outposts included.
    #[schemars(schema_with = "schema::count")]
    pub(crate) edges: u32,
    /// What is wrong with any object, the first ones.
    pub(crate) problems: Vec<String>,
    /// Agents and connector in pods, if `spec.agent` asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agents: Option<AgentsStatus>,
}

/// How the pods of agents and connector are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AgentsStatus {
    /// Nodes that should have one.
    #[schemars(schema_with = "schema::count")]
    pub(crate) nodes: u32,
    /// Nodes that have what they should have, and it works.
    #[schemars(schema_with = "schema::count")]
    pub(crate) ready: u32,
    /// Nodes that are not online; they follow when they are back.
    #[schemars(schema_with = "schema::count")]
    pub(crate) offline: u32,
    /// Nodes that wait for their turn.
    #[schemars(schema_with = "schema::count")]
    pub(crate) waiting: u32,
    /// Nodes from which an agent is being removed.
    #[schemars(schema_with = "schema::count")]
    pub(crate) leaving: u32,
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
        ServicesSpec {
            edge: ServiceMode::Kernel,
            cloud: ServiceMode::Off,
            balance: Balance::Random,
            distribution: Distribution::SameNode,
            node_port_addresses: Vec::new(),
            source: ServicesFrom::Auto,
        }
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
