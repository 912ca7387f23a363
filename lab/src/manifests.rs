//! The Kubernetes objects of the laboratory's cluster, as files for the operator. JSON is YAML too.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::fabric::Options;
use crate::kube::api::{self, Api};
use crate::node::{Node, Role};
use crate::server::PORT;
use crate::topology::{CONNECTOR_PUBLIC, Lab, Net};
use crate::vxlan;

/// Port of every Service; the endpoints listen on [`PORT`].
pub const SERVICE_PORT: u16 = 80;

/// Name of the TCP port of every Service. MetaServer's lists are wrong about ports of this name and their endpoints.
const TCP_PORT: &str = "https";

/// Between the documents of a file.
const SEPARATOR: &str = "\n---\n";

/// A Service of the laboratory.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// Where its endpoints are.
    pub net: Net,
    /// The nodes they are on.
    pub nodes: &'static [&'static str],
    number: u8,
}

/// Every Service; `nothing` has no endpoints.
pub const SERVICES: [Service; 9] = [
    Service { name: "edge-pod", net: Net::Pod, nodes: &["edge-1", "edge-2"], number: 1 },
    Service { name: "edge-host", net: Net::Host, nodes: &["edge-1", "edge-2"], number: 2 },
    Service { name: "cloud-pod", net: Net::Pod, nodes: &["cloud-1", "cloud-2"], number: 3 },
    Service { name: "cloud-host", net: Net::Host, nodes: &["cloud-1", "cloud-2"], number: 4 },
    Service { name: "edge-1-pod", net: Net::Pod, nodes: &["edge-1"], number: 5 },
    Service { name: "edge-1-host", net: Net::Host, nodes: &["edge-1"], number: 6 },
    Service { name: "edge-2-pod", net: Net::Pod, nodes: &["edge-2"], number: 7 },
    Service { name: "edge-2-host", net: Net::Host, nodes: &["edge-2"], number: 8 },
    Service { name: "nothing", net: Net::Pod, nodes: &[], number: 9 },
];

/// The Services of another day: one has gone, one is elsewhere, one is new.
pub fn services_later() -> Vec<Service> {
    let stay = SERVICES.into_iter().filter(|service| !["cloud-host", "edge-2-pod"].contains(&service.name));
    stay.chain([
        Service { name: "edge-2-pod", net: Net::Pod, nodes: &["cloud-1"], number: 7 },
        Service { name: "late", net: Net::Pod, nodes: &["cloud-2"], number: 10 },
    ])
    .collect()
}

impl Service {
    /// The Service of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        SERVICES.iter().find(|service| service.name == name).with_context(|| format!("no Service {name}"))
    }

    /// Its cluster IP of one family.
    pub fn cluster_ip(&self, v4: bool) -> IpAddr {
        if v4 {
            [10, 96, 1, self.number].into()
        } else {
            [0xfd00, 0x96, 0, 0, 0, 0, 0, 0x100 + u16::from(self.number)].into()
        }
    }
}

/// How ESP is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Datapath {
    /// By what the kernel has.
    Auto,
    /// Kernel xfrm.
    Kernel,
    /// User space over TUN.
    User,
}

/// What the firewall rules are to be written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Firewall {
    /// By what the kernel has.
    Auto,
    /// iptables and ipset.
    Iptables,
    /// nftables.
    Nftables,
}

/// The folder that the operator reads.
#[derive(Debug)]
pub struct Manifests {
    /// Its path.
    pub dir: PathBuf,
    /// The edges pay for every byte.
    pub metered: bool,
    /// Where the objects go too, if there is an API server.
    api: Option<Api>,
}

impl Manifests {
    /// Writes everything but the endpoints of the Services: pods have no addresses yet.
    pub fn create(lab: &Lab, options: &Options, api: Option<Api>) -> Result<Self> {
        let manifests = Self { dir: lab.dir.join("manifests"), metered: options.metered, api };
        std::fs::create_dir_all(&manifests.dir)?;
        manifests.write("cluster.yaml", &[cluster(options.datapath, options.firewall)])?;
        manifests.write_community(&["beijing.edge-1", "beijing.edge-2"])?;
        manifests.write_nodes(lab)?;
        manifests.write("services.yaml", &SERVICES.iter().map(service).collect::<Vec<_>>())?;
        Ok(manifests)
    }

    /// Nothing yet.
    pub fn empty(dir: PathBuf) -> Self {
        Self { dir, metered: false, api: None }
    }

    /// Writes the nodes with the addresses they have now.
    pub fn write_nodes(&self, lab: &Lab) -> Result<()> {
        self.write("nodes.yaml", &lab.nodes.iter().map(|n| node(n, self.metered)).collect::<Vec<_>>())
    }

    /// Writes who is joined with whom.
    pub fn write_community(&self, members: &[&str]) -> Result<()> {
        self.write("community.yaml", &[community("workshop", members)])
    }

    /// Writes these Services and no others, with their endpoints as they are now.
    pub fn write_services(&self, lab: &Lab, services: &[Service]) -> Result<()> {
        self.write("services.yaml", &services.iter().map(service).collect::<Vec<_>>())?;
        let mut slices = Vec::new();
        for service in services {
            for v4 in [true, false] {
                slices.extend(endpoint_slice(lab, service, v4)?);
            }
        }
        self.write("endpoints.yaml", &slices)
    }

    /// Replaces one file at once, so that the operator never reads half of it; what is no longer in it is deleted.
    pub fn write(&self, file: &str, objects: &[Value]) -> Result<()> {
        let path = self.dir.join(file);
        if let Some(api) = &self.api {
            objects.iter().try_for_each(|object| api.apply(object))?;
            let wanted: Vec<String> = objects.iter().map(api::path).collect::<Result<_>>()?;
            for document in std::fs::read_to_string(&path).unwrap_or_default().split(SEPARATOR) {
                match serde_json::from_str(document) {
                    Ok(before) if !wanted.contains(&api::path(&before)?) => api.delete(&before)?,
                    _ => {}
                }
            }
        }
        let documents: Vec<String> = objects.iter().map(serde_json::to_string_pretty).collect::<Result<_, _>>()?;
        replace(&path, &(documents.join(SEPARATOR) + "\n"))
    }
}

/// Writes beside the file and renames.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, text).with_context(|| format!("write {}", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("rename to {}", path.display()))
}

/// As a configuration has it.
pub fn word(value: &impl ValueEnum) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

/// The cluster that every laboratory is.
pub fn cluster(datapath: Datapath, firewall: Firewall) -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "beijing"},
        "spec": {
            "clusterCIDRs": [vxlan::CLUSTER_CIDR, vxlan::CLUSTER_CIDR6],
            "serviceCIDRs": ["10.96.0.0/16", "fd00:96::/112"],
            "edgePodCIDRs": ["10.234.0.0/16", "fd00:234::/48"],
            "connector": {"addresses": [CONNECTOR_PUBLIC], "port": 4500},
            "services": {"edge": "kernel", "cloud": "kernel"},
            "datapath": word(&datapath), "firewall": word(&firewall),
        },
    })
}

/// Edges that are joined with one another.
pub fn community(name: &str, members: &[impl serde::Serialize]) -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "Community", "metadata": {"name": name},
        "spec": {"members": members},
    })
}

/// A node, as its kubelet and the controller manager describe it.
pub fn node(node: &Node, metered: bool) -> Value {
    let mut labels = json!({"kubernetes.io/hostname": node.name});
    match node.role {
        Role::Edge => labels["node-role.kubernetes.io/edge"] = json!(""),
        Role::Connector => labels["node-role.kubernetes.io/connector"] = json!(""),
        Role::Cloud => {}
    }
    let mut annotations = json!({});
    if !node.public.is_empty() {
        let public: Vec<String> = node.public.iter().map(ToString::to_string).collect();
        annotations["selvedge.dev/public-addresses"] = json!(public.join(","));
    }
    if metered && node.role == Role::Edge {
        annotations["selvedge.dev/metered"] = json!("true");
    }
    let mut spec = json!({});
    if let Some(first) = node.pod_cidrs.first() {
        spec = json!({"podCIDR": first, "podCIDRs": node.pod_cidrs});
    }
    let mut addresses: Vec<Value> =
        node.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.name}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "labels": labels, "annotations": annotations},
        "spec": spec,
        "status": {"addresses": addresses},
    })
}

fn service(service: &Service) -> Value {
    let ips = [service.cluster_ip(true), service.cluster_ip(false)];
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": SERVICE_PORT, "targetPort": PORT});
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": service.name, "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
            "ports": [port(TCP_PORT, "TCP"), port("udp", "UDP")],
        },
    })
}

fn endpoint_slice(lab: &Lab, service: &Service, v4: bool) -> Result<Option<Value>> {
    let mut endpoints = Vec::new();
    for node in service.nodes {
        let place = lab.place(service.net, node)?;
        // The edges' host networks have no IPv6.
        if let Ok(address) = place.address(v4) {
            endpoints.push(json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true}}));
        }
    }
    if endpoints.is_empty() {
        return Ok(None);
    }
    let family = if v4 { "IPv4" } else { "IPv6" };
    Ok(Some(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{}", service.name, family.to_lowercase()), "namespace": "default",
            "labels": {"kubernetes.io/service-name": service.name},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [
            {"name": TCP_PORT, "protocol": "TCP", "port": PORT}, {"name": "udp", "protocol": "UDP", "port": PORT},
        ],
    })))
}
