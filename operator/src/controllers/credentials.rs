//! The certificate authorities, kept in the Secret `selvedge-ca`. Written only by compare-and-swap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tracing::info;

use super::failure::{Context, Failure};
use super::render::{MANAGER, labels};
use crate::authority::Authorities;

const NAME: &str = "selvedge-ca";

/// The authorities, and which version of the Secret they are.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) authorities: Arc<Authorities>,
    version: Option<String>,
}

impl Keys {
    /// A copy to be changed, and saved before it is used.
    pub(super) fn copy(&self) -> Result<Authorities, Failure> {
        self.authorities.keep().and_then(|kept| Authorities::load(&kept)).map_err(failed)
    }
}

/// The authorities that are there, or a new one. Of two operators that make one at once, both get the first.
pub(super) async fn load(
    api: &Api<Secret>,
    cluster: &str,
    wanted: Option<&str>,
    now: SystemTime,
) -> Result<Keys, Failure> {
    let about = || format!("Secret {NAME}");
    if let Some(secret) = api.get_opt(NAME).await.context(about)? {
        return read(&secret);
    }
    let authorities = Authorities::create(cluster, wanted, now).map_err(failed)?;
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &secret(&authorities, None)?).await {
        Ok(secret) => {
            info!("new certificate authority for {cluster}");
            read(&secret)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => read(&api.get(NAME).await.context(about)?),
        Err(e) => Err(e).context(about),
    }
}

/// Replaces what `old` was read from. Fails if somebody else did.
pub(super) async fn save(api: &Api<Secret>, old: &Keys, new: &Authorities) -> Result<Keys, Failure> {
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let written = api.replace(NAME, &params, &secret(new, old.version.clone())?).await;
    read(&written.context(|| format!("Secret {NAME}"))?)
}

fn secret(authorities: &Authorities, version: Option<String>) -> Result<Secret, Failure> {
    let kept = authorities.keep().map_err(failed)?;
    let data = kept.into_iter().map(|(name, text)| (name, ByteString(text.into_bytes())));
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(labels()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    })
}

fn read(secret: &Secret) -> Result<Keys, Failure> {
    let mut kept = BTreeMap::new();
    for (name, bytes) in secret.data.iter().flatten() {
        let text =
            std::str::from_utf8(&bytes.0).map_err(|_| Failure::new(format!("Secret {NAME}: {name} is no text")))?;
        kept.insert(name.clone(), text.to_owned());
    }
    let authorities = Authorities::load(&kept).map_err(failed)?;
    Ok(Keys { authorities: Arc::new(authorities), version: secret.metadata.resource_version.clone() })
}

fn failed(error: crate::authority::AuthorityError) -> Failure {
    Failure::new(format!("Secret {NAME}: {error}"))
}
