//! What FabEdge keeps in a cluster, read as loosely as it was written: none of its kinds is validated.

use std::collections::BTreeMap;

use serde_json::Value;

/// Begins the annotations that change a flag of one node's agent.
const ARGUMENT: &str = "argument.fabedge.io/";
/// Begins the environment variables of the operator that become flags of every agent.
const AGENT_ARGUMENT: &str = "AGENT_ARG_";

/// All of it.
#[derive(Default)]
pub(super) struct FabEdge {
    /// Flags of `fabedge-operator`, without the leading hyphens; those of a list are joined by commas.
    pub(super) flags: BTreeMap<String, String>,
    /// Flags of the agents.
    pub(super) agent: BTreeMap<String, String>,
    pub(super) communities: BTreeMap<String, Vec<String>>,
    /// Clusters with their networks.
    pub(super) clusters: BTreeMap<String, Vec<String>>,
    pub(super) nodes: BTreeMap<String, FabEdgeNode>,
    /// Of Calico's IPAM, beside which FabEdge runs: the networks of nodes in the cloud.
    pub(super) blocks: Vec<Value>,
}

/// A node, as FabEdge sees it.
#[derive(Default)]
pub(super) struct FabEdgeNode {
    /// Annotation `fabedge.io/subnets`.
    pub(super) subnets: Vec<String>,
    /// Annotation `fabedge.io/node-public-addresses`.
    pub(super) public_addresses: Vec<String>,
    /// Annotations `argument.fabedge.io/…`.
    pub(super) arguments: BTreeMap<String, String>,
    /// The whole object, for us to read as a node.
    pub(super) object: Value,
}

impl FabEdge {
    pub(super) fn read(objects: &[Value]) -> FabEdge {
        let mut found = FabEdge::default();
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let group = text("/apiVersion").split('/').next().unwrap_or_default();
            let name = text("/metadata/name").to_owned();
            match (group, text("/kind")) {
                // The older group held plain names of nodes.
                ("fabedge.io" | "community.fabedge.io", "Community") => {
                    found.communities.insert(name, strings(object.pointer("/spec/members")));
                }
                ("fabedge.io", "Cluster") => {
                    found.clusters.insert(name, strings(object.pointer("/spec/cidrs")));
                }
                ("v1", "Node") => {
                    found.nodes.insert(name, node(object));
                }
                ("crd.projectcalico.org", "IPAMBlock") => found.blocks.push(object.clone()),
                ("apps", "Deployment") => found.deployment(object),
                _ => {}
            }
        }
        found
    }

    fn deployment(&mut self, object: &Value) {
        let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let command = [strings(container.get("command")), strings(container.get("args"))].concat();
            let flags: BTreeMap<String, String> = flags(&command);
            // Both programs know the flag; only the operator knows both.
            if !flags.contains_key("cluster-cidr") || !flags.contains_key("connector-public-addresses") {
                continue;
            }
            self.flags = flags;
            for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
                let part = |key: &str| variable.get(key).and_then(Value::as_str).unwrap_or_default();
                if let Some(name) = part("name").strip_prefix(AGENT_ARGUMENT) {
                    self.agent.insert(name.to_ascii_lowercase().replace('_', "-"), part("value").to_owned());
                }
            }
        }
    }

    /// The items of a flag that holds a list.
    pub(super) fn list(&self, flag: &str) -> Vec<String> {
        self.flags.get(flag).map(|text| split(text)).unwrap_or_default()
    }
}

fn node(object: &Value) -> FabEdgeNode {
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let annotations: BTreeMap<&str, &str> =
        annotations.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    let list = |key: &str| annotations.get(key).map(|text| split(text)).unwrap_or_default();
    let argument = |(key, value): (&&str, &&str)| Some((key.strip_prefix(ARGUMENT)?.to_owned(), (*value).to_owned()));
    FabEdgeNode {
        subnets: list("fabedge.io/subnets"),
        public_addresses: list("fabedge.io/node-public-addresses"),
        arguments: annotations.iter().filter_map(argument).collect(),
        object: object.clone(),
    }
}

/// `--flag=value`, `--flag value` and `--flag`, as Go programs take them; a flag that is there twice is a list.
fn flags(command: &[String]) -> BTreeMap<String, String> {
    let mut flags: BTreeMap<String, String> = BTreeMap::new();
    let mut words = command.iter().peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match words.next_if(|next| !next.starts_with('-')) {
                Some(value) => (flag, value.clone()),
                None => (flag, "true".to_owned()),
            },
        };
        let entry = flags.entry(name.to_owned()).or_default();
        if !entry.is_empty() {
            entry.push(',');
        }
        entry.push_str(&value);
    }
    flags
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
