//! Objects in, manifests and report out.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::Role;
use serde_json::{Value, json};

use super::fabedge::{FabEdge, FabEdgeNode};
use super::settings;
use crate::api::{self, API_VERSION, Object};
use crate::core::{ClusterState, Memory, Options, compile};

/// What to apply, and what to read before.
pub(crate) struct Adopted {
    /// `Cluster`, `Community`, and for each node that needs any its annotations: for `kubectl apply --server-side`.
    pub(crate) manifests: Vec<Value>,
    pub(crate) report: Report,
}

/// In the order of finding.
#[derive(Default)]
pub(crate) struct Report {
    taken: Vec<String>,
    left: Vec<String>,
    /// What would be wrong after applying.
    pub(crate) faults: Vec<String>,
}

impl Report {
    pub(super) fn taken(&mut self, what: &str) {
        self.taken.push(what.to_owned());
    }

    pub(super) fn left(&mut self, what: &str) {
        self.left.push(what.to_owned());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("taken over", &self.taken), ("not taken over", &self.left), ("to be mended first", &self.faults)];
        for (title, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            writeln!(f, "{title}:")?;
            lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

/// `objects`: FabEdge's communities, clusters and operator (a Deployment), and the Nodes.
pub(crate) fn adopt(objects: &[Value]) -> Adopted {
    let found = FabEdge::read(objects);
    let mut report = Report::default();
    let mut manifests = Vec::new();
    let own = settings::cluster(&found, &mut report);
    if let Some((name, spec)) = &own {
        manifests.push(object("Cluster", name, spec));
    }
    let own = own.map(|(name, _)| name).unwrap_or_default();
    for (name, networks) in found.clusters.iter().filter(|(name, _)| **name != own) {
        manifests.push(object("Cluster", name, &json!({"remote": true, "clusterCIDRs": networks, "serviceCIDRs": []})));
        report.taken(&format!("Cluster {name}: its networks, so that nothing here overlaps them"));
        report.left(&format!("Cluster {name}: tunnels to its connector; clusters are not joined yet"));
    }
    for (name, members) in &found.communities {
        manifests.extend(community(&own, name, members, &mut report));
    }
    let mut expected = BTreeMap::new();
    for (name, node) in &found.nodes {
        let (annotations, networks) = annotate(name, node, &mut report);
        if !annotations.is_empty() {
            let metadata = json!({"name": name, "annotations": annotations});
            manifests.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}));
        }
        expected.insert(name.as_str(), (annotations, networks));
    }
    let kept = try_out(&manifests, &found, &expected, &mut report);
    report.taken(&format!("{kept} edge nodes keep their pod networks (compiled and compared)"));
    Adopted { manifests, report }
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// None for one that only joins connectors.
fn community(own: &str, name: &str, members: &[String], report: &mut Report) -> Option<Value> {
    let mut kept = Vec::new();
    for member in members {
        match member.split_once('.') {
            None => kept.push(format!("{own}.{member}")),
            Some((_, "connector")) => {}
            Some((cluster, _)) if cluster == own => kept.push(member.clone()),
            Some((cluster, _)) => report.left(&format!("Community {name}: member {member} of the cluster {cluster}")),
        }
    }
    if kept.is_empty() {
        report.left(&format!("Community {name}: joins no edge nodes of this cluster"));
        return None;
    }
    report.taken(&format!("Community {name}: {} members", kept.len()));
    Some(object("Community", name, &json!({"members": kept})))
}

type Annotations = BTreeMap<String, String>;

/// Our annotations for a node, and the pod networks that it has: from FabEdge, else from Kubernetes.
fn annotate(name: &str, node: &FabEdgeNode, report: &mut Report) -> (Annotations, Vec<IpNet>) {
    let mut annotations = Annotations::new();
    let (networks, strange): (Vec<_>, Vec<_>) =
        node.subnets.iter().map(|text| text.parse::<IpNet>().map_err(|_| text)).partition(Result::is_ok);
    let mut networks: Vec<IpNet> = networks.into_iter().flatten().collect();
    for text in strange.into_iter().filter_map(Result::err) {
        report.left(&format!("Node {name}: fabedge.io/subnets: \"{text}\" is not a network"));
    }
    if !networks.is_empty() {
        let text = networks.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
        report.taken(&format!("Node {name}: pod networks {text}"));
        annotations.insert("selvedge.dev/pod-cidrs".to_owned(), text);
    }
    let (addresses, names): (Vec<&String>, Vec<&String>) =
        node.public_addresses.iter().partition(|text| text.parse::<IpAddr>().is_ok());
    if !addresses.is_empty() {
        let text = addresses.into_iter().cloned().collect::<Vec<_>>().join(",");
        report.taken(&format!("Node {name}: public addresses {text}"));
        annotations.insert("selvedge.dev/public-addresses".to_owned(), text);
    }
    for text in names {
        report.left(&format!("Node {name}: public address {text}: a name, not an address"));
    }
    if networks.is_empty() {
        let given = node.object.pointer("/spec/podCIDRs").and_then(Value::as_array);
        networks = given.into_iter().flatten().filter_map(|text| text.as_str()?.parse().ok()).collect();
    }
    for (flag, value) in &node.arguments {
        settings::agent(&format!("Node {name}: argument.fabedge.io/{flag}"), flag, value, report);
    }
    (annotations, networks)
}

/// Compiles what will be there, and compares what FabEdge gave each edge node with what it gets. Returns how many agree.
fn try_out(
    manifests: &[Value],
    found: &FabEdge,
    expected: &BTreeMap<&str, (Annotations, Vec<IpNet>)>,
    report: &mut Report,
) -> usize {
    let mut state = ClusterState::default();
    let mut read = |value: &Value, report: &mut Report| {
        let reference = api::name(value);
        match api::read(value) {
            Ok(Some(content)) => drop(state.insert(Object { reference, value: content })),
            Ok(None) => {}
            Err(e) => report.faults.push(format!("{reference}: {}: {}", e.field, e.message)),
        }
    };
    let ours = manifests.iter().filter(|value| value["kind"] != "Node");
    ours.chain(&found.blocks).for_each(|value| read(value, report));
    for (name, node) in &found.nodes {
        let mut object = node.object.clone();
        if let Some((annotations, _)) = expected.get(name.as_str()) {
            for (key, value) in annotations {
                object["metadata"]["annotations"][key] = json!(value);
            }
        }
        read(&object, report);
    }
    let compiled = compile(&state, &Options::default(), &Memory { complete: true, ..Memory::default() });
    report.faults.extend(compiled.problems.iter().map(ToString::to_string));
    let Some(output) = compiled.output else { return 0 };
    let mut kept = 0;
    for (name, (annotations, networks)) in expected.iter().filter(|(_, (_, networks))| !networks.is_empty()) {
        match output.nodes.get(*name) {
            Some(config) if config.role != Role::Edge && annotations.is_empty() => {}
            Some(config) if config.pod_cidrs == *networks => kept += 1,
            Some(config) => {
                let now: Vec<String> = config.pod_cidrs.iter().map(IpNet::to_string).collect();
                report.faults.push(format!("Node {name}: would get {} in place of {networks:?}", now.join(",")));
            }
            None => report.faults.push(format!("Node {name}: would get no configuration")),
        }
    }
    kept
}
