//! One pass: what the manifests say now is compiled, and the output directory made to agree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use selvedge_model::ServiceSource;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{error, info, warn};

use crate::api::{CERTIFICATE_DAYS, ObjectRef};
use crate::authority::{Authorities, Everybody, seconds};
use crate::core::issued::Issued;
use crate::core::renewal::{DAY, Validity};
use crate::core::rotation::Phase;
use crate::core::{
    AuthoritySettings, ClusterState, Memory, Options, Output, Problem, Severity, compile, digest, encode, number,
};
use crate::index::Directory;
use crate::server::{self, Common, Entry, Metrics, Server};
use crate::store::{Store, StoreError, Summary};
use crate::watch::Watch;

/// After an output that failed.
const RETRY: Duration = Duration::from_secs(30);
/// The longest sleep: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);
/// Between looks for a directory that is gone.
const SEARCH: Duration = Duration::from_secs(1);
/// Before its end the authority is mentioned: another one should have followed half a year ago.
const AUTHORITY_NOTICE: Duration = Duration::from_secs(182 * DAY);

/// The operator of one output directory.
pub(crate) struct Operator {
    index: Directory,
    options: Options,
    store: Arc<Store>,
    /// Where devices ask for themselves.
    server: Option<Arc<Server<Arc<Store>>>>,
    /// Problems already told; `None` before the first pass.
    told: Option<BTreeSet<Problem>>,
}

/// How a pass went.
pub(crate) struct Outcome {
    /// Whether any object was refused or any output failed.
    pub(crate) flawless: bool,
    /// When something is due without a change of the manifests.
    wake: SystemTime,
}

impl Operator {
    pub(crate) fn new(manifests: &Path, store: Store, cluster: Option<String>) -> Self {
        let store = Arc::new(store);
        Operator { index: Directory::new(manifests), options: options(cluster), store, server: None, told: None }
    }

    /// Answers devices on this address, too.
    pub(crate) fn listen(&mut self, address: SocketAddr) -> Result<(), std::io::Error> {
        let server = Server::new(Arc::clone(&self.store), Metrics::default());
        let bound = server::spawn(Arc::clone(&server), address)?;
        info!("devices are answered on {bound}");
        self.server = Some(server);
        Ok(())
    }

    /// Reads the manifests, makes the output, done.
    pub(crate) fn once(&mut self, now: SystemTime) -> Result<Outcome, std::io::Error> {
        self.index.scan()?;
        Ok(self.pass(now))
    }

    /// Goes on for good. Fails only if the directory is not there at the start.
    pub(crate) fn watch(&mut self, manifests: &Path) -> Result<(), std::io::Error> {
        // Before the first look, so that no change falls between.
        let mut watch = Some(Watch::new(manifests)?);
        self.index.scan()?;
        info!("watching {}", manifests.display());
        loop {
            let now = SystemTime::now();
            let outcome = self.pass(now);
            let sleep = outcome.wake.duration_since(now).unwrap_or_default().min(LONGEST_SLEEP);
            let Some(events) = &watch else {
                watch = search(manifests, sleep);
                if watch.is_some() {
                    info!("{} is back", manifests.display());
                    self.scan(manifests);
                }
                continue;
            };
            let changes = events.wait(sleep);
            if changes.gone {
                error!("{} is gone; all stays as it is until it is back", manifests.display());
                watch = None;
            } else if changes.everything {
                self.scan(manifests);
            } else {
                changes.files.iter().for_each(|file| self.index.refresh(file));
            }
        }
    }

    fn scan(&mut self, manifests: &Path) {
        if let Err(e) = self.index.scan() {
            error!("{}: {e}; all stays as it is", manifests.display());
        }
    }

    fn pass(&mut self, now: SystemTime) -> Outcome {
        self.try_pass(now).unwrap_or_else(|e| {
            error!("{e}");
            Outcome { flawless: false, wake: now + RETRY }
        })
    }

    fn try_pass(&mut self, now: SystemTime) -> Result<Outcome, StoreError> {
        let (state, mut problems) = self.index.state();
        let previous = self.store.configs()?;
        let memory = Memory {
            allocations: self.store.allocations()?,
            incumbents: previous.keys().cloned().collect(),
            complete: self.index.is_complete(),
            certificates: state.certificates(),
        };
        let compiled = compile(&state, &self.options, &memory);
        problems.extend(compiled.problems);
        let output = compiled.output;
        let usable = output.is_some();
        if !usable && previous.is_empty() {
            self.tell(&problems);
            return Ok(Outcome { flawless: false, wake: now + LONGEST_SLEEP });
        }

        // Before any configuration carries them: a crash between must not give a network twice.
        self.store.write_allocations(output.as_ref().map_or(&memory.allocations, |output| &output.allocations))?;
        let (cluster, settings) = match &output {
            Some(output) => (output.cluster.as_str(), output.authority.clone()),
            None => ("", AuthoritySettings::default()),
        };
        let days = output.as_ref().map_or(CERTIFICATE_DAYS, |output| output.certificate_days);
        let mut authorities = self.authorities(cluster, &settings, now)?;
        let mut issued = self.store.change_issued(|issued| {
            if usable {
                issued.revoke(&settings.revoked, seconds(now));
            }
        })?;
        if usable {
            let failed = |e| StoreError::new(".state", e);
            if authorities.revoke(issued.revoked(), now).map_err(failed)? {
                self.store.write_authorities(&authorities, now)?;
                info!("{} certificates are revoked", issued.revoked().len());
            }
        }
        problems.extend(authority_notice(&authorities, now));
        problems.sort();
        let news = self.tell(&problems);

        let gone = gone(&previous, &state, usable && memory.complete);
        let outlines = || output.iter().flat_map(|output| &output.nodes);
        let is_new = |node: &str| output.as_ref().is_some_and(|output| output.nodes.contains_key(node));
        let kept = previous.iter().filter(|(node, _)| !is_new(node) && !gone.contains(*node));
        let kept = kept.map(|(node, summary)| (node.as_str(), summary.name.as_str()));
        let names = outlines().map(|(node, outline)| (*node, outline.name.as_str())).chain(kept);
        let mut wake = now + LONGEST_SLEEP;
        let mut flawless = true;
        let mut certificates = BTreeMap::new();
        let mut everybody = Everybody { trusted: true, replaced: true };
        for (node, name) in names {
            // The keys of outposts are their own, where they can enrol.
            let enrols =
                self.server.is_some() && state.nodes.get(node).is_some_and(|object| object.value.outpost.is_some());
            if enrols || settings.revoked.contains(name) {
                continue;
            }
            // What cannot be compiled now leaves what there is.
            let gateway = match &output {
                Some(output) => output.gateways().bundle(node, &memory.certificates),
                None => self.store.gateway(node),
            };
            match self.credentials(&authorities, &mut issued, (node, name), &gateway, days, now) {
                Ok((renewal, not_after)) => {
                    wake = wake.min(renewal);
                    certificates.insert(node.to_owned(), not_after);
                }
                Err(e) => {
                    everybody = Everybody { trusted: false, replaced: false };
                    flawless = tell_failure(&e);
                }
            }
        }
        issued = self.store.change_issued(|known| known.merge(&issued))?;
        if usable {
            if let Some(server) = &self.server {
                let devices = server.everybody(issued.devices(seconds(now)));
                everybody.trusted &= devices.trusted;
                everybody.replaced &= devices.replaced;
            }
            let next = self.rotate(&mut authorities, cluster, &settings, &everybody, now)?;
            wake = next.map_or(wake, |next| wake.min(next));
        }
        let mut entries = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        let mut changes = 0;
        for (node, mut config) in output.iter().flat_map(Output::configs) {
            let generation = previous.get(node).map_or(0, |summary| summary.generation);
            let changed = number(&mut config, generation, self.store.config(node).as_ref());
            nodes.insert(node.to_owned(), Summary::of(&config));
            let readable = encode(&config).map_err(|e| StoreError::new(node, e));
            let written = readable.and_then(|text| self.store.write_config(&config).map(|()| text));
            let text = match written {
                Ok(text) => text,
                Err(e) => {
                    flawless = tell_failure(&e);
                    continue;
                }
            };
            if changed {
                changes += 1;
                info!("{node}: generation {}, {} peers", config.generation, config.peers.len());
            }
            if let Some(server) = &self.server {
                let digest = digest(text.as_bytes());
                let text = (!server.has(&config.name, digest)).then_some(text);
                entries.insert(config.name, Entry { node: node.to_owned(), digest, config: text });
            }
        }
        for node in &gone {
            match self.store.remove_node(node) {
                Ok(()) => info!("{node}: removed"),
                Err(e) => flawless = tell_failure(&e),
            }
        }
        if let Some(server) = self.server.as_ref().filter(|_| usable) {
            let common = Common { authorities: Arc::new(authorities), days, revoked: settings.revoked.clone() };
            let kept =
                previous.iter().filter(|(node, _)| !gone.contains(*node)).map(|(_, summary)| summary.name.clone());
            server.publish(common, entries, &kept.collect(), now).map_err(|e| StoreError::new(".state", e))?;
        }
        let nodes = if usable { nodes } else { previous };
        self.store.write_status(&Status::new(cluster, &nodes, &certificates, &problems))?;
        if usable && (news || changes > 0 || !gone.is_empty()) {
            info!("{cluster}: {} nodes, {changes} changed", nodes.len());
        }
        if !flawless {
            wake = wake.min(now + RETRY);
        }
        flawless &= problems.iter().all(|problem| problem.severity != Severity::Error);
        Ok(Outcome { flawless, wake })
    }

    /// The authorities kept from earlier, or new ones.
    fn authorities(
        &self,
        cluster: &str,
        settings: &AuthoritySettings,
        now: SystemTime,
    ) -> Result<Authorities, StoreError> {
        if let Some(authorities) = self.store.authorities()? {
            return Ok(authorities);
        }
        let authorities =
            Authorities::create(cluster, settings.rotate.as_deref(), now).map_err(|e| StoreError::new(".state", e))?;
        self.store.write_authorities(&authorities, now)?;
        info!("new certificate authority for {cluster}");
        Ok(authorities)
    }

    /// Goes on with the change of the authority, if one is under way or due. Says when to look again.
    fn rotate(
        &self,
        authorities: &mut Authorities,
        cluster: &str,
        settings: &AuthoritySettings,
        everybody: &Everybody,
        now: SystemTime,
    ) -> Result<Option<SystemTime>, StoreError> {
        let before = authorities.phase();
        let (step, wake) = authorities
            .advance(cluster, settings.rotate.as_deref(), settings.grace, everybody, now)
            .map_err(|e| StoreError::new(".state", e))?;
        if before != authorities.phase() {
            self.store.write_authorities(authorities, now)?;
        }
        match step {
            Some(step) => info!("{step}"),
            // Devices are seen at any time.
            None if authorities.phase() != Phase::Steady => {
                return Ok(Some(wake.map_or(now + RETRY, |wake| wake.min(now + RETRY))));
            }
            None => return Ok(wake),
        }
        // Everybody is to have what the step brought.
        Ok(Some(now))
    }

    /// Makes sure that a node has good credentials: when they are to be renewed, and when they end.
    fn credentials(
        &self,
        authorities: &Authorities,
        issued: &mut Issued,
        (node, name): (&str, &str),
        gateway: &str,
        days: u32,
        now: SystemTime,
    ) -> Result<(SystemTime, SystemTime), StoreError> {
        let old = self.store.credentials(node);
        let upkeep = authorities.upkeep(name, old.as_ref(), issued, now, days).map_err(|e| StoreError::new(node, e))?;
        let Validity { not_after, .. } = upkeep.validity;
        let mut renewal = upkeep.validity.renewal();
        if let Some((credentials, reason)) = &upkeep.fresh {
            renewal = renewal.max(now + RETRY);
            self.store.write_credentials(node, credentials, gateway, now)?;
            info!("{node}: credentials {reason}, valid until {}", rfc3339(not_after));
        } else if let Some(old) = old.filter(|_| self.store.gateway(node) != gateway) {
            self.store.write_credentials(node, &old, gateway, now)?;
            info!("{node}: certificates of its gateway written");
        }
        Ok((renewal, not_after))
    }

    /// Logs problems once, and when they are over. Tells whether there was anything to say; at first there is.
    fn tell(&mut self, problems: &[Problem]) -> bool {
        let now: BTreeSet<Problem> = problems.iter().cloned().collect();
        let told = self.told.replace(now.clone());
        let news = told.as_ref() != Some(&now);
        let told = told.unwrap_or_default();
        for problem in now.difference(&told) {
            match problem.severity {
                Severity::Error => error!("{problem}"),
                Severity::Warning => warn!("{problem}"),
            }
        }
        for problem in told.difference(&now) {
            info!("resolved: {problem}");
        }
        news
    }
}

/// There is no API beside a directory from which nodes could know the Services.
fn options(cluster: Option<String>) -> Options {
    Options { cluster, services: ServiceSource::Config }
}

/// Looks for a directory that is gone, but not longer than this.
fn search(manifests: &Path, patience: Duration) -> Option<Watch> {
    let end = Instant::now() + patience;
    loop {
        thread::sleep(SEARCH.min(patience));
        if let Ok(watch) = Watch::new(manifests) {
            return Some(watch);
        }
        if Instant::now() >= end {
            return None;
        }
    }
}

/// Reads and compiles, writes nothing: the configurations and all problems.
pub(crate) fn check(
    manifests: &Path,
    cluster: Option<String>,
) -> Result<(BTreeMap<String, Summary>, Vec<Problem>), std::io::Error> {
    let mut index = Directory::new(manifests);
    index.scan()?;
    let (state, mut problems) = index.state();
    let compiled = compile(
        &state,
        &options(cluster),
        &Memory { complete: true, certificates: state.certificates(), ..Memory::default() },
    );
    problems.extend(compiled.problems);
    problems.sort();
    let configs = compiled.output.iter().flat_map(Output::configs);
    let nodes = configs.map(|(node, config)| (node.to_owned(), Summary::of(&config))).collect();
    Ok((nodes, problems))
}

/// Nodes that have output but exist no more. A node that is there but refused keeps what it has.
fn gone(previous: &BTreeMap<String, Summary>, state: &ClusterState, complete: bool) -> BTreeSet<String> {
    previous.keys().filter(|node| complete && !state.nodes.contains_key(*node)).cloned().collect()
}

fn tell_failure(e: &StoreError) -> bool {
    error!("{e}");
    false
}

fn authority_notice(authorities: &Authorities, now: SystemTime) -> Option<Problem> {
    let end = authorities.signing().not_after();
    if end > now + AUTHORITY_NOTICE {
        return None;
    }
    let object = ObjectRef { file: ".state/ca.crt".to_owned(), ..ObjectRef::default() };
    let message = format!("the certificate authority ends at {}", rfc3339(end));
    Some(Problem::warning(&object, "", message))
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// The file `status.json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    cluster: &'a str,
    nodes: BTreeMap<&'a str, NodeStatus<'a>>,
    problems: &'a [Problem],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    certificate_not_after: Option<String>,
}

impl<'a> Status<'a> {
    fn new(
        cluster: &'a str,
        nodes: &'a BTreeMap<String, Summary>,
        certificates: &BTreeMap<String, SystemTime>,
        problems: &'a [Problem],
    ) -> Self {
        let status = |(node, summary): (&'a String, &'a Summary)| {
            let certificate_not_after = certificates.get(node).map(|at| rfc3339(*at));
            (node.as_str(), NodeStatus { summary, certificate_not_after })
        };
        Status { cluster, nodes: nodes.iter().map(status).collect(), problems }
    }
}

#[cfg(test)]
mod tests;
