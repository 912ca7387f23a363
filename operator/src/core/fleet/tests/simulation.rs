//! Whole fleets through whatever may happen to them.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::plan::Plan;
use super::super::template::Job;
use super::super::{Action, Phase};
use super::world::{World, spec};
use crate::api::{AgentMode, Share};

/// Something that happens; numbers choose a node or a pod.
#[derive(Clone, Debug)]
enum Event {
    Step(Vec<bool>),
    Offline(usize),
    Online(usize),
    Crash(usize),
    Evict(usize),
    Release(&'static str),
    Limit(Share),
    Mode(usize, AgentMode),
    Own(usize, Option<&'static str>),
    Forget,
    Delete(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let mode = prop_oneof![Just(AgentMode::Pod), Just(AgentMode::Off), Just(AgentMode::External)];
    let limit = prop_oneof![(1..4_u32).prop_map(Share::Nodes), (1..60_u32).prop_map(Share::Percent)];
    prop_oneof![
        12 => proptest::collection::vec(any::<bool>(), 1..20).prop_map(Event::Step),
        2 => any::<usize>().prop_map(Event::Offline),
        2 => any::<usize>().prop_map(Event::Online),
        2 => any::<usize>().prop_map(Event::Crash),
        1 => any::<usize>().prop_map(Event::Evict),
        1 => prop_oneof![Just("1"), Just("2"), Just("bad"), Just("3")].prop_map(Event::Release),
        1 => limit.prop_map(Event::Limit),
        1 => (any::<usize>(), mode).prop_map(|(node, mode)| Event::Mode(node, mode)),
        1 => (any::<usize>(), prop_oneof![Just(None), Just(Some("own:1"))]).prop_map(|(node, own)| Event::Own(node, own)),
        1 => Just(Event::Forget),
        1 => any::<usize>().prop_map(Event::Delete),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let nodes: Vec<String> = world.nodes.keys().cloned().collect();
    let node = |i: usize| nodes[i % nodes.len()].clone();
    let names: Vec<String> = world.pods.keys().cloned().collect();
    let pod = |i: usize| names.get(i % names.len().max(1)).cloned().unwrap_or_default();
    match event {
        Event::Step(who) => {
            for (name, moves) in names.iter().zip(who.iter().cycle()) {
                let here = world.pods.get(name).is_some_and(|(pod, _)| world.nodes[&pod.node].online);
                if here && *moves {
                    world.advance(name);
                }
            }
            world.now += Duration::from_secs(10);
        }
        Event::Offline(i) => world.node(&node(*i)).online = false,
        Event::Online(i) => world.node(&node(*i)).online = true,
        Event::Crash(i) => {
            if let Some((pod, _)) = world.pods.get_mut(&pod(*i)) {
                (pod.ready, pod.restarts) = (false, pod.restarts + 1);
            }
        }
        Event::Evict(i) => {
            if let Some((pod, _)) = world.pods.get_mut(&pod(*i)) {
                (pod.ready, pod.phase) = (false, Phase::Failed);
            }
        }
        Event::Release(image) => {
            let rollout = world.spec.rollout.clone();
            world.spec = crate::api::AgentSpec { rollout, ..spec(image) };
        }
        Event::Limit(share) => world.spec.rollout.max_unavailable = *share,
        Event::Mode(i, mode) => world.node(&node(*i)).agent.mode = *mode,
        Event::Own(i, own) => world.node(&node(*i)).agent.image = own.map(str::to_owned),
        // The operator is restarted.
        Event::Forget => world.memory = super::super::Memory::default(),
        Event::Delete(i) => drop(world.pods.remove(&pod(*i))),
    }
}

/// What must hold of every plan.
fn check(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    let concerned: BTreeSet<&str> = world.concerned().map(|(name, _)| &**name).collect();
    let ready = |node: &str| {
        let pods = world.pods_of(node).into_iter();
        pods.filter(|pod| pod.ready && !pod.deleting && pod.job == Job::Agent)
            .map(|p| p.uid.clone())
            .collect::<Vec<_>>()
    };
    let calm = concerned.iter().filter(|node| world.is_calm(node)).count();
    let limit = world.spec.rollout.max_unavailable.of(concerned.len());
    let mut begun = 0;
    for action in &plan.actions {
        prop_assert!(world.nodes[action.node()].online, "{action:?} on a node that is offline");
        if !concerned.contains(action.node()) {
            continue;
        }
        match action {
            Action::Create { node, .. } => begun += usize::from(world.is_calm(node)),
            Action::Delete { node, uid, .. } => {
                let agents = ready(node);
                let gone: Vec<&String> = plan
                    .actions
                    .iter()
                    .filter_map(|other| match other {
                        Action::Delete { uid, .. } => Some(uid),
                        _ => None,
                    })
                    .collect();
                let role_changes = world.pods_of(node).iter().any(|pod| Some(pod.program) != world.nodes[node].marked);
                let stays = agents.iter().any(|uid| !gone.contains(&uid));
                prop_assert!(!agents.contains(uid) || stays || role_changes, "{node} loses what works: {action:?}");
            }
            Action::Mark { .. } | Action::Unmark { .. } => {}
        }
    }
    let unsettled = concerned.len() - calm;
    prop_assert!(begun <= limit.saturating_sub(unsettled), "{begun} begun, {unsettled} unsettled, limit {limit}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_works_is_lost_and_all_ends_well(edges in 1..25_usize, events in proptest::collection::vec(event(), 0..120)) {
        let mut world = World::new(edges, spec("1"));
        for event in &events {
            happen(&mut world, event);
            let plan = world.plan();
            check(&world, &plan)?;
            prop_assert_eq!(&world.plan(), &plan, "planned twice");
            world.turn();
        }
        // From here on nothing goes wrong.
        let rollout = world.spec.rollout.clone();
        world.spec = crate::api::AgentSpec { rollout, ..spec("4") };
        for view in world.nodes.values_mut() {
            view.online = true;
            view.agent.image = None;
        }
        for (pod, _) in world.pods.values_mut() {
            pod.trouble = None;
        }
        world.settle();
        for (name, view) in &world.nodes {
            match view.agent.mode {
                AgentMode::Pod => prop_assert!(world.is_calm(name), "{}: {:?}", name, world.pods_of(name)),
                _ => prop_assert!(world.pods_of(name).is_empty() && view.marked.is_none(), "{}", name),
            }
        }
        prop_assert!(world.images().keys().all(|image| image.ends_with(":4")));
    }
}

/// Twenty waves, each of which is proven before the next; every tenth node loses its connection on the way.
#[test]
fn two_thousand_nodes_in_waves() {
    let mut world = World::settled(1999, spec("1"));
    world.spec = spec("2");
    let mut most = 0;
    for round in 0..400 {
        let plan = world.turn();
        most = most.max(plan.report.changing + plan.report.failing.len());
        world.step();
        let name = format!("edge-{:04}", round * 10 % 1999);
        world.node(&name).online = round % 7 == 0;
        if world.record.healthy == Some(spec("2")) {
            break;
        }
    }
    assert!(most > 50 && most <= 100, "{most} at once");
    assert_eq!(world.record.healthy, Some(spec("2")));
    world.nodes.values_mut().for_each(|view| view.online = true);
    world.settle();
    assert_eq!(world.images(), [("agent:2", 1999), ("connector:2", 1)].into());
}
