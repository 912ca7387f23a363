//! What is to be done now, over all nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge_model::Role;
use serde_json::Value;

use super::observed::Pod;
use super::record::{Record, settings};
use super::stage::{self, Leaving, Stage};
use super::template::{self, Job, Program, Target};
use crate::api::{AgentMode, AgentSpec, NodeAgent};

/// Everything a plan follows from.
#[derive(Clone, Copy)]
pub(crate) struct Fleet<'a> {
    /// Where the pods are.
    pub(crate) namespace: &'a str,
    pub(crate) spec: &'a AgentSpec,
    /// All nodes with a configuration; pods of others are left alone.
    pub(crate) nodes: &'a BTreeMap<String, NodeView>,
    pub(crate) pods: &'a [Pod],
    pub(crate) record: &'a Record,
}

/// What matters of a node here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) uid: String,
    pub(crate) role: Role,
    /// Condition `Ready`. What is not online is left alone until it is back.
    pub(crate) online: bool,
    pub(crate) agent: NodeAgent,
    /// The program of which something may be on the node: [`template::LABEL_MARK`].
    pub(crate) marked: Option<Program>,
    /// Its program reads Services from an API server.
    pub(crate) token: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Remember, before its first pod is made, that the node has something of this program.
    Mark {
        node: String,
        program: Program,
    },
    /// The node has nothing of ours any more.
    Unmark {
        node: String,
    },
    Create {
        node: String,
        pod: Value,
    },
    /// `force`: without asking the node.
    Delete {
        node: String,
        name: String,
        uid: String,
        force: bool,
    },
}

impl Action {
    pub(super) fn delete(pod: &Pod, force: bool) -> Action {
        Action::Delete { node: pod.node.clone(), name: pod.name.clone(), uid: pod.uid.clone(), force }
    }

    pub(crate) fn node(&self) -> &str {
        match self {
            Action::Mark { node, .. }
            | Action::Unmark { node }
            | Action::Create { node, .. }
            | Action::Delete { node, .. } => node,
        }
    }
}

/// Actions in the order in which they are to be done. If one fails, the later ones of its node are not done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// To be kept before anything is done.
    pub(crate) record: Record,
    pub(crate) report: Report,
    /// When to plan again, though nothing has changed.
    pub(crate) wake: Option<Duration>,
}

/// How the fleet is, for its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Nodes that should have an agent.
    pub(crate) nodes: usize,
    /// Those that have what they should have, and it works.
    pub(crate) ready: usize,
    /// Those that are not online.
    pub(crate) offline: usize,
    /// Those that wait for their turn.
    pub(crate) waiting: usize,
    /// Those that are on the way.
    pub(crate) changing: usize,
    /// Those that do not get there, and why.
    pub(crate) failing: BTreeMap<String, String>,
    /// Those from which an agent is being removed.
    pub(crate) leaving: usize,
    pub(crate) halt: Option<Halt>,
}

/// Why a rollout does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    Paused,
    /// Too many nodes failed; those that changed keep what they have.
    Failed,
    /// Too many nodes failed; all go back to what last worked.
    RolledBack,
}

/// Since when what has been so, by the program's own clock: no other one can be trusted to run evenly.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    since: BTreeMap<Condition, Lasting>,
    before: BTreeMap<Condition, Lasting>,
    now: Duration,
}

/// What is so of a pod, by its UID.
type Condition = (&'static str, String);

#[derive(Clone, Copy, Debug)]
struct Lasting {
    since: Duration,
    /// When it has lasted long enough.
    due: Duration,
}

impl Memory {
    /// Begins a plan. What it does not ask for is forgotten.
    fn turn(&mut self, now: Duration) {
        self.before = std::mem::take(&mut self.since);
        self.now = now;
    }

    pub(super) fn has_lasted(&mut self, what: &'static str, uid: &str, long: Duration) -> bool {
        let key = (what, uid.to_owned());
        let since = self.since.get(&key).or_else(|| self.before.get(&key)).map_or(self.now, |lasting| lasting.since);
        let due = since + long;
        let lasting = self.since.entry(key).or_insert(Lasting { since, due });
        if due > self.now && (lasting.due <= self.now || due < lasting.due) {
            lasting.due = due;
        }
        due <= self.now
    }

    pub(super) fn forget(&mut self, what: &'static str, uid: &str) {
        self.since.remove(&(what, uid.to_owned()));
    }

    /// When the next condition has lasted long enough.
    fn wake(&self) -> Option<Duration> {
        self.since.values().map(|lasting| lasting.due).filter(|due| *due > self.now).min()
    }
}

/// Plans. With the same input and no time passed it plans the same.
pub(crate) fn plan(fleet: Fleet<'_>, memory: &mut Memory, now: Duration) -> Plan {
    memory.turn(now);
    let effective = fleet.record.effective(fleet.spec);
    let mut planner = Planner {
        fleet,
        spec: effective.spec,
        revisions: BTreeMap::new(),
        plan: Plan::default(),
        common: Tally::default(),
    };
    let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in fleet.pods {
        pods.entry(&pod.node).or_default().push(pod);
    }
    let mut waiting = Vec::new();
    for (name, view) in fleet.nodes {
        let pods = pods.get(&**name).map_or(&[][..], Vec::as_slice);
        planner.node(name, view, pods, memory, &mut waiting);
    }
    planner.record(effective.refused);
    planner.proceed(waiting, effective.refused);
    let mut plan = planner.plan;
    plan.wake = memory.wake();
    plan
}

/// Nodes without settings of their own: by these a rollout is judged.
#[derive(Default)]
struct Tally {
    online: usize,
    done: usize,
    failing: usize,
}

/// A node that could be given a pod.
struct Candidate<'a> {
    name: &'a str,
    view: &'a NodeView,
    stage: Stage,
}

struct Planner<'a> {
    fleet: Fleet<'a>,
    /// What nodes should have.
    spec: &'a AgentSpec,
    /// Of nodes without settings of their own, by program and by whether it has a token.
    revisions: BTreeMap<(Program, bool), String>,
    plan: Plan,
    common: Tally,
}

impl<'a> Planner<'a> {
    fn node(
        &mut self,
        name: &'a str,
        view: &'a NodeView,
        pods: &[&Pod],
        memory: &mut Memory,
        waiting: &mut Vec<Candidate<'a>>,
    ) {
        let wanted = self.fleet.spec.enabled && view.agent.mode == AgentMode::Pod;
        let program = Program::of(view.role);
        self.plan.report.nodes += usize::from(wanted);
        if !view.online {
            self.plan.report.offline += usize::from(wanted);
            return;
        }
        // What is there of the other program must be gone before this one comes; and of both, if none is wanted.
        let others = [Program::Agent, Program::Connector].into_iter().filter(|other| !wanted || *other != program);
        for other in others {
            if !self.leave(name, view, other, pods, memory) {
                self.plan.report.leaving += 1;
                return;
            }
        }
        if !wanted {
            return;
        }
        if view.marked.is_some_and(|marked| marked != program) {
            // The mark of what has just left is not gone yet.
            return;
        }
        let revision = self.revision(view, program);
        let stage = stage::wanted(pods, &revision, memory, &mut self.plan.actions);
        let report = &mut self.plan.report;
        match &stage {
            Stage::Done | Stage::Settling => report.ready += 1,
            Stage::Stale => report.waiting += 1,
            Stage::Broken | Stage::Lacking | Stage::Changing => report.changing += 1,
            Stage::Failing(why) => drop(report.failing.insert(name.to_owned(), why.clone())),
        }
        report.changing += usize::from(stage == Stage::Settling);
        if !view.agent.is_special() {
            self.common.online += 1;
            self.common.done += usize::from(stage == Stage::Done);
            self.common.failing += usize::from(matches!(stage, Stage::Failing(_)));
        }
        if matches!(stage, Stage::Stale | Stage::Broken | Stage::Lacking) {
            waiting.push(Candidate { name, view, stage });
        }
    }

    /// Removes a program from a node. True if there is nothing of it.
    fn leave(&mut self, name: &str, view: &NodeView, program: Program, pods: &[&Pod], memory: &mut Memory) -> bool {
        let here: Vec<&Pod> = pods.iter().copied().filter(|pod| pod.program == program).collect();
        let marked = view.marked == Some(program);
        if !marked && here.iter().all(|pod| pod.job == Job::Clean) {
            stage::end(&here, memory, &mut self.plan.actions);
            return here.is_empty();
        }
        let unmark = Action::Unmark { node: name.to_owned() };
        let revision = template::revision(Job::Clean, self.spec, &view.agent, program, false);
        match stage::leaving(&here, &revision, memory, &mut self.plan.actions) {
            Leaving::Ending | Leaving::Cleaning => {}
            Leaving::Clean => self.plan.actions.push(unmark),
            Leaving::Dirty if view.agent.mode == AgentMode::External => self.plan.actions.push(unmark),
            Leaving::Dirty => {
                let pod = template::clean(self.target(name, view, program));
                self.plan.actions.push(Action::Create { node: name.to_owned(), pod });
            }
        }
        false
    }

    fn revision(&mut self, view: &NodeView, program: Program) -> String {
        let revision = || template::revision(Job::Agent, self.spec, &view.agent, program, view.token);
        if view.agent.is_special() {
            return revision();
        }
        self.revisions.entry((program, view.token)).or_insert_with(revision).clone()
    }

    fn target<'b>(&self, node: &'b str, view: &'b NodeView, program: Program) -> Target<'b>
    where
        'a: 'b,
    {
        Target {
            namespace: self.fleet.namespace,
            node,
            node_uid: &view.uid,
            program,
            spec: self.spec,
            own: &view.agent,
            token: view.token,
        }
    }

    /// How many nodes may be without a settled agent at once.
    fn limit(&self) -> usize {
        let report = &self.plan.report;
        self.fleet.spec.rollout.max_unavailable.of(report.nodes - report.offline)
    }

    /// Judges the rollout.
    fn record(&mut self, refused: bool) {
        let Fleet { spec, record, .. } = self.fleet;
        let mut next = record.clone();
        if !refused {
            next.refused = None;
            let bearable = (spec.rollout.max_failures as usize).min(self.limit());
            if self.common.failing >= bearable.max(1) && !record.is_healthy(spec) {
                next.refused = Some(settings(spec));
            } else if self.common.done > 0 && self.common.done == self.common.online && !record.is_healthy(spec) {
                next.healthy = Some(spec.clone());
            }
        }
        self.plan.record = next;
    }

    /// Gives pods to those who have none, and to as many others as may change now: first to those with nothing to lose.
    fn proceed(&mut self, mut waiting: Vec<Candidate<'a>>, refused: bool) {
        let Fleet { spec, .. } = self.fleet;
        let rolls_back = refused && !std::ptr::eq(self.spec, spec);
        let limit = self.limit();
        let report = &mut self.plan.report;
        report.halt = match () {
            () if rolls_back => Some(Halt::RolledBack),
            () if refused || self.plan.record.refused.is_some() => Some(Halt::Failed),
            () if spec.rollout.paused => Some(Halt::Paused),
            () => None,
        };
        let held = spec.rollout.paused || matches!(report.halt, Some(Halt::Failed));
        let broken = waiting.iter().filter(|candidate| candidate.stage == Stage::Broken).count();
        let busy = report.changing + report.failing.len();
        let mut free_for_broken = limit.saturating_sub(busy - broken);
        let mut free = limit.saturating_sub(busy);
        // What a connector carries is found to work elsewhere first.
        waiting.sort_by_key(|candidate| (candidate.view.role == Role::Connector, candidate.name));
        for Candidate { name, view, stage } in waiting {
            let free = match stage {
                Stage::Lacking => &mut 1,
                _ if held => continue,
                Stage::Broken => &mut free_for_broken,
                _ => &mut free,
            };
            if *free == 0 {
                continue;
            }
            *free -= 1;
            let program = Program::of(view.role);
            let pod = template::agent(self.target(name, view, program));
            if view.marked.is_none() {
                self.plan.actions.push(Action::Mark { node: name.to_owned(), program });
            }
            self.plan.actions.push(Action::Create { node: name.to_owned(), pod });
        }
    }
}
