use std::time::Duration;

use selvedge_model::Role;

use super::super::plan::Halt;
use super::super::template::Job;
use super::super::{Action, Phase, Program};
use super::world::{World, spec};
use crate::api::{AgentMode, Share};

/// Nodes on which something is created.
fn created(actions: &[Action]) -> Vec<&str> {
    actions.iter().filter(|action| matches!(action, Action::Create { .. })).map(Action::node).collect()
}

#[test]
fn at_first_every_node_gets_its_program_at_once() {
    let mut world = World::new(3, spec("1"));
    let plan = world.turn();
    assert_eq!(created(&plan.actions), ["edge-0000", "edge-0001", "edge-0002", "cloud"]);
    world.settle();
    assert!(world.nodes.keys().all(|node| world.is_calm(node)));
    assert_eq!(world.record.healthy, Some(spec("1")));
    let report = world.plan().report;
    assert_eq!((report.nodes, report.ready, report.changing, report.halt), (4, 4, 0, None));
}

#[test]
fn a_change_goes_from_node_to_node_and_the_old_pod_goes_last() {
    let mut world = World::settled(2, spec("1"));
    world.spec.image = "agent:2".to_owned();
    assert_eq!(created(&world.turn().actions), ["edge-0000"]);
    world.step();
    assert_eq!(world.turn().actions, [], "the new one runs and is not ready");
    world.step();
    let plan = world.turn();
    assert!(
        matches!(&plan.actions[..], [Action::Delete { node, force: false, .. }] if node == "edge-0000"),
        "{plan:?}"
    );
    world.step();
    assert_eq!(world.turn().actions, [], "alone, but not for long");
    world.step();
    assert_eq!(created(&world.turn().actions), ["edge-0001"]);
    world.settle();
    let images: Vec<_> = world.images().into_iter().collect();
    assert_eq!(images, [("agent:2", 2), ("connector:1", 1)], "the connector is as it was");
}

#[test]
fn the_connector_comes_last() {
    let mut world = World::settled(2, spec("1"));
    world.spec = spec("2");
    world.spec.rollout.max_unavailable = Share::Nodes(3);
    assert_eq!(created(&world.turn().actions), ["edge-0000", "edge-0001", "cloud"]);
}

#[test]
fn an_image_that_is_not_there_touches_few_and_hurts_none() {
    let mut world = World::settled(99, spec("1"));
    world.spec = spec("bad");
    world.spec.rollout.rollback = false;
    for _ in 0..30 {
        world.turn();
        world.step();
    }
    let report = world.plan().report;
    assert_eq!((report.halt, report.failing.len(), report.waiting), (Some(Halt::Failed), 5, 95));
    assert_eq!(report.failing["edge-0000"], "ImagePullBackOff");
    assert_eq!(world.images()["agent:1"], 99, "all old ones go on");

    world.spec.rollout.rollback = true;
    world.settle();
    assert_eq!(world.plan().report.halt, Some(Halt::RolledBack));
    assert_eq!(world.images(), [("agent:1", 99), ("connector:1", 1)].into());

    world.spec = spec("2");
    world.settle();
    assert_eq!(world.images(), [("agent:2", 99), ("connector:2", 1)].into(), "another one is tried again");
    assert_eq!((&world.record.refused, &world.record.healthy), (&None, &Some(spec("2"))));
}

#[test]
fn what_worked_everywhere_once_is_not_refused_later() {
    let mut world = World::settled(1, spec("1"));
    for (pod, _) in world.pods.values_mut() {
        (pod.ready, pod.restarts) = (false, 50);
    }
    for _ in 0..60 {
        world.turn();
        world.now += Duration::from_secs(20);
    }
    assert_eq!((world.record.refused.clone(), world.plan().report.failing.len()), (None, 2));
}

#[test]
fn where_nothing_works_the_next_release_comes_in_turns_too() {
    let mut world = World::new(50, spec("bad"));
    for _ in 0..20 {
        world.turn();
        world.step();
    }
    assert_eq!(world.plan().report.halt, Some(Halt::Failed));
    world.spec = spec("1");
    assert_eq!(created(&world.turn().actions).len(), 3);
    world.settle();
    assert_eq!(world.images(), [("agent:1", 50), ("connector:1", 1)].into());
}

#[test]
fn paused_means_that_nothing_is_replaced() {
    let mut world = World::settled(3, spec("1"));
    world.spec = spec("2");
    world.spec.rollout.paused = true;
    let plan = world.turn();
    assert_eq!((&plan.actions[..], plan.report.halt, plan.report.waiting), (&[][..], Some(Halt::Paused), 4));
    world.pods.retain(|_, (pod, _)| pod.node != "edge-0001");
    assert_eq!(created(&world.turn().actions), ["edge-0001"], "a new node has nothing to lose");
}

#[test]
fn who_is_offline_holds_up_nobody_and_follows_later() {
    let mut world = World::settled(3, spec("1"));
    world.spec.image = "agent:2".to_owned();
    world.turn();
    for (pod, _) in world.pods.values_mut().filter(|(pod, _)| pod.node == "edge-0000") {
        pod.ready = false;
    }
    world.node("edge-0000").online = false;
    world.settle();
    assert!(world.is_calm("edge-0001") && world.is_calm("edge-0002"));
    assert_eq!(world.record.healthy.as_ref().unwrap().image, "agent:2");
    assert_eq!((world.plan().report.offline, world.pods_of("edge-0000").len()), (1, 2));

    world.now += Duration::from_secs(100_000);
    world.node("edge-0000").online = true;
    assert!(world.turn().report.failing.is_empty(), "its time begins when it is back");
    world.settle();
    assert_eq!(world.images()["agent:2"], 3);
}

#[test]
fn a_pod_that_does_not_go_is_pushed_out_after_a_while() {
    let mut world = World::settled(1, spec("1"));
    let name = world.pods.iter().find(|(_, (pod, _))| pod.node == "edge-0000").unwrap().0.clone();
    world.pods.get_mut(&name).unwrap().0.deleting = true;
    assert_eq!(created(&world.turn().actions), ["edge-0000"], "the next one does not wait for it");
    world.now += Duration::from_secs(119);
    assert_eq!(world.turn().actions, []);
    world.now += Duration::from_secs(1);
    let pushed = |action: &Action| matches!(action, Action::Delete { name: n, force: true, .. } if *n == name);
    assert!(world.turn().actions.iter().any(pushed));
}

#[test]
fn of_several_pods_one_stays() {
    let mut world = World::settled(1, spec("1"));
    let (pod, image) = world.pods.values().find(|(pod, _)| pod.node == "edge-0000").unwrap().clone();
    for (name, ready) in [("another", false), ("third", true)] {
        let twin = super::super::Pod { name: name.to_owned(), uid: name.to_owned(), ready, ..pod.clone() };
        world.pods.insert(name.to_owned(), (twin, image.clone()));
    }
    let plan = world.turn();
    assert_eq!(plan.actions.len(), 2, "{plan:?}");
    world.settle();
    assert!(world.is_calm("edge-0000"));
}

#[test]
fn an_evicted_pod_is_replaced_but_not_in_a_hurry() {
    let mut world = World::settled(1, spec("1"));
    let (pod, _) = world.pods.values_mut().find(|(pod, _)| pod.node == "edge-0000").unwrap();
    (pod.phase, pod.ready) = (Phase::Failed, false);
    let plan = world.turn();
    assert_eq!((&plan.actions[..], plan.wake), (&[][..], Some(world.now + Duration::from_secs(30))));
    world.settle();
    assert!(world.is_calm("edge-0000"));
}

#[test]
fn a_pod_that_its_node_refuses_is_not_tried_again_and_again() {
    let mut world = World::settled(1, spec("1"));
    world.spec.image = "agent:2".to_owned();
    world.turn();
    let (pod, _) = world.pods.values_mut().find(|(_, image)| image == "agent:2").unwrap();
    pod.phase = Phase::Failed;
    assert_eq!(world.turn().actions, []);
    world.now += Duration::from_secs(29);
    assert_eq!(world.turn().actions, []);
    world.now += Duration::from_secs(1);
    assert_eq!(world.turn().actions.len(), 1);
}

#[test]
fn a_node_that_is_switched_off_is_cleaned_after_its_agent_has_gone() {
    let mut world = World::settled(1, spec("1"));
    world.node("edge-0000").agent.mode = AgentMode::Off;
    let plan = world.turn();
    assert!(matches!(&plan.actions[..], [Action::Delete { .. }]), "{plan:?}");
    world.step();
    assert_eq!(created(&world.turn().actions), ["edge-0000"]);
    assert!(matches!(&world.pods_of("edge-0000")[..], [pod] if pod.job == Job::Clean));
    assert_eq!(world.turn().actions, []);
    world.step();
    world.step();
    assert_eq!(world.turn().actions, [Action::Unmark { node: "edge-0000".to_owned() }]);
    world.settle();
    assert_eq!(world.pods_of("edge-0000"), Vec::<&super::super::Pod>::new());
    assert_eq!(world.plan().report.nodes, 1);

    world.node("edge-0000").agent.mode = AgentMode::Pod;
    world.settle();
    assert!(world.is_calm("edge-0000"));
}

#[test]
fn a_node_that_others_take_care_of_is_not_cleaned() {
    let mut world = World::settled(1, spec("1"));
    world.node("edge-0000").agent.mode = AgentMode::External;
    let mut cleaned = false;
    for _ in 0..10 {
        cleaned |= !created(&world.turn().actions).is_empty();
        world.step();
    }
    assert!(!cleaned);
    assert_eq!((world.node("edge-0000").marked, world.pods_of("edge-0000").len()), (None, 0));
}

#[test]
fn switched_off_altogether_everything_is_cleaned() {
    let mut world = World::settled(5, spec("1"));
    world.spec.enabled = false;
    world.settle();
    assert!(world.pods.is_empty());
    assert!(world.nodes.values().all(|view| view.marked.is_none()));
}

#[test]
fn a_node_that_becomes_the_connector_is_cleaned_of_the_agent_first() {
    let mut world = World::settled(2, spec("1"));
    world.nodes.remove("cloud");
    world.node("edge-0000").role = Role::Connector;
    let mut marks = Vec::new();
    for _ in 0..30 {
        world.turn();
        world.step();
        let pods = world.pods_of("edge-0000");
        assert!(pods.windows(2).all(|pair| pair[0].program == pair[1].program), "{pods:?}");
        marks.push(world.nodes["edge-0000"].marked);
    }
    marks.dedup();
    assert_eq!(marks, [Some(Program::Agent), None, Some(Program::Connector)]);
    assert!(world.is_calm("edge-0000"));
}

#[test]
fn a_node_with_an_image_of_its_own_goes_its_own_way() {
    let mut world = World::settled(3, spec("1"));
    world.node("edge-0001").agent.image = Some("agent:bad".to_owned());
    for _ in 0..30 {
        world.turn();
        world.step();
    }
    assert_eq!(world.record.refused, None);
    assert_eq!(world.plan().report.failing.keys().collect::<Vec<_>>(), ["edge-0001"]);
    assert_eq!(world.images()["agent:1"], 3, "its old one goes on");
}

#[test]
fn pods_of_nodes_without_a_configuration_are_left_alone() {
    let mut world = World::settled(2, spec("1"));
    world.nodes.remove("edge-0000");
    world.spec = spec("2");
    world.settle();
    assert_eq!(world.images()["agent:1"], 1);
}
