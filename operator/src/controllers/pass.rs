//! One pass: compile, write the differences, say what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use selvedge_model::{Role, ServiceMode, ServiceSource};
use serde_json::json;
use tracing::{info, warn};

use super::agents::Wanted;
use super::credentials::Keys;
use super::failure::{Context, Failure};
use super::plan::{self, Action, Owned, Plan, Reason};
use super::render::{self, MANAGER};
use super::status::{self, Update};
use super::{Controller, allocations, credentials, events, ip_pools, until};
use crate::api::CERTIFICATE_DAYS;
use crate::authority::{Authorities, Credentials, Everybody, seconds};
use crate::core::fleet::NodeView;
use crate::core::issued::Issued;
use crate::core::rotation::Phase;
use crate::core::{Memory, Output, Problem, Severity, compile, encode};
use crate::index::{self, WrittenConfig, key, resource};
use crate::server::{Common, Entry};
use crate::telemetry::{Verb, metrics};

/// Writes at once.
pub(super) const PARALLEL: usize = 32;
/// Writes between two looks for something new.
const CHUNK: usize = 256;
/// For one write.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Between looks for devices while authorities change.
const LOOK: Duration = Duration::from_secs(30);

/// How a pass went.
struct Outcome {
    success: bool,
    renewal: Option<SystemTime>,
}

/// What a write came to.
enum Done {
    Config(Box<Option<(index::Key, WrittenConfig)>>),
    /// With what is to be remembered of the certificate.
    Secret(Box<Option<(index::Key, index::WrittenSecret)>>, Issued),
    DeletedConfig(String),
    DeletedSecret(String),
}

impl Controller {
    /// Makes everything as it should be, as far as that can be done now.
    pub(super) async fn pass(&mut self) {
        let start = Instant::now();
        self.schedule.since = None;
        let (success, wake) = match self.try_pass().await {
            Ok(outcome) => (outcome.success, until(outcome.renewal, SystemTime::now())),
            Err(e) => {
                warn!("{e}; all stays as it is");
                (false, Duration::ZERO)
            }
        };
        self.around.metrics.pass(start.elapsed());
        self.schedule.pass(tokio::time::Instant::now(), success, wake);
    }

    async fn try_pass(&mut self) -> Result<Outcome, Failure> {
        let (client, namespace) = (self.around.client.clone(), self.around.namespace.clone());
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        if self.stored.is_none() {
            let stored = bounded(allocations::load(&configs)).await?;
            self.stored = Some(stored.unwrap_or_else(|| allocations::recovered(&self.written)));
        }
        let Some(stored) = self.stored.clone() else { return Err(Failure::new("pod networks were not read")) };

        let start = Instant::now();
        let (state, mut problems) = self.objects.state();
        let memory = Memory {
            allocations: stored.allocations.clone(),
            incumbents: self.written.configs.iter().map(|((_, node), _)| node.clone()).collect(),
            complete: self.objects.shows_all_nodes(),
            certificates: self.gateways.certificates.clone(),
        };
        let mut compiled = compile(&state, &self.around.options, &memory);
        let named = compiled.output.as_ref().map(|output| output.gateways.named.clone()).unwrap_or_default();
        if bounded(self.gateways.read(&client, named)).await? {
            let memory = Memory { certificates: self.gateways.certificates.clone(), ..memory };
            compiled = compile(&state, &self.around.options, &memory);
        }
        drop(state);
        problems.extend(compiled.problems);
        let mut output = compiled.output;
        let mut plan = Plan::default();
        if let Some(output) = &mut output {
            plan::configurations(output, &self.objects, &self.written, &mut plan);
            plan::remains(&self.objects, &self.written, &mut plan);
        }
        let spent = start.elapsed();
        self.around.metrics.compiled(spent);

        if let Some(output) = &output {
            // Before any configuration carries them: neither a crash nor a second operator may give a network twice.
            if output.allocations != stored.allocations {
                self.stored = bounded(allocations::save(&configs, &stored, &output.allocations)).await?;
                if self.stored.is_none() {
                    return Err(Failure::new("pod networks were given out by another operator at the same time"));
                }
            }
        }
        self.sign(output.as_ref(), &mut plan).await?;
        problems.append(&mut plan.problems);
        // Who needs nothing any more is refused nothing.
        let wanting: BTreeSet<&str> = plan.actions.iter().map(|action| action.words().2).collect();
        self.refusals.retain(|node, _| wanting.contains(node.as_str()));
        drop(wanting);
        let written = self.write(plan.actions, output.as_ref(), spent).await;
        let success = self.keep_untranslated(output.as_ref()).await && written;
        let success = self.equip_gateways(output.as_ref()).await && success;
        let refused = self.refusals.iter().filter_map(|(node, message)| {
            let reference = &self.objects.node(node)?.reference;
            Some(Problem::error(reference, "", message.clone()))
        });
        problems.extend(refused);
        for (node, why) in &self.around.agents.borrow().failing {
            let Some(seen) = self.objects.node(node) else { continue };
            problems.push(Problem::warning(&seen.reference, "", format!("its agent does not come up: {why}")));
        }
        problems.sort();
        self.measure(output.as_ref(), &problems, plan.longest, plan.renewal);
        let said = self.say(output.as_ref(), &problems).await;
        let said = self.say_gateways(output.as_ref()).await && said;
        let renewal = plan.renewal.into_iter().chain(self.gateways.look_again(SystemTime::now())).min();
        self.equip(output.as_ref());
        if let Some(output) = &output {
            self.publish(output)?;
        }
        Ok(Outcome { success: success && said, renewal })
    }

    /// Whether Calico has the pools it should.
    async fn keep_untranslated(&mut self, output: Option<&Output>) -> bool {
        let Some(Output { ip_pools: wanted, .. }) = output else { return true };
        if self.ip_pools.as_ref() == Some(wanted) || !self.leads() {
            return true;
        }
        if let Err(e) = bounded(ip_pools::sync(&self.around.client, wanted, &self.around.metrics)).await {
            warn!("{e}");
            return false;
        }
        self.ip_pools = Some(wanted.clone());
        true
    }

    /// Plans the credentials, and goes on with the change of authorities and with revocations.
    async fn sign(&mut self, output: Option<&Output>, plan: &mut Plan) -> Result<(), Failure> {
        let now = SystemTime::now();
        let nothing = Output { certificate_days: CERTIFICATE_DAYS, ..Output::default() };
        let secrets: Api<Secret> = Api::namespaced(self.around.client.clone(), &self.around.namespace);
        if self.keys.is_none() {
            // Without any node there is nobody to sign for.
            let Some(output) = output else { return Ok(()) };
            let wanted = output.authority.rotate.as_deref();
            self.keys = Some(bounded(credentials::load(&secrets, &output.cluster, wanted, now)).await?);
            self.checks.forget();
            self.around.ledger.forget().await;
        }
        let Some(keys) = self.keys.clone() else { return Ok(()) };
        let Some(output) = output else {
            let mut issued = Issued::default();
            self.plan_credentials(&nothing, &keys.authorities, &mut issued, now, plan);
            return Ok(());
        };
        let settings = &output.authority;
        let revoke = |issued: &mut Issued| issued.revoke(&settings.revoked, seconds(now));
        let mut issued = bounded(self.around.ledger.change(revoke)).await?;
        let mut authorities = keys.copy()?;
        if authorities.revoke(issued.revoked(), now).map_err(|e| Failure::new(e.to_string()))? {
            info!("{} certificates are revoked", issued.revoked().len());
            self.replace(&secrets, &keys, &authorities).await?;
        }
        let Some(keys) = self.keys.clone() else { return Ok(()) };
        self.plan_credentials(output, &keys.authorities, &mut issued, now, plan);
        bounded(self.around.ledger.change(|known| known.merge(&issued))).await?;

        // Nobody lacks anything: all have what the last step brought.
        let served = !plan.actions.iter().any(|action| matches!(action, Action::Secret(_)));
        let mut everybody = Everybody { trusted: served, replaced: served };
        let devices: Vec<&String> = issued.devices(seconds(now)).collect();
        if !devices.is_empty() {
            let seen = self.around.server.as_ref().map(|server| server.everybody(devices.into_iter()));
            everybody.trusted &= seen.is_some_and(|seen| seen.trusted);
            everybody.replaced &= seen.is_some_and(|seen| seen.replaced);
        }
        let mut authorities = keys.copy()?;
        let before = authorities.phase();
        let (step, wake) = authorities
            .advance(&output.cluster, settings.rotate.as_deref(), settings.grace, &everybody, now)
            .map_err(|e| Failure::new(e.to_string()))?;
        if before != authorities.phase() {
            self.replace(&secrets, &keys, &authorities).await?;
        }
        let wake = match step {
            Some(step) => {
                info!("{step}");
                Some(now)
            }
            // Devices are seen at any time.
            None if authorities.phase() != Phase::Steady => Some(wake.map_or(now + LOOK, |wake| wake.min(now + LOOK))),
            None => wake,
        };
        plan.renewal = plan.renewal.into_iter().chain(wake).min();
        Ok(())
    }

    fn plan_credentials(
        &mut self,
        output: &Output,
        authorities: &Authorities,
        issued: &mut Issued,
        now: SystemTime,
        plan: &mut Plan,
    ) {
        let enrols = self.around.server.is_some();
        let (objects, written, checks) = (&self.objects, &self.written, &mut self.checks);
        plan::credentials(output, enrols, objects, written, authorities, issued, checks, now, plan);
    }

    /// Keeps changed authorities before they are used.
    async fn replace(&mut self, secrets: &Api<Secret>, old: &Keys, new: &Authorities) -> Result<(), Failure> {
        self.checks.forget();
        // If somebody else has changed them, they are read again.
        self.keys = None;
        self.keys = Some(bounded(credentials::save(secrets, old, new)).await?);
        Ok(())
    }

    /// What devices are answered from now on. Nodes of the cluster have ConfigMap and Secret.
    fn publish(&self, output: &Output) -> Result<(), Failure> {
        let (Some(server), Some(keys)) = (&self.around.server, &self.keys) else { return Ok(()) };
        let mut entries = BTreeMap::new();
        let outpost = |node: &str| self.objects.node(node).is_some_and(|seen| seen.reference.kind == "Outpost");
        for config in output.nodes.values().filter(|config| outpost(&config.node)) {
            // What cannot be sent was said when the ConfigMap was planned.
            let Ok(text) = encode(config) else { continue };
            entries.insert(config.name.clone(), Entry { node: config.node.clone(), config: text });
        }
        let kept = self.written.configs.iter().filter(|((_, node), _)| outpost(node));
        let kept = kept.map(|(_, there)| there.name.clone()).collect();
        let common = Common {
            authorities: Arc::clone(&keys.authorities),
            days: output.certificate_days,
            revoked: output.authority.revoked.clone(),
        };
        server.publish(common, entries, &kept, SystemTime::now()).map_err(|e| Failure::new(e.to_string()))
    }

    /// Whether all was written. Ends early if there is something new, which the next pass looks at first, but not before it
    /// has written for as long as it took to compile: where everything changes all the time, most of it is written.
    async fn write(&mut self, actions: Vec<Action>, output: Option<&Output>, least: Duration) -> bool {
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
        output: Option<&Output>,
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
            let results: Vec<_> =
                stream::iter(&chunk).map(|action| self.act(action, days)).buffer_unordered(PARALLEL).collect().await;
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

    async fn act<'a>(&self, action: &'a Action, days: u32) -> (&'a Action, Result<Done, Failure>) {
        let result = if self.leads() {
            bounded(self.try_act(action, days)).await
        } else {
            Err(Failure::new("another operator may write now"))
        };
        (action, result)
    }

    async fn try_act(&self, action: &Action, days: u32) -> Result<Done, Failure> {
        let client = self.around.client.clone();
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), &self.around.namespace);
        let secrets: Api<Secret> = Api::namespaced(client, &self.around.namespace);
        let apply = PatchParams::apply(MANAGER).force();
        match action {
            Action::Config(Owned { node, owner, content }) => {
                let object = render::config_map(node, owner, content);
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

    fn credentials(&self, node: &str, reason: &Reason, days: u32) -> Result<(Credentials, Issued), Failure> {
        let Some(keys) = &self.keys else { return Err(Failure::new("there is no certificate authority")) };
        let there = self.written.secrets.get(&key(node)).and_then(|there| there.credentials.as_ref());
        if let Some(there) = there.filter(|_| reason.keep) {
            return Ok((keys.authorities.current(there), Issued::default()));
        }
        let mut issued = Issued::default();
        let made = keys.authorities.issue(&reason.name, &mut issued, SystemTime::now(), days);
        made.map(|(made, _)| (made, issued)).map_err(|e| Failure::new(format!("{node}: {e}")))
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

    /// Statuses and Events. Whether the statuses could be written.
    async fn say(&mut self, output: Option<&Output>, problems: &[Problem]) -> bool {
        let now = Timestamp::now();
        let client = self.around.client.clone();
        let events = self.told.news(problems, &self.objects, now);
        let send = |event| {
            let client = client.clone();
            async move {
                let _ = tokio::time::timeout(PATIENCE, events::send(&client, event)).await;
            }
        };
        stream::iter(events).map(send).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;

        let updates =
            status::updates(&self.objects, output, &self.around.agents.borrow(), problems, &format!("{now:.0}"));
        let put = |update: Update| {
            let client = client.clone();
            async move {
                let api: Api<DynamicObject> = Api::all_with(client, &resource(update.kind));
                let patch = Patch::Merge(json!({"status": update.status}));
                let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                let about = || format!("status of {} {}", update.kind.name(), update.name);
                let written =
                    bounded(async { api.patch_status(&update.name, &params, &patch).await.context(about) }).await;
                (update, written.map(drop))
            }
        };
        let results: Vec<_> = stream::iter(updates).map(put).buffer_unordered(PARALLEL).collect().await;
        let mut success = true;
        for (update, result) in results {
            self.around.metrics.written("status", Verb::Apply, result.is_ok());
            match result {
                Ok(()) => self.objects.set_status(update.kind, "", &update.name, update.status),
                Err(e) => {
                    warn!("{e}");
                    success = false;
                }
            }
        }
        success
    }

    /// Tells which nodes are to have agents: those whose configuration and credentials are there.
    fn equip(&self, output: Option<&Output>) {
        let Some(output) = output else { return };
        let spec = self.objects.cluster(&output.cluster).and_then(|cluster| cluster.agent.clone());
        let mut nodes = BTreeMap::new();
        for (name, config) in &output.nodes {
            let Some((uid, node)) = self.objects.kubernetes_node(name) else { continue };
            let Some(there) = self.written.configs.get(&key(name)).filter(|there| there.owner == uid) else { continue };
            if self.written.secrets.get(&key(name)).is_none() {
                continue;
            }
            let serves = config.services.mode != ServiceMode::Off || config.gateway.is_some();
            let view = NodeView {
                uid: uid.to_owned(),
                role: config.role,
                online: node.online,
                agent: node.agent.clone(),
                marked: there.marked,
                token: serves && config.services.source == ServiceSource::Api,
            };
            nodes.insert(name.clone(), view);
        }
        let wanted = Some(Wanted { spec, nodes });
        self.around.wanted.send_if_modified(|old| {
            let news = *old != wanted;
            *old = wanted;
            news
        });
    }

    fn measure(&self, output: Option<&Output>, problems: &[Problem], longest: usize, renewal: Option<SystemTime>) {
        let metrics = &self.around.metrics;
        let configs = || output.iter().flat_map(|output| output.nodes.values());
        for (role, word) in [(Role::Edge, "edge"), (Role::Connector, "connector"), (Role::Cloud, "cloud")] {
            let count = configs().filter(|config| config.role == role).count();
            metrics.nodes.get_or_create(&metrics::Role { role: word }).set(count.try_into().unwrap_or(u32::MAX));
        }
        for (severity, word) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
            let count = problems.iter().filter(|problem| problem.severity == severity).count();
            let gauge = metrics.problems.get_or_create(&metrics::Severity { severity: word });
            gauge.set(count.try_into().unwrap_or(u32::MAX));
        }
        metrics.longest.set(longest.try_into().unwrap_or(u32::MAX));
        let seconds = renewal.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        metrics.renewal.set(seconds.map_or(0, |seconds| seconds.as_secs().try_into().unwrap_or(u32::MAX)));
    }
}

impl Action {
    fn words(&self) -> (&'static str, Verb, &str) {
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

pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new("the API server does not answer")),
    }
}
