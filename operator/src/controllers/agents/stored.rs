//! The ConfigMap `selvedge-rollout`: how rollouts of agents have gone. Written only by compare-and-swap.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tracing::warn;

use super::super::failure::{Context, Failure};
use super::super::render::labels;
use super::MANAGER;
use crate::core::fleet::Record;

const NAME: &str = "selvedge-rollout";
const KEY: &str = "rollout.json";

/// What is stored, and which version of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) record: Record,
    /// `None` if there is no such ConfigMap.
    version: Option<String>,
}

/// A record that cannot be read counts as none: then nothing is known to be healthy, and nothing is refused.
pub(super) async fn load(api: &Api<ConfigMap>) -> Result<Stored, Failure> {
    let Some(object) = api.get_opt(NAME).await.context(|| format!("ConfigMap {NAME}"))? else {
        return Ok(Stored::default());
    };
    let text = object.data.as_ref().and_then(|data| data.get(KEY)).map_or("{}", String::as_str);
    let record = serde_json::from_str(text).unwrap_or_else(|e| {
        warn!("ConfigMap {NAME}: {KEY}: {e}; begun anew");
        Record::default()
    });
    Ok(Stored { record, version: object.metadata.resource_version })
}

/// What is stored afterwards: something else if somebody else wrote in between.
pub(super) async fn save(api: &Api<ConfigMap>, old: &Stored, record: &Record) -> Result<Stored, Failure> {
    let text = serde_json::to_string(record).map_err(|e| Failure::new(e.to_string()))?;
    let object = ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(labels()),
            resource_version: old.version.clone(),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
        ..ConfigMap::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let written = match old.version {
        Some(_) => api.replace(NAME, &params, &object).await,
        None => api.create(&params, &object).await,
    };
    match written {
        Ok(object) => Ok(Stored { record: record.clone(), version: object.metadata.resource_version }),
        // Changed, made or removed by somebody else.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => load(api).await,
        Err(e) => Err(e).context(|| format!("ConfigMap {NAME}")),
    }
}
