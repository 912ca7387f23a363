//! Disabled `IPPool`s of Calico: it gives no address of them, and does not translate the source of what goes there.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::admission::Admission;
use super::fabric::Fabric;
use super::state::ClusterState;
use crate::api::PodNetworks;

/// What is particular to one pool; all else is the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpPool {
    pub(crate) network: IpNet,
    /// Prefix length of a block: Calico refuses one wider than the pool, even where none is ever made.
    pub(crate) block_size: u8,
}

/// The pools of edge nodes, their networks that lie elsewhere, and the networks of other clusters.
pub(super) fn list(fabric: &Fabric<'_>, state: &ClusterState, admission: &Admission<'_>) -> BTreeMap<String, IpPool> {
    if fabric.spec.pod_networks != PodNetworks::Calico {
        return BTreeMap::new();
    }
    let edges = admission.edges().flat_map(|edge| edge.pod_cidrs.iter().copied());
    let others = state.clusters.iter().filter(|(name, _)| *name != fabric.name).map(|(_, other)| &other.value);
    let others = others.flat_map(|other| other.cluster_cidrs.iter().chain(&other.service_cidrs)).copied();
    let own = fabric.spec.edge_pod_cidrs.iter().copied();
    let networks: Vec<IpNet> = own.chain(edges).chain(others).collect();
    // Neighbours are not joined: a pool would have to change whenever a node comes.
    let within = |inner: &IpNet| networks.iter().any(|outer| outer != inner && outer.contains(inner));
    networks.iter().filter(|network| !within(network)).map(|n| (name(fabric.name, *n), pool(*n))).collect()
}

fn pool(network: IpNet) -> IpPool {
    let usual = if network.addr().is_ipv4() { 26 } else { 122 };
    IpPool { network, block_size: network.prefix_len().max(usual) }
}

fn name(cluster: &str, network: IpNet) -> String {
    format!("selvedge-{cluster}-{}", network.to_string().replace(['.', ':', '/'], "-"))
}
