//! The part of a pass that writes: ConfigMaps and Secrets, many at a time.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use selvedge_model::NodeConfig;
use tracing::{info, warn};

use super::Controller;
use super::failure::{Context, Failure};
use super::pass::bounded;
use super::plan::{Action, Owned};
use super::render::{self, MANAGER};
use crate::api::CERTIFICATE_DAYS;
use crate::core::Output;
use crate::core::issued::Issued;
use crate::index::{self, WrittenConfig, key};
use crate::telemetry::Verb;

/// Writes at once.
pub(super) const PARALLEL: usize = 32;
/// Writes between two looks for something new.
const CHUNK: usize = 256;

/// What a write came to.
enum Done {
    Config(Box<Option<(index::Key, WrittenConfig)>>),
    /// With what is to be remembered of the certificate.
    Secret(Box<Option<(index::Key, index::WrittenSecret)>>, Issued),
    DeletedConfig(String),
    DeletedSecret(String),
}

impl Controller {
    /// Whether all was written. Ends early if there is something new, which the next pass looks at first, but not before it
    /// has written for as long as it took to compile: where everything changes all the time, most of it is written.
    pub(super) async fn write(&mut self, actions: Vec<Action>, output: Option<&Output<'_>>, least: Duration) -> bool {
        let mut issued = Issued::default();
        let written = self.write_all(actions, output, least, &mut issued).await;
        if issued == Issued::default() {
            return written;
        }
        // What is lost between finds the next pass in the Secrets.
        match bounded(self.around.ledger.change(|known| known.merge(&issued))).await {
            Ok(_) => written,
            Err(e) => {
                warn!("{e}");
                false
            }
        }
    }

    async fn write_all(
        &mut self,
        actions: Vec<Action>,
        output: Option<&Output<'_>>,
        least: Duration,
        issued: &mut Issued,
    ) -> bool {
        let start = Instant::now();
        let days = output.map_or(CERTIFICATE_DAYS, |output| output.certificate_days);
        let total = actions.len();
        let mut done = 0;
        let mut failed: Option<Failure> = None;
        let mut actions = actions.into_iter().peekable();
        while actions.peek().is_some() {
            let chunk: Vec<Action> = actions.by_ref().take(CHUNK).collect();
            let results: Vec<_> = stream::iter(&chunk)
                .map(|action| self.act(action, output, days))
                .buffer_unordered(PARALLEL)
                .collect()
                .await;
            for (action, result) in results {
                let (kind, verb, node) = action.words();
                self.around.metrics.written(kind, verb, result.is_ok());
                match result {
                    Ok(result) => {
                        done += 1;
                        self.refusals.remove(node);
                        if let Done::Secret(_, certificate) = &result {
                            issued.merge(certificate);
                        }
                        self.settle(result);
                    }
                    Err(e) => {
                        if e.is_refusal() {
                            self.refusals.insert(node.to_owned(), format!("cannot be given what it needs: {e}"));
                        }
                        failed = Some(e);
                    }
                }
            }
            if !self.leads() {
                return false;
            }
            if self.drain() && start.elapsed() >= least && actions.peek().is_some() {
                info!("{done} of {total} objects written; looking at what is new");
                return true;
            }
        }
        if let Some(e) = &failed {
            warn!("{} of {total} objects could not be written, for example {e}", total - done);
        } else if total > 0 {
            info!("{total} objects written");
        }
        failed.is_none()
    }

    async fn act<'a>(
        &self,
        action: &'a Action,
        output: Option<&Output<'_>>,
        days: u32,
    ) -> (&'a Action, Result<Done, Failure>) {
        let result = if self.leads() {
            bounded(self.try_act(action, output, days)).await
        } else {
            Err(Failure::new("another operator may write now"))
        };
        (action, result)
    }

    async fn try_act(&self, action: &Action, output: Option<&Output<'_>>, days: u32) -> Result<Done, Failure> {
        let client = self.around.client.clone();
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), &self.around.namespace);
        let secrets: Api<Secret> = Api::namespaced(client, &self.around.namespace);
        let apply = PatchParams::apply(MANAGER).force();
        match action {
            Action::Config(Owned { node, owner, content }) => {
                let Some(output) = output else { return Err(Failure::new("there is nothing to be written")) };
                let text = text(output, node, *content)?;
                let object = render::config_map(node, owner, &text).map_err(|e| Failure::new(e.to_string()))?;
                let name = render::name(node);
                let written = configs.patch(&name, &apply, &Patch::Apply(&object)).await;
                let written = written.context(|| format!("ConfigMap {name}"))?;
                Ok(Done::Config(Box::new(index::config(&written))))
            }
            Action::Secret(Owned { node, owner, content }) => {
                let (credentials, issued) = self.credentials(node, content, days)?;
                let object = render::secret(node, owner, &credentials);
                let name = render::name(node);
                let written = secrets.patch(&name, &apply, &Patch::Apply(&object)).await;
                let written = written.context(|| format!("Secret {name}"))?;
                info!("{node}: credentials {}", content.why);
                Ok(Done::Secret(Box::new(index::secret(&written)), issued))
            }
            Action::DeleteConfig(node) => {
                let name = render::name(node);
                gone(configs.delete(&name, &DeleteParams::default()).await).context(|| format!("ConfigMap {name}"))?;
                info!("{node}: removed");
                Ok(Done::DeletedConfig(node.clone()))
            }
            Action::DeleteSecret(node) => {
                let name = render::name(node);
                gone(secrets.delete(&name, &DeleteParams::default()).await).context(|| format!("Secret {name}"))?;
                Ok(Done::DeletedSecret(node.clone()))
            }
        }
    }

    /// Takes note of what was written, before the watch tells of it.
    fn settle(&mut self, done: Done) {
        match done {
            Done::Config(written) => {
                if let Some((key, written)) = *written {
                    self.written.configs.insert(key, written);
                }
            }
            Done::Secret(written, _) => {
                if let Some((key, written)) = *written {
                    self.written.secrets.insert(key, written);
                }
            }
            Done::DeletedConfig(node) => self.written.configs.remove(&key(&node)),
            Done::DeletedSecret(node) => self.written.secrets.remove(&key(&node)),
        }
    }
}

impl Action {
    /// What it is about, what becomes of that, and whose it is.
    pub(super) fn words(&self) -> (&'static str, Verb, &str) {
        match self {
            Action::Config(owned) => ("ConfigMap", Verb::Apply, &owned.node),
            Action::Secret(owned) => ("Secret", Verb::Apply, &owned.node),
            Action::DeleteConfig(node) => ("ConfigMap", Verb::Delete, node),
            Action::DeleteSecret(node) => ("Secret", Verb::Delete, node),
        }
    }
}

/// What is gone already is deleted.
pub(super) fn gone<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// As it was planned, where it was found to be right.
pub(super) fn text(output: &Output<'_>, node: &str, generation: u64) -> Result<String, Failure> {
    let Some(config) = output.config(node) else { return Err(Failure::new(format!("{node} has no configuration"))) };
    serde_json::to_string(&NodeConfig { generation, ..config }).map_err(|e| Failure::new(format!("{node}: {e}")))
}
