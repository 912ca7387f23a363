//! What edge gateways need besides configurations: certificates in the Secrets of their nodes, and statuses of what they are
//! made of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::Controller;
use super::failure::{Context, Failure};
use super::pass::bounded;
use super::render::name;
use super::write::PARALLEL;
use crate::api::{Condition, date};
use crate::core::Output;
use crate::core::gateway::{CONTROLLER, Certificate, Certificates, SecretName, Status, StatusContent};
use crate::index::{Kind, key, resource};
use crate::telemetry::Verb;

/// Another writer than that of the credentials: each changes only its own keys of a Secret.
const MANAGER: &str = "selvedge-operator-gateway";

/// Key of a node's Secret.
const KEY: &str = "gateway.pem";

/// Secrets of others are not watched, only those that are named are read.
const LOOK: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct EdgeGateways {
    pub(super) certificates: Certificates,
    read_at: Option<SystemTime>,
    /// What nodes were given, and the version of the Secret that followed.
    given: BTreeMap<String, (String, u64)>,
}

impl EdgeGateways {
    /// Another one may have written meanwhile.
    pub(super) fn forget(&mut self) {
        self.given.clear();
    }

    /// When to look again for new certificates.
    pub(super) fn look_again(&self, now: SystemTime) -> Option<SystemTime> {
        (!self.certificates.is_empty()).then(|| now + LOOK)
    }

    /// Reads what is named, if that was not done a moment ago. True if anything is new.
    pub(super) async fn read(&mut self, client: &Client, named: BTreeSet<SecretName>) -> Result<bool, Failure> {
        let known = named.len() == self.certificates.len() && named.iter().all(|n| self.certificates.contains_key(n));
        let now = SystemTime::now();
        let fresh = self.read_at.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age < LOOK));
        if known && (fresh || named.is_empty()) {
            return Ok(false);
        }
        let mut certificates = Certificates::new();
        for secret in named {
            let api: Api<Secret> = Api::namespaced(client.clone(), &secret.0);
            let read = match api.get_opt(&secret.1).await {
                Ok(Some(found)) => certificate(&found),
                Ok(None) => Err("does not exist".to_owned()),
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    Err("may not be read by the operator".to_owned())
                }
                Err(error) => Err(error).context(|| format!("Secret {}/{}", secret.0, secret.1))?,
            };
            certificates.insert(secret, read);
        }
        self.read_at = Some(now);
        let news = certificates != self.certificates;
        self.certificates = certificates;
        Ok(news)
    }
}

fn certificate(secret: &Secret) -> Result<Certificate, String> {
    Certificate::read(|name| {
        let bytes = &secret.data.as_ref()?.get(name)?.0;
        String::from_utf8(bytes.clone()).ok()
    })
}

impl Controller {
    /// Brings the certificates of gateways into the Secrets of their nodes. True if all have theirs.
    pub(super) async fn equip_gateways(&mut self, output: Option<&Output<'_>>) -> bool {
        let Some(output) = output.filter(|_| self.leads()) else { return true };
        let secrets: Api<Secret> = Api::namespaced(self.around.client.clone(), &self.around.namespace);
        let with = output.gateways().secrets.keys();
        let nodes: BTreeSet<String> = with.chain(self.gateways.given.keys()).cloned().collect();
        let mut good = true;
        for node in nodes {
            let text = output.gateways().bundle(&node, &self.gateways.certificates);
            // It goes with the credentials: they come first.
            let Some(there) = self.written.secrets.get(&key(&node)) else {
                self.gateways.given.remove(&node);
                continue;
            };
            let before = self.gateways.given.get(&node);
            if before.is_some_and(|(given, version)| *given == text && there.version <= *version) {
                continue;
            }
            // What is applied as `stringData` would stay in `data` when it is no longer applied.
            let (params, patch) = if text.is_empty() {
                let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                (params, Patch::Merge(json!({"data": {KEY: null}})))
            } else {
                let data = json!({KEY: ByteString(text.clone().into_bytes())});
                let metadata = json!({"name": name(&node)});
                let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
                (PatchParams::apply(MANAGER).force(), Patch::Apply(secret))
            };
            let about = || format!("certificates of gateways on {node}");
            let applied = bounded(async { secrets.patch(&name(&node), &params, &patch).await.context(about) });
            let applied = applied.await;
            self.around.metrics.written("secret", Verb::Apply, applied.is_ok());
            match applied {
                Ok(secret) => {
                    info!("certificates of gateways sent to {node}");
                    let version = secret.metadata.resource_version.and_then(|v| v.parse().ok()).unwrap_or_default();
                    self.gateways.given.insert(node, (text, version));
                }
                Err(error) => {
                    warn!("{error}");
                    good = false;
                }
            }
        }
        good
    }

    /// Writes the statuses of what gateways are made of. True if all are written.
    pub(super) async fn say_gateways(&mut self, output: Option<&Output<'_>>) -> bool {
        let Some(output) = output.filter(|_| self.leads()) else { return true };
        let now = format!("{:.0}", Timestamp::now());
        let mut updates = Vec::new();
        for status in &output.gateways().statuses {
            let Some(seen) = self.objects.gateway(status.kind, &status.namespace, &status.name) else { continue };
            let resource = resource(Kind::Gateway(status.kind), &seen.version);
            updates.extend(render(status, &seen.status, &now).map(|new| (status, resource, new)));
        }
        let put = |(status, resource, new): (&Status, ApiResource, Value)| {
            let (client, status) = (self.around.client.clone(), status.clone());
            async move {
                let api: Api<DynamicObject> = match status.namespace.is_empty() {
                    true => Api::all_with(client, &resource),
                    false => Api::namespaced_with(client, &status.namespace, &resource),
                };
                let patch = Patch::Merge(json!({"status": new}));
                let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                let about = || format!("status of {} {}/{}", status.kind.title(), status.namespace, status.name);
                let written =
                    bounded(async { api.patch_status(&status.name, &params, &patch).await.context(about) }).await;
                (status, new, written.map(drop))
            }
        };
        let results: Vec<_> = stream::iter(updates).map(put).buffer_unordered(PARALLEL).collect().await;
        let mut good = true;
        for (status, new, result) in results {
            self.around.metrics.written("status", Verb::Apply, result.is_ok());
            match result {
                Ok(()) => self.objects.set_status(Kind::Gateway(status.kind), &status.namespace, &status.name, new),
                Err(error) => {
                    warn!("{error}");
                    good = false;
                }
            }
        }
        good
    }
}

/// The status if it is new. What others say of the same object stays.
fn render(status: &Status, old: &Value, now: &str) -> Option<Value> {
    let mut new = if old.is_object() { old.clone() } else { json!({}) };
    match &status.content {
        StatusContent::Conditions(conditions) => new["conditions"] = merged(conditions, &old["conditions"], now),
        StatusContent::Gateway { conditions, listeners, addresses } => {
            new["conditions"] = merged(conditions, &old["conditions"], now);
            let before = |name: &str| {
                let all = old["listeners"].as_array().into_iter().flatten();
                all.into_iter().find(|l| l["name"] == name).map_or(Value::Null, |l| l["conditions"].clone())
            };
            let group = status.kind.group();
            let listeners = listeners.iter().map(|listener| {
                let kinds: Vec<Value> =
                    listener.kinds.iter().map(|kind| json!({"group": group, "kind": kind})).collect();
                json!({
                    "name": listener.name, "supportedKinds": kinds, "attachedRoutes": listener.routes,
                    "conditions": merged(&listener.conditions, &before(&listener.name), now),
                })
            });
            new["listeners"] = listeners.collect();
            new["addresses"] = addresses.iter().map(|a| json!({"type": "IPAddress", "value": a})).collect();
        }
        StatusContent::Parents(parents) => {
            let all: Vec<&Value> = old["parents"].as_array().into_iter().flatten().collect();
            let (ours, theirs): (Vec<&Value>, Vec<&Value>) =
                all.into_iter().partition(|p| p["controllerName"] == CONTROLLER);
            let mut list: Vec<Value> = theirs.into_iter().cloned().collect();
            for (reference, conditions) in parents {
                let before =
                    ours.iter().find(|p| p["parentRef"] == *reference).map_or(Value::Null, |p| p["conditions"].clone());
                let conditions = merged(conditions, &before, now);
                list.push(json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions}));
            }
            new["parents"] = list.into();
        }
    }
    (new != *old).then_some(new)
}

/// Ours with their dates, and behind them those of kinds that are not ours.
fn merged(conditions: &[Condition], old: &Value, now: &str) -> Value {
    let known: Vec<Condition> = serde_json::from_value(old.clone()).unwrap_or_default();
    let mut dated = conditions.to_vec();
    date(&mut dated, &known, now);
    let others = old.as_array().into_iter().flatten();
    let others =
        others.filter(|c| !dated.iter().any(|ours| c["type"] == *ours.kind) && c["type"] != "PartiallyInvalid");
    let ours = dated.iter().map(|condition| serde_json::to_value(condition).unwrap_or_default());
    ours.chain(others.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::GatewayKind;

    fn said(content: StatusContent) -> Status {
        Status { kind: GatewayKind::HttpRoute, namespace: "a".to_owned(), name: "b".to_owned(), content }
    }

    #[test]
    fn what_others_say_stays_and_what_stays_keeps_its_date() {
        let parent = json!({"name": "gate"});
        let accepted = |holds| vec![Condition::new("Accepted", holds, "Why", "words", 3)];
        let theirs = json!({"controllerName": "other", "parentRef": {"name": "x"}});
        let status = said(StatusContent::Parents(vec![(parent.clone(), accepted(true))]));
        let first = render(&status, &json!({"parents": [theirs]}), "monday").expect("new");
        assert_eq!(first["parents"][0], theirs);
        assert_eq!(first["parents"][1]["conditions"][0]["lastTransitionTime"], "monday");
        assert_eq!(render(&status, &first, "tuesday"), None);
        let status = said(StatusContent::Parents(vec![(parent, accepted(false))]));
        let second = render(&status, &first, "tuesday").expect("changed");
        assert_eq!(second["parents"][1]["conditions"][0]["lastTransitionTime"], "tuesday");
        assert_eq!(second["parents"].as_array().map(Vec::len), Some(2));
        let status = said(StatusContent::Conditions(accepted(true)));
        let third = render(&status, &json!({"conditions": [{"type": "Programmed"}]}), "monday").expect("new");
        assert_eq!(third["conditions"][1], json!({"type": "Programmed"}));
    }
}
