//! What the statuses of our kinds have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// A condition as Kubernetes has it (`meta/v1` Condition).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    /// `Ready` or `Degraded`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True` or `False`.
    #[schemars(schema_with = "schema::condition_status")]
    pub(crate) status: String,
    /// One word in CamelCase.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// When `status` changed, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub(crate) last_transition_time: String,
    /// `metadata.generation` that this is about.
    pub(crate) observed_generation: i64,
}

impl Condition {
    /// Without a time: that is put in when the status is written.
    pub(crate) fn new(kind: &str, holds: bool, reason: &str, message: impl Into<String>, generation: i64) -> Self {
        Condition {
            kind: kind.to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: String::new(),
            observed_generation: generation,
        }
    }
}

/// Gives each condition the time since which it has its status.
pub(crate) fn date(conditions: &mut [Condition], previous: &[Condition], now: &str) {
    for condition in conditions {
        let before = previous.iter().find(|old| old.kind == condition.kind && old.status == condition.status);
        condition.last_transition_time = before.map_or(now, |old| &old.last_transition_time).to_owned();
    }
}
