//! The certificates that have not ended, in the ConfigMaps `selvedge-issued-0` to `selvedge-issued-15`: more of them than
//! one can hold. Written only by compare-and-swap, and only those that differ.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::sync::Mutex;

use super::failure::Failure;
use super::stored;
use crate::core::issued::Issued;
use crate::core::{Digest, digest};

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
    /// Of each part's text, and its version, if it is there.
    parts: Vec<(Digest, Option<String>)>,
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
            if issued == old.issued || self.store(&mut old, &issued).await? {
                old.issued.clone_from(&issued);
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
            let (text, version) = stored::get(&self.api, &name, KEY).await?.unwrap_or_default();
            if !text.is_empty() {
                let read = serde_json::from_str(&text);
                known.issued.merge(&read.map_err(|e| Failure::new(format!("ConfigMap {name}: {KEY}: {e}")))?);
            }
            known.parts.push((digest(text.as_bytes()), version));
        }
        Ok(known)
    }

    /// `false` if somebody else wrote in between.
    async fn store(&self, known: &mut Known, issued: &Issued) -> Result<bool, Failure> {
        for (part, (issued, stored)) in issued.split(PARTS).iter().zip(&mut known.parts).enumerate() {
            let text = serde_json::to_string(issued).map_err(|e| Failure::new(e.to_string()))?;
            let new = digest(text.as_bytes());
            if new == stored.0 || (stored.1.is_none() && *issued == Issued::default()) {
                continue;
            }
            match stored::put(&self.api, &name(part), KEY, text, stored.1.clone()).await? {
                Some(version) => *stored = (new, Some(version)),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn name(part: usize) -> String {
    format!("selvedge-issued-{part}")
}
