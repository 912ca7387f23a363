//! Nodes: a namespace with an uplink, a server in the host network, and pods.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cni::Network;
use crate::netns::Netns;
use crate::pod::Pod;
use crate::server::Server;

/// What a node is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A cloud node that is not the connector.
    Cloud,
    /// The cloud node that ends the tunnels.
    Connector,
    /// A gateway behind a router.
    Edge,
}

/// One machine of the laboratory.
#[derive(Debug)]
pub struct Node {
    /// Kubernetes node name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its host network.
    pub ns: Netns,
    /// InternalIPs.
    pub addresses: Vec<IpAddr>,
    /// Where the other edges can call it; empty for cloud nodes.
    pub public: Vec<IpAddr>,
    /// `spec.podCIDRs` as the controller manager hands them out; empty for edges, which get theirs from the operator.
    pub pod_cidrs: Vec<String>,
    /// Everything this node keeps on disk.
    pub dir: PathBuf,
    /// Whom its program is to become; it stays root without one.
    pub user: Option<String>,
    /// Its pods.
    pub pods: Vec<Pod>,
    server: Option<Server>,
}

impl Node {
    /// A node without links: `eth0` is to be plugged in, then [`Node::serve`] called.
    pub fn create(name: &str, role: Role, addresses: &[&str], dir: &Path) -> Result<Self> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self {
            name: name.to_owned(),
            role,
            ns: Netns::create(name)?,
            addresses: addresses.iter().map(|a| a.parse()).collect::<Result<_, _>>()?,
            public: Vec::new(),
            pod_cidrs: Vec::new(),
            dir,
            user: None,
            pods: Vec::new(),
            server: None,
        })
    }

    /// Name of the server in the host network.
    pub fn host_name(&self) -> String {
        format!("host-{}", self.name)
    }

    /// Starts the server in the host network.
    pub fn serve(&mut self) -> Result<()> {
        self.server = Some(Server::start(&self.ns, &self.host_name(), &self.name, &self.addresses)?);
        Ok(())
    }

    /// Where the agent of this node writes its CNI network, and a runtime would look for it.
    pub fn cni_dir(&self) -> PathBuf {
        self.dir.join("cni")
    }

    /// Leases of host-local.
    pub fn cni_data(&self) -> PathBuf {
        self.dir.join("cni-data")
    }

    /// Starts a pod on the network.
    pub fn start_pod(&mut self, network: &Network, name: &str) -> Result<()> {
        self.pods.push(Pod::start(&self.ns, &self.name, network, name)?);
        Ok(())
    }
}
