//! The certificate authority, kept in the Secret `selvedge-ca`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tracing::info;

use super::failure::{Context, Failure};
use super::render::{MANAGER, labels};
use crate::authority::Authority;

const NAME: &str = "selvedge-ca";

/// The authority that is there, or a new one. Of two operators that make one at once, both get the first.
pub(super) async fn authority(api: &Api<Secret>, cluster: &str, now: SystemTime) -> Result<Authority, Failure> {
    let about = || format!("Secret {NAME}");
    if let Some(secret) = api.get_opt(NAME).await.context(about)? {
        return read(&secret);
    }
    let (authority, key) = Authority::create(cluster, now).map_err(|e| Failure::new(format!("{}: {e}", about())))?;
    let data = [("ca.crt", authority.pem().to_owned()), ("ca.key", key)];
    let data = data.map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes())));
    let secret = Secret {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels()), ..ObjectMeta::default() },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from(data)),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &secret).await {
        Ok(_) => {
            info!("new certificate authority for {cluster}");
            Ok(authority)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => read(&api.get(NAME).await.context(about)?),
        Err(e) => Err(e).context(about),
    }
}

fn read(secret: &Secret) -> Result<Authority, Failure> {
    let part = |name: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(name));
        let text = bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
        text.ok_or_else(|| Failure::new(format!("Secret {NAME}: has no {name}")))
    };
    Authority::load(part("ca.crt")?, part("ca.key")?).map_err(|e| Failure::new(format!("Secret {NAME}: {e}")))
}
