//! The certificates that have not ended, in the ConfigMaps `selvedge-issued-0` to `selvedge-issued-15`: more of them than
//! one can hold. Written only by compare-and-swap, and only those that differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::Mutex;

use super::failure::{Context, Failure};
use super::render::{MANAGER, labels};
use crate::core::issued::Issued;

const PARTS: usize = 16;
const KEY: &str = "issued.json";
/// Others may write at the same time, but not for ever.
const ATTEMPTS: u32 = 5;

/// Shared by all who issue certificates.
#[derive(Clone)]
pub(crate) struct Ledger {
    api: Api<ConfigMap>,
    known: Arc<Mutex<Option<Known>>>,
}

/// What is stored, as far as it is known here.
#[derive(Default)]
struct Known {
    issued: Issued,
    /// Each part's text and version, if it is there.
    parts: Vec<(String, Option<String>)>,
}

impl Ledger {
    pub(crate) fn new(api: Api<ConfigMap>) -> Ledger {
        Ledger { api, known: Arc::default() }
    }

    /// Another operator may have written.
    pub(super) async fn forget(&self) {
        *self.known.lock().await = None;
    }

    /// Changes it, and has the change stored before it returns all there is.
    pub(crate) async fn change(&self, change: impl Fn(&mut Issued)) -> Result<Issued, Failure> {
        let mut known = self.known.lock().await;
        for _ in 0..ATTEMPTS {
            let mut old = match known.take() {
                Some(old) => old,
                None => self.load().await?,
            };
            let mut issued = old.issued.clone();
            change(&mut issued);
            if self.store(&mut old, &issued).await? {
                old.issued = issued.clone();
                *known = Some(old);
                return Ok(issued);
            }
        }
        Err(Failure::new("issued certificates are written by somebody else at the same time"))
    }

    async fn load(&self) -> Result<Known, Failure> {
        let mut known = Known::default();
        for part in 0..PARTS {
            let name = name(part);
            let object = self.api.get_opt(&name).await.context(|| format!("ConfigMap {name}"))?;
            let (text, version) = match object {
                Some(object) => {
                    let text = object.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
                    (text, object.metadata.resource_version)
                }
                None => (String::new(), None),
            };
            if !text.is_empty() {
                let read = serde_json::from_str(&text);
                known.issued.merge(&read.map_err(|e| Failure::new(format!("ConfigMap {name}: {KEY}: {e}")))?);
            }
            known.parts.push((text, version));
        }
        Ok(known)
    }

    /// `false` if somebody else wrote in between.
    async fn store(&self, known: &mut Known, issued: &Issued) -> Result<bool, Failure> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        for (part, (issued, stored)) in issued.split(PARTS).iter().zip(&mut known.parts).enumerate() {
            let text = serde_json::to_string(issued).map_err(|e| Failure::new(e.to_string()))?;
            if text == stored.0 || (stored.1.is_none() && *issued == Issued::default()) {
                continue;
            }
            let name = name(part);
            let object = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels()),
                    resource_version: stored.1.clone(),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(KEY.to_owned(), text.clone())])),
                ..ConfigMap::default()
            };
            let written = match stored.1 {
                Some(_) => self.api.replace(&name, &params, &object).await,
                None => self.api.create(&params, &object).await,
            };
            match written {
                Ok(object) => *stored = (text, object.metadata.resource_version),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(false),
                Err(e) => return Err(e).context(|| format!("ConfigMap {name}")),
            }
        }
        Ok(true)
    }
}

fn name(part: usize) -> String {
    format!("selvedge-issued-{part}")
}
