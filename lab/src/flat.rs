//! A laboratory without routers: a connector and many edges on one network, for what is about numbers. The first edge
//! has a tunnel to every other one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
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
/// How long one thing may take.
pub const STEP: Duration = Duration::from_secs(60);

/// A connector and edges.
pub struct Flat {
    /// The program of each node that has been started, by node name.
    pub programs: BTreeMap<String, Program>,
    /// cloud-1, edge-1, edge-2, …
    pub nodes: Vec<Node>,
    /// What they hang on.
    pub wan: Wan,
    /// What the operator writes, a folder for each node.
    pub output: PathBuf,
    operator: Program,
    /// Everything on disk; gone last.
    pub dir: RunDir,
}

impl Flat {
    /// Everything running, up to tunnels that stand: so many on [`EDGE`], one of them to the connector. One edge starts
    /// after the other: a single processor does the work of all.
    pub fn start(tunnels: u8, services: u8, datapath: Datapath, firewall: Firewall) -> Result<Self> {
        let mut flat = Self::prepare(tunnels, services, datapath, firewall)?;
        for index in 0..flat.nodes.len() {
            flat.plug(index)?;
            flat.start_program(index)?;
            flat.await_tunnels(index)?;
        }
        Ok(flat)
    }

    /// The connector running, and credentials for an edge that is to be elsewhere.
    pub fn start_connector(services: u8) -> Result<Self> {
        let mut flat = Self::prepare(1, services, Datapath::Auto, Firewall::Auto)?;
        flat.plug(0)?;
        flat.start_program(0)?;
        flat.await_delivery(1)?;
        Ok(flat)
    }

    /// Where an edge is on the common network.
    pub fn address(edge: u8) -> String {
        format!("203.0.113.{}", 100 + edge)
    }

    /// Where a Service is.
    pub fn cluster_ip(service: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, 2, service)
    }

    fn prepare(edges: u8, services: u8, datapath: Datapath, firewall: Firewall) -> Result<Self> {
        let dir = RunDir::create(false)?;
        let wan = Wan::create()?;
        let mut nodes = vec![Node::create("cloud-1", Role::Connector, &[CONNECTOR_PUBLIC], &dir)?];
        for number in 1..=edges {
            let mut edge = Node::create(&format!("edge-{number}"), Role::Edge, &[&Self::address(number)], &dir)?;
            edge.public.clone_from(&edge.addresses);
            nodes.push(edge);
        }
        nodes[0].pod_cidrs = vec!["10.244.0.0/24".to_owned()];
        nodes[0].ns.ip("link add pods type bridge
             link set pods up
             address add 10.244.0.1/24 dev pods")?;
        let manifests = Manifests::empty(dir.join("manifests"));
        std::fs::create_dir_all(&manifests.dir)?;
        manifests.write("cluster.yaml", &[manifests::cluster(datapath, firewall)])?;
        let pairs =
            (2..=edges).map(|number| (format!("pair-{number}"), [1, number].map(|n| format!("beijing.edge-{n}"))));
        let pairs: Vec<Value> = pairs.map(|(name, members)| manifests::community(&name, &members)).collect();
        manifests.write("community.yaml", &pairs)?;
        manifests.write("nodes.yaml", &nodes.iter().map(|node| manifests::node(node, false)).collect::<Vec<_>>())?;
        manifests.write("services.yaml", &(0..services).flat_map(service).collect::<Vec<_>>())?;
        let output = dir.join("out");
        let [from, to] = [&manifests.dir, &output].map(|path| path.to_string_lossy());
        let arguments = ["run", "--manifests", &from, "--out", &to];
        let operator = Program::start(&nodes[0].ns, &dir, "selvedge-operator", &arguments)?;
        Ok(Self { programs: BTreeMap::new(), nodes, wan, output, operator, dir })
    }

    fn plug(&self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        self.wan.attach(&node.ns, "eth0", &node.name)?;
        up(node)
    }

    fn await_delivery(&mut self, index: usize) -> Result<Folders> {
        let node = &self.nodes[index];
        let folders = Folders::of(node, &self.output);
        wait(&format!("configuration of {}", node.name), STEP, || {
            self.operator.check()?;
            ensure!(folders.config.exists() && folders.credentials.join("tls.crt").exists(), "not written");
            Ok(())
        })?;
        Ok(folders)
    }

    fn start_program(&mut self, index: usize) -> Result<()> {
        let folders = self.await_delivery(index)?;
        let node = &self.nodes[index];
        self.programs.insert(node.name.clone(), programs::start(node, &folders)?);
        Ok(())
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

    /// Waits until [`EDGE`] and the connector have so many tunnels.
    fn await_tunnels(&mut self, tunnels: usize) -> Result<()> {
        for name in if tunnels == 0 { &[][..] } else { &[EDGE, "cloud-1"] } {
            wait(&format!("tunnels of {name}"), STEP, || {
                self.programs.values_mut().try_for_each(Program::check)?;
                let status = programs::status(self.node(name)?, &self.folders(name)?)?;
                let up = status.tunnels().filter(|peer| peer.state == "up").count();
                ensure!(up >= tunnels, "{up} of {tunnels} are up");
                Ok(())
            })
            .with_context(|| self.programs.get(*name).map(Program::log_tail).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Gives a node's Ethernet device its address.
pub fn up(node: &Node) -> Result<()> {
    let address = node.addresses.first().context("a node without address")?;
    node.ns.ip(&format!(
        "link set eth0 up
         address add {address}/24 dev eth0"
    ))?;
    node.ns.sysctl(&[("net/ipv4/ip_forward", "1")])
}

fn service(number: u8) -> [Value; 2] {
    let (name, ip) = (format!("service-{number}"), Flat::cluster_ip(number));
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                "ipFamilies": ["IPv4"], "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [Ipv4Addr::from(CLOUD_POD)], "nodeName": "cloud-1", "conditions": {"ready": true}}],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }),
    ]
}
