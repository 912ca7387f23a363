//! One-time tokens, kept in the Secrets `selvedge-enrol-<node>`; and who gives devices their certificates in a cluster.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};

use super::failure::{Context, Failure};
use super::ledger::Ledger;
use super::render::{MANAGER, labels};
use crate::api::dns_subdomain;
use crate::authority::{Certificate, fingerprint, seconds};
use crate::server::{Record, Registrar, RegistrarError, Token, Verdict};

const KEY: &str = "token.json";
/// Others may write at the same time, but not for ever.
const ATTEMPTS: u32 = 5;

/// Where a cluster keeps what devices need.
pub(crate) struct InCluster {
    pub(crate) secrets: Api<Secret>,
    pub(crate) ledger: Ledger,
}

impl Registrar for InCluster {
    async fn redeem(&self, node: &str, secret: &str, key: &str, now: u64) -> Result<bool, RegistrarError> {
        // The name becomes that of a Secret.
        if dns_subdomain(node).is_err() {
            return Ok(false);
        }
        let name = name(node);
        for _ in 0..ATTEMPTS {
            let Some(mut object) = self.secrets.get_opt(&name).await.context(|| format!("Secret {name}"))? else {
                return Ok(false);
            };
            let Some(data) = &mut object.data else { return Ok(false) };
            let Some(text) = data.get(KEY) else { return Ok(false) };
            let record: Record = serde_json::from_slice(&text.0)?;
            match record.redeem(secret, key, now) {
                Verdict::Refuse => return Ok(false),
                Verdict::Repeat => return Ok(true),
                Verdict::Spend(spent) => {
                    data.insert(KEY.to_owned(), ByteString(serde_json::to_vec(&spent)?));
                }
            }
            // With the version that was read: of two at once only one gets through.
            match self.secrets.replace(&name, &PostParams::default(), &object).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(e) => Err(e).context(|| format!("Secret {name}"))?,
            }
        }
        Err(format!("Secret {name}: is written by somebody else at the same time").into())
    }

    async fn record(&self, name: &str, certificate: &Certificate) -> Result<(), RegistrarError> {
        let until = seconds(certificate.validity.not_after);
        self.ledger.change(|issued| issued.record(name, certificate.serial, until, true)).await?;
        Ok(())
    }
}

/// Makes a token that is good until `expires`, in seconds since 1970. It replaces an earlier one of the same node.
pub(crate) async fn create(secrets: &Api<Secret>, server: &str, node: &str, expires: u64) -> Result<Token, Failure> {
    let ca = secrets.get("selvedge-ca").await.context(|| "Secret selvedge-ca".to_owned())?;
    let pem = ca.data.as_ref().and_then(|data| data.get("ca.crt")).map(|bytes| String::from_utf8_lossy(&bytes.0));
    let pin = fingerprint(&pem.unwrap_or_default()).map_err(|e| Failure::new(format!("Secret selvedge-ca: {e}")))?;
    let token = Token::create(server, &pin, node).map_err(|e| Failure::new(e.to_string()))?;
    let record = serde_json::to_vec(&token.record(expires)).map_err(|e| Failure::new(e.to_string()))?;
    let name = name(node);
    let object = Secret {
        metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels()), ..ObjectMeta::default() },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(record))])),
        ..Secret::default()
    };
    let params = PatchParams::apply(MANAGER).force();
    secrets.patch(&name, &params, &Patch::Apply(&object)).await.context(|| format!("Secret {name}"))?;
    Ok(token)
}

fn name(node: &str) -> String {
    format!("selvedge-enrol-{node}")
}
