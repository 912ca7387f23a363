//! The laboratory: WAN, three sites, five nodes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cni::Network;
use crate::iptables::Iptables;
use crate::netns::Netns;
use crate::node::{Node, Role};
use crate::router::{LinkQuality, Router, Wan, degrade};
use crate::vxlan;

/// The address that edges call.
pub const CONNECTOR_PUBLIC: &str = "203.0.113.10";

/// The picture of it, at most 100 columns.
pub const PICTURE: &str = r#"
                        internet 198.51.100.1
                                  |
     ===== WAN 203.0.113.0/24 ====+=================+==========================+=========
              |                   |                 |                          |
            .2 NAT              .10               .21 NAT                    .22 NAT
          +--------+              |           +----------+               +----------+
          |  lan   |              |           | router-1 |               | router-2 |
          +---+----+              |           +----+-----+               +----+-----+
   LAN 172.16.0.0/24              |                | 192.168.11.0/24          | 192.168.12.0/24
    +---------+---------+         |                |                          |
    | .10     | .12     | .11     |                | .2                       | .2
 +--+-----+ +-+-------+ +-+-------+-+         +----+-----+               +----+-----+
 | master | | cloud-2 | |  cloud-1  |         |  edge-1  |               |  edge-2  |
 |        | |  [pod]  | |   [pod]   |         |  [pods]  |               |  [pods]  |
 +--------+ +---------+ | connector |         +----------+               +----------+
   flannel VXLAN among  +-----------+             |     \_________________/     |
   the cloud nodes            \___________________|_____________________________/
   10.244.0.0/16                     ESP tunnels, keyed by IKEv2 with certificates
"#;

/// Which side of a node a client or a server is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// In a pod.
    Pod,
    /// In the host network.
    Host,
}

/// A place where clients and servers are.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The server's name.
    pub name: &'a str,
    /// Its namespace.
    pub ns: &'a Netns,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

impl Place<'_> {
    /// Its address of one family.
    pub fn address(&self, v4: bool) -> Result<IpAddr> {
        let address = self.addresses.iter().find(|address| address.is_ipv4() == v4);
        address.copied().with_context(|| format!("{} has no IPv{} address", self.name, if v4 { 4 } else { 6 }))
    }
}

/// Everything that stands before Selvedge comes; all of it ends on drop.
#[derive(Debug)]
pub struct Lab {
    /// master, cloud-1, cloud-2, edge-1, edge-2.
    pub nodes: Vec<Node>,
    /// lan (the cloud's gateway), router-1, router-2.
    pub routers: Vec<Router>,
    /// What joins the sites.
    pub wan: Wan,
    /// What writes rules in the way of others.
    pub iptables: Iptables,
    /// Configuration, state and logs of this run.
    pub dir: RunDir,
    host_names: Vec<String>,
}

/// A folder that is gone on drop, unless it is kept for reading.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    keep: bool,
}

impl Lab {
    /// Builds namespaces, links, routers and the cloud's VXLAN, and starts a server on every node. `keep` leaves the
    /// folder behind for reading.
    pub fn build(quality: Option<&LinkQuality>, keep: bool) -> Result<Self> {
        let dir = RunDir::create(keep)?;
        let wan = Wan::create()?;
        let iptables = Iptables::find(&wan.ns)?;
        let lan = Router::create("lan", &["172.16.0.1/24", "fd00:172::1/64"], "203.0.113.2", &wan, iptables)?;
        let mut nodes = Vec::new();
        for (name, role, host) in
            [("master", Role::Cloud, 10), ("cloud-1", Role::Connector, 11), ("cloud-2", Role::Cloud, 12)]
        {
            let (v4, v6) = (format!("172.16.0.{host}"), format!("fd00:172::{host}"));
            let node = Node::create(name, role, &[&v4, &v6], &dir)?;
            lan.attach(&node.ns, "eth0", name)?;
            node.ns.ip(&format!(
                "link set eth0 up
                 address add {v4}/24 dev eth0
                 address add {v6}/64 dev eth0"
            ))?;
            forward(&node.ns)?;
            if role == Role::Connector {
                wan.attach(&node.ns, "eth1", name)?;
                node.ns.ip(&format!(
                    "link set eth1 up
                     address add {CONNECTOR_PUBLIC}/24 dev eth1
                     address add 2001:db8::10/64 dev eth1
                     route add default via 203.0.113.1
                     route add default via 2001:db8::1"
                ))?;
            } else {
                node.ns.ip("route add default via 172.16.0.1\nroute add default via fd00:172::1")?;
            }
            nodes.push(node);
        }
        vxlan::install(&mut nodes.iter_mut().collect::<Vec<_>>(), iptables)?;
        let mut routers = vec![lan];
        for site in 1..=2 {
            let outside = format!("203.0.113.2{site}");
            let gateway = format!("192.168.1{site}.1");
            let inside = format!("{gateway}/24");
            let router = Router::create(&format!("router-{site}"), &[&inside], &outside, &wan, iptables)?;
            let (name, address) = (format!("edge-{site}"), format!("192.168.1{site}.2"));
            let mut node = Node::create(&name, Role::Edge, &[&address], &dir)?;
            router.attach(&node.ns, "eth0", &name)?;
            node.ns.ip(&format!(
                "link set eth0 up
                 address add {address}/24 dev eth0
                 route add default via {gateway}"
            ))?;
            node.public = vec![outside.parse()?];
            nodes.push(node);
            routers.push(router);
        }
        if let Some(quality) = quality {
            routers.iter().try_for_each(|router| router.degrade(quality))?;
            degrade(&nodes[1].ns, "eth1", quality)?;
        }
        nodes.iter_mut().try_for_each(Node::serve)?;
        let host_names = nodes.iter().map(Node::host_name).collect();
        Ok(Self { nodes, routers, wan, iptables, dir, host_names })
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("no node {name}"))
    }

    /// The host network of a node, or its first pod.
    pub fn place(&self, net: Net, node_name: &str) -> Result<Place<'_>> {
        let index = self.nodes.iter().position(|node| node.name == node_name);
        let index = index.with_context(|| format!("no node {node_name}"))?;
        let node = &self.nodes[index];
        match net {
            Net::Host => Ok(Place { name: &self.host_names[index], ns: &node.ns, addresses: &node.addresses }),
            Net::Pod => self.pod(node_name, 0),
        }
    }

    /// A pod of a node, by its number.
    pub fn pod(&self, node_name: &str, number: usize) -> Result<Place<'_>> {
        let pod = self.node(node_name)?.pods.get(number);
        let pod = pod.with_context(|| format!("{node_name} has no pod number {number}"))?;
        Ok(Place { name: &pod.name, ns: &pod.ns, addresses: &pod.addresses })
    }

    /// One pod on cloud-1 and one on cloud-2, on flannel's network.
    pub fn start_cloud_pods(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.name.starts_with("cloud-")) {
            let network = Network::parse(&vxlan::network_list(node), &node.cni_data())?;
            node.start_pod(&network, &format!("pod-{}", node.name))?;
        }
        Ok(())
    }

    /// Two pods on each edge (`pod-edge-1`, `pod2-edge-1`, …), on the network that stands in its CNI folder.
    pub fn start_edge_pods(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.role == Role::Edge) {
            let network = Network::find(&node.cni_dir(), &node.cni_data())?;
            for pod in ["pod", "pod2"] {
                node.start_pod(&network, &format!("{pod}-{}", node.name))?;
            }
        }
        Ok(())
    }
}

impl RunDir {
    /// The folder of this process.
    pub fn create(keep: bool) -> Result<Self> {
        let dir = Self { path: run_dir(std::process::id()), keep };
        std::fs::create_dir_all(&dir.path).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }
}

impl std::ops::Deref for RunDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The folder of a run.
pub fn run_dir(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("selvedge-lab-{pid}"))
}

/// What every Kubernetes node has switched on.
fn forward(ns: &Netns) -> Result<()> {
    ns.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
    for key in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
        if ns.has_sysctl(key)? {
            ns.sysctl(&[(key, "1")])?;
        }
    }
    Ok(())
}

/// Removes the folders of runs that are no more.
pub fn remove_leftovers() {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("selvedge-lab-")?.parse().ok());
        if pid.is_some_and(|pid| !crate::netns::alive(pid)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
