//! The edge gateways: Gateway API's and EdgeMesh's objects, checked and compiled into a section for each node that they
//! choose, with what is to be said about each.
//!
//! ```text
//! GatewayClass, Gateway, routes, ReferenceGrant ─► classes, routes ─┐
//! istio Gateway, VirtualService, DestinationRule ─► istio ──────────┴─► Section of each node, statuses
//! ```
//!
//! Nothing in these objects can be wrong for a node: what is not understood is left out and said.

mod backends;
mod classes;
mod doc;
mod istio;
mod places;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::gateway::{Gateway as Section, Rule, rule_problem};
use selvedge_model::{NodeConfig, Service, ServiceSource};
use serde_json::Value;

use super::problem::Problem;
use super::state::ClusterState;
pub(crate) use crate::api::Certificate;
use crate::api::{Condition, GatewayKind, GatewayObject, Node, Object};

/// Whose classes are ours.
pub(crate) const CONTROLLER: &str = "selvedge.dev/gateway";

/// A TLS Secret, by namespace and name.
pub(crate) type SecretName = (String, String);

/// What is in a TLS Secret, in PEM; the error says why it cannot be used.
pub(crate) type Certificates = BTreeMap<SecretName, Result<Certificate, String>>;

/// What all gateways come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateways {
    /// By node.
    pub(crate) sections: BTreeMap<String, Section>,
    /// The Secrets that nodes are to have, by node.
    pub(crate) secrets: BTreeMap<String, BTreeSet<SecretName>>,
    /// Every Secret that is named.
    pub(crate) named: BTreeSet<SecretName>,
    /// What is to be said.
    pub(crate) statuses: Vec<Status>,
}

/// What is to be said about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) kind: GatewayKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) content: StatusContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatusContent {
    /// `status.conditions`.
    Conditions(Vec<Condition>),
    /// The same, and `status.listeners` and `status.addresses`.
    Gateway { conditions: Vec<Condition>, listeners: Vec<ListenerStatus>, addresses: Vec<String> },
    /// Ours of `status.parents`: the reference as it stands in the route, and its conditions.
    Parents(Vec<(Value, Vec<Condition>)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerStatus {
    pub(crate) name: String,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) routes: u32,
    pub(crate) conditions: Vec<Condition>,
}

/// What compiling needs to know.
struct Input<'a> {
    state: &'a ClusterState,
    /// Those that take part, by name.
    nodes: &'a BTreeMap<&'a str, &'a Node>,
    services: &'a [Service],
    certificates: &'a Certificates,
}

impl<'a> Input<'a> {
    fn all(&self, kind: GatewayKind) -> impl Iterator<Item = &'a Object<GatewayObject>> {
        let first = (kind, String::new(), String::new());
        self.state.gateways.range(first..).take_while(move |((k, ..), _)| *k == kind).map(|(_, object)| object)
    }

    /// The oldest first, then by namespace and name.
    fn by_age(&self, kinds: &[GatewayKind]) -> Vec<&'a Object<GatewayObject>> {
        let mut all: Vec<_> = kinds.iter().flat_map(|kind| self.all(*kind)).collect();
        all.sort_by_key(|o| (&o.value.created, &o.reference.namespace, &o.reference.name));
        all
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.services.iter().find(|s| s.namespace == namespace && s.name == name)
    }
}

/// Compiles everything; `nodes` are those that take part.
pub(crate) fn compile(
    state: &ClusterState,
    nodes: &BTreeMap<&str, &Node>,
    services: &[Service],
    certificates: &Certificates,
) -> Gateways {
    if state.gateways.is_empty() {
        return Gateways::default();
    }
    let input = Input { state, nodes, services, certificates };
    let mut places = places::Places::default();
    let mut statuses = classes::compile(&input, &mut places);
    statuses.extend(istio::compile(&input, &mut places));
    let (sections, secrets, named) = places.finish();
    Gateways { sections, secrets, named, statuses }
}

impl Gateways {
    /// What does not hold, for logs and Events.
    pub(super) fn problems(&self, state: &ClusterState) -> Vec<Problem> {
        let mut problems = Vec::new();
        for status in &self.statuses {
            let key = (status.kind, status.namespace.clone(), status.name.clone());
            let Some(object) = state.gateways.get(&key) else { continue };
            let conditions: Vec<&Condition> = match &status.content {
                StatusContent::Conditions(conditions) => conditions.iter().collect(),
                StatusContent::Gateway { conditions, listeners, .. } => {
                    conditions.iter().chain(listeners.iter().flat_map(|listener| &listener.conditions)).collect()
                }
                StatusContent::Parents(parents) => parents.iter().flat_map(|(_, conditions)| conditions).collect(),
            };
            let holds = |c: &&&Condition| c.kind != "Conflicted" && c.kind != "PartiallyInvalid" && c.status == "False";
            for condition in conditions.iter().filter(holds) {
                problems.push(Problem::warning(&object.reference, &*condition.kind, condition.message.clone()));
            }
        }
        problems.dedup();
        problems
    }

    /// `gateway.pem` of a node, empty if it needs none.
    pub(crate) fn bundle(&self, node: &str, certificates: &Certificates) -> String {
        self.secrets.get(node).map(|secrets| bundle(secrets, certificates)).unwrap_or_default()
    }

    /// Gives a node its section, and the Services that it needs to know for it.
    pub(super) fn equip(&self, config: &mut NodeConfig, services: &[Service]) {
        let Some(section) = self.sections.get(&config.node) else { return };
        config.gateway = Some(section.clone());
        if config.services.source == ServiceSource::Config && config.services.list.is_empty() {
            let rules = section.listeners.iter().flat_map(|listener| &listener.sites).flat_map(|site| &site.rules);
            let backends = rules.flat_map(|rule| rule.backends.iter().chain(rule.mirrors.iter().map(|m| &m.backend)));
            let named: BTreeSet<(&str, &str)> = backends.map(|b| (&*b.namespace, &*b.service)).collect();
            let wanted = |service: &&Service| named.contains(&(&*service.namespace, &*service.name));
            config.services.list = services.iter().filter(wanted).cloned().collect();
        }
    }
}

/// The section of `gateway.pem` for a Secret.
pub(crate) fn section_name((namespace, name): &SecretName) -> String {
    format!("{namespace}_{name}")
}

/// `gateway.pem` of a node.
fn bundle(secrets: &BTreeSet<SecretName>, certificates: &Certificates) -> String {
    let mut text = String::new();
    for secret in secrets {
        let Some(Ok(certificate)) = certificates.get(secret) else { continue };
        let name = section_name(secret);
        text.push_str(&format!("# {name}\n{}\n", certificate.pem.trim_end()));
        if let Some(authorities) = &certificate.authorities {
            text.push_str(&format!("# {name}.ca\n{}\n", authorities.trim_end()));
        }
    }
    text
}

/// Why nodes would refuse a rule, and all else with it.
fn refusal(rule: &Rule) -> Option<String> {
    let text = serde_json::to_string(rule).unwrap_or_default();
    rule_problem(&text).map(|problem| problem.to_string())
}

/// A name or `*.` and a suffix as nodes take them, in small letters.
fn is_host(host: &str) -> bool {
    refusal(&Rule { hosts: vec![host.to_owned()], ..Rule::default() }).is_none()
}

fn status(object: &Object<GatewayObject>, content: StatusContent) -> Status {
    let (namespace, name) = (object.reference.namespace.clone(), object.reference.name.clone());
    Status { kind: object.value.kind, namespace, name, content }
}

/// What was noted, in one line.
fn words(notes: &[(String, String)]) -> String {
    const FEW: usize = 8;
    let mut words: Vec<String> = notes.iter().take(FEW).map(|(field, what)| format!("{field} {what}")).collect();
    if notes.len() > FEW {
        words.push(format!("and {} more", notes.len() - FEW));
    }
    words.join("; ")
}
