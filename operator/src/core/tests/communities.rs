use super::*;

fn workshop(members: &[&str]) -> (BTreeMap<String, NodeConfig>, Vec<String>) {
    let mut scene = beijing();
    scene.put_all([connector(), remote("shanghai", "10.245.0.0/16"), community("workshop", members)]);
    for i in 1..=4 {
        scene.put(edge(&format!("edge-{i}"), &format!("192.168.1.{i}")));
    }
    scene.put(edge("edge-9", ""));
    scene.compile()
}

#[test]
fn members_are_joined_with_all_others_in_the_order_of_names() {
    let (configs, _) = workshop(&["beijing.edge-3", "beijing.edge-1", "beijing.edge-2", "beijing.edge-1"]);
    assert_eq!(peers(&configs["edge-1"]), ["beijing.connector", "beijing.edge-2", "beijing.edge-3"]);
    assert_eq!(peers(&configs["edge-3"]), ["beijing.connector", "beijing.edge-1", "beijing.edge-2"]);
    assert_eq!(peers(&configs["edge-4"]), ["beijing.connector"]);
}

#[test]
fn a_member_of_several_communities_has_the_peers_of_all() {
    let mut scene = beijing();
    scene.put_all([connector(), community("a", &["beijing.edge-1", "beijing.edge-2"])]);
    scene.put(community("b", &["beijing.edge-1", "beijing.edge-3", "beijing.edge-2"]));
    for i in 1..=3 {
        scene.put(edge(&format!("edge-{i}"), &format!("192.168.1.{i}")));
    }
    assert_eq!(peers(&scene.configs()["edge-1"]), ["beijing.connector", "beijing.edge-2", "beijing.edge-3"]);
}

#[test]
fn whoever_has_a_public_address_is_called() {
    let mut scene = beijing();
    scene.put_all([connector(), community("w", &["beijing.edge-1", "beijing.edge-2"]), edge("edge-2", "192.168.1.2")]);
    scene.put(annotated(edge("edge-1", "192.168.1.1"), "public-addresses", "203.0.113.21, 2001:db8::21"));
    let configs = scene.configs();
    let (to_1, to_2) = (&configs["edge-2"].peers[1], &configs["edge-1"].peers[1]);
    assert!(to_1.initiate && to_1.addresses.len() == 2);
    assert!(!to_2.initiate && to_2.addresses.is_empty());
    assert!(configs["cloud-1"].peers.iter().all(|peer| !peer.initiate));
}

#[test]
fn wrong_members_are_named_and_the_others_joined() {
    let (configs, problems) = workshop(&[
        "edge-1",
        "",
        "beijing.",
        "beijing.edge-7",
        "beijing.edge-9",
        "beijing.cloud-1",
        "beijing.connector",
        "shanghai.connector",
        "nanjing.edge-1",
        "beijing.edge-1",
        "beijing.edge-2",
    ]);
    assert_eq!(peers(&configs["edge-1"]), ["beijing.connector", "beijing.edge-2"]);
    let ours: Vec<String> = problems
        .iter()
        .filter(|p| p.contains("workshop"))
        .map(|p| p.replace(" Community workshop in test.yaml: spec.members", ""))
        .collect();
    assert_eq!(
        ours,
        [
            "Error:[0]: \"edge-1\" is not of the form <cluster>.<node>; perhaps beijing.edge-1",
            "Error:[1]: \"\" is not of the form <cluster>.<node>",
            "Error:[2]: \"beijing.\" is not of the form <cluster>.<node>",
            "Error:[3]: \"beijing.edge-7\": there is no Node edge-7",
            "Error:[5]: \"beijing.cloud-1\" is not an edge node",
            "Error:[8]: \"nanjing.edge-1\": there is no Cluster nanjing",
            "Warning:[4]: \"beijing.edge-9\" is refused itself",
            "Warning:[6]: \"beijing.connector\": the connector is a peer of every edge node anyway",
            "Warning:[7]: \"shanghai.connector\" is in another cluster; only members of beijing are joined",
        ]
    );
}

fn selecting(name: &str, members: &[&str], selector: Value) -> Value {
    let spec = json!({"members": members, "selector": selector});
    json!({"apiVersion": api::API_VERSION, "kind": "Community", "metadata": {"name": name}, "spec": spec})
}

fn labelled(mut node: Value, label: &str, value: &str) -> Value {
    node["metadata"]["labels"][label] = json!(value);
    node
}

#[test]
fn labels_join_edge_nodes_as_they_come_and_go() {
    let mut scene = beijing();
    let pool = "apps.openyurt.io/nodepool";
    scene.put_all([
        connector(),
        labelled(edge("edge-1", "192.168.11.2"), pool, "hangzhou"),
        labelled(edge("edge-2", "192.168.12.2"), pool, "hangzhou"),
        labelled(edge("edge-3", "192.168.13.2"), pool, "ningbo"),
        // A pool may hold cloud nodes, which need no community.
        labelled(node("cloud-2", "", "172.16.0.12", &["10.244.2.0/24"]), pool, "hangzhou"),
        selecting("hangzhou", &["beijing.edge-3"], json!({"matchLabels": {pool: "hangzhou"}})),
    ]);
    let configs = scene.configs();
    assert_eq!(peers(&configs["edge-1"]), ["beijing.connector", "beijing.edge-2", "beijing.edge-3"]);
    assert_eq!(peers(&configs["edge-3"]), ["beijing.connector", "beijing.edge-1", "beijing.edge-2"]);

    scene.put(labelled(edge("edge-2", "192.168.12.2"), pool, "ningbo"));
    assert_eq!(peers(&scene.configs()["edge-1"]), ["beijing.connector", "beijing.edge-3"]);
}

#[test]
fn expressions_mean_what_they_mean_in_kubernetes() {
    let matches = |selector: Value, labels: Value| {
        let value = selecting("c", &[], selector);
        let Some(api::Content::Community(spec)) = api::read(&value).unwrap() else { panic!("{value}") };
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
        spec.selector.unwrap().matches(&labels)
    };
    let one = |operator: &str, values: Value| {
        let mut requirement = json!({"key": "tier", "operator": operator});
        if !values.is_null() {
            requirement["values"] = values;
        }
        json!({"matchExpressions": [requirement]})
    };
    for (selector, there, other, without) in [
        (one("In", json!(["a", "b"])), true, false, false),
        (one("NotIn", json!(["a", "b"])), false, true, true),
        (one("Exists", Value::Null), true, true, false),
        (one("DoesNotExist", Value::Null), false, false, true),
        (json!({}), true, true, true),
        (
            json!({"matchLabels": {"tier": "a"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}),
            false,
            false,
            false,
        ),
    ] {
        let found = [json!({"tier": "a"}), json!({"tier": "z"}), json!({})].map(|l| matches(selector.clone(), l));
        assert_eq!(found, [there, other, without], "{selector}");
    }
}

#[test]
fn a_selector_that_kubernetes_would_not_take_is_refused_by_its_field() {
    for (operator, values, message) in [
        ("In", json!([]), "spec.selector.matchExpressions[0].values: is empty with the operator In"),
        ("Exists", json!(["x"]), "spec.selector.matchExpressions[0].values: must be empty with the operator Exists"),
        (
            "Near",
            json!([]),
            "spec.selector.matchExpressions[0].operator: \"Near\" is none of In, NotIn, Exists, DoesNotExist",
        ),
    ] {
        let selector = json!({"matchExpressions": [{"key": "tier", "operator": operator, "values": values}]});
        let error = api::read(&selecting("c", &[], selector)).unwrap_err();
        assert_eq!(format!("{}: {}", error.field, error.message), message);
    }
}

#[test]
fn a_selector_of_nothing_is_worth_a_word() {
    let mut scene = beijing();
    scene.put_all([connector(), selecting("none", &[], json!({"matchLabels": {"tier": "a"}}))]);
    assert_eq!(scene.problems(), ["Warning: Community none in test.yaml: spec.selector: selects no edge node"]);
}
