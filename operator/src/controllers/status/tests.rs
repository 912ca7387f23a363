use serde_json::json;

use super::*;
use crate::api;
use crate::core::{Memory, Options, compile};
use crate::index::{Change, Seen};

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-02-02T00:00:00Z";

struct World {
    objects: Objects,
    agents: Report,
}

impl World {
    /// A cluster with a connector and two edges.
    fn new() -> World {
        let mut world = World { objects: Objects::default(), agents: Report::default() };
        let spec = json!({
            "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"], "edgePodCIDRs": ["10.234.0.0/16"],
            "connector": {"addresses": ["203.0.113.10"]},
        });
        world.put(Kind::Cluster, "beijing", spec);
        world.node("cloud-1", "connector", "172.16.0.11", &["10.244.1.0/24"]);
        world.node("edge-1", "edge", "192.168.11.2", &[]);
        world.node("edge-2", "edge", "192.168.12.2", &[]);
        world
    }

    /// As the API server has it, where the status stays.
    fn put(&mut self, kind: Kind, name: &str, spec: Value) {
        let there = self.objects.ours().find(|(_, seen)| seen.reference.name == name);
        let status = there.map(|(_, seen)| seen.status.clone());
        self.apply(
            kind,
            json!({
                "apiVersion": api::API_VERSION, "kind": kind.name(), "spec": spec, "status": status,
                "metadata": {"name": name, "generation": 3},
            }),
        );
    }

    fn node(&mut self, name: &str, role: &str, address: &str, networks: &[&str]) {
        let labels = json!({format!("node-role.kubernetes.io/{role}"): ""});
        self.apply(
            Kind::Node,
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                "spec": {"podCIDRs": networks}, "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            }),
        );
    }

    fn apply(&mut self, kind: Kind, value: Value) {
        let (key, seen) = Seen::read(&value);
        self.objects.apply(kind, Change::Applied(key, seen));
    }

    /// Writes what is due; tells who was written.
    fn pass(&mut self, now: &str) -> Vec<String> {
        let (state, mut problems) = self.objects.state();
        let compiled = compile(&state, &Options::default(), &Memory { complete: true, ..Memory::default() });
        problems.extend(compiled.problems);
        problems.sort();
        let updates = updates(&self.objects, compiled.output.as_ref(), &self.agents, &problems, now);
        let names = updates.iter().map(|update| update.name.clone()).collect();
        for update in updates {
            self.objects.set_status(update.kind, "", &update.name, update.status);
        }
        names
    }

    fn status(&self, name: &str) -> &Value {
        &self.objects.ours().find(|(_, seen)| seen.reference.name == name).unwrap().1.status
    }

    fn condition(&self, name: &str, kind: &str) -> String {
        let conditions: Vec<Condition> = serde_json::from_value(self.status(name)["conditions"].clone()).unwrap();
        let condition = conditions.into_iter().find(|condition| condition.kind == kind).unwrap();
        assert_eq!(condition.observed_generation, 3);
        format!("{} {}: {}", condition.status, condition.reason, condition.message)
    }
}

#[test]
fn statuses_are_written_only_when_they_change() {
    let mut world = World::new();
    world.put(Kind::Community, "workshop", json!({"members": ["beijing.edge-1", "beijing.edge-2"]}));
    assert_eq!(world.pass(EARLY), ["beijing", "workshop"]);
    assert_eq!(world.pass(LATE), Vec::<String>::new());
    assert_eq!(world.condition("beijing", "Ready"), "True Configured: 3 nodes, 2 of them edges");
    assert_eq!(world.condition("beijing", "Degraded"), "False AllInForce: nothing is refused");
    assert_eq!((&world.status("beijing")["nodes"], &world.status("beijing")["edges"]), (&json!(3), &json!(2)));
    assert_eq!(world.condition("workshop", "Ready"), "True Joined: 2 edge nodes are joined");
    assert_eq!(world.status("workshop")["members"], json!(2));
}

#[test]
fn the_cluster_says_how_its_agents_are() {
    let mut world = World::new();
    world.pass(EARLY);
    assert_eq!(world.status("beijing")["agents"], Value::Null, "nobody asked for any");

    world.agents = Report { nodes: 3, ready: 1, waiting: 1, changing: 1, ..Report::default() };
    assert_eq!(world.pass(EARLY), ["beijing"]);
    assert_eq!(world.condition("beijing", "AgentsReady"), "False Progressing: 1 of 3 nodes, 0 offline, 1 wait");
    world.agents.failing.insert("edge-1".to_owned(), "ErrImagePull".to_owned());
    world.agents.halt = Some(Halt::RolledBack);
    world.pass(EARLY);
    let failing = "1 do not come up, for example on edge-1: ErrImagePull";
    let told = format!("False RolledBack: 1 of 3 nodes, 0 offline, 1 wait; {failing}");
    assert_eq!(world.condition("beijing", "AgentsReady"), told);
    world.agents = Report { nodes: 3, ready: 2, offline: 1, ..Report::default() };
    world.pass(LATE);
    assert_eq!(world.condition("beijing", "AgentsReady"), "True UpToDate: 2 of 3 nodes, 1 offline, 0 wait");
    assert_eq!(world.status("beijing")["agents"]["offline"], json!(1));
    assert_eq!(world.pass(LATE), Vec::<String>::new());
}

#[test]
fn a_condition_keeps_the_time_since_which_it_holds() {
    let mut world = World::new();
    world.put(Kind::Community, "workshop", json!({"members": ["beijing.edge-1"]}));
    world.pass(EARLY);
    world.put(Kind::Community, "workshop", json!({"members": ["beijing.edge-1", "beijing.edge-9"]}));
    assert_eq!(world.pass(LATE), ["beijing", "workshop"]);
    let times = |name: &str| -> Vec<Value> {
        let conditions = world.status(name)["conditions"].as_array().unwrap();
        conditions.iter().map(|c| json!([c["type"], c["lastTransitionTime"]])).collect()
    };
    assert_eq!(times("workshop"), [json!(["Degraded", LATE]), json!(["Ready", EARLY])]);
    assert_eq!(
        world.condition("workshop", "Degraded"),
        "True NotAllJoined: spec.members[1]: \"beijing.edge-9\": there is no Node edge-9"
    );
    assert_eq!(
        world.condition("beijing", "Degraded"),
        "True Refused: Community workshop: spec.members[1]: \"beijing.edge-9\": there is no Node edge-9"
    );
}

#[test]
fn the_status_tells_that_the_last_good_version_is_in_force() {
    let mut world = World::new();
    world.put(Kind::Community, "workshop", json!({"members": ["beijing.edge-1", "beijing.edge-2"]}));
    world.pass(EARLY);
    world.put(Kind::Community, "workshop", json!({"members": 7}));
    world.pass(LATE);
    let ready = world.condition("workshop", "Ready");
    assert!(ready.starts_with("False Refused: spec.members: invalid type"), "{ready}");
    assert!(ready.ends_with("; the last good version stays in force"), "{ready}");
    assert_eq!(world.status("workshop")["members"], json!(2));
}

#[test]
fn without_a_usable_cluster_nothing_is_said_to_be_in_force() {
    let mut world = World::new();
    world.put(Kind::Community, "workshop", json!({"members": []}));
    world.put(Kind::Outpost, "mill", json!({"lanPrefixes": ["192.168.50.0/24"]}));
    world.put(
        Kind::Cluster,
        "beijing",
        json!({"clusterCIDRs": [], "serviceCIDRs": [], "connector": {"addresses": []}}),
    );
    world.pass(EARLY);
    assert_eq!(
        world.condition("beijing", "Ready"),
        "False Refused: spec.connector.addresses: is empty: edge nodes need an address where they reach the connector; \
         spec.serviceCIDRs: is empty; every cluster has a network of cluster IPs"
    );
    assert_eq!(world.condition("workshop", "Ready"), "False NotCompiled: there is no usable own Cluster");
    assert_eq!(world.condition("mill", "Ready"), "False NotCompiled: there is no usable own Cluster");
}

#[test]
fn an_outpost_says_what_is_reached_through_it() {
    let mut world = World::new();
    world.put(Kind::Outpost, "mill", json!({"lanPrefixes": ["192.168.50.0/24"]}));
    world.put(Kind::Outpost, "mine", json!({"lanPrefixes": ["10.244.7.0/24"]}));
    world.pass(EARLY);
    let mill = world.status("mill");
    assert_eq!((&mill["name"], &mill["networks"]), (&json!("beijing.mill"), &json!(["192.168.50.0/24"])));
    assert_eq!(world.condition("mill", "Ready"), "True Configured: it has a configuration");
    assert_eq!(
        world.condition("mine", "Ready"),
        "False Refused: spec.lanPrefixes: 10.244.7.0/24 overlaps 10.244.0.0/16 of Cluster beijing, spec.clusterCIDRs[0]"
    );
}

#[test]
fn another_cluster_is_only_kept_free() {
    let mut world = World::new();
    world.put(
        Kind::Cluster,
        "shanghai",
        json!({"remote": true, "clusterCIDRs": ["10.245.0.0/16"], "serviceCIDRs": []}),
    );
    world.put(Kind::Cluster, "nanjing", json!({"remote": true, "clusterCIDRs": ["10.244.9.0/24"], "serviceCIDRs": []}));
    world.pass(EARLY);
    assert_eq!(world.condition("shanghai", "Ready"), "True Remote: its networks are kept free");
    assert!(world.condition("nanjing", "Ready").starts_with("False Refused: spec.clusterCIDRs[0]"));
}
