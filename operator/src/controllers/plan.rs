//! What is to be written: the difference between what every node should have and what it has. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::authority::Authorities;
use crate::core::issued::Issued;
use crate::core::renewal::Validity;
use crate::core::{Output, Problem, encode};
use crate::index::{Objects, Seen, Written, digest, key};

/// The most that a ConfigMap holds.
const LONGEST: usize = 1 << 20;

/// Something to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The node's ConfigMap.
    Config(Owned<String>),
    /// The node's Secret, with new credentials.
    Secret(Owned<Reason>),
    DeleteConfig(String),
    DeleteSecret(String),
}

/// What a node is to have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owned<T> {
    pub(super) node: String,
    pub(super) owner: Owner,
    pub(super) content: T,
}

/// The Node or Outpost with which its ConfigMap and Secret go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) uid: String,
}

/// Why there are new credentials, and for which fabric name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) name: String,
    pub(super) why: String,
    /// Those that are there, if only their owner is wrong or the authorities beside them.
    pub(super) keep: bool,
}

/// What is to be done, what cannot be done, and what comes next.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) problems: Vec<Problem>,
    /// Length of the longest configuration, in bytes.
    pub(super) longest: usize,
    /// When the first certificate is to be renewed.
    pub(super) renewal: Option<SystemTime>,
}

/// Results of checking credentials, which takes longer than to look them up.
#[derive(Default)]
pub(super) struct Checks(BTreeMap<String, Check>);

struct Check {
    /// Of the Secret.
    version: u64,
    /// Fabric name.
    name: String,
    result: Result<Validity, String>,
    /// Whether they name all authorities, and all that is revoked.
    current: bool,
}

impl Checks {
    /// After a change of the authorities.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn validity(
        &mut self,
        authorities: &Authorities,
        issued: &mut Issued,
        node: &str,
        name: &str,
        written: &Written,
    ) -> Result<(Validity, bool), String> {
        let Some(secret) = written.secrets.get(&key(node)) else { return Err("made".to_owned()) };
        if let Some(check) = self.0.get(node).filter(|check| check.version == secret.version && check.name == name) {
            return check.result.clone().map(|validity| (validity, check.current));
        }
        let result = match &secret.credentials {
            Some(credentials) => authorities.check(name, credentials, issued).map_err(|e| format!("replaced: {e}")),
            None => Err("replaced: the Secret was incomplete".to_owned()),
        };
        let current = secret.credentials.as_ref().is_some_and(|credentials| authorities.are_current(credentials));
        let check = Check { version: secret.version, name: name.to_owned(), result: result.clone(), current };
        self.0.insert(node.to_owned(), check);
        result.map(|validity| (validity, current))
    }
}

/// The configurations. Each one in `output` gets its generation.
pub(super) fn configurations(output: &mut Output, objects: &Objects, written: &Written, plan: &mut Plan) {
    for (node, config) in &mut output.nodes {
        let Some(seen) = objects.node(node) else { continue };
        let owner = owner(seen);
        let there = written.configs.get(&key(node));
        config.generation = there.map_or(0, |there| there.generation);
        let Ok(mut text) = serde_json::to_string(config) else { continue };
        if text.len() > LONGEST {
            plan.problems.push(Problem::error(&seen.reference, "", too_long(text.len())));
            continue;
        }
        if there.is_none_or(|there| there.digest != digest(&text)) {
            config.generation += 1;
            match encode(config) {
                Ok(new) => text = new,
                Err(message) => {
                    plan.problems.push(Problem::error(&seen.reference, "", message));
                    continue;
                }
            }
        } else if there.is_some_and(|there| there.owner == owner.uid) {
            plan.longest = plan.longest.max(text.len());
            continue;
        }
        plan.longest = plan.longest.max(text.len());
        plan.actions.push(Action::Config(Owned { node: node.clone(), owner, content: text }));
    }
}

fn too_long(length: usize) -> String {
    format!(
        "its configuration has {length} bytes, more than the {LONGEST} that a ConfigMap holds; the last good one stays"
    )
}

/// The credentials of every node that has, or is to have, a configuration: unless it is revoked, or an outpost that
/// `enrols` by itself. What is there is recorded.
#[expect(clippy::too_many_arguments, reason = "they have nothing else in common")]
pub(super) fn credentials(
    output: &Output,
    enrols: bool,
    objects: &Objects,
    written: &Written,
    authorities: &Authorities,
    issued: &mut Issued,
    checks: &mut Checks,
    now: SystemTime,
    plan: &mut Plan,
) {
    let kept = written.configs.iter().map(|((_, node), there)| (node.as_str(), there.name.as_str()));
    let kept = kept.filter(|(node, name)| !name.is_empty() && !output.nodes.contains_key(*node));
    let all = output.nodes.iter().map(|(node, config)| (node.as_str(), config.name.as_str()));
    for (node, name) in all.chain(kept) {
        // A node that is there but refused keeps what it has; so what it has is kept good.
        let Some(owner) = objects.node(node).map(owner) else { continue };
        if output.authority.revoked.contains(name) || (enrols && owner.kind == "Outpost") {
            continue;
        }
        let (why, keep) = match checks.validity(authorities, issued, node, name, written) {
            Ok((validity, _)) if validity.is_due(now) => ("renewed".to_owned(), false),
            Ok((validity, current)) => {
                let next = validity.renewal();
                plan.renewal = Some(plan.renewal.map_or(next, |first| first.min(next)));
                if current && written.secrets.get(&key(node)).is_some_and(|there| there.owner == owner.uid) {
                    continue;
                }
                (if current { "kept" } else { "delivered with other authorities" }.to_owned(), true)
            }
            Err(why) => (why, false),
        };
        if !keep {
            let next = Validity::from_now(now, output.certificate_days).renewal();
            plan.renewal = Some(plan.renewal.map_or(next, |first| first.min(next)));
        }
        let content = Reason { name: name.to_owned(), why, keep };
        plan.actions.push(Action::Secret(Owned { node: node.to_owned(), owner, content }));
    }
}

/// What belongs to nodes that are no more.
pub(super) fn remains(objects: &Objects, written: &Written, plan: &mut Plan) {
    let gone = |node: &&String| objects.node(node).is_none();
    let configs = written.configs.iter().map(|((_, node), _)| node).filter(gone);
    plan.actions.extend(configs.map(|node| Action::DeleteConfig(node.clone())));
    let secrets = written.secrets.iter().map(|((_, node), _)| node).filter(gone);
    plan.actions.extend(secrets.map(|node| Action::DeleteSecret(node.clone())));
}

fn owner(seen: &Seen) -> Owner {
    Owner { kind: seen.reference.kind.clone(), uid: seen.identity.uid.clone() }
}

#[cfg(test)]
mod tests;
