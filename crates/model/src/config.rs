use std::net::IpAddr;

use ipnet::IpNet;

#[cfg(feature = "dns")]
use crate::dns::Dns;
use crate::services::Services;

/// Everything one node must know, made by the operator, read by agent and connector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct NodeConfig {
    /// Schema version, [`crate::SCHEMA_VERSION`].
    pub version: u64,
    /// Grows with every change the operator makes to this node's configuration.
    pub generation: u64,
    /// Identity in the fabric and subject alternative name of the certificate: `<cluster>.<node>` or
    /// `<cluster>.connector`.
    pub name: String,
    /// Kubernetes node name; endpoints of Services that carry it are on this node.
    pub node: String,
    /// What this node does in the fabric.
    pub role: Role,
    /// Pod networks of this node, at most one of each family in practice.
    pub pod_cidrs: Vec<IpNet>,
    /// What this node speaks for inside its tunnels.
    pub local: LocalSide,
    /// The other ends.
    pub peers: Vec<Peer>,
    /// Services served on the node.
    pub services: Services,
    /// The DNS server of the node; absent where another one is asked.
    #[cfg(feature = "dns")]
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub dns: Option<Dns>,
    /// The CNI network to write; absent where another CNI rules.
    pub cni: Option<Cni>,
    /// How ESP is done.
    pub datapath: DatapathMode,
    /// Who filters and translates.
    pub firewall: FirewallBackend,
    /// This node pays for every byte: all its tunnels keep as quiet as they can.
    pub metered: bool,
    /// What the edge gateway serves; absent where there is none.
    #[cfg(feature = "gateway")]
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub gateway: Option<crate::gateway::Gateway>,
    /// There is an edge gateway, which this build knows nothing of.
    #[cfg(not(feature = "gateway"))]
    #[cfg_attr(feature = "serde", serde(skip))]
    pub gateway: Option<()>,
}

/// What a node does in the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum Role {
    /// A gateway: tunnels to the connector and to the edges of its communities.
    Edge,
    /// A cloud node that ends the tunnels of all edges.
    Connector,
    /// Any other cloud node: routes the edges' networks to the connector.
    Cloud,
}

/// The networks that a node offers into its tunnels: its local traffic selectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct LocalSide {
    /// Pod and Service networks.
    pub prefixes: Vec<IpNet>,
    /// Addresses of nodes, reachable from the peers' pods.
    pub node_addresses: Vec<IpAddr>,
}

/// Another node, its networks and the way to it. What a reader would assume anyway is not written: the connector of
/// thousands of edges has as many of these.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Peer {
    /// Fabric name; the peer's certificate must carry it.
    pub name: String,
    /// How packets get there.
    pub via: Via,
    /// Where it can be called, tried in turn. Empty: only the peer can call.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub addresses: Vec<IpAddr>,
    /// UDP port of its IKE responder, 4500 unless something is in the way.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_usual_port"))]
    pub port: u16,
    /// Whether this node calls (both may).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub initiate: bool,
    /// The peer pays for every byte: a tunnel is metered if either end is.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub metered: bool,
    /// Pod and Service networks behind it: routed to it, and the only sources accepted from it besides
    /// `node_addresses`.
    pub prefixes: Vec<IpNet>,
    /// Node addresses behind it, reachable from this side's pods.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub node_addresses: Vec<IpAddr>,
    /// `via: lan` only: the peer's own pod networks. The kernel's route to them (an overlay such as VXLAN) is the
    /// way to the peer; without such a route its `addresses` are the next hop.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub overlay: Vec<IpNet>,
}

/// How packets for a peer travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum Via {
    /// Through an IPsec tunnel.
    Tunnel,
    /// By a plain route inside the cloud's own network.
    Lan,
}

/// The CNI network of an edge node (bridge, host-local, portmap, bandwidth).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Cni {
    /// `cniVersion` of the list.
    pub version: String,
    /// Name of the network and of the file `<network>.conflist`.
    pub network: String,
    /// Bridge the pods hang on.
    pub bridge: String,
    /// MTU of the pods, in bytes.
    pub mtu: u32,
    /// Whether a pod reaches itself through its Service.
    pub hairpin: bool,
}

/// How ESP is done on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum DatapathMode {
    /// Kernel xfrm where the kernel has ESP, else user space.
    #[default]
    Auto,
    /// Kernel xfrm or nothing.
    Kernel,
    /// ESP in user space over TUN.
    User,
}

/// Which firewall the rules are written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum FirewallBackend {
    /// nftables where it works, else iptables.
    #[default]
    Auto,
    /// `iptables-restore`, `ip6tables-restore` and `ipset`.
    Iptables,
    /// `nft`.
    Nftables,
}

/// What a reader takes where nothing is said.
#[cfg(feature = "serde")]
fn is_usual_port(port: &u16) -> bool {
    *port == 4500
}

impl Peer {
    /// All the networks behind the peer: prefixes, then node addresses as host prefixes.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.prefixes.iter().copied().chain(self.node_addresses.iter().map(|a| IpNet::from(*a)))
    }
}

impl LocalSide {
    /// All the networks of this side: prefixes, then node addresses as host prefixes.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.prefixes.iter().copied().chain(self.node_addresses.iter().map(|a| IpNet::from(*a)))
    }
}
