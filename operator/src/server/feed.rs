//! What each node is to get, and who waits for it to change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::token::hash;

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
    document: watch::Sender<Document>,
}

fn etag(config: &str, trust: &str) -> String {
    format!("\"{}-{trust}\"", &hash(config)[..32])
}

/// A node's configuration, to be given to it.
pub(crate) struct Entry {
    /// Its name in Kubernetes.
    pub(crate) node: String,
    /// `NodeConfig` in JSON.
    pub(crate) config: String,
}

impl Feed {
    /// Replaces everything but what is `kept`. Whoever waits for what has changed is woken; who waits for what is gone, too. `trust` names
    /// the version of what all nodes have in common.
    pub(super) fn publish(&self, entries: BTreeMap<String, Entry>, kept: &BTreeSet<String>, trust: &str) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|name, node| match entries.get(name) {
            Some(entry) => entry.node == node.node,
            None => kept.contains(name),
        });
        for (_, node) in nodes.iter().filter(|(name, _)| !entries.contains_key(*name)) {
            // What all have in common may have changed.
            node.document.send_if_modified(|old| {
                let etag = etag(&old.config, trust);
                std::mem::replace(&mut old.etag, etag.clone()) != etag
            });
        }
        for (name, Entry { node, config }) in entries {
            let etag = etag(&config, trust);
            let document = Document { config: config.into(), etag };
            match nodes.get(&name) {
                Some(known) => {
                    known.document.send_if_modified(|old| {
                        let changed = *old != document;
                        *old = document;
                        changed
                    });
                }
                None => {
                    nodes.insert(name, Node { node, document: watch::Sender::new(document) });
                }
            }
        }
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
