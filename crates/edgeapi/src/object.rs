use std::fmt;

use miniserde::{Deserialize, json};

/// Namespace and name.
pub type Key = (String, String);

/// Which object it is, and which state of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace and name.
    pub key: Key,
    /// `resourceVersion`; 0 if it is none that can be compared.
    pub version: u64,
}

/// What is wrong in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `spec.clusterIPs`
    pub field: String,
    /// In words.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A kind of object that the node keeps, narrowed to what it needs.
pub trait Object: Sized + Eq {
    /// As API servers name a list of them.
    const LIST: &'static str;
    /// Path of all of them.
    const PATH: &'static str;

    /// The fields as they are written, all optional.
    type Raw: Deserialize;

    /// What is left of it: `None` for an object that the node has no use for.
    fn narrow(raw: Self::Raw) -> Result<(Meta, Option<Self>), Problem>;

    /// A few words without line breaks, for [`Object::restore`].
    fn keep(&self) -> String;

    /// The same object again.
    fn restore(text: &str) -> Option<Self>;

    /// Reads an object's text. An error comes with as much of its name as can be read.
    fn read(text: &str) -> Result<(Meta, Option<Self>), (Meta, String)> {
        let named = || {
            let named = json::from_str(text).map(|Named { metadata }| Meta::from(metadata)).unwrap_or_default();
            if named.check().is_ok() { named } else { Meta::default() }
        };
        let Ok(raw) = json::from_str(text) else {
            let meta = named();
            let problem = format!("{}: a field has a wrong type", meta.show());
            return Err((meta, problem));
        };
        let (meta, object) = Self::narrow(raw).map_err(|problem| {
            let meta = named();
            let text = format!("{}: {problem}", meta.show());
            (meta, text)
        })?;
        meta.check().map_err(|problem| (Meta::default(), problem))?;
        Ok((meta, object))
    }
}

#[derive(Deserialize)]
pub(crate) struct Named {
    pub(crate) metadata: Option<RawMeta>,
}

/// `metadata` of an object.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct RawMeta {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    #[serde(rename = "resourceVersion")]
    pub(crate) resource_version: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) labels: Option<Labels>,
    pub(crate) annotations: Option<Annotations>,
}

/// The labels that matter.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub(crate) struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    pub(crate) service_name: Option<String>,
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub(crate) proxy_name: Option<String>,
}

/// The annotations that matter.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub(crate) struct Annotations {
    #[serde(rename = "selvedge.dev/balance")]
    pub(crate) balance: Option<String>,
    #[serde(rename = "selvedge.dev/distribution")]
    pub(crate) distribution: Option<String>,
    #[serde(rename = "selvedge.dev/health-check")]
    pub(crate) health_check: Option<String>,
    #[serde(rename = "selvedge.dev/weights")]
    pub(crate) weights: Option<String>,
    #[serde(rename = "service.kubernetes.io/topology-mode")]
    pub(crate) topology_mode: Option<String>,
}

impl Meta {
    /// Names become parts of paths.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.key {
            (_, name) if name.is_empty() => Err("an object has no name".to_owned()),
            (namespace, name) if is_plain(namespace) && is_plain(name) => Ok(()),
            _ => Err("an object has an impossible name".to_owned()),
        }
    }

    /// `namespace/name`, for messages.
    pub fn show(&self) -> String {
        format!("{}/{}", self.key.0, self.key.1)
    }
}

/// Of letters, digits, `-`, `_` and `.`, as all names in Kubernetes are.
pub(crate) fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) && name != ".."
}

impl From<Option<RawMeta>> for Meta {
    fn from(raw: Option<RawMeta>) -> Self {
        let raw = raw.unwrap_or_default();
        Meta {
            key: (raw.namespace.unwrap_or_default(), raw.name.unwrap_or_default()),
            version: raw.resource_version.and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }
}
