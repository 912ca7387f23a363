//! One pass: what the manifests say now is compiled, and the output directory made to agree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use selvedge_model::{NodeConfig, Role, ServiceSource};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{error, info, warn};

use crate::api::{CERTIFICATE_DAYS, ObjectRef};
use crate::authority::Authority;
use crate::core::renewal::DAY;
use crate::core::{ClusterState, Memory, Options, Output, Problem, Severity, compile, encode, number};
use crate::index::Directory;
use crate::store::{Store, StoreError};
use crate::watch::Watch;

/// After an output that failed.
const RETRY: Duration = Duration::from_secs(30);
/// The longest sleep: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);
/// Between looks for a directory that is gone.
const SEARCH: Duration = Duration::from_secs(1);
/// Before its end the authority is mentioned.
const AUTHORITY_NOTICE: Duration = Duration::from_secs(365 * DAY);

/// The operator of one output directory.
pub(crate) struct Operator {
    index: Directory,
    options: Options,
    store: Store,
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
        Operator { index: Directory::new(manifests), options: options(cluster), store, told: None }
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
        };
        let compiled = compile(&state, &self.options, &memory);
        problems.extend(compiled.problems);
        let usable = compiled.output.is_some();
        let output = compiled.output.unwrap_or_else(|| Output {
            certificate_days: CERTIFICATE_DAYS,
            allocations: memory.allocations.clone(),
            ..Output::default()
        });
        if !usable && previous.is_empty() {
            self.tell(&problems);
            return Ok(Outcome { flawless: false, wake: now + LONGEST_SLEEP });
        }

        // Before any configuration carries them: a crash between must not give a network twice.
        self.store.write_allocations(&output.allocations)?;
        let (authority, new) = self.store.authority(&output.cluster, now)?;
        if new {
            info!("new certificate authority for {}", output.cluster);
        }
        problems.extend(authority_notice(&authority, now));
        problems.sort();
        let news = self.tell(&problems);

        let gone = gone(&previous, &state, usable && memory.complete);
        let kept = previous.iter().filter(|(node, _)| !output.nodes.contains_key(*node) && !gone.contains(*node));
        let names = output.nodes.iter().chain(kept).map(|(node, config)| (node.as_str(), config.name.as_str()));
        let mut wake = now + LONGEST_SLEEP;
        let mut flawless = true;
        let mut certificates = BTreeMap::new();
        for (node, name) in names {
            match self.credentials(&authority, node, name, output.certificate_days, now) {
                Ok((renewal, not_after)) => {
                    wake = wake.min(renewal);
                    certificates.insert(node.to_owned(), not_after);
                }
                Err(e) => flawless = tell_failure(&e),
            }
        }
        let mut nodes = output.nodes.clone();
        let mut changes = 0;
        for (node, config) in &mut nodes {
            let changed = number(config, previous.get(node));
            let readable = encode(config).map_err(|e| StoreError::new(node, e));
            let written = readable.and_then(|_| self.store.write_config(config));
            if let Err(e) = written {
                flawless = tell_failure(&e);
            } else if changed {
                changes += 1;
                info!("{node}: generation {}, {} peers", config.generation, config.peers.len());
            }
        }
        for node in &gone {
            match self.store.remove_node(node) {
                Ok(()) => info!("{node}: removed"),
                Err(e) => flawless = tell_failure(&e),
            }
        }
        let nodes = if usable { nodes } else { previous };
        self.store.write_status(&Status::new(&output.cluster, &nodes, &certificates, &problems))?;
        if usable && (news || changes > 0 || !gone.is_empty()) {
            info!("{}: {} nodes, {changes} changed", output.cluster, nodes.len());
        }
        if !flawless {
            wake = wake.min(now + RETRY);
        }
        flawless &= problems.iter().all(|problem| problem.severity != Severity::Error);
        Ok(Outcome { flawless, wake })
    }

    /// Makes sure that a node has good credentials: when they are to be renewed, and when they end.
    fn credentials(
        &self,
        authority: &Authority,
        node: &str,
        name: &str,
        days: u32,
        now: SystemTime,
    ) -> Result<(SystemTime, SystemTime), StoreError> {
        let reason = match self.store.credentials(node).map(|old| authority.check(name, &old)) {
            Some(Ok(validity)) if !validity.is_due(now) => return Ok((validity.renewal(), validity.not_after)),
            Some(Ok(_)) => "renewed".to_owned(),
            Some(Err(e)) => format!("replaced: {e}"),
            None => "made".to_owned(),
        };
        let credentials = authority.issue(name, now, days).map_err(|e| StoreError::new(node, e))?;
        let validity = authority.check(name, &credentials).map_err(|e| StoreError::new(node, e))?;
        self.store.write_credentials(node, &credentials, now)?;
        info!("{node}: credentials {reason}, valid until {}", rfc3339(validity.not_after));
        Ok((validity.renewal().max(now + RETRY), validity.not_after))
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
) -> Result<(BTreeMap<String, NodeConfig>, Vec<Problem>), std::io::Error> {
    let mut index = Directory::new(manifests);
    index.scan()?;
    let (state, mut problems) = index.state();
    let compiled = compile(&state, &options(cluster), &Memory { complete: true, ..Memory::default() });
    problems.extend(compiled.problems);
    problems.sort();
    Ok((compiled.output.map(|output| output.nodes).unwrap_or_default(), problems))
}

/// Nodes that have output but exist no more. A node that is there but refused keeps what it has.
fn gone(previous: &BTreeMap<String, NodeConfig>, state: &ClusterState, complete: bool) -> BTreeSet<String> {
    previous.keys().filter(|node| complete && !state.nodes.contains_key(*node)).cloned().collect()
}

fn tell_failure(e: &StoreError) -> bool {
    error!("{e}");
    false
}

fn authority_notice(authority: &Authority, now: SystemTime) -> Option<Problem> {
    if authority.not_after() > now + AUTHORITY_NOTICE {
        return None;
    }
    let object = ObjectRef { file: ".state/ca.crt".to_owned(), ..ObjectRef::default() };
    let message = format!("the certificate authority ends at {}", rfc3339(authority.not_after()));
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
    name: &'a str,
    role: Role,
    generation: u64,
    pod_cidrs: &'a [IpNet],
    peers: usize,
    certificate_not_after: Option<String>,
}

impl<'a> Status<'a> {
    fn new(
        cluster: &'a str,
        nodes: &'a BTreeMap<String, NodeConfig>,
        certificates: &BTreeMap<String, SystemTime>,
        problems: &'a [Problem],
    ) -> Self {
        let status = |(node, config): (&'a String, &'a NodeConfig)| {
            let status = NodeStatus {
                name: &config.name,
                role: config.role,
                generation: config.generation,
                pod_cidrs: &config.pod_cidrs,
                peers: config.peers.len(),
                certificate_not_after: certificates.get(node).map(|at| rfc3339(*at)),
            };
            (node.as_str(), status)
        };
        Status { cluster, nodes: nodes.iter().map(status).collect(), problems }
    }
}

#[cfg(test)]
mod tests;
