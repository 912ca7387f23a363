//! The ConfigMap and the Secret of a node, as they are applied.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::plan::Owner;
use crate::api::API_VERSION;
use crate::authority::Credentials;
use crate::index::{CONFIG_KEY, NODE_LABEL};

/// Field manager, and value of `app.kubernetes.io/managed-by`.
pub(crate) const MANAGER: &str = "selvedge-operator";

/// Name of a node's ConfigMap and of its Secret.
pub(crate) fn name(node: &str) -> String {
    format!("selvedge-node-{node}")
}

pub(super) fn config_map(node: &str, owner: &Owner, text: &str) -> ConfigMap {
    ConfigMap {
        metadata: metadata(node, owner),
        data: Some(BTreeMap::from([(CONFIG_KEY.to_owned(), text.to_owned())])),
        ..ConfigMap::default()
    }
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
    labels.insert(NODE_LABEL.to_owned(), node.to_owned());
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
