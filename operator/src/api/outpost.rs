//! `Outpost` of `selvedge.dev/v1alpha1`.

use std::net::IpAddr;

use ipnet::IpNet;
use kube::CustomResource;
use schemars::JsonSchema;
use selvedge_model::{DatapathMode, FirewallBackend, ServiceMode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{optional_word, prefixes};
use super::kubernetes::{Node, Outside};
use super::status::Condition;
use super::{FieldError, Labelled, schema, typed};

/// A gateway outside Kubernetes and the networks behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "selvedge.dev",
    version = "v1alpha1",
    kind = "Outpost",
    plural = "outposts",
    category = "selvedge",
    status = "OutpostStatus",
    derive = "PartialEq",
    doc = "A gateway outside Kubernetes and the networks behind it. Communities take it in like an edge node.",
    printcolumn(name = "Networks", type_ = "string", json_path = ".status.networks"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OutpostSpec {
    /// Networks behind the gateway that are reached through it.
    #[serde(deserialize_with = "prefixes")]
    #[schemars(schema_with = "schema::some_networks")]
    pub(crate) lan_prefixes: Vec<IpNet>,
    /// The gateway's own addresses outside those networks, to be reached by pods of its peers.
    #[serde(default)]
    #[schemars(schema_with = "schema::addresses")]
    pub(crate) addresses: Vec<IpAddr>,
    /// Where other edges can call it.
    #[serde(default)]
    #[schemars(schema_with = "schema::addresses")]
    pub(crate) public_addresses: Vec<IpAddr>,
    /// Whether it serves cluster IPs to its networks; else as `services.edge` of the Cluster says.
    #[serde(default, deserialize_with = "optional_word", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word::<ServiceMode>")]
    pub(crate) services: Option<ServiceMode>,
    /// Else as the Cluster says.
    #[serde(default, deserialize_with = "optional_word", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word::<DatapathMode>")]
    pub(crate) datapath: Option<DatapathMode>,
    /// Else as the Cluster says.
    #[serde(default, deserialize_with = "optional_word", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word::<FirewallBackend>")]
    pub(crate) firewall: Option<FirewallBackend>,
    /// It pays for every byte: its tunnels keep as quiet as they can.
    #[serde(default)]
    pub(crate) metered: bool,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OutpostStatus {
    /// `Ready`: it has a configuration.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub(crate) conditions: Vec<Condition>,
    /// Its name in the fabric, and in its certificate.
    pub(crate) name: String,
    /// Networks that its peers reach through it.
    pub(crate) networks: Vec<String>,
}

/// Reads an Outpost as the node that it is for the fabric: its networks take the place of pods'.
pub(super) fn node(value: &Value) -> Result<Node, FieldError> {
    let Labelled { metadata, spec } = typed::<Labelled<OutpostSpec>>(value)?;
    if spec.lan_prefixes.is_empty() {
        return Err(FieldError::new("spec.lanPrefixes", "is empty; there is nothing to reach through it"));
    }
    // What lies in its own networks is reached with them.
    let outside = |ip: &IpAddr| !spec.lan_prefixes.iter().any(|net| net.contains(ip));
    let internal_ips = spec.addresses.iter().copied().filter(outside).collect();
    Ok(Node {
        labels: metadata.labels.unwrap_or_default(),
        internal_ips,
        pod_cidrs: spec.lan_prefixes,
        public_addresses: spec.public_addresses,
        datapath: spec.datapath,
        firewall: spec.firewall,
        metered: spec.metered,
        outpost: Some(Outside { services: spec.services }),
        ..Node::default()
    })
}
