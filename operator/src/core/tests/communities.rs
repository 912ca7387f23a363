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
