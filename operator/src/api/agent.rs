//! How the operator runs agents as pods: `spec.agent` of `Cluster`, and what a node may have otherwise.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fields::Word;
use super::schema;

/// Agents run by the operator, one pod per node. Without it, nodes have their agents from packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AgentSpec {
    /// False: every agent that runs in a pod is removed, and its node cleaned.
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    /// Image of the agent, with tag or digest.
    #[schemars(length(min = 1))]
    pub(crate) image: String,
    /// Image of the connector, with tag or digest.
    #[schemars(length(min = 1))]
    pub(crate) connector_image: String,
    #[serde(default)]
    pub(crate) pull_policy: PullPolicy,
    /// Names of Secrets in the operator's namespace with which the images are pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pull_secrets: Vec<String>,
    /// Options of `run` beside those that the operator gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    /// How much is logged.
    #[serde(default)]
    pub(crate) log: LogLevel,
    /// Where the nodes' container runtime reads CNI networks.
    #[serde(default = "cni_dir")]
    #[schemars(regex(pattern = "^/"))]
    pub(crate) cni_dir: String,
    /// Resources of the agent instead of the operator's own figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    /// Resources of the connector instead of the operator's own figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connector_resources: Option<Resources>,
    #[serde(default)]
    pub(crate) rollout: Rollout,
}

/// As Kubernetes has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

/// As `RUST_LOG` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub(crate) fn word(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Quantities as Kubernetes writes them: `cpu: 10m`, `memory: 16Mi`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Resources {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) requests: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) limits: BTreeMap<String, String>,
}

/// How a change reaches the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Rollout {
    /// Nodes that may be without a settled agent at once: a number, or a share of the nodes that are online ("5%").
    pub(crate) max_unavailable: Share,
    /// So many nodes on which the new agent does not come up stop the rollout.
    #[schemars(schema_with = "schema::integer::<1, 1_000_000>")]
    pub(crate) max_failures: u32,
    /// No agent that works is replaced.
    pub(crate) paused: bool,
    /// A rollout that was stopped is taken back to what last worked everywhere.
    pub(crate) rollback: bool,
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout { max_unavailable: Share::Percent(5), max_failures: 3, paused: false, rollback: true }
    }
}

/// A number of nodes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Nodes(u32),
    Percent(u32),
}

impl Share {
    /// How many of `all`, rounded up.
    pub(crate) fn of(self, all: usize) -> usize {
        let nodes = match self {
            Share::Nodes(nodes) => nodes as usize,
            Share::Percent(percent) => all.saturating_mul(percent as usize).div_ceil(100),
        };
        nodes.max(1)
    }

    fn read(text: &str) -> Option<Share> {
        let percent: u32 = text.strip_suffix('%')?.parse().ok()?;
        (1..=100).contains(&percent).then_some(Share::Percent(percent))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Nodes(nodes) => write!(f, "{nodes}"),
            Share::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Share::Nodes(nodes) => serializer.serialize_u32(*nodes),
            Share::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(i64),
            Text(String),
        }
        let wrong = |what: &dyn fmt::Display| {
            D::Error::custom(format!(
                "{what} is neither a number of nodes from 1 on nor a share from \"1%\" to \"100%\""
            ))
        };
        match Raw::deserialize(deserializer)? {
            Raw::Number(number) => match u32::try_from(number) {
                Ok(nodes) if nodes > 0 => Ok(Share::Nodes(nodes)),
                _ => Err(wrong(&number)),
            },
            Raw::Text(text) => Share::read(&text).ok_or_else(|| wrong(&format_args!("\"{text}\""))),
        }
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            // The one form that definitions may have; each of the rest counts for its own type only.
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "pattern": "^([1-9][0-9]?|100)%$",
        })
    }
}

/// What the annotations of a node say of its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAgent {
    /// Annotation `selvedge.dev/agent`.
    pub(crate) mode: AgentMode,
    /// Annotation `selvedge.dev/agent-image`: this image instead of the cluster's.
    pub(crate) image: Option<String>,
    /// Annotation `selvedge.dev/agent-args`: options of `run`, after those of the cluster, separated by spaces.
    pub(crate) args: Vec<String>,
}

impl NodeAgent {
    /// Whether the node has something else than the cluster says.
    pub(crate) fn is_special(&self) -> bool {
        self.image.is_some() || !self.args.is_empty()
    }
}

/// Who runs the agent of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AgentMode {
    /// The operator, in a pod.
    #[default]
    Pod,
    /// Nobody: what a pod did to the node is cleaned up.
    Off,
    /// Somebody else, a package for example: no pod, and nothing is cleaned.
    External,
}

impl Word for AgentMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pod", AgentMode::Pod), ("off", AgentMode::Off), ("external", AgentMode::External)];
}

fn yes() -> bool {
    true
}

fn cni_dir() -> String {
    "/etc/cni/net.d".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_share_is_a_number_or_a_part_and_never_nothing() {
        let read = |value| serde_json::from_value::<Share>(value).map_err(|e| e.to_string());
        for (value, all, nodes) in [
            (json!(3), 100, 3),
            (json!("5%"), 100, 5),
            (json!("5%"), 101, 6),
            (json!("1%"), 0, 1),
            (json!("100%"), 7, 7),
        ] {
            let share = read(value.clone()).unwrap();
            assert_eq!(share.of(all), nodes, "{value} of {all}");
            assert_eq!(json!(share), value);
        }
        for value in [json!(0), json!(-1), json!("0%"), json!("101%"), json!("5"), json!("-5%"), json!("all")] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(&value.to_string()), "{error}");
        }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let spec: AgentSpec = serde_json::from_value(json!({"image": "a:1", "connectorImage": "c:1"})).unwrap();
        assert!(spec.enabled && spec.rollout.rollback && !spec.rollout.paused);
        assert_eq!((spec.pull_policy, spec.log), (PullPolicy::IfNotPresent, LogLevel::Info));
        assert_eq!(spec.rollout.max_unavailable.of(1000), 50);
    }
}
