//! What must be known over a restart of the operator.

use serde::{Deserialize, Serialize};

use super::template::hash;
use crate::api::AgentSpec;

/// How rollouts have gone so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// What last worked on all nodes that were online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) healthy: Option<AgentSpec>,
    /// Revision of the settings whose rollout was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

/// What holds now.
pub(super) struct Effective<'a> {
    /// The settings that nodes without settings of their own should have.
    pub(super) spec: &'a AgentSpec,
    /// Whether the wanted settings were refused.
    pub(super) refused: bool,
}

impl Record {
    pub(super) fn effective<'a>(&'a self, wanted: &'a AgentSpec) -> Effective<'a> {
        let refused = self.refused.as_deref() == Some(&*settings(wanted));
        let spec = match &self.healthy {
            Some(healthy) if refused && wanted.rollout.rollback => healthy,
            _ => wanted,
        };
        Effective { spec, refused }
    }

    pub(super) fn is_healthy(&self, spec: &AgentSpec) -> bool {
        self.healthy.as_ref().is_some_and(|healthy| settings(healthy) == settings(spec))
    }
}

/// Revision of all that makes an agent what it is; how it is rolled out is no part of that.
pub(super) fn settings(spec: &AgentSpec) -> String {
    hash(&serde_json::json!(AgentSpec { rollout: crate::api::Rollout::default(), enabled: true, ..spec.clone() }))
}
