//! Which edge nodes have tunnels to each other.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::Role;

use super::admission::Admission;
use super::fabric::{CONNECTOR, Fabric};
use super::problem::Problem;
use super::state::ClusterState;

/// Who is joined with whom.
#[derive(Default)]
pub(super) struct Joined<'a> {
    /// The members of each community.
    pub(super) communities: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// The communities of each edge node that is in any.
    of: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Joined<'a> {
    /// The communities of an edge node, in the order of names.
    pub(super) fn of(&self, node: &str) -> &[&'a str] {
        self.of.get(node).map_or(&[], Vec::as_slice)
    }

    /// The other members of all communities of an edge node.
    pub(super) fn neighbours(&self, node: &str) -> BTreeSet<&'a str> {
        let communities = self.of(node).iter().filter_map(|community| self.communities.get(community));
        communities.flatten().copied().filter(|other| *other != node).collect()
    }
}

pub(super) fn join<'a>(
    fabric: &Fabric<'_>,
    state: &'a ClusterState,
    admission: &Admission<'a>,
    problems: &mut Vec<Problem>,
) -> Joined<'a> {
    let others = fabric.others(state);
    let mut joined = Joined::default();
    for (name, community) in &state.communities {
        let mut members = BTreeSet::new();
        if let Some(selector) = &community.value.selector {
            // A unit of nodes may well have cloud nodes in it: these need no community.
            let selected = admission.edges().filter(|edge| selector.matches(&edge.node.labels));
            members.extend(selected.map(|edge| edge.name));
            if members.is_empty() {
                problems.push(Problem::warning(&community.reference, "spec.selector", "selects no edge node"));
            }
        }
        for (i, name) in community.value.members.iter().enumerate() {
            let field = format!("spec.members[{i}]");
            match member(fabric, state, admission, &others, name) {
                Ok(node) => {
                    members.insert(node);
                }
                Err(Refusal::Wrong(message)) => {
                    problems.push(Problem::error(&community.reference, field, message));
                }
                Err(Refusal::Idle(message)) => {
                    problems.push(Problem::warning(&community.reference, field, message));
                }
            }
        }
        for node in &members {
            joined.of.entry(node).or_default().push(name);
        }
        joined.communities.insert(name, members);
    }
    joined
}

enum Refusal {
    Wrong(String),
    /// Right, but of no effect.
    Idle(String),
}

fn member<'a>(
    fabric: &Fabric<'_>,
    state: &ClusterState,
    admission: &Admission<'a>,
    others: &BTreeSet<&str>,
    name: &str,
) -> Result<&'a str, Refusal> {
    let (cluster, node) = match name.split_once('.') {
        Some((cluster, node)) if !cluster.is_empty() && !node.is_empty() => (cluster, node),
        _ => {
            let known = state.nodes.contains_key(name);
            let hint = if known { format!("; perhaps {}", fabric.node_name(name)) } else { String::new() };
            return Err(Refusal::Wrong(format!("\"{name}\" is not of the form <cluster>.<node>{hint}")));
        }
    };
    if cluster != fabric.name {
        return Err(if others.contains(cluster) {
            Refusal::Idle(format!("\"{name}\" is in another cluster; only members of {} are joined", fabric.name))
        } else {
            Refusal::Wrong(format!("\"{name}\": there is no Cluster {cluster}"))
        });
    }
    match admission.members.get(node) {
        Some(member) if member.role == Role::Edge => Ok(member.name),
        _ if node == CONNECTOR => {
            Err(Refusal::Idle(format!("\"{name}\": the connector is a peer of every edge node anyway")))
        }
        Some(_) => Err(Refusal::Wrong(format!("\"{name}\" is not an edge node"))),
        None if state.nodes.contains_key(node) => Err(Refusal::Idle(format!("\"{name}\" is refused itself"))),
        None => Err(Refusal::Wrong(format!("\"{name}\": there is no Node {node}"))),
    }
}
