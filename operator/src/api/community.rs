//! `Community` of `selvedge.dev/v1alpha1`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::selector::LabelSelector;
use super::status::Condition;

/// Edge nodes with tunnels to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "selvedge.dev",
    version = "v1alpha1",
    kind = "Community",
    plural = "communities",
    category = "selvedge",
    status = "CommunityStatus",
    derive = "PartialEq",
    doc = "Edge nodes with tunnels to each other: those named, and those selected by their labels.",
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Degraded\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CommunitySpec {
    /// `<cluster>.<node>`.
    #[serde(default)]
    #[schemars(schema_with = "schema::fabric_names")]
    pub(crate) members: Vec<String>,
    /// Edge nodes and Outposts of the own cluster, by their labels; one without any requirement takes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) selector: Option<LabelSelector>,
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CommunityStatus {
    /// `Ready`: in force. `Degraded`: some member is not joined, the others are.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub(crate) conditions: Vec<Condition>,
    /// Edge nodes that are joined.
    #[schemars(schema_with = "schema::count")]
    pub(crate) members: u32,
}
