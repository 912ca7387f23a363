use miniserde::{Deserialize, Serialize, json};

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

/// A kind of object that the node keeps, narrowed to what it needs.
pub trait Object: Sized + Eq {
    /// As API servers name a list of them.
    const LIST: &'static str;
    /// Path of all of them.
    const PATH: &'static str;

    /// The fields as they are written, all optional.
    type Raw: Deserialize + Serialize;

    /// What is left of it: `None` for an object that the node has no use for.
    fn narrow(raw: Self::Raw) -> Result<(Meta, Option<Self>), String>;

    /// What [`Object::narrow`] reads the same from.
    fn widen(&self, meta: &Meta) -> Self::Raw;

    /// Reads an object's text. An error comes with as much of its name as can be read.
    fn read(text: &str) -> Result<(Meta, Option<Self>), (Meta, String)> {
        let named = || json::from_str(text).map(|Named { metadata }| Meta::from(metadata)).unwrap_or_default();
        let Ok(raw) = json::from_str(text) else {
            let meta = named();
            let problem = format!("{}: a field has a wrong type", meta.show());
            return Err((meta, problem));
        };
        let (meta, object) = Self::narrow(raw).map_err(|problem| (named(), problem))?;
        if meta.key.1.is_empty() {
            return Err((meta, "an object has no name".to_owned()));
        }
        Ok((meta, object))
    }
}

#[derive(Deserialize)]
pub(crate) struct Named {
    pub(crate) metadata: Option<RawMeta>,
}

/// `metadata` of an object.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct RawMeta {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    #[serde(rename = "resourceVersion")]
    pub(crate) resource_version: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) labels: Option<Labels>,
}

/// The labels that matter.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    pub(crate) service_name: Option<String>,
}

impl Meta {
    /// `namespace/name`, for messages.
    pub fn show(&self) -> String {
        format!("{}/{}", self.key.0, self.key.1)
    }

    pub(crate) fn raw(&self) -> RawMeta {
        RawMeta {
            namespace: Some(self.key.0.clone()),
            name: Some(self.key.1.clone()),
            resource_version: Some(self.version.to_string()),
            uid: None,
            labels: None,
        }
    }
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
