use serde_json::json;

use super::*;

fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": format!("uid-{name}")},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn put(objects: &mut Objects, value: &Value) -> bool {
    let (key, seen) = Seen::read(value);
    objects.apply(Kind::of(&seen.reference).unwrap(), Change::Applied(key, seen))
}

fn list(objects: &mut Objects, kind: Kind, values: &[Value]) -> bool {
    objects.apply(kind, Change::Listing);
    for value in values {
        let (key, seen) = Seen::read(value);
        objects.apply(kind, Change::Listed(key, seen));
    }
    objects.apply(kind, Change::Complete)
}

fn addresses(objects: &Objects, name: &str) -> Vec<String> {
    let (state, _) = objects.state();
    state.nodes[name].value.internal_ips.iter().map(ToString::to_string).collect()
}

#[test]
fn a_heartbeat_is_no_change() {
    let mut objects = Objects::default();
    assert!(put(&mut objects, &node("edge-1", "192.168.11.2")));
    let mut heartbeat = node("edge-1", "192.168.11.2");
    heartbeat["metadata"]["resourceVersion"] = json!("77");
    heartbeat["status"]["conditions"] = json!([{"type": "Ready", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]);
    assert!(!put(&mut objects, &heartbeat));
    assert!(put(&mut objects, &node("edge-1", "192.168.11.3")));
}

#[test]
fn a_bad_object_keeps_its_last_good_version() {
    let mut objects = Objects::default();
    put(&mut objects, &node("edge-1", "192.168.11.2"));
    assert!(put(&mut objects, &node("edge-1", "192.168.11")));
    assert_eq!(addresses(&objects, "edge-1"), ["192.168.11.2"]);
    let (_, problems) = objects.state();
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "Node edge-1: status.addresses[0].address: \"192.168.11\" is not an IP address; the last good version stays in \
          force"
        ]
    );
    // Twice bad is not twice told.
    assert!(!put(&mut objects, &node("edge-1", "192.168.11")));
    assert!(put(&mut objects, &node("edge-1", "192.168.11.4")));
    assert!(objects.state().1.is_empty());
}

#[test]
fn a_new_list_disturbs_nothing_before_it_is_complete() {
    let mut objects = Objects::default();
    list(&mut objects, Kind::Node, &[node("edge-1", "192.168.11.2"), node("edge-2", "192.168.12.2")]);
    objects.apply(Kind::Node, Change::Listing);
    let (key, seen) = Seen::read(&node("edge-2", "192.168.12.2"));
    assert!(!objects.apply(Kind::Node, Change::Listed(key, seen)));
    assert!(objects.node("edge-1").is_some());
    // A watch that is torn now begins another list.
    assert!(!list(&mut objects, Kind::Node, &[node("edge-1", "192.168.11.2"), node("edge-2", "192.168.12.2")]));
    assert!(list(&mut objects, Kind::Node, &[node("edge-2", "192.168.12.2")]));
    assert!(objects.node("edge-1").is_none());
}

#[test]
fn all_kinds_must_be_listed_once() {
    let mut objects = Objects::default();
    for kind in Kind::all().filter(|kind| *kind != Kind::EndpointSlice) {
        assert!(list(&mut objects, kind, &[]));
    }
    assert_eq!(objects.missing(), ["EndpointSlice"]);
    // An old API server has none.
    assert!(objects.apply(Kind::EndpointSlice, Change::Absent));
    assert!(!objects.apply(Kind::EndpointSlice, Change::Absent));
    assert!(objects.missing().is_empty());
}

#[test]
fn a_node_that_was_never_good_is_not_gone() {
    let mut objects = Objects::default();
    list(&mut objects, Kind::Node, &[node("edge-1", "no address")]);
    assert!(!objects.shows_all_nodes());
    assert!(objects.node("edge-1").is_some());
    put(&mut objects, &node("edge-1", "192.168.11.2"));
    assert!(objects.shows_all_nodes());
}

#[test]
fn a_node_comes_before_an_outpost_of_its_name() {
    let outpost = json!({
        "apiVersion": api::API_VERSION, "kind": "Outpost", "metadata": {"name": "edge-1"},
        "spec": {"lanPrefixes": ["192.168.50.0/24"]},
    });
    let mut objects = Objects::default();
    put(&mut objects, &outpost);
    put(&mut objects, &node("edge-1", "192.168.11.2"));
    let (state, problems) = objects.state();
    assert!(state.nodes["edge-1"].value.outpost.is_none());
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["Outpost edge-1: metadata.name: is also the name of Node edge-1; that one is in force"]);
}

#[test]
fn a_status_of_our_own_is_no_change() {
    let mut community = json!({
        "apiVersion": api::API_VERSION, "kind": "Community", "metadata": {"name": "c", "generation": 1},
        "spec": {"members": []},
    });
    let mut objects = Objects::default();
    assert!(put(&mut objects, &community));
    community["status"] = json!({"members": 2});
    assert!(!put(&mut objects, &community));
    assert_eq!(objects.ours().next().unwrap().1.status, json!({"members": 2}));
    // The same spec again is a generation that the status has not seen.
    community["metadata"]["generation"] = json!(2);
    assert!(put(&mut objects, &community));
}

#[test]
fn blocks_that_do_not_matter_may_be_forbidden() {
    let mut objects = Objects::default();
    let cluster = |networks: &str| {
        json!({
            "apiVersion": api::API_VERSION, "kind": "Cluster", "metadata": {"name": "c"},
            "spec": {
                "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"], "podNetworks": networks,
                "connector": {"addresses": ["203.0.113.10"]},
            },
        })
    };
    for kind in Kind::all().filter(|kind| *kind != Kind::Block) {
        list(&mut objects, kind, &[]);
    }
    list(&mut objects, Kind::Cluster, &[cluster("nodes")]);
    assert_eq!(objects.missing(), Vec::<&str>::new());
    // Without them the cloud's pods would be out of reach.
    put(&mut objects, &cluster("calico"));
    assert_eq!(objects.missing(), ["IPAMBlock"]);
    objects.apply(Kind::Block, Change::Absent);
    assert_eq!(objects.missing(), Vec::<&str>::new());
}
