//! The Services of this scenario, as manifests.

use std::net::IpAddr;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::fabric::Fabric;
use crate::manifests::SERVICE_PORT;
use crate::server::PORT;

/// Pods by node and number.
pub type Pods<'a> = &'a [(&'a str, usize)];

/// A Service with the pods behind it.
#[derive(Clone, Debug)]
pub struct Kind<'a> {
    pub name: &'static str,
    /// Last number of its cluster IPs.
    pub number: u8,
    pub pods: Pods<'a>,
    pub protocols: &'static [&'static str],
    /// 0: it has none.
    pub node_port: u16,
    /// The load balancer before it.
    pub balancer: Option<&'static str>,
    /// What more stands in `spec`.
    pub spec: Value,
    /// Annotations, without the `selvedge.dev/` before each.
    pub annotations: Value,
}

impl<'a> Kind<'a> {
    /// TCP and UDP at cluster IPs, by all endpoints alike.
    pub fn new(name: &'static str, number: u8, pods: Pods<'a>) -> Self {
        let (spec, annotations) = (json!({}), json!({"distribution": "any", "balance": "roundRobin"}));
        Self { name, number, pods, protocols: &["TCP", "UDP"], node_port: 0, balancer: None, spec, annotations }
    }

    pub fn cluster_ip(&self, v4: bool) -> IpAddr {
        match v4 {
            true => [10, 96, 3, self.number].into(),
            false => [0xfd00, 0x96, 0, 0, 0, 0, 0, 0x300 + u16::from(self.number)].into(),
        }
    }

    /// The Service, and its endpoints of both families.
    pub fn objects(&self, fabric: &Fabric) -> Result<Vec<Value>> {
        let mut objects = vec![self.service()];
        for (family, v4) in [("IPv4", true), ("IPv6", false)] {
            let mut endpoints = Vec::new();
            for (node, number) in self.pods {
                let address = fabric.lab.pod(node, *number)?.address(v4)?;
                endpoints.push(json!({"addresses": [address], "nodeName": node, "zone": zone(node)}));
            }
            let ports: Vec<Value> = self.protocols.iter().map(|protocol| port(protocol, PORT)).collect();
            objects.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                "metadata": {
                    "name": format!("{}-{}", self.name, family.to_lowercase()), "namespace": "services",
                    "labels": {"kubernetes.io/service-name": self.name},
                },
                "endpoints": endpoints, "ports": ports,
            }));
        }
        Ok(objects)
    }

    /// Whether a node's configuration has it with these endpoints.
    pub fn is_in(&self, service: &Value) -> bool {
        let endpoints = service["ports"][0]["endpoints"].as_array().into_iter().flatten();
        let mut nodes: Vec<&str> = endpoints.filter_map(|endpoint| endpoint["node"].as_str()).collect();
        // One of each family.
        let mut wanted: Vec<&str> = self.pods.iter().flat_map(|(node, _)| [*node; 2]).collect();
        nodes.sort_unstable();
        wanted.sort_unstable();
        nodes == wanted
    }

    fn service(&self) -> Value {
        let ips = [true, false].map(|v4| self.cluster_ip(v4));
        let mut ports: Vec<Value> = self.protocols.iter().map(|protocol| port(protocol, SERVICE_PORT)).collect();
        if self.node_port != 0 {
            ports.iter_mut().for_each(|port| port["nodePort"] = json!(self.node_port));
        }
        let mut spec = json!({
            "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack", "ports": ports,
        });
        for (key, value) in self.spec.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let annotations = self.annotations.as_object().into_iter().flatten();
        let annotations: Map<String, Value> =
            annotations.map(|(key, value)| (format!("selvedge.dev/{key}"), value.clone())).collect();
        let ingress: Vec<Value> = self.balancer.iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": "services", "annotations": annotations},
            "spec": spec, "status": {"loadBalancer": {"ingress": ingress}},
        })
    }
}

/// The zone of a node: the cloud's nodes have two.
pub fn zone(node: &str) -> &str {
    match node {
        "master" | "cloud-2" => "left",
        "cloud-1" => "right",
        _ => "",
    }
}

fn port(protocol: &str, port: u16) -> Value {
    json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": port})
}
