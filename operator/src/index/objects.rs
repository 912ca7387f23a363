//! The objects that the operator reads, from the watches of an API server.
//!
//! An object that makes no sense keeps its last good version in force, and a watch that is torn keeps everything: only a
//! complete list says that an object is gone.

use std::collections::BTreeMap;

use serde_json::Value;

use super::listing::{Change, Key, Listing};
use crate::api::{self, ClusterSpec, Content, FieldError, GatewayKind, Node, Object, ObjectRef, PodNetworks};
use crate::core::{ClusterState, Problem};

/// The kinds that the operator reads. Of a Node and an Outpost with one name the Node, which is first, is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Cluster,
    Community,
    Node,
    Outpost,
    Service,
    EndpointSlice,
    /// Of Calico's IPAM.
    Block,
    /// What the edge gateway is made of.
    Gateway(GatewayKind),
}

impl Kind {
    const FEW: [Kind; 7] =
        [Kind::Cluster, Kind::Community, Kind::Node, Kind::Outpost, Kind::Service, Kind::EndpointSlice, Kind::Block];

    pub(crate) fn all() -> impl Iterator<Item = Kind> {
        Kind::FEW.into_iter().chain(GatewayKind::ALL.map(Kind::Gateway))
    }

    /// The first of them that an API server knows is watched.
    pub(crate) fn versions(self) -> &'static [&'static str] {
        match self {
            Kind::Cluster | Kind::Community | Kind::Outpost => &["v1alpha1"],
            Kind::Node | Kind::Service | Kind::EndpointSlice | Kind::Block => &["v1"],
            Kind::Gateway(kind) => kind.versions(),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Cluster => "Cluster",
            Kind::Community => "Community",
            Kind::Node => "Node",
            Kind::Outpost => "Outpost",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Block => "IPAMBlock",
            Kind::Gateway(kind) => kind.title(),
        }
    }

    /// Whether it is a kind of ours, which has a status.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Community | Kind::Outpost)
    }

    /// Whether an API server may well not know it: an old one, or one of a cluster without Calico.
    pub(crate) fn may_be_unknown(self) -> bool {
        matches!(self, Kind::EndpointSlice | Kind::Block | Kind::Gateway(_))
    }

    fn of(reference: &ObjectRef) -> Option<Kind> {
        Kind::all().find(|kind| kind.name() == reference.kind)
    }
}

/// Which version of an object this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: String,
    /// `metadata.generation`, 0 if there is none.
    pub(crate) generation: i64,
}

/// An object as it was last seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) reference: ObjectRef,
    /// The version of its kind that the API server has.
    pub(crate) version: String,
    pub(crate) identity: Identity,
    /// The last version that makes sense.
    content: Option<Content>,
    /// What is wrong with the last version.
    problem: Option<Problem>,
    /// `status` of a kind of ours, or of one of the edge gateway.
    pub(crate) status: Value,
}

impl Seen {
    /// Narrows an object as the API server gives it.
    pub(crate) fn read(value: &Value) -> (Key, Seen) {
        let reference = api::name(value);
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let identity = Identity {
            uid: text("/metadata/uid"),
            generation: value.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default(),
        };
        let (content, problem) = match api::read(value) {
            Ok(content) => (content, None),
            Err(FieldError { field, message }) => (None, Some(Problem::error(&reference, field, message))),
        };
        let told = |kind: Kind| kind.is_ours() || matches!(kind, Kind::Gateway(_));
        let ours = Kind::of(&reference).is_some_and(told);
        let status = if ours { value.get("status").cloned().unwrap_or_default() } else { Value::Null };
        let key = (reference.namespace.clone(), reference.name.clone());
        let version = text("/apiVersion").rsplit('/').next().unwrap_or_default().to_owned();
        (key, Seen { reference, version, identity, content, problem, status })
    }

    /// Whether anything changed that could change what is compiled or told.
    fn merge(&mut self, new: Seen) -> bool {
        let content = if new.problem.is_some() { self.content.clone() } else { new.content };
        let changed = (&self.identity, &self.content, &self.problem) != (&new.identity, &content, &new.problem);
        *self = Seen { content, ..new };
        changed
    }
}

/// All objects of all kinds.
#[derive(Default)]
pub(crate) struct Objects {
    kinds: BTreeMap<Kind, Listing<Seen>>,
}

impl Objects {
    /// Whether that matters.
    pub(crate) fn apply(&mut self, kind: Kind, change: Change<Seen>) -> bool {
        self.kinds.entry(kind).or_default().apply(change, Seen::merge)
    }

    /// Kinds that were not listed yet. Where Calico's blocks do not matter, it may well be forbidden to read them.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let complete = |kind: &Kind| self.kinds.get(kind).is_some_and(Listing::is_complete);
        let clusters = self.kinds.get(&Kind::Cluster).into_iter().flat_map(Listing::iter);
        let calico = |seen: &Seen| matches!(&seen.content, Some(Content::Cluster(spec)) if spec.pod_networks == PodNetworks::Calico);
        let blocks_matter = clusters.map(|(_, seen)| seen).any(calico);
        let matters = |kind: &Kind| *kind != Kind::Block || blocks_matter;
        Kind::all().filter(|kind| matters(kind) && !complete(kind)).map(Kind::name).collect()
    }

    pub(crate) fn get(&self, reference: &ObjectRef) -> Option<&Seen> {
        let key = (reference.namespace.clone(), reference.name.clone());
        self.kinds.get(&Kind::of(reference)?)?.get(&key)
    }

    /// The node's Node, or its Outpost.
    pub(crate) fn node(&self, name: &str) -> Option<&Seen> {
        let key = (String::new(), name.to_owned());
        [Kind::Node, Kind::Outpost].iter().find_map(|kind| self.kinds.get(kind)?.get(&key))
    }

    /// The Node in force, which is no Outpost, and its UID.
    pub(crate) fn kubernetes_node(&self, name: &str) -> Option<(&str, &Node)> {
        let seen = self.kinds.get(&Kind::Node)?.get(&(String::new(), name.to_owned()))?;
        let Some(Content::Node(node)) = &seen.content else { return None };
        Some((&seen.identity.uid, node))
    }

    /// The settings of a cluster.
    pub(crate) fn cluster(&self, name: &str) -> Option<&ClusterSpec> {
        let seen = self.kinds.get(&Kind::Cluster)?.get(&(String::new(), name.to_owned()))?;
        let Some(Content::Cluster(spec)) = &seen.content else { return None };
        Some(spec)
    }

    /// An object of the edge gateway.
    pub(crate) fn gateway(&self, kind: GatewayKind, namespace: &str, name: &str) -> Option<&Seen> {
        self.kinds.get(&Kind::Gateway(kind))?.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All objects of the kinds that have a status.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (Kind, &Seen)> {
        let kinds = self.kinds.iter().filter(|(kind, _)| kind.is_ours());
        kinds.flat_map(|(kind, listing)| listing.iter().map(|(_, seen)| (*kind, seen)))
    }

    /// Whether every Node and Outpost can be read: only then is one that is not in force really gone.
    pub(crate) fn shows_all_nodes(&self) -> bool {
        let nodes = [Kind::Node, Kind::Outpost].iter().filter_map(|kind| self.kinds.get(kind));
        nodes.flat_map(Listing::iter).all(|(_, seen)| seen.content.is_some())
    }

    /// Takes note of a status that was written, before the watch tells of it.
    pub(crate) fn set_status(&mut self, kind: Kind, namespace: &str, name: &str, status: Value) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(seen) = self.kinds.get_mut(&kind).and_then(|listing| listing.get_mut(&key)) {
            seen.status = status;
        }
    }

    /// What is in force, and what is wrong with the rest.
    pub(crate) fn state(&self) -> (ClusterState, Vec<Problem>) {
        let mut state = ClusterState::default();
        let mut problems = Vec::new();
        for (_, seen) in self.kinds.values().flat_map(Listing::iter) {
            problems.extend(seen.problem.iter().map(|problem| seen.tell(problem)));
            let Some(content) = &seen.content else { continue };
            let object = Object { reference: seen.reference.clone(), value: content.clone() };
            if let Err(first) = state.insert(object) {
                let message = format!("is also the name of {first}; that one is in force");
                problems.push(Problem::error(&seen.reference, "metadata.name", message));
            }
        }
        (state, problems)
    }
}

impl Seen {
    fn tell(&self, problem: &Problem) -> Problem {
        let kept = if self.content.is_some() { "; the last good version stays in force" } else { "" };
        Problem { message: format!("{}{kept}", problem.message), ..problem.clone() }
    }
}

#[cfg(test)]
mod tests;
