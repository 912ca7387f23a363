use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use selvedge_model::NodeConfig;
use serde_json::{Value, json};

use super::super::render;
use super::*;
use crate::api;
use crate::core::renewal::DAY;
use crate::core::{Memory, Options, compile};
use crate::index::{Change, Kind, config, secret};

/// A small cluster, what was written for it, and a certificate authority.
struct World {
    objects: Objects,
    written: Written,
    authorities: Authorities,
    issued: Issued,
    checks: Checks,
    made: Made,
    now: SystemTime,
    version: u64,
}

impl World {
    fn new() -> World {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authorities = Authorities::create("beijing", None, now).unwrap();
        let mut world = World {
            objects: Objects::default(),
            written: Written::default(),
            authorities,
            issued: Issued::default(),
            checks: Checks::default(),
            made: Made::default(),
            now,
            version: 0,
        };
        let spec = json!({
            "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"], "edgePodCIDRs": ["10.234.0.0/16"],
            "connector": {"addresses": ["203.0.113.10"]},
        });
        world.put("Cluster", "beijing", json!({"spec": spec}));
        world.node("cloud-1", "connector", "172.16.0.11", &["10.244.1.0/24"]);
        world.node("edge-1", "edge", "192.168.11.2", &["10.234.0.0/24"]);
        world.node("edge-2", "edge", "192.168.12.2", &["10.234.1.0/24"]);
        world.node("edge-3", "edge", "192.168.13.2", &["10.234.2.0/24"]);
        world
    }

    fn put(&mut self, kind: &str, name: &str, rest: Value) {
        let mut value = rest;
        value["apiVersion"] = json!(if kind == "Node" { "v1" } else { api::API_VERSION });
        value["kind"] = json!(kind);
        value["metadata"]["name"] = json!(name);
        value["metadata"]["uid"] = json!(format!("uid-{name}"));
        let (key, seen) = Seen::read(&value);
        let kind = Kind::all().find(|k| k.name() == kind).unwrap();
        self.objects.apply(kind, Change::Applied(key, seen));
    }

    fn node(&mut self, name: &str, role: &str, address: &str, networks: &[&str]) {
        let node = json!({
            "metadata": {"labels": {format!("node-role.kubernetes.io/{role}"): ""}},
            "spec": {"podCIDRs": networks},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        });
        self.put("Node", name, node);
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        self.objects.apply(kind, Change::Deleted(key(name)));
    }

    fn plan<T>(&mut self, then: impl FnOnce(&mut World, Plan, &Output<'_>) -> T) -> T {
        let (state, _) = self.objects.state();
        let memory = Memory { complete: true, ..Memory::default() };
        let output = compile(&state, &Options::default(), &memory).output.unwrap();
        let mut plan = Plan::default();
        configurations(&output, &self.objects, &self.written, &mut self.made, &mut plan);
        remains(&self.objects, &self.written, &mut plan);
        let World { objects, written, authorities, issued, checks, .. } = self;
        credentials(Some(&output), true, objects, written, authorities, issued, checks, self.now, &mut plan);
        then(self, plan, &output)
    }

    /// Does what is planned, and says what that was.
    fn pass(&mut self) -> Vec<String> {
        self.plan(|world, plan, output| {
            assert!(plan.problems.is_empty(), "{:?}", plan.problems);
            plan.actions.iter().map(|action| world.act(action, output)).collect()
        })
    }

    fn act(&mut self, action: &Action, output: &Output<'_>) -> String {
        self.version += 1;
        let version = Some(self.version.to_string());
        match action {
            Action::Config(Owned { node, owner, content }) => {
                let new = NodeConfig { generation: *content, ..output.config(node).unwrap() };
                let text = serde_json::to_string(&new).unwrap();
                let mut object: ConfigMap = render::config_map(node, owner, &text).unwrap();
                object.metadata.resource_version = version;
                let (key, new) = config(&object).unwrap();
                self.written.apply_config(Change::Applied(key, new));
                format!("config {node}")
            }
            Action::Secret(Owned { node, owner, content }) => {
                let there = self.written.secrets.get(&key(node)).and_then(|there| there.credentials.clone());
                let days = output.certificate_days;
                let made = self.authorities.issue(&content.name, &mut self.issued, self.now, days).unwrap().0;
                let kept = there.filter(|_| content.keep).map(|there| self.authorities.current(&there));
                let credentials = kept.unwrap_or(made);
                let mut object: Secret = render::secret(node, owner, &credentials);
                object.metadata.resource_version = version;
                let (key, new) = secret(&object).unwrap();
                self.written.apply_secret(Change::Applied(key, new));
                format!("secret {node} {}", content.why)
            }
            Action::DeleteConfig(node) => {
                self.written.apply_config(Change::Deleted(key(node)));
                format!("delete config {node}")
            }
            Action::DeleteSecret(node) => {
                self.written.apply_secret(Change::Deleted(key(node)));
                format!("delete secret {node}")
            }
        }
    }

    fn generation(&self, node: &str) -> u64 {
        self.written.configs.get(&key(node)).unwrap().generation
    }
}

/// The world after its first pass.
fn settled() -> World {
    let mut world = World::new();
    world.pass();
    assert_eq!(world.pass(), Vec::<String>::new());
    world
}

#[test]
fn everything_is_written_once_and_then_nothing() {
    let mut world = World::new();
    assert_eq!(
        world.pass(),
        [
            "config cloud-1",
            "config edge-1",
            "config edge-2",
            "config edge-3",
            "secret cloud-1 made",
            "secret edge-1 made",
            "secret edge-2 made",
            "secret edge-3 made"
        ]
    );
    assert_eq!(world.pass(), Vec::<String>::new());
    assert_eq!(world.generation("edge-1"), 1);
}

#[test]
fn a_change_is_written_to_those_it_concerns() {
    let mut world = settled();
    let members = |members: &[&str]| json!({"spec": {"members": members}});
    world.put("Community", "c", members(&["beijing.edge-1", "beijing.edge-2", "beijing.edge-3"]));
    assert_eq!(world.pass(), ["config edge-1", "config edge-2", "config edge-3"]);
    // Who is removed loses its tunnels at both ends in one pass.
    world.put("Community", "c", members(&["beijing.edge-1", "beijing.edge-2"]));
    assert_eq!(world.pass(), ["config edge-1", "config edge-2", "config edge-3"]);
    world.put("Community", "c", members(&["beijing.edge-2"]));
    assert_eq!(world.pass(), ["config edge-1", "config edge-2"]);
    assert_eq!((world.generation("edge-1"), world.generation("edge-3"), world.generation("cloud-1")), (4, 3, 1));
}

#[test]
fn a_revoked_node_gets_nothing_and_all_others_the_list() {
    let mut world = settled();
    let spec = |revoked: &[&str]| {
        json!({"spec": {
            "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"], "edgePodCIDRs": ["10.234.0.0/16"],
            "connector": {"addresses": ["203.0.113.10"]}, "revoked": revoked,
        }})
    };
    world.put("Cluster", "beijing", spec(&["edge-2"]));
    world.plan(|world, _, output| world.issued.revoke(&output.authority.revoked, 1_800_000_000));
    assert_eq!(world.issued.revoked().len(), 1);
    world.authorities.revoke(world.issued.revoked(), world.now).unwrap();
    world.checks.forget();
    let why = "delivered with other authorities";
    let others = ["cloud-1", "edge-1", "edge-3"].map(|node| format!("secret {node} {why}"));
    assert_eq!(world.pass(), others);
    assert_eq!(world.pass(), Vec::<String>::new());
    world.put("Cluster", "beijing", spec(&[]));
    assert_eq!(world.pass(), ["secret edge-2 replaced: the certificate was revoked"]);
    assert_eq!(world.pass(), Vec::<String>::new());
}

#[test]
fn all_credentials_follow_the_authorities() {
    let mut world = settled();
    let step = |world: &mut World| {
        let everybody = crate::authority::Everybody { trusted: true, replaced: true };
        world.authorities.advance("beijing", Some("x"), 0, &everybody, world.now).unwrap();
        world.checks.forget();
        let actions = world.pass();
        assert_eq!((actions.len(), world.pass().len()), (4, 0));
        actions[1].clone()
    };
    assert_eq!(step(&mut world), "secret edge-1 delivered with other authorities");
    assert_eq!(step(&mut world), "secret edge-1 replaced: the certificate was issued by the previous authority");
    assert_eq!(step(&mut world), "secret edge-1 delivered with other authorities");
}

#[test]
fn an_outpost_that_enrols_has_a_key_of_its_own() {
    let mut world = settled();
    world.put("Outpost", "gw-1", json!({"spec": {"lanPrefixes": ["192.168.77.0/24"]}}));
    assert_eq!(world.pass(), ["config cloud-1", "config gw-1"]);
}

#[test]
fn what_somebody_else_changed_is_set_right() {
    let mut world = settled();
    let (mut object, owner) = (ConfigMap::default(), Owner { kind: "Node".to_owned(), uid: "uid-edge-1".to_owned() });
    object.metadata = render::config_map("edge-1", &owner, "").unwrap().metadata;
    object.metadata.resource_version = Some("999".to_owned());
    object.data = Some([("config.json".to_owned(), "{\"generation\": 7}".to_owned())].into());
    let (key, new) = config(&object).unwrap();
    assert!(world.written.apply_config(Change::Applied(key, new)));
    world.version = 1000;
    assert_eq!(world.pass(), ["config edge-1"]);
    // The number goes on, so that the agent takes it.
    assert_eq!(world.generation("edge-1"), 8);
}

#[test]
fn an_echo_of_an_older_version_is_no_news() {
    let mut world = settled();
    let owner = Owner { kind: "Node".to_owned(), uid: "uid-edge-1".to_owned() };
    let mut object = render::config_map("edge-1", &owner, "{}").unwrap();
    object.metadata.resource_version = Some("0".to_owned());
    let (key, new) = config(&object).unwrap();
    assert!(!world.written.apply_config(Change::Applied(key, new)));
    assert_eq!(world.pass(), Vec::<String>::new());
}

#[test]
fn a_node_made_anew_owns_what_it_has() {
    let mut world = settled();
    let node = json!({
        "metadata": {"labels": {"node-role.kubernetes.io/edge": ""}},
        "spec": {"podCIDRs": ["10.234.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.11.2"}]},
    });
    let mut anew = node;
    anew["apiVersion"] = json!("v1");
    anew["kind"] = json!("Node");
    anew["metadata"]["name"] = json!("edge-1");
    anew["metadata"]["uid"] = json!("uid-new");
    let (key, seen) = Seen::read(&anew);
    assert!(world.objects.apply(Kind::Node, Change::Applied(key, seen)));
    assert_eq!(world.pass(), ["config edge-1", "secret edge-1 kept"]);
    assert_eq!(world.pass(), Vec::<String>::new());
}

#[test]
fn what_belongs_to_a_node_goes_with_it() {
    let mut world = settled();
    world.remove(Kind::Node, "edge-3");
    assert_eq!(world.pass(), ["config cloud-1", "delete config edge-3", "delete secret edge-3"]);
    assert_eq!(world.pass(), Vec::<String>::new());
}

#[test]
fn a_node_that_is_refused_keeps_what_it_has() {
    let mut world = settled();
    // Takes part no more, but is there.
    world.node("edge-3", "edge", "192.168.13.2", &["10.244.1.0/25"]);
    assert_eq!(world.pass(), ["config cloud-1"]);
    world.now += Duration::from_secs(25 * DAY);
    let renewed = world.pass();
    assert!(renewed.contains(&"secret edge-3 renewed".to_owned()), "{renewed:?}");
}

#[test]
fn credentials_are_renewed_by_time_and_replaced_if_they_are_no_good() {
    let mut world = settled();
    let plan = world.plan(|_, plan, _| plan);
    assert_eq!(plan.renewal, Some(world.now + Duration::from_secs(20 * DAY)));
    world.now += Duration::from_secs(20 * DAY);
    assert_eq!(
        world.pass(),
        ["secret cloud-1 renewed", "secret edge-1 renewed", "secret edge-2 renewed", "secret edge-3 renewed"]
    );
    assert_eq!(world.pass(), Vec::<String>::new());

    let owner = Owner { kind: "Node".to_owned(), uid: "uid-edge-1".to_owned() };
    let metadata = render::config_map("edge-1", &owner, "").unwrap().metadata;
    let mut object = Secret { metadata, ..Secret::default() };
    object.metadata.resource_version = Some("999".to_owned());
    let (key, new) = secret(&object).unwrap();
    assert!(world.written.apply_secret(Change::Applied(key, new)));
    world.version = 1000;
    assert_eq!(world.pass(), ["secret edge-1 replaced: the Secret was incomplete"]);
}

#[test]
fn a_clock_that_jumps_makes_new_credentials_and_nothing_else() {
    let mut world = settled();
    world.now -= Duration::from_secs(3650 * DAY);
    let back = world.pass();
    assert!(back.iter().all(|action| action.starts_with("secret ")), "{back:?}");
    assert_eq!(world.pass(), Vec::<String>::new());
    world.now += Duration::from_secs(3650 * DAY);
    let forth = world.pass();
    assert!(forth.iter().all(|action| action.starts_with("secret ")), "{forth:?}");
    assert_eq!(world.pass(), Vec::<String>::new());
}

#[test]
fn a_connector_of_many_edges_has_a_packed_configuration() {
    let mut world = World::new();
    // Names as cloud providers make them.
    let domain = format!("{0}.{0}.{0}", "gateway".repeat(8));
    for i in 0..4200_u32 {
        let (a, b) = (i / 250, i % 250 + 1);
        let network = format!("11.{}.{}.0/24", i / 256, i % 256);
        world.node(&format!("edge-{i}.{domain}"), "edge", &format!("192.168.{a}.{b}"), &[&network]);
    }
    let (longest, text) = world.plan(|world, plan, output| {
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        let connector = |action: &&Action| matches!(action, Action::Config(owned) if owned.node == "cloud-1");
        let action = plan.actions.iter().find(connector).unwrap();
        assert_eq!(world.act(action, output), "config cloud-1");
        let config = output.config("cloud-1").unwrap();
        (plan.longest, serde_json::to_string(&NodeConfig { generation: 1, ..config }).unwrap())
    });
    assert_eq!(longest, text.len());
    assert!(longest > ROOM);
    let there = world.written.configs.get(&key("cloud-1")).unwrap();
    assert_eq!(
        (there.digest, there.generation, there.name.as_str()),
        (digest(text.as_bytes()), 1, "beijing.connector")
    );
    let again = world.plan(|_, plan, _| plan);
    assert!(!again.actions.iter().any(|action| matches!(action, Action::Config(owned) if owned.node == "cloud-1")));
}

#[test]
fn what_a_config_map_cannot_hold_is_not_sent() {
    let mut world = World::new();
    world.plan(|_, _, output| {
        let (edge, connector) = (output.config("edge-1").unwrap(), output.config("cloud-1").unwrap());
        assert_eq!(too_long(&edge, &"x".repeat(ROOM)), None);
        let message = "its configuration has 1048577 bytes, more than the 1048576 that a ConfigMap holds; the last good one stays";
        assert_eq!(too_long(&edge, &"x".repeat(ROOM + 1)).unwrap(), message);
        assert_eq!(too_long(&connector, &"x".repeat(ROOM + 1)), None);
        let noise: String = (0..ROOM * 3 / 2 / 32).map(|i| digest(&i.to_be_bytes()).to_string()).collect();
        assert_eq!(too_long(&connector, &noise), None, "a hexadecimal digit takes half a byte, and a little");
        let more: String = (0..ROOM * 3 / 32).map(|i| digest(&i.to_be_bytes()).to_string()).collect();
        assert!(too_long(&connector, &more).unwrap().contains("more than the 1048576 that a ConfigMap holds"));
    });
}

#[test]
fn a_long_name_is_no_label_and_is_known_all_the_same() {
    let mut world = World::new();
    let name = format!("edge.{0}.{0}.example", "gateway".repeat(8));
    world.node(&name, "edge", "192.168.14.2", &["10.234.3.0/24"]);
    let done = world.pass();
    assert!(done.contains(&format!("config {name}")) && done.contains(&format!("secret {name} made")), "{done:?}");
    assert_eq!(world.pass(), Vec::<String>::new());
    let owner = Owner { kind: "Node".to_owned(), uid: "u".to_owned() };
    for (node, length) in [(name.as_str(), 32), (&name[..63], 63)] {
        let labels = render::config_map(node, &owner, "{}").unwrap().metadata.labels.unwrap();
        assert_eq!(labels["selvedge.dev/node"].len(), length);
    }
}
