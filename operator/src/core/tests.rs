//! Compiles small states and looks at what comes out.

mod calico;
mod cluster;
mod communities;
mod lab;
mod names;
mod nodes;
mod outposts;
mod services;

use std::collections::BTreeMap;

use selvedge_model::NodeConfig;
use serde_json::{Value, json};

use super::*;
use crate::api::{self, Object, ObjectRef};

/// A state built by hand, and what the operator remembers.
#[derive(Default)]
struct Scene {
    state: ClusterState,
    options: Options,
    memory: Memory,
}

/// The scene with the own cluster `beijing`.
fn beijing() -> Scene {
    let mut scene = Scene::default();
    scene.memory.complete = true;
    scene.put(cluster("beijing", json!({})));
    scene
}

fn cluster(name: &str, changes: Value) -> Value {
    let mut spec = json!({
        "clusterCIDRs": ["10.244.0.0/16", "fd00:244::/48"],
        "serviceCIDRs": ["10.96.0.0/16", "fd00:96::/112"],
        "edgePodCIDRs": ["10.234.0.0/16", "fd00:234::/48"],
        "connector": {"addresses": ["203.0.113.10"]},
    });
    merge(&mut spec, changes);
    json!({"apiVersion": api::API_VERSION, "kind": "Cluster", "metadata": {"name": name}, "spec": spec})
}

fn remote(name: &str, cluster_cidr: &str) -> Value {
    let spec = json!({"remote": true, "clusterCIDRs": [cluster_cidr], "serviceCIDRs": []});
    json!({"apiVersion": api::API_VERSION, "kind": "Cluster", "metadata": {"name": name}, "spec": spec})
}

fn community(name: &str, members: &[&str]) -> Value {
    let spec = json!({"members": members});
    json!({"apiVersion": api::API_VERSION, "kind": "Community", "metadata": {"name": name}, "spec": spec})
}

fn node(name: &str, label: &str, address: &str, pod_cidrs: &[&str]) -> Value {
    let labels = if label.is_empty() { json!({}) } else { json!({format!("node-role.kubernetes.io/{label}"): ""}) };
    let addresses: Vec<Value> =
        address.split(',').filter(|a| !a.is_empty()).map(|a| json!({"type": "InternalIP", "address": a})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDRs": pod_cidrs}, "status": {"addresses": addresses},
    })
}

fn edge(name: &str, address: &str) -> Value {
    node(name, "edge", address, &[])
}

fn connector() -> Value {
    node("cloud-1", "connector", "172.16.0.11", &["10.244.1.0/24"])
}

fn annotated(mut object: Value, annotation: &str, value: &str) -> Value {
    object["metadata"]["annotations"][format!("selvedge.dev/{annotation}")] = json!(value);
    object
}

fn service(name: &str, ips: &[&str], ports: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIPs": ips, "ports": ports},
    })
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "ports": ports, "endpoints": endpoints,
    })
}

fn merge(into: &mut Value, changes: Value) {
    for (key, value) in changes.as_object().cloned().unwrap_or_default() {
        into[key] = value;
    }
}

impl Scene {
    /// Adds an object, or replaces the one of that kind and name.
    fn put(&mut self, value: Value) -> &mut Self {
        let reference = ObjectRef { file: "test.yaml".to_owned(), ..api::name(&value) };
        self.remove(&reference.kind, &reference.name);
        let content = api::read(&value).expect("object is right").expect("kind is known");
        self.state.insert(Object { reference, value: content }).expect("name is new");
        self
    }

    fn put_all(&mut self, values: impl IntoIterator<Item = Value>) -> &mut Self {
        values.into_iter().for_each(|value| {
            self.put(value);
        });
        self
    }

    fn remove(&mut self, kind: &str, name: &str) -> &mut Self {
        let key = ("default".to_owned(), name.to_owned());
        match kind {
            "Cluster" => drop(self.state.clusters.remove(name)),
            "Community" => drop(self.state.communities.remove(name)),
            "Node" | "Outpost" => drop(self.state.nodes.remove(name)),
            "Service" => drop(self.state.services.remove(&key)),
            "IPAMBlock" => drop(self.state.blocks.remove(name)),
            _ => drop(self.state.slices.remove(&key)),
        }
        self
    }

    /// The configurations and the problems in words. What was given out is remembered for the next time.
    fn compile(&mut self) -> (BTreeMap<String, NodeConfig>, Vec<String>) {
        let compiled = compile(&self.state, &self.options, &self.memory);
        let problems = compiled.problems.iter().map(|p| format!("{:?}: {p}", p.severity)).collect();
        let Some(output) = compiled.output else { return (BTreeMap::new(), problems) };
        output.nodes.values().for_each(|config| drop(encode(config).expect("the node can read it")));
        self.memory.allocations = output.allocations;
        self.memory.incumbents = output.nodes.keys().cloned().collect();
        (output.nodes, problems)
    }

    /// The configurations, where nothing is wrong.
    fn configs(&mut self) -> BTreeMap<String, NodeConfig> {
        let (nodes, problems) = self.compile();
        assert_eq!(problems, Vec::<String>::new());
        nodes
    }

    /// The problems.
    fn problems(&mut self) -> Vec<String> {
        self.compile().1
    }
}

fn pods(config: &NodeConfig) -> Vec<String> {
    config.pod_cidrs.iter().map(ToString::to_string).collect()
}

fn peers(config: &NodeConfig) -> Vec<&str> {
    config.peers.iter().map(|peer| peer.name.as_str()).collect()
}
