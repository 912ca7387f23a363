//! How far one node is, and what is to be done on it in any case.

use std::time::Duration;

use super::observed::{Phase, Pod};
use super::plan::{Action, Memory};
use super::template::Job;

/// So long a new pod must have been ready, alone on its node.
pub(super) const SETTLE: Duration = Duration::from_secs(15);
/// A new pod that is not ready by then has failed. Images are large and links slow.
const DEADLINE: Duration = Duration::from_secs(15 * 60);
/// One whose image cannot be had, or which cannot be started, has failed after this.
const TROUBLED: Duration = Duration::from_secs(2 * 60);
/// Restarts after which a pod that is not ready has failed.
const RESTARTS: u32 = 3;
/// A pod that should be gone, on a node that is online: it is removed from the API server.
const STUCK: Duration = Duration::from_secs(2 * 60);
/// Between a pod that was refused or evicted and the next one.
const PAUSE: Duration = Duration::from_secs(30);

/// Where a node stands that should have an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has what it should have, and that works.
    Done,
    /// It has what it should have, but not alone or not for long.
    Settling,
    /// It has something else that works.
    Stale,
    /// It has something else that does not work, or was on the way to that.
    Broken,
    /// It has nothing.
    Lacking,
    /// It is on the way.
    Changing,
    /// It was on the way, but does not get there.
    Failing(String),
}

/// What all pods of a node come to.
#[derive(Default)]
struct Pods<'a> {
    /// Agents of the wanted revision, the best first.
    right: Vec<&'a Pod>,
    /// Agents of other revisions, the best first.
    other: Vec<&'a Pod>,
    /// Agents whose container has ended for good.
    ended: Vec<&'a Pod>,
    /// Agents that are to end.
    going: Vec<&'a Pod>,
    cleaners: Vec<&'a Pod>,
}

impl<'a> Pods<'a> {
    fn sort(pods: &[&'a Pod], revision: &str) -> Self {
        let mut sorted = Pods::default();
        for pod in pods.iter().copied() {
            let list = match pod.job {
                Job::Clean => &mut sorted.cleaners,
                Job::Agent if pod.deleting => &mut sorted.going,
                Job::Agent if pod.has_ended() => &mut sorted.ended,
                Job::Agent if pod.revision == revision => &mut sorted.right,
                Job::Agent => &mut sorted.other,
            };
            list.push(pod);
        }
        for list in [&mut sorted.right, &mut sorted.other] {
            list.sort_by_key(|pod| (!pod.ready, pod.phase != Phase::Running, &pod.name));
        }
        sorted
    }
}

/// What is to be done whatever the others do, on a node that should have a pod of this revision.
pub(super) fn wanted(pods: &[&Pod], revision: &str, memory: &mut Memory, actions: &mut Vec<Action>) -> Stage {
    let pods = Pods::sort(pods, revision);
    bury(&pods.ended, memory, actions);
    push_out(&pods.going, memory, actions);
    // It would end what it finds running.
    end(&pods.cleaners, memory, actions);
    let Some((kept, surplus)) = pods.right.split_first() else {
        let works = pods.other.first().is_some_and(|pod| pod.ready);
        let rest = pods.other.get(usize::from(works)..).unwrap_or_default();
        if works {
            // It was on the way to what is not wanted any more.
            end(rest, memory, actions);
        }
        return match () {
            () if !pods.ended.is_empty() || !pods.cleaners.is_empty() => Stage::Changing,
            () if works && rest.is_empty() && pods.going.is_empty() => Stage::Stale,
            () if pods.other.is_empty() => Stage::Lacking,
            () => Stage::Broken,
        };
    };
    end(surplus, memory, actions);
    let failure = failure(kept, memory);
    if !kept.ready {
        return failure.map_or(Stage::Changing, Stage::Failing);
    }
    end(&pods.other, memory, actions);
    let alone = pods.other.is_empty() && pods.going.is_empty() && surplus.is_empty();
    if alone && memory.has_lasted("settled", &kept.uid, SETTLE) {
        memory.forget("changing", &kept.uid);
        return Stage::Done;
    }
    Stage::Settling
}

/// How far a node is with removing a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Pods are to end.
    Ending,
    /// Somebody must clean up now.
    Dirty,
    /// Somebody is cleaning up.
    Cleaning,
    Clean,
}

/// What is to be done on a node that should have no pod of this program; `revision` is that of a pod that cleans.
pub(super) fn leaving(pods: &[&Pod], revision: &str, memory: &mut Memory, actions: &mut Vec<Action>) -> Leaving {
    let (agents, cleaners): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| pod.job == Job::Agent);
    if !agents.is_empty() {
        end(&agents, memory, actions);
        // One that ran beside an agent has cleaned nothing for good.
        end(&cleaners, memory, actions);
        return Leaving::Ending;
    }
    if cleaners.is_empty() {
        return Leaving::Dirty;
    }
    for pod in cleaners {
        match pod.phase {
            _ if pod.deleting => push_out(&[pod], memory, actions),
            Phase::Succeeded => return Leaving::Clean,
            Phase::Failed => bury(&[pod], memory, actions),
            // Its image may be what keeps it from starting.
            Phase::Pending if pod.revision != revision => end(&[pod], memory, actions),
            Phase::Pending | Phase::Running => {}
        }
    }
    Leaving::Cleaning
}

/// Ends pods of whatever state.
pub(super) fn end(pods: &[&Pod], memory: &mut Memory, actions: &mut Vec<Action>) {
    for pod in pods {
        if pod.deleting {
            push_out(&[pod], memory, actions);
        } else {
            actions.push(Action::delete(pod, false));
        }
    }
}

/// Removes those that have been told to end and do not.
fn push_out(pods: &[&Pod], memory: &mut Memory, actions: &mut Vec<Action>) {
    let stuck = pods.iter().filter(|pod| memory.has_lasted("going", &pod.uid, STUCK));
    actions.extend(stuck.map(|pod| Action::delete(pod, true)));
}

/// Removes pods that have ended, but not at once: what refused them would refuse the next ones.
fn bury(pods: &[&Pod], memory: &mut Memory, actions: &mut Vec<Action>) {
    let old = pods.iter().filter(|pod| memory.has_lasted("ended", &pod.uid, PAUSE));
    actions.extend(old.map(|pod| Action::delete(pod, false)));
}

/// Why a pod that is not ready is not waited for any longer.
fn failure(pod: &Pod, memory: &mut Memory) -> Option<String> {
    let late = memory.has_lasted("changing", &pod.uid, DEADLINE);
    if (pod.trouble.is_some() || pod.restarts >= RESTARTS) && memory.has_lasted("changing", &pod.uid, TROUBLED) {
        let restarts = format!("not ready after {} restarts", pod.restarts);
        return Some(pod.trouble.clone().unwrap_or(restarts));
    }
    late.then(|| format!("not ready after {} minutes", DEADLINE.as_secs() / 60))
}
