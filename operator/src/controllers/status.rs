//! The statuses of our kinds: what the last pass came to. Pure.

use std::collections::BTreeMap;

use selvedge_model::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{AgentsStatus, ClusterStatus, CommunityStatus, Condition, ObjectRef, OutpostStatus, date};
use crate::core::fleet::{Halt, Report};
use crate::core::{Output, Problem, Severity};
use crate::index::{Kind, Objects, Seen};

/// Problems that are listed in the status of the cluster.
const LISTED: usize = 20;

/// A status that differs from what the object has.
#[derive(Debug, PartialEq)]
pub(super) struct Update {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) status: Value,
}

/// `output` is `None` if there is no usable own Cluster; `now` is RFC 3339.
pub(super) fn updates(
    objects: &Objects,
    output: Option<&Output<'_>>,
    agents: &Report,
    problems: &[Problem],
    now: &str,
) -> Vec<Update> {
    let mut by_object: BTreeMap<&ObjectRef, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        by_object.entry(&problem.object).or_default().push(problem);
    }
    let mut updates = Vec::new();
    for (kind, seen) in objects.ours() {
        let own = Verdict { seen, output, problems: by_object.get(&seen.reference).map_or(&[], Vec::as_slice) };
        let status = match kind {
            Kind::Cluster => update::<ClusterStatus>(seen, now, |s| &mut s.conditions, own.cluster(agents, problems)),
            Kind::Community => update::<CommunityStatus>(seen, now, |s| &mut s.conditions, own.community()),
            _ => update::<OutpostStatus>(seen, now, |s| &mut s.conditions, own.outpost()),
        };
        updates.extend(status.map(|status| Update { kind, name: seen.reference.name.clone(), status }));
    }
    updates
}

/// The status if it is new.
fn update<S: Serialize + DeserializeOwned + Default + PartialEq>(
    seen: &Seen,
    now: &str,
    conditions: impl Fn(&mut S) -> &mut Vec<Condition>,
    mut status: S,
) -> Option<Value> {
    let mut old: S = serde_json::from_value(seen.status.clone()).unwrap_or_default();
    let dated = std::mem::take(conditions(&mut old));
    date(conditions(&mut status), &dated, now);
    *conditions(&mut old) = dated;
    (old != status).then(|| serde_json::to_value(status).unwrap_or_default())
}

struct Verdict<'a> {
    seen: &'a Seen,
    output: Option<&'a Output<'a>>,
    /// Of this object.
    problems: &'a [&'a Problem],
}

impl Verdict<'_> {
    fn cluster(&self, agents: &Report, all: &[Problem]) -> ClusterStatus {
        let own = self.output.filter(|output| output.cluster == self.seen.reference.name);
        let refused = self.errors();
        let Some(output) = own else {
            let ready = match refused.first() {
                Some(_) => self.condition("Ready", false, "Refused", list(&refused)),
                None if self.output.is_some() => self.condition("Ready", true, "Remote", "its networks are kept free"),
                None => self.condition("Ready", false, "NotCompiled", "there is no usable own Cluster"),
            };
            return ClusterStatus { conditions: vec![ready], ..ClusterStatus::default() };
        };
        let edges = output.nodes.values().filter(|outline| outline.role == Role::Edge).count();
        let ready = if refused.is_empty() {
            let message = format!("{} nodes, {edges} of them edges", output.nodes.len());
            self.condition("Ready", true, "Configured", message)
        } else {
            self.condition("Ready", false, "Incomplete", list(&refused))
        };
        let errors: Vec<&Problem> = all.iter().filter(|p| p.severity == Severity::Error).collect();
        let degraded = match errors.len() {
            0 => self.condition("Degraded", false, "AllInForce", "nothing is refused"),
            1 => self.condition("Degraded", true, "Refused", errors[0].to_string()),
            n => self.condition("Degraded", true, "Refused", format!("{n} objects or fields are refused")),
        };
        let mut conditions = vec![degraded, ready];
        let has_agents = agents.nodes > 0 || agents.leaving > 0;
        if has_agents {
            conditions.push(self.agents(agents));
        }
        ClusterStatus {
            conditions,
            nodes: count(output.nodes.len()),
            edges: count(edges),
            problems: all.iter().take(LISTED).map(ToString::to_string).collect(),
            agents: has_agents.then(|| AgentsStatus {
                nodes: count(agents.nodes),
                ready: count(agents.ready),
                offline: count(agents.offline),
                waiting: count(agents.waiting),
                leaving: count(agents.leaving),
            }),
        }
    }

    fn agents(&self, report: &Report) -> Condition {
        let (node, why) = report.failing.first_key_value().unzip();
        let example = match (node, why) {
            (Some(node), Some(why)) => {
                format!("; {} do not come up, for example on {node}: {why}", report.failing.len())
            }
            _ => String::new(),
        };
        let Report { nodes, ready, offline, waiting, .. } = report;
        let message = format!("{ready} of {nodes} nodes, {offline} offline, {waiting} wait{example}");
        let (holds, reason) = match report.halt {
            Some(Halt::Failed) => (false, "RolloutStopped"),
            Some(Halt::RolledBack) => (false, "RolledBack"),
            Some(Halt::Paused) if report.waiting > 0 => (false, "Paused"),
            _ if !report.failing.is_empty() => (false, "Failing"),
            _ if report.leaving > 0 => (false, "Leaving"),
            _ if ready + offline < *nodes => (false, "Progressing"),
            _ => (true, "UpToDate"),
        };
        self.condition("AgentsReady", holds, reason, message)
    }

    fn community(&self) -> CommunityStatus {
        let members = self.output.and_then(|output| output.communities.get(&self.seen.reference.name)).copied();
        // Of the object itself: its members' problems have a place in it.
        let whole = |p: &&&Problem| p.severity == Severity::Error && !p.field.starts_with("spec.members[");
        let refused: Vec<&Problem> = self.problems.iter().filter(whole).copied().collect();
        let count = members.unwrap_or_default();
        let ready = if !refused.is_empty() {
            self.condition("Ready", false, "Refused", list(&refused))
        } else if self.output.is_none() {
            self.condition("Ready", false, "NotCompiled", "there is no usable own Cluster")
        } else {
            self.condition("Ready", true, "Joined", format!("{count} edge nodes are joined"))
        };
        let degraded = if self.problems.is_empty() {
            self.condition("Degraded", false, "AllJoined", "every member is joined")
        } else {
            self.condition("Degraded", true, "NotAllJoined", list(self.problems))
        };
        CommunityStatus { conditions: vec![degraded, ready], members: self::count(count) }
    }

    fn outpost(&self) -> OutpostStatus {
        let outline = self.output.and_then(|output| output.nodes.get(self.seen.reference.name.as_str()));
        let refused = self.errors();
        let ready = if !refused.is_empty() {
            self.condition("Ready", false, "Refused", list(&refused))
        } else if self.output.is_none() {
            self.condition("Ready", false, "NotCompiled", "there is no usable own Cluster")
        } else if self.problems.is_empty() {
            self.condition("Ready", true, "Configured", "it has a configuration")
        } else {
            self.condition("Ready", true, "Configured", list(self.problems))
        };
        OutpostStatus {
            conditions: vec![ready],
            name: outline.map(|outline| outline.name.clone()).unwrap_or_default(),
            networks: outline.iter().flat_map(|o| o.pod_cidrs.iter().map(ToString::to_string)).collect(),
        }
    }

    fn errors(&self) -> Vec<&Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).copied().collect()
    }

    fn condition(&self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) -> Condition {
        Condition::new(kind, holds, reason, message, self.seen.identity.generation)
    }
}

/// The first few, without the name of the object they are about.
fn list(problems: &[&Problem]) -> String {
    const FEW: usize = 5;
    let mut words: Vec<String> = problems.iter().take(FEW).map(|problem| problem.about_object()).collect();
    if problems.len() > FEW {
        words.push(format!("and {} more", problems.len() - FEW));
    }
    words.join("; ")
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
