//! Agents in pods: what [`fleet`] plans is done. It has a loop of its own, so that configurations never wait for pods.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{ConfigMap, Pod as KubernetesPod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::failure::{Context, Failure};
use super::pass::bounded;
use super::stored::Stored;
use super::write::gone;
use super::{QUIET, pause, random, render};
use crate::api::AgentSpec;
use crate::core::fleet::{self, Action, Fleet, LABEL_MARK, Memory, NodeView, Pod, Record, Report};
use crate::index::{Change, Key, Listing, follow};
use crate::telemetry::Metrics;

/// Of labels that another manager than the one of the configurations writes.
const MANAGER: &str = "selvedge-operator-agents";
/// Nodes at once.
const PARALLEL: usize = 16;
/// Nodes of one pass; the next one looks at what is new.
const CHUNK: usize = 256;
/// Changes that wait; more wait in the API server.
const WAITING: usize = 1024;
/// The longest sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(10 * 60);

/// What agents are made from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// `None`: they are none of the operator's business.
    pub(crate) spec: Option<AgentSpec>,
    pub(crate) nodes: BTreeMap<String, NodeView>,
}

/// The state of the loop.
pub(crate) struct Agents {
    client: Client,
    namespace: String,
    wanted: watch::Receiver<Option<Wanted>>,
    leader: watch::Receiver<bool>,
    report: watch::Sender<Report>,
    pods: Listing<Pod>,
    memory: Memory,
    /// Read anew by every new leader.
    stored: Option<Stored<Record>>,
    started: Instant,
    due: Instant,
    failures: u32,
}

impl Agents {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        wanted: watch::Receiver<Option<Wanted>>,
        leader: watch::Receiver<bool>,
        report: watch::Sender<Report>,
    ) -> Agents {
        let now = Instant::now();
        Agents {
            client,
            namespace: namespace.to_owned(),
            wanted,
            leader,
            report,
            pods: Listing::default(),
            memory: Memory::default(),
            stored: None,
            started: now,
            due: now + LONGEST_SLEEP,
            failures: 0,
        }
    }

    /// Goes on until nobody wants agents any more.
    pub(crate) async fn run(mut self, metrics: Metrics) {
        let (out, mut changes) = mpsc::channel(WAITING);
        let api: Api<KubernetesPod> = Api::namespaced(self.client.clone(), &self.namespace);
        let ours = Config::default().labels(&fleet::selector());
        let watch = follow("Pod", vec![(api, |pod| narrow(&pod))], ours, |change| change, metrics, out);
        let watch = tokio::spawn(watch);
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { break };
                    if self.take(change) {
                        self.hurry();
                    }
                }
                wanted = self.wanted.changed() => {
                    if wanted.is_err() {
                        break;
                    }
                    self.hurry();
                }
                leader = self.leader.changed() => {
                    if leader.is_err() {
                        break;
                    }
                    // Another one may have gone on meanwhile.
                    (self.stored, self.memory) = (None, Memory::default());
                    self.hurry();
                }
                () = sleep_until(self.due) => self.turn().await,
            }
        }
        watch.abort();
    }

    fn take(&mut self, change: Change<Pod>) -> bool {
        self.pods.apply(change, |old, new| {
            let changed = *old != new;
            *old = new;
            changed
        })
    }

    fn hurry(&mut self) {
        self.due = self.due.min(Instant::now() + QUIET);
    }

    fn leads(&self) -> bool {
        *self.leader.borrow()
    }

    async fn turn(&mut self) {
        self.due = Instant::now() + LONGEST_SLEEP;
        if !self.leads() || !self.pods.is_complete() {
            return;
        }
        let Some(Wanted { spec, nodes }) = self.wanted.borrow_and_update().clone() else { return };
        let Some(spec) = spec else {
            self.tell(Report::default());
            return;
        };
        match self.pass(&spec, &nodes).await {
            Ok(wake) => {
                self.failures = 0;
                self.due = wake.map_or(self.due, |wake| self.started + wake).min(self.due);
            }
            Err(e) => {
                warn!("agents: {e}");
                self.failures = self.failures.saturating_add(1);
                self.due = Instant::now() + pause(self.failures, random());
            }
        }
    }

    /// When the next pass is due, by the time since the start.
    async fn pass(
        &mut self,
        spec: &AgentSpec,
        nodes: &BTreeMap<String, NodeView>,
    ) -> Result<Option<Duration>, Failure> {
        let configs: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let stored = match self.stored.take() {
            Some(stored) => stored,
            None => bounded(load(&configs)).await?,
        };
        let pods: Vec<Pod> = self.pods.iter().map(|(_, pod)| pod.clone()).collect();
        let fleet = Fleet { namespace: &self.namespace, spec, nodes, pods: &pods, record: &stored.value };
        let plan = fleet::plan(fleet, &mut self.memory, self.started.elapsed());
        if plan.record == stored.value {
            self.stored = Some(stored);
        } else {
            if plan.record.refused.is_some() && plan.record.refused != stored.value.refused {
                warn!("agents: too many nodes fail; the rollout is stopped");
            }
            self.stored = bounded(stored.save(&configs, &plan.record)).await?;
            if self.stored.is_none() {
                // What was planned followed from another one.
                return Ok(Some(self.started.elapsed()));
            }
        }
        self.tell(plan.report);

        let mut by_node: BTreeMap<String, Vec<Action>> = BTreeMap::new();
        for action in plan.actions {
            by_node.entry(action.node().to_owned()).or_default().push(action);
        }
        let more = by_node.len() > CHUNK;
        let total = by_node.len();
        let chunk = by_node.into_iter().take(CHUNK).map(|(node, actions)| self.see_to(node, actions));
        let results: Vec<_> = stream::iter(chunk).buffer_unordered(PARALLEL).collect().await;
        let mut failed = None;
        for (done, result) in results {
            for change in done {
                self.take(change);
            }
            failed = failed.or(result.err());
        }
        match failed {
            Some(e) => Err(e),
            None if more => Ok(Some(self.started.elapsed())),
            None => {
                if total > 0 {
                    info!("agents: pods of {total} nodes changed");
                    self.hurry();
                }
                Ok(plan.wake)
            }
        }
    }

    fn tell(&self, report: Report) {
        self.report.send_if_modified(|old| {
            let news = *old != report;
            *old = report;
            news
        });
    }

    /// Does what is planned for one node, in order; what was done is told before the watch tells of it.
    async fn see_to(&self, node: String, actions: Vec<Action>) -> (Vec<Change<Pod>>, Result<(), Failure>) {
        let mut done = Vec::new();
        for action in actions {
            if !self.leads() {
                return (done, Err(Failure::new("another operator may write now")));
            }
            match bounded(self.act(action)).await {
                Ok(change) => done.extend(change),
                Err(e) => return (done, Err(Failure::new(format!("{node}: {e}")))),
            }
        }
        (done, Ok(()))
    }

    async fn act(&self, action: Action) -> Result<Option<Change<Pod>>, Failure> {
        let pods: Api<KubernetesPod> = Api::namespaced(self.client.clone(), &self.namespace);
        let configs: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let mark = |value: Option<&'static str>| Patch::Merge(json!({"metadata": {"labels": {LABEL_MARK: value}}}));
        match action {
            Action::Mark { node, program } => {
                let name = render::name(&node);
                let marked = configs.patch_metadata(&name, &params, &mark(Some(program.name()))).await;
                marked.context(|| format!("ConfigMap {name}"))?;
                Ok(None)
            }
            Action::Unmark { node } => {
                let name = render::name(&node);
                let unmarked = configs.patch_metadata(&name, &params, &mark(None)).await;
                gone(unmarked).context(|| format!("ConfigMap {name}"))?;
                Ok(None)
            }
            Action::Create { pod, .. } => {
                let pod: KubernetesPod = serde_json::from_value(pod).map_err(|e| Failure::new(e.to_string()))?;
                let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                let made = pods.create(&params, &pod).await.context(|| "Pod".to_owned())?;
                Ok(narrow(&made).map(|(key, pod)| Change::Applied(key, pod)))
            }
            Action::Delete { name, uid, force, .. } => {
                let preconditions = Preconditions { uid: Some(uid), ..Preconditions::default() };
                let mut params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                params.grace_period_seconds = force.then_some(0);
                // Whatever has this name now, it is not this one.
                let other = |status: &kube::core::Status| status.code == 409;
                match pods.delete(&name, &params).await {
                    Err(kube::Error::Api(status)) if other(&status) => {}
                    result => gone(result).context(|| format!("Pod {name}"))?,
                }
                let key = (self.namespace.clone(), name);
                let there = self.pods.get(&key).filter(|_| !force);
                Ok(Some(match there {
                    Some(pod) => Change::Applied(key, Pod { deleting: true, ..pod.clone() }),
                    None => Change::Deleted(key),
                }))
            }
        }
    }
}

/// A record that cannot be read counts as none: then nothing is known to be healthy, and nothing is refused.
async fn load(api: &Api<ConfigMap>) -> Result<Stored<Record>, Failure> {
    let begin_anew = |e| {
        warn!("{e}; begun anew");
        Ok(Record::default())
    };
    Ok(Stored::load(api, begin_anew).await?.unwrap_or_default())
}

fn narrow(pod: &KubernetesPod) -> Option<(Key, Pod)> {
    let pod_metadata = &pod.metadata;
    let key = (pod_metadata.namespace.clone()?, pod_metadata.name.clone()?);
    Some((key, Pod::read(&serde_json::to_value(pod).ok()?)?))
}
