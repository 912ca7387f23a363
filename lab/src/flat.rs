//! A laboratory without routers: a connector and many edges on one network, for what is about numbers. A tunnel joins
//! every two edges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cni::Network;
use crate::manifests::{self, Datapath, Firewall, Manifests};
use crate::node::{Node, Role};
use crate::programs::{self, Folders, Program, Status, wait};
use crate::router::Wan;
use crate::topology::{CONNECTOR_PUBLIC, RunDir};

/// The node that is looked at.
pub const EDGE: &str = "edge-1";
/// Where the connector has a pod address.
pub const CLOUD_POD: [u8; 4] = [10, 244, 0, 1];
const STEP: Duration = Duration::from_secs(60);
const ENDPOINTS: [&str; 2] = ["10.244.0.1", "10.244.0.2"];

/// A connector and edges with everything running.
pub struct Flat {
    /// The program of each node, by node name.
    pub programs: BTreeMap<String, Program>,
    /// cloud-1, edge-1, edge-2, …
    pub nodes: Vec<Node>,
    output: PathBuf,
    _operator: Program,
    _wan: Wan,
    _dir: RunDir,
}

impl Flat {
    /// Builds it, up to tunnels that stand: so many on each edge, one of them to the connector.
    pub fn start(tunnels: u8, services: u8, datapath: Datapath, firewall: Firewall) -> Result<Self> {
        let dir = RunDir::create(false)?;
        let wan = Wan::create()?;
        let mut nodes = vec![Node::create("cloud-1", Role::Connector, &[CONNECTOR_PUBLIC], &dir)?];
        for number in 1..=tunnels {
            let address = format!("203.0.113.{}", 100 + number);
            let mut edge = Node::create(&format!("edge-{number}"), Role::Edge, &[&address], &dir)?;
            edge.public.clone_from(&edge.addresses);
            nodes.push(edge);
        }
        nodes[0].pod_cidrs = vec!["10.244.0.0/24".to_owned()];
        for node in &nodes {
            wan.attach(&node.ns, "eth0", &node.name)?;
            node.ns.ip(&format!(
                "link set eth0 up
                 address add {}/24 dev eth0",
                node.addresses[0]
            ))?;
            node.ns.sysctl(&[("net/ipv4/ip_forward", "1")])?;
        }
        nodes[0].ns.ip("link add pods type bridge
             link set pods up
             address add 10.244.0.1/24 dev pods")?;
        let manifests = Manifests { dir: dir.join("manifests") };
        std::fs::create_dir_all(&manifests.dir)?;
        manifests.write("cluster.yaml", &[manifests::cluster(datapath, firewall)])?;
        let members: Vec<String> = (1..=tunnels).map(|number| format!("beijing.edge-{number}")).collect();
        manifests.write("community.yaml", &[manifests::community(&members)])?;
        manifests.write("nodes.yaml", &nodes.iter().map(manifests::node).collect::<Vec<_>>())?;
        manifests.write("services.yaml", &(0..services).flat_map(service).collect::<Vec<_>>())?;
        let output = dir.join("out");
        let [from, to] = [&manifests.dir, &output].map(|path| path.to_string_lossy());
        let arguments = ["run", "--manifests", &from, "--out", &to];
        let mut operator = Program::start(&nodes[0].ns, &dir, "selvedge-operator", &arguments)?;
        let mut all = BTreeMap::new();
        for node in &nodes {
            let folders = Folders::of(node, &output);
            wait(&format!("configuration of {}", node.name), STEP, || {
                operator.check()?;
                ensure!(folders.config.exists() && folders.credentials.join("tls.crt").exists(), "not written");
                Ok(())
            })?;
            all.insert(node.name.clone(), programs::start(node, &folders)?);
        }
        let mut flat = Self { programs: all, nodes, output, _operator: operator, _wan: wan, _dir: dir };
        flat.await_tunnels(usize::from(tunnels))?;
        Ok(flat)
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("no node {name}"))
    }

    /// The folders of a node's program.
    pub fn folders(&self, name: &str) -> Result<Folders> {
        Ok(Folders::of(self.node(name)?, &self.output))
    }

    /// What the program of a node says about itself.
    pub fn status(&self, name: &str) -> Result<Status> {
        programs::status(self.node(name)?, &self.folders(name)?)
    }

    /// Starts a pod on [`EDGE`].
    pub fn start_pod(&mut self) -> Result<()> {
        let node = self.nodes.iter_mut().find(|node| node.name == EDGE).context("no edge")?;
        let network = wait("CNI network", STEP, || Network::find(&node.cni_dir(), &node.cni_data()))?;
        node.start_pod(&network, "pod")
    }

    /// Waits until [`EDGE`] and the connector have all their tunnels.
    pub fn await_tunnels(&mut self, tunnels: usize) -> Result<()> {
        for name in [EDGE, "cloud-1"] {
            wait(&format!("tunnels of {name}"), STEP, || {
                self.programs.values_mut().try_for_each(Program::check)?;
                let status = programs::status(self.node(name)?, &self.folders(name)?)?;
                let up = status.tunnels().filter(|peer| peer.state == "up").count();
                ensure!(up == tunnels, "{up} of {tunnels} are up");
                Ok(())
            })
            .with_context(|| self.programs.get(name).map(Program::log_tail).unwrap_or_default())?;
        }
        Ok(())
    }
}

fn service(number: u8) -> [Value; 2] {
    let name = format!("service-{number}");
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "ClusterIP", "clusterIP": format!("10.96.2.{number}"), "clusterIPs": [format!("10.96.2.{number}")],
                "ipFamilies": ["IPv4"], "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": ENDPOINTS.map(|a| json!({"addresses": [a], "nodeName": "cloud-1", "conditions": {"ready": true}})),
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }),
    ]
}
