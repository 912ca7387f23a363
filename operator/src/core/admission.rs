//! Which nodes take part, in which role, with which networks.
//!
//! A node whose addresses or networks are another's is refused, and only it: nodes that already have a configuration go
//! first, so that a newcomer's mistake takes nobody down.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use selvedge_model::Role;

use super::allocator::{Allocations, Allocator, Pool};
use super::claims::{Claims, family, overlap};
use super::fabric::{CONNECTOR, Fabric};
use super::networks::Given;
use super::problem::Problem;
use super::state::ClusterState;
use crate::api::{FieldError, Node, Object, ObjectRef, PodNetworks};

/// A node that takes part.
pub(super) struct Member<'a> {
    /// Kubernetes name.
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) node: &'a Node,
    pub(super) reference: &'a ObjectRef,
    pub(super) pod_cidrs: Vec<IpNet>,
    /// Whether these were given by others.
    given: bool,
}

/// All nodes that take part, by name, and the networks that are theirs.
pub(super) struct Admission<'a> {
    pub(super) members: BTreeMap<&'a str, Member<'a>>,
    pub(super) claims: Claims,
}

impl<'a> Admission<'a> {
    /// `allocations` are brought up to date: blocks of nodes that need none any more are freed, new ones added. While
    /// `complete` is false, a node that is not there keeps its blocks.
    pub(super) fn decide(
        fabric: &Fabric<'a>,
        state: &'a ClusterState,
        incumbents: &BTreeSet<String>,
        complete: bool,
        allocations: &mut Allocations,
        problems: &mut Vec<Problem>,
    ) -> Admission<'a> {
        let mut admission = Admission { members: BTreeMap::new(), claims: Claims::default() };
        for (i, network) in fabric.spec.service_cidrs.iter().enumerate() {
            // Disjoint, as the fabric's own check has shown.
            let _ = admission.claims.claim(&[*network], &format!("{}, spec.serviceCIDRs[{i}]", fabric.reference));
        }
        let roles = roles(fabric, state, problems);
        let given = Given::new(fabric, state);
        allocations.retain(|name| match roles.get(name) {
            Some(role) => {
                *role == Role::Edge && state.nodes.get(name).is_some_and(|n| given.of(name, *role, &n.value).is_empty())
            }
            None => state.nodes.contains_key(name) || !complete,
        });
        allocations.prune(&fabric.pools);

        let (old, new): (Vec<_>, Vec<_>) = state.nodes.iter().partition(|(name, _)| incumbents.contains(*name));
        for (name, object) in old.into_iter().chain(new) {
            let Some(role) = roles.get(name.as_str()) else { continue };
            match admission.admit(fabric, name, *role, object, &given, allocations) {
                Ok(warnings) => {
                    let warning = |e: FieldError| Problem::warning(&object.reference, e.field, e.message);
                    problems.extend(warnings.into_iter().map(warning));
                }
                Err(e) => problems.push(Problem::error(&object.reference, e.field, e.message)),
            }
        }
        admission.allocate(fabric, allocations, problems);
        admission
    }

    pub(super) fn edges(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.values().filter(|member| member.role == Role::Edge)
    }

    /// The connector's node and all other nodes of the cloud.
    pub(super) fn cloud(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.values().filter(|member| member.role != Role::Edge)
    }

    pub(super) fn connector(&self) -> Option<&Member<'a>> {
        self.members.values().find(|member| member.role == Role::Connector)
    }

    /// Takes a node in with the networks it brings along; what is returned are warnings.
    fn admit(
        &mut self,
        fabric: &Fabric<'a>,
        name: &'a str,
        role: Role,
        object: &'a Object<Node>,
        given: &Given<'_>,
        allocations: &Allocations,
    ) -> Result<Vec<FieldError>, FieldError> {
        let Object { reference, value: node } = object;
        let mut warnings = Vec::new();
        if role != Role::Connector && name == CONNECTOR {
            let message = format!("\"{}\" is the name of the connector in the fabric", fabric.connector_name());
            return Err(FieldError::new("metadata.name", message));
        }
        if fabric.node_name(name).len() > 253 {
            return Err(FieldError::new("metadata.name", "is too long for a name in a certificate"));
        }
        let is_outpost = node.outpost.is_some();
        let addresses_field = if is_outpost { "spec.addresses" } else { "status.addresses" };
        if node.internal_ips.is_empty() && !is_outpost {
            let message = "has no address of type InternalIP; the node is left out";
            return Err(FieldError::new("status.addresses", message));
        }
        let addresses: Vec<IpNet> = node.internal_ips.iter().map(|ip| IpNet::from(*ip)).collect();
        for (i, pool) in fabric.spec.edge_pod_cidrs.iter().enumerate() {
            if let Some(ip) = addresses.iter().find(|ip| pool.contains(*ip)) {
                let message = format!("{} lies in {pool} of {}, spec.edgePodCIDRs[{i}]", ip.addr(), fabric.reference);
                return Err(FieldError::new(addresses_field, message));
            }
        }
        let from_others = given.of(name, role, node);
        let (pod_cidrs, field) = if !from_others.is_empty() {
            (from_others, given.field(node))
        } else if role != Role::Edge && fabric.spec.pod_networks == PodNetworks::Cluster {
            (&[][..], "")
        } else if !node.annotated_cidrs.is_empty() {
            (&*node.annotated_cidrs, "metadata.annotations[selvedge.dev/pod-cidrs]")
        } else if role == Role::Edge {
            (allocations.blocks_of(name), "spec.podCIDRs")
        } else {
            let message = "is empty: pods of this node cannot be reached from the edge";
            warnings.push(FieldError::new(given.field(node), message));
            (&[][..], "")
        };
        let own = |result: Result<(), String>| result.map_err(|message| FieldError::new(field, message));
        if is_outpost {
            own(outside(&fabric.spec.edge_pod_cidrs, fabric, "edgePodCIDRs", pod_cidrs))?;
        }
        let is_given = !from_others.is_empty();
        if is_outpost || role == Role::Edge && !is_given {
            own(outside(&fabric.spec.cluster_cidrs, fabric, "clusterCIDRs", pod_cidrs))?;
        }
        if role == Role::Edge && !is_given {
            warnings.extend(outside_pools(fabric, pod_cidrs, field));
        }
        let owner = reference.to_string();
        self.claims.claim(&addresses, &owner).map_err(|conflict| {
            let message =
                format!("{} is taken: {} belongs to {}", conflict.network.addr(), conflict.other, conflict.owner);
            FieldError::new(addresses_field, message)
        })?;

        own(self
            .claims
            .claim(pod_cidrs, &owner)
            .map_err(|conflict| format!("{} overlaps {} of {}", conflict.network, conflict.other, conflict.owner)))
        .inspect_err(|_| self.claims.release(&addresses))?;
        self.members
            .insert(name, Member { name, role, node, reference, pod_cidrs: pod_cidrs.to_vec(), given: is_given });
        Ok(warnings)
    }

    /// Gives every edge node without pod networks of its own a block of each pool.
    fn allocate(&mut self, fabric: &Fabric<'_>, allocations: &mut Allocations, problems: &mut Vec<Problem>) {
        let mut allocator = Allocator::new(allocations, self.claims.networks());
        let mut refused = Vec::new();
        for member in self.members.values_mut().filter(|m| m.role == Role::Edge && !m.given) {
            let (blocks, shortage) = blocks(fabric, &mut allocator, allocations, member);
            let without_any = member.pod_cidrs.is_empty();
            if let Some(message) = shortage {
                problems.push(Problem::error(member.reference, "spec.podCIDRs", message));
                // A node that lives with one family goes on so; a new one waits for both.
                if without_any {
                    refused.push(member.name);
                    continue;
                }
            }
            let new: Vec<IpNet> = blocks.iter().filter(|b| !member.pod_cidrs.contains(b)).copied().collect();
            // The allocator gives only what nobody has claimed.
            let _ = self.claims.claim(&new, &member.reference.to_string());
            allocations.set(member.name, blocks.clone());
            member.pod_cidrs = blocks;
        }
        for name in refused {
            if let Some(member) = self.members.remove(name) {
                self.claims.release(&member.node.internal_ips.iter().map(|ip| IpNet::from(*ip)).collect::<Vec<_>>());
            }
        }
    }
}

/// What the node has and a block of each family that it lacks; and what could not be had.
fn blocks(
    fabric: &Fabric<'_>,
    allocator: &mut Allocator,
    allocations: &Allocations,
    member: &Member<'_>,
) -> (Vec<IpNet>, Option<String>) {
    let mut blocks = member.pod_cidrs.clone();
    let field = format!("{}, spec.edgePodCIDRs", fabric.reference);
    let mut shortage = (blocks.is_empty() && fabric.pools.is_empty())
        .then(|| format!("is empty, and there is no pool to take a network from: {field}"));
    for pool in &fabric.pools {
        if blocks.iter().any(|block| Some(family(*block)) == pool.family()) {
            continue;
        }
        match allocator.allocate(allocations, pool, member.name) {
            Ok(block) => blocks.push(block),
            Err(e) => shortage = Some(format!("no network is left for this node: {e} ({field})")),
        }
    }
    (blocks, shortage)
}

/// The role of every node that has one.
fn roles<'a>(fabric: &Fabric<'_>, state: &'a ClusterState, problems: &mut Vec<Problem>) -> BTreeMap<&'a str, Role> {
    let spec = fabric.spec;
    let mut roles = BTreeMap::new();
    let mut connector: Option<&str> = None;
    for (name, Object { reference, value: node }) in &state.nodes {
        if node.outpost.is_some() {
            roles.insert(name.as_str(), Role::Edge);
            continue;
        }
        let role = match (spec.edge_selector.matches(&node.labels), spec.connector_selector.matches(&node.labels)) {
            (true, true) => {
                let message = format!(
                    "make the node both an edge ({}) and the connector ({}) of {}",
                    spec.edge_selector, spec.connector_selector, fabric.reference
                );
                problems.push(Problem::error(reference, "metadata.labels", message));
                continue;
            }
            (true, false) => Role::Edge,
            // A node without address is refused later; it must not keep the next one from serving.
            (false, true) if node.internal_ips.is_empty() => Role::Cloud,
            (false, true) => match connector {
                None => {
                    connector = Some(name);
                    Role::Connector
                }
                Some(first) => {
                    let message = format!("{first} is the connector already; this is an ordinary cloud node");
                    problems.push(Problem::warning(reference, "metadata.labels", message));
                    Role::Cloud
                }
            },
            (false, false) => Role::Cloud,
        };
        roles.insert(name.as_str(), role);
    }
    if connector.is_none() {
        let message = format!("no node carries {}: edge and cloud are not joined", spec.connector_selector);
        problems.push(Problem::error(fabric.reference, "spec.connectorSelector", message));
    }
    roles
}

/// The cloud's own network plugin, or this program, may give a part of such a network to any node.
fn outside(pools: &[IpNet], fabric: &Fabric<'_>, field: &str, networks: &[IpNet]) -> Result<(), String> {
    for (i, pool) in pools.iter().enumerate() {
        if let Some(network) = networks.iter().find(|network| overlap(**network, *pool)) {
            return Err(format!("{network} overlaps {pool} of {}, spec.{field}[{i}]", fabric.reference));
        }
    }
    Ok(())
}

/// An address is never taken from a living node, even if the pool has moved.
fn outside_pools(fabric: &Fabric<'_>, networks: &[IpNet], field: &str) -> Option<FieldError> {
    let network = networks.iter().find(|network| !fabric.pools.iter().any(|pool: &Pool| pool.contains(**network)))?;
    let pools: Vec<String> = fabric.spec.edge_pod_cidrs.iter().map(IpNet::to_string).collect();
    let pools = if pools.is_empty() { "(none)".to_owned() } else { pools.join(", ") };
    let message = format!("{network} lies outside the pools {pools} of {}; it is kept", fabric.reference);
    Some(FieldError::new(field, message))
}
