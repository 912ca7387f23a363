//! What is kept in ConfigMaps of our own, written only by compare-and-swap: of two operators at once one has to look again.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::{Context, Failure};
use super::render::{MANAGER, labels};
use crate::core::Allocations;
use crate::core::fleet::Record;

/// A value that has a ConfigMap to itself.
pub(super) trait Kept: Clone + Serialize + DeserializeOwned {
    /// Of the ConfigMap.
    const NAME: &str;
    const KEY: &str;
}

/// Who has which pod network: written before any configuration that carries a new one.
impl Kept for Allocations {
    const NAME: &str = "selvedge-allocations";
    const KEY: &str = "allocations.json";
}

/// How rollouts of agents have gone.
impl Kept for Record {
    const NAME: &str = "selvedge-rollout";
    const KEY: &str = "rollout.json";
}

/// What is stored, and which version of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored<T> {
    pub(super) value: T,
    /// `None` if there is no such ConfigMap.
    version: Option<String>,
}

impl<T: Kept> Stored<T> {
    /// What there is no ConfigMap of.
    pub(super) fn new(value: T) -> Self {
        Stored { value, version: None }
    }

    /// `None` if there is no such ConfigMap. `damaged` decides on one that cannot be read.
    pub(super) async fn load(
        api: &Api<ConfigMap>,
        damaged: impl FnOnce(Failure) -> Result<T, Failure>,
    ) -> Result<Option<Self>, Failure> {
        let Some((text, version)) = get(api, T::NAME, T::KEY).await? else { return Ok(None) };
        let value = serde_json::from_str(&text)
            .or_else(|e| damaged(Failure::new(format!("ConfigMap {}: {}: {e}", T::NAME, T::KEY))))?;
        Ok(Some(Stored { value, version }))
    }

    /// `None` if somebody else wrote in between: then all must be read and decided again.
    pub(super) async fn save(&self, api: &Api<ConfigMap>, value: &T) -> Result<Option<Self>, Failure> {
        let text = serde_json::to_string(value).map_err(|e| Failure::new(e.to_string()))?;
        let version = put(api, T::NAME, T::KEY, text, self.version.clone()).await?;
        Ok(version.map(|version| Stored { value: value.clone(), version: Some(version) }))
    }
}

/// Text, empty if there is none, and version; `None` if there is no such ConfigMap.
pub(super) async fn get(
    api: &Api<ConfigMap>,
    name: &str,
    key: &str,
) -> Result<Option<(String, Option<String>)>, Failure> {
    let object = api.get_opt(name).await.context(|| format!("ConfigMap {name}"))?;
    Ok(object.map(|object| {
        let text = object.data.and_then(|mut data| data.remove(key)).unwrap_or_default();
        (text, object.metadata.resource_version)
    }))
}

/// Replaces this version, or makes the ConfigMap, and says which version it is now. `None` if it was changed, made or
/// removed by somebody else.
pub(super) async fn put(
    api: &Api<ConfigMap>,
    name: &str,
    key: &str,
    text: String,
    version: Option<String>,
) -> Result<Option<String>, Failure> {
    let there = version.is_some();
    let object = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(key.to_owned(), text)])),
        ..ConfigMap::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let written = if there { api.replace(name, &params, &object).await } else { api.create(&params, &object).await };
    match written {
        Ok(object) => Ok(Some(object.metadata.resource_version.unwrap_or_default())),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(e) => Err(e).context(|| format!("ConfigMap {name}")),
    }
}
