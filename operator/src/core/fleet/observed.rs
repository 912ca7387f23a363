//! What matters of a pod that is there.

use serde_json::Value;

use super::template::{Job, LABEL_JOB, LABEL_NAME, LABEL_REVISION, Program};

/// A pod of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) program: Program,
    pub(crate) job: Job,
    pub(crate) revision: String,
    pub(crate) phase: Phase,
    /// Condition `Ready`.
    pub(crate) ready: bool,
    /// It is to end.
    pub(crate) deleting: bool,
    /// Restarts of its container.
    pub(crate) restarts: u32,
    /// Why its container does not run, if Kubernetes calls it an error.
    pub(crate) trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// Reasons for which a container waits that are no errors.
const PATIENT: [&str; 2] = ["ContainerCreating", "PodInitializing"];

impl Pod {
    /// `None` for a pod that is none of ours or not on a node.
    pub(crate) fn read(value: &Value) -> Option<Pod> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let label = |name: &str| value.pointer("/metadata/labels")?.get(name)?.as_str();
        let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().any(|condition| {
            condition.get("type").and_then(Value::as_str) == Some("Ready")
                && condition.get("status").and_then(Value::as_str) == Some("True")
        });
        let container = value.pointer("/status/containerStatuses/0");
        let waiting = container.and_then(|c| c.pointer("/state/waiting"));
        let reason = waiting.and_then(|w| w.get("reason")).and_then(Value::as_str);
        let trouble = reason.filter(|reason| !PATIENT.contains(reason)).map(|reason| {
            let message = waiting.and_then(|w| w.get("message")).and_then(Value::as_str).unwrap_or_default();
            let first: String = message.lines().next().unwrap_or_default().chars().take(200).collect();
            if first.is_empty() { reason.to_owned() } else { format!("{reason}: {first}") }
        });
        Some(Pod {
            name: text("/metadata/name")?.to_owned(),
            uid: text("/metadata/uid")?.to_owned(),
            node: text("/spec/nodeName")?.to_owned(),
            program: Program::named(label(LABEL_NAME)?)?,
            job: Job::named(label(LABEL_JOB)?)?,
            revision: label(LABEL_REVISION).unwrap_or_default().to_owned(),
            phase: match text("/status/phase") {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                _ => Phase::Pending,
            },
            ready,
            deleting: text("/metadata/deletionTimestamp").is_some(),
            restarts: container
                .and_then(|c| c.get("restartCount"))
                .and_then(Value::as_u64)
                .and_then(|n| n.try_into().ok())
                .unwrap_or(0),
            trouble,
        })
    }

    /// Its container has ended for good.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}
