//! What each node is to get, and who waits for it to change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::core::Digest;

/// What a node is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// Its `NodeConfig` in JSON.
    pub(super) config: Arc<str>,
    /// Names this version of both.
    pub(super) etag: String,
}

/// Documents by name in the fabric.
#[derive(Default)]
pub(crate) struct Feed {
    nodes: RwLock<BTreeMap<String, Node>>,
}

struct Node {
    /// Its name in Kubernetes.
    node: String,
    digest: Digest,
    document: watch::Sender<Document>,
}

/// A node's configuration, to be given to it.
pub(crate) struct Entry {
    /// Its name in Kubernetes.
    pub(crate) node: String,
    /// Of the configuration.
    pub(crate) digest: Digest,
    /// `NodeConfig` in JSON; `None` if it is the one that was published last.
    pub(crate) config: Option<String>,
}

impl Feed {
    /// Replaces everything but what is `kept`. Whoever waits for what has changed is woken; who waits for what
    /// is gone, too. `trust` names the version of what all nodes have in common.
    pub(super) fn publish(&self, entries: BTreeMap<String, Entry>, kept: &BTreeSet<String>, trust: &str) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|name, node| match entries.get(name) {
            Some(entry) => entry.node == node.node,
            None => kept.contains(name),
        });
        for (name, Entry { node, digest, config }) in entries {
            match (nodes.get_mut(&name), config) {
                (Some(known), config) => {
                    known.digest = digest;
                    if let Some(config) = config {
                        known.document.send_if_modified(|old| {
                            old.config = config.into();
                            false
                        });
                    }
                }
                (None, Some(config)) => {
                    let document = Document { config: config.into(), etag: String::new() };
                    nodes.insert(name, Node { node, digest, document: watch::Sender::new(document) });
                }
                (None, None) => {}
            }
        }
        for node in nodes.values() {
            let etag = format!("\"{}-{trust}\"", node.digest);
            node.document.send_if_modified(|old| {
                let changed = old.etag != etag;
                old.etag = etag;
                changed
            });
        }
    }

    /// Whether this is what was published last.
    pub(super) fn has(&self, name: &str, digest: Digest) -> bool {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(name).is_some_and(|node| node.digest == digest)
    }

    /// The document of a name, now and as it changes.
    pub(super) fn watch(&self, name: &str) -> Option<watch::Receiver<Document>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(name).map(|node| node.document.subscribe())
    }

    /// The name in the fabric of a node in Kubernetes.
    pub(super) fn name_of(&self, node: &str) -> Option<String> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.iter().find(|(_, known)| known.node == node).map(|(name, _)| name.clone())
    }
}
