//! Pods: namespaces attached to a node by the CNI plugins, with a server inside.

use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::cni::{Attachment, Network};
use crate::netns::Netns;
use crate::server::Server;

/// A pod of one node.
#[derive(Debug)]
pub struct Pod {
    /// Its name, unique in the laboratory.
    pub name: String,
    /// Its network namespace.
    pub ns: Netns,
    /// The addresses that the CNI plugins gave it, at most one of each family.
    pub addresses: Vec<IpAddr>,
    attachment: Attachment,
    node_name: String,
    server: Option<Server>,
}

impl Pod {
    /// Makes the namespace, attaches it to the node and starts the server.
    pub fn start(node: &Netns, node_name: &str, network: &Network, name: &str) -> Result<Self> {
        let ns = Netns::create(name)?;
        let attachment = network.add(node, &ns).with_context(|| format!("attach {name} to {node_name}"))?;
        let addresses = attachment.addresses.clone();
        let (name, node_name) = (name.to_owned(), node_name.to_owned());
        let mut pod = Self { name, ns, addresses, attachment, node_name, server: None };
        pod.open()?;
        Ok(pod)
    }

    /// Starts its server.
    pub fn open(&mut self) -> Result<()> {
        self.server = Some(Server::start(&self.ns, &self.name, &self.node_name, &self.addresses)?);
        Ok(())
    }

    /// Ends its server: its port is closed.
    pub fn close(&mut self) {
        self.server = None;
    }

    /// Detaches the pod from its node, as a kubelet does when the pod ends.
    pub fn stop(self, node: &Netns, network: &Network) -> Result<()> {
        network.del(node, &self.ns, &self.attachment)
    }
}
