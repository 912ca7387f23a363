//! What the operator wrote for each node, as the API server has it.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::GzDecoder;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::listing::{Change, Key, Listing};
use crate::authority::Credentials;
use crate::core::fleet::{LABEL_MARK, Program};
use crate::core::{Allocations, Digest, digest};

/// Key of the configuration in a node's ConfigMap.
pub(crate) const CONFIG_KEY: &str = "config.json";
/// The same where it is too long for a ConfigMap, in its binary data, as gzip(1) packs it.
pub(crate) const PACKED_KEY: &str = "config.json.gz";
/// Label of a ConfigMap or Secret of a node.
pub(crate) const NODE_LABEL: &str = "selvedge.dev/node";
/// Of their names; the rest is the node's.
pub(crate) const NODE_PREFIX: &str = "selvedge-node-";
/// More than a node takes.
const LONGEST: u64 = 8 << 20;

/// A node's ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenConfig {
    pub(crate) owner: String,
    /// Of the configuration's text.
    pub(crate) digest: Digest,
    pub(crate) generation: u64,
    /// Fabric name.
    pub(crate) name: String,
    /// Label [`LABEL_MARK`].
    pub(crate) marked: Option<Program>,
    /// Pod networks if it is an edge node.
    pub(crate) edge_networks: Vec<IpNet>,
    version: u64,
}

/// A node's Secret.
#[derive(Debug)]
pub(crate) struct WrittenSecret {
    pub(crate) owner: String,
    /// `None` if anything is missing.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) version: u64,
}

/// All ConfigMaps and Secrets of nodes, by node.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) configs: Listing<WrittenConfig>,
    pub(crate) secrets: Listing<WrittenSecret>,
}

impl Written {
    pub(crate) fn is_complete(&self) -> bool {
        self.configs.is_complete() && self.secrets.is_complete()
    }

    /// Who has which pod network, as the configurations say: what is in use must not be given again.
    pub(crate) fn allocations(&self) -> Allocations {
        Allocations::of(self.configs.iter().map(|((_, node), there)| (node.clone(), there.edge_networks.clone())))
    }

    pub(crate) fn apply_config(&mut self, change: Change<WrittenConfig>) -> bool {
        self.configs.apply(change, |old, new| {
            // An echo of what was there before our own last write.
            if new.version < old.version {
                return false;
            }
            let changed = WrittenConfig { version: new.version, ..old.clone() } != new;
            *old = new;
            changed
        })
    }

    pub(crate) fn apply_secret(&mut self, change: Change<WrittenSecret>) -> bool {
        self.secrets.apply(change, |old, new| {
            if new.version <= old.version {
                return false;
            }
            *old = new;
            true
        })
    }
}

/// The key in [`Written`] of a node.
pub(crate) fn key(node: &str) -> Key {
    (String::new(), node.to_owned())
}

/// The beginning of a configuration; all else is passed over, for it is long.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    generation: u64,
    name: String,
    node: String,
    role: String,
    pod_cidrs: Vec<IpNet>,
}

/// The node and what matters; `None` for a ConfigMap that names no node.
pub(crate) fn config(object: &ConfigMap) -> Option<(Key, WrittenConfig)> {
    let node = node(&object.metadata)?;
    let text = text(object);
    let mut head: Head = serde_json::from_str(&text).unwrap_or_default();
    if head.node != node {
        // Somebody else wrote it: it counts by its generation alone.
        head = Head { generation: head.generation, ..Head::default() };
    }
    let written = WrittenConfig {
        owner: owner(&object.metadata),
        digest: digest(text.as_bytes()),
        generation: head.generation,
        edge_networks: if head.role == "edge" { head.pod_cidrs } else { Vec::new() },
        name: head.name,
        marked: object.metadata.labels.as_ref().and_then(|labels| Program::named(labels.get(LABEL_MARK)?)),
        version: version(&object.metadata),
    };
    Some((key(&node), written))
}

/// The node and what matters; `None` for a Secret that names no node.
pub(crate) fn secret(object: &Secret) -> Option<(Key, WrittenSecret)> {
    let node = node(&object.metadata)?;
    let read = |name: &str| {
        let bytes = &object.data.as_ref()?.get(name)?.0;
        String::from_utf8(bytes.clone()).ok()
    };
    let credentials = || {
        let (ca, certificate, key) = (read("ca.crt")?, read("tls.crt")?, read("tls.key")?);
        Some(Credentials { ca, certificate, key, crl: read("crl.pem") })
    };
    let written = WrittenSecret {
        owner: owner(&object.metadata),
        credentials: credentials(),
        version: version(&object.metadata),
    };
    Some((key(&node), written))
}

fn text(object: &ConfigMap) -> Cow<'_, str> {
    if let Some(text) = object.data.as_ref().and_then(|data| data.get(CONFIG_KEY)) {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    if let Some(packed) = object.binary_data.as_ref().and_then(|data| data.get(PACKED_KEY)) {
        // What cannot be unpacked is no configuration.
        let _ = GzDecoder::new(&*packed.0).take(LONGEST).read_to_string(&mut text);
    }
    Cow::Owned(text)
}

/// The label says that there is one; it may be too short for its name.
fn node(metadata: &ObjectMeta) -> Option<String> {
    metadata.labels.as_ref()?.get(NODE_LABEL)?;
    metadata.name.as_deref()?.strip_prefix(NODE_PREFIX).map(str::to_owned)
}

fn owner(metadata: &ObjectMeta) -> String {
    metadata.owner_references.iter().flatten().next().map(|owner| owner.uid.clone()).unwrap_or_default()
}

fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}
