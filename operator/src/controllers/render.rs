//! The ConfigMap and the Secret of a node, as they are applied.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::plan::Owner;
use crate::api::API_VERSION;
use crate::authority::Credentials;
use crate::core::digest;
use crate::index::{CONFIG_KEY, NODE_LABEL, NODE_PREFIX, PACKED_KEY};

/// Field manager, and value of `app.kubernetes.io/managed-by`.
pub(crate) const MANAGER: &str = "selvedge-operator";

/// Name of a node's ConfigMap and of its Secret.
pub(crate) fn name(node: &str) -> String {
    format!("{NODE_PREFIX}{node}")
}

/// The most that a ConfigMap holds.
pub(super) const ROOM: usize = 1 << 20;
/// The longest value of a label.
const LONGEST_LABEL: usize = 63;

/// A text that is longer than a ConfigMap is packed.
pub(super) fn config_map(node: &str, owner: &Owner, text: &str) -> Result<ConfigMap, std::io::Error> {
    let metadata = metadata(node, owner);
    Ok(if text.len() <= ROOM {
        let data = BTreeMap::from([(CONFIG_KEY.to_owned(), text.to_owned())]);
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    } else {
        let data = BTreeMap::from([(PACKED_KEY.to_owned(), ByteString(packed(text)?))]);
        ConfigMap { metadata, binary_data: Some(data), ..ConfigMap::default() }
    })
}

pub(super) fn packed(text: &str) -> Result<Vec<u8>, std::io::Error> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(text.as_bytes())?;
    packer.finish()
}

pub(super) fn secret(node: &str, owner: &Owner, credentials: &Credentials) -> Secret {
    let parts = [("ca.crt", &credentials.ca), ("tls.crt", &credentials.certificate), ("tls.key", &credentials.key)];
    let parts = parts.into_iter().chain(credentials.crl.as_ref().map(|crl| ("crl.pem", crl)));
    let data = parts.map(|(key, pem)| (key.to_owned(), ByteString(pem.clone().into_bytes())));
    Secret {
        metadata: metadata(node, owner),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

/// Labels of everything that is made here.
pub(super) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())])
}

fn metadata(node: &str, owner: &Owner) -> ObjectMeta {
    let mut labels = labels();
    let short = if node.len() <= LONGEST_LABEL { node.to_owned() } else { digest(node.as_bytes()).to_string() };
    labels.insert(NODE_LABEL.to_owned(), short);
    let owner = OwnerReference {
        api_version: if owner.kind == "Node" { "v1" } else { API_VERSION }.to_owned(),
        kind: owner.kind.clone(),
        name: node.to_owned(),
        uid: owner.uid.clone(),
        ..OwnerReference::default()
    };
    ObjectMeta {
        name: Some(name(node)),
        labels: Some(labels),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}
