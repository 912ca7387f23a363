//! What is to be written: the difference between what every node should have and what it has. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use selvedge_model::{NodeConfig, Role};

use super::render::{self, ROOM};
use crate::api::CERTIFICATE_DAYS;
use crate::authority::Authorities;
use crate::core::issued::Issued;
use crate::core::renewal::Validity;
use crate::core::{Digest, Output, Problem, digest, encode};
use crate::index::{Objects, Seen, Written, WrittenConfig, key};

/// Something to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The node's ConfigMap, with this generation of its configuration.
    Config(Owned<u64>),
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

/// What is known of configurations that were made earlier, so that only those that may have changed are made again.
#[derive(Default)]
pub(super) struct Made(BTreeMap<String, Text>);

struct Text {
    /// What it was made from.
    input: Digest,
    generation: u64,
    digest: Digest,
    length: usize,
    /// Why it cannot be sent.
    fault: Option<String>,
}

impl Text {
    fn of(text: &str, generation: u64, input: Digest) -> Text {
        Text { input, generation, digest: digest(text.as_bytes()), length: text.len(), fault: None }
    }

    fn is(&self, there: &WrittenConfig) -> bool {
        (self.generation, self.digest) == (there.generation, there.digest)
    }
}

impl Made {
    /// Generation and digest of a node's configuration, if it can be sent.
    pub(super) fn sendable(&self, node: &str) -> Option<(u64, Digest)> {
        self.0.get(node).filter(|text| text.fault.is_none()).map(|text| (text.generation, text.digest))
    }

    /// A node's configuration as it is to be: with the generation that it has, or the next one if it differs.
    fn text(&mut self, output: &Output<'_>, node: &str, input: Digest, there: Option<&WrittenConfig>) -> Option<&Text> {
        let next = there.map_or(0, |there| there.generation) + 1;
        let holds = |text: &Text| text.input == input && (text.generation == next || there.is_some_and(|t| text.is(t)));
        if !self.0.get(node).is_some_and(holds) {
            let mut config = output.config(node)?;
            let same = there.and_then(|there| {
                config.generation = there.generation;
                let text = serde_json::to_string(&config).ok()?;
                Some(Text::of(&text, config.generation, input)).filter(|text| text.is(there))
            });
            config.generation = next;
            let text = same.unwrap_or_else(|| match encode(&config) {
                Ok(text) => Text { fault: too_long(&config, &text), ..Text::of(&text, next, input) },
                Err(fault) => Text { fault: Some(fault), ..Text::of("", next, input) },
            });
            self.0.insert(node.to_owned(), text);
        }
        self.0.get(node)
    }
}

/// The configurations.
pub(super) fn configurations(
    output: &Output<'_>,
    objects: &Objects,
    written: &Written,
    made: &mut Made,
    plan: &mut Plan,
) {
    made.0.retain(|node, _| output.nodes.contains_key(node.as_str()));
    for (node, outline) in &output.nodes {
        let Some(seen) = objects.node(node) else { continue };
        let there = written.configs.get(&key(node));
        let Some(text) = made.text(output, node, outline.input, there) else { continue };
        if let Some(fault) = &text.fault {
            plan.problems.push(Problem::error(&seen.reference, "", fault.clone()));
            continue;
        }
        plan.longest = plan.longest.max(text.length);
        let owner = owner(seen);
        if there.is_some_and(|there| text.is(there) && there.owner == owner.uid) {
            continue;
        }
        plan.actions.push(Action::Config(Owned { node: (*node).to_owned(), owner, content: text.generation }));
    }
}

/// Connectors alone read what is packed: agents are small, and have few peers.
fn too_long(config: &NodeConfig, text: &str) -> Option<String> {
    let length = match config.role {
        _ if text.len() <= ROOM => return None,
        Role::Connector => render::packed(text).map_or(usize::MAX, |packed| packed.len()),
        Role::Edge | Role::Cloud => text.len(),
    };
    (length > ROOM).then(|| {
        format!(
            "its configuration has {length} bytes, more than the {ROOM} that a ConfigMap holds; the last good one stays"
        )
    })
}

/// The credentials of every node that has, or is to have, a configuration: unless it is revoked, or an outpost that
/// `enrols` by itself. What is there is recorded.
#[expect(clippy::too_many_arguments, reason = "they have nothing else in common")]
pub(super) fn credentials(
    output: Option<&Output<'_>>,
    enrols: bool,
    objects: &Objects,
    written: &Written,
    authorities: &Authorities,
    issued: &mut Issued,
    checks: &mut Checks,
    now: SystemTime,
    plan: &mut Plan,
) {
    let days = output.map_or(CERTIFICATE_DAYS, |output| output.certificate_days);
    let revoked = |name: &str| output.is_some_and(|output| output.authority.revoked.contains(name));
    let kept = written.configs.iter().map(|((_, node), there)| (node.as_str(), there.name.as_str()));
    let is_new = |node: &str| output.is_some_and(|output| output.nodes.contains_key(node));
    let kept = kept.filter(|(node, name)| !name.is_empty() && !is_new(node));
    let all = output.iter().flat_map(|output| &output.nodes).map(|(node, outline)| (*node, outline.name.as_str()));
    for (node, name) in all.chain(kept) {
        // A node that is there but refused keeps what it has; so what it has is kept good.
        let Some(owner) = objects.node(node).map(owner) else { continue };
        if revoked(name) || (enrols && owner.kind == "Outpost") {
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
            let next = Validity::from_now(now, days).renewal();
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
