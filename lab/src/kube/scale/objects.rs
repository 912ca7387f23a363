//! What is in the cluster: nodes that exist on paper, and Services.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

const ENDPOINTS: usize = 5;
/// A kubelet lists up to 50.
const IMAGES: usize = 20;

pub(super) fn edge(number: usize) -> String {
    format!("edge-{number:05}")
}

pub(super) fn cluster() -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "scale"},
        "spec": {
            "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"], "edgePodCIDRs": ["10.128.0.0/10"],
            "edgeMaskSize": 26, "connector": {"addresses": ["203.0.113.10"]},
        },
    })
}

pub(super) fn node(name: &str, role: &str, address: Ipv4Addr, pods: Option<&str>) -> Value {
    let spec = pods.map_or(json!({}), |pods| json!({"podCIDR": pods, "podCIDRs": [pods]}));
    // What kubelets say beside that, which nobody needs here.
    let labels = json!({
        format!("node-role.kubernetes.io/{role}"): "", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "beta.kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/region": "north", "topology.kubernetes.io/zone": "north-1",
    });
    let image = |number: usize| {
        let name = format!("registry.example.com/factory/program-{number}");
        json!({"names": [format!("{name}@sha256:{number:064x}"), format!("{name}:v1.{number}.0")], "sizeBytes": 50_000_000})
    };
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec,
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "images": (0..IMAGES).map(image).collect::<Vec<_>>(),
        },
    })
}

pub(super) fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{number}"), "namespace": "default"},
        "spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]},
    })
}

pub(super) fn slice(number: usize, nodes: usize) -> Value {
    let endpoint = |which: usize| {
        let [a, b] = ((number * ENDPOINTS + which) as u16).to_be_bytes();
        json!({"addresses": [Ipv4Addr::new(10, 244, a, b)], "nodeName": edge(number % nodes), "conditions": {"ready": true}})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("service-{number}-1"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": format!("service-{number}")}},
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    })
}
