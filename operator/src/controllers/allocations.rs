//! The ConfigMap `selvedge-allocations`: who has which pod network. Written only by compare-and-swap, before any
//! configuration that carries a new network.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::failure::{Context, Failure};
use super::render::{MANAGER, labels};
use crate::core::Allocations;
use crate::index::Written;

const NAME: &str = "selvedge-allocations";
const KEY: &str = "allocations.json";

/// What is stored, and which version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) allocations: Allocations,
    /// `None` if there is no such ConfigMap.
    version: Option<String>,
}

/// `None` if there is no such ConfigMap. One that cannot be read is an error: to go on would give networks twice.
pub(super) async fn load(api: &Api<ConfigMap>) -> Result<Option<Stored>, Failure> {
    let Some(object) = api.get_opt(NAME).await.context(|| format!("ConfigMap {NAME}"))? else { return Ok(None) };
    let text = object.data.as_ref().and_then(|data| data.get(KEY));
    let Some(text) = text else { return Err(Failure::new(format!("ConfigMap {NAME}: has no {KEY}"))) };
    let allocations = serde_json::from_str(text).map_err(|e| Failure::new(format!("ConfigMap {NAME}: {KEY}: {e}")))?;
    Ok(Some(Stored { allocations, version: object.metadata.resource_version }))
}

/// `None` if somebody else wrote in between: then all must be read and decided again.
pub(super) async fn save(
    api: &Api<ConfigMap>,
    old: &Stored,
    allocations: &Allocations,
) -> Result<Option<Stored>, Failure> {
    let text = serde_json::to_string(allocations).map_err(|e| Failure::new(e.to_string()))?;
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
        Ok(object) => Ok(Some(Stored { allocations: allocations.clone(), version: object.metadata.resource_version })),
        // Changed, made or removed by somebody else.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(e) => Err(e).context(|| format!("ConfigMap {NAME}")),
    }
}

/// What the nodes' configurations say, where nothing is stored: what is in use must not be given again.
pub(super) fn recovered(written: &Written) -> Stored {
    let networks = written.configs.iter().map(|((_, node), there)| (node.clone(), there.edge_networks.clone()));
    Stored { allocations: Allocations::of(networks), version: None }
}
