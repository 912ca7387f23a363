//! Pod networks that others gave to nodes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use selvedge_model::Role;

use super::fabric::Fabric;
use super::state::ClusterState;
use crate::api::{Node, PodNetworks};

/// What each node has from Kubernetes, from the cloud's network plugin, or from its owner.
pub(super) struct Given<'a> {
    from: PodNetworks,
    /// Calico's blocks by node, joined where they are neighbours.
    blocks: BTreeMap<&'a str, Vec<IpNet>>,
}

impl<'a> Given<'a> {
    pub(super) fn new(fabric: &Fabric<'_>, state: &'a ClusterState) -> Self {
        let from = fabric.spec.pod_networks;
        let mut blocks: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
        if from == PodNetworks::Calico {
            for block in state.blocks.values().filter(|block| !block.value.node.is_empty()) {
                blocks.entry(&block.value.node).or_default().push(block.value.network);
            }
            for networks in blocks.values_mut() {
                *networks = IpNet::aggregate(networks);
                networks.sort();
            }
        }
        Given { from, blocks }
    }

    /// Where the controller manager gives every node `spec.podCIDRs`, plugins with an IPAM of their own ignore them.
    pub(super) fn of<'b>(&'b self, name: &str, role: Role, node: &'b Node) -> &'b [IpNet] {
        match self.from {
            _ if node.outpost.is_some() => &node.pod_cidrs,
            PodNetworks::Nodes => &node.pod_cidrs,
            PodNetworks::Calico if role != Role::Edge => self.blocks.get(name).map_or(&[], Vec::as_slice),
            PodNetworks::Calico | PodNetworks::Cluster => &[],
        }
    }

    /// Where they are written.
    pub(super) fn field(&self, node: &Node) -> &'static str {
        match self.from {
            _ if node.outpost.is_some() => "spec.lanPrefixes",
            PodNetworks::Calico => "IPAMBlocks",
            PodNetworks::Nodes | PodNetworks::Cluster => "spec.podCIDRs",
        }
    }
}
