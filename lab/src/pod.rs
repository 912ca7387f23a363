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
    _server: Server,
}

impl Pod {
    /// Makes the namespace, attaches it to the node and starts the server.
    pub fn start(node: &Netns, node_name: &str, network: &Network, name: &str) -> Result<Self> {
        let ns = Netns::create(name)?;
        let attachment = network.add(node, &ns).with_context(|| format!("attach {name} to {node_name}"))?;
        let server = Server::start(&ns, name, node_name, &attachment.addresses)?;
        Ok(Self { name: name.to_owned(), ns, addresses: attachment.addresses.clone(), attachment, _server: server })
    }

    /// Detaches the pod from its node, as a kubelet does when the pod ends.
    pub fn stop(self, node: &Netns, network: &Network) -> Result<()> {
        network.del(node, &self.ns, &self.attachment)
    }
}
