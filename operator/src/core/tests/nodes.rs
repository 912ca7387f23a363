use super::*;

#[test]
fn a_node_without_address_is_left_out_alone() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", ""), edge("edge-2", "192.168.12.2")]);
    let (configs, problems) = scene.compile();
    assert_eq!(configs.keys().collect::<Vec<_>>(), ["cloud-1", "edge-2"]);
    assert_eq!(
        problems,
        ["Error: Node edge-1 in test.yaml: status.addresses: has no address of type InternalIP; the node is left out"]
    );
}

#[test]
fn a_newcomer_with_the_address_of_another_is_refused_whatever_its_name() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-5", "192.168.11.2")]);
    let before = scene.configs();
    scene.put(edge("a-newcomer", "192.168.11.2"));
    let (after, problems) = scene.compile();
    assert_eq!(after, before);
    assert_eq!(
        problems,
        [
            "Error: Node a-newcomer in test.yaml: status.addresses: 192.168.11.2 is taken: 192.168.11.2/32 belongs to Node \
          edge-5 in test.yaml"
        ]
    );
}

#[test]
fn networks_of_two_nodes_never_overlap() {
    let mut scene = beijing();
    scene.put_all([
        connector(),
        node("edge-1", "edge", "192.168.11.2", &["10.50.1.0/24"]),
        node("edge-2", "edge", "192.168.12.2", &["10.50.0.0/16"]),
        node("edge-3", "edge", "10.50.1.9", &["10.51.0.0/24"]),
        node("edge-4", "edge", "192.168.14.2", &["10.96.7.0/24"]),
        annotated(edge("edge-5", "192.168.15.2"), "pod-cidrs", "10.244.3.0/24"),
    ]);
    // What the refused ones asked for is free for others.
    scene.put(edge("edge-6", "192.168.12.2")).put(edge("edge-7", "192.168.15.2"));
    let (configs, problems) = scene.compile();
    assert_eq!(configs.keys().collect::<Vec<_>>(), ["cloud-1", "edge-1", "edge-6", "edge-7"]);
    assert_eq!(
        problems,
        [
            "Error: Node edge-2 in test.yaml: spec.podCIDRs: 10.50.0.0/16 overlaps 10.50.1.0/24 of Node edge-1 in test.yaml",
            "Error: Node edge-3 in test.yaml: status.addresses: 10.50.1.9 is taken: 10.50.1.0/24 belongs to Node edge-1 in \
         test.yaml",
            "Error: Node edge-4 in test.yaml: spec.podCIDRs: 10.96.7.0/24 overlaps 10.96.0.0/16 of Cluster beijing in \
         test.yaml, spec.serviceCIDRs[0]",
            "Error: Node edge-5 in test.yaml: metadata.annotations[selvedge.dev/pod-cidrs]: 10.244.3.0/24 overlaps \
         10.244.0.0/16 of Cluster beijing in test.yaml, spec.clusterCIDRs[0]",
        ]
    );
}

#[test]
fn a_node_that_lives_in_the_pool_is_refused() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", "10.234.9.9")]);
    assert_eq!(
        scene.problems(),
        ["Error: Node edge-1 in test.yaml: status.addresses: 10.234.9.9 lies in 10.234.0.0/16 of Cluster beijing in \
          test.yaml, spec.edgePodCIDRs[0]"]
    );
}

#[test]
fn networks_given_by_kubernetes_are_kept_and_avoided() {
    let mut scene = beijing();
    scene.put_all([
        connector(),
        edge("edge-1", "192.168.11.2"),
        node("edge-2", "edge", "192.168.12.2", &["10.234.0.0/23"]),
        annotated(edge("edge-3", "192.168.13.2"), "pod-cidrs", "10.234.2.0/24, fd00:234::/64"),
    ]);
    let configs = scene.configs();
    assert_eq!(pods(&configs["edge-1"]), ["10.234.3.0/24", "fd00:234:0:1::/64"]);
    assert_eq!(pods(&configs["edge-2"]), ["10.234.0.0/23"]);
    assert_eq!(pods(&configs["edge-3"]), ["10.234.2.0/24", "fd00:234::/64"]);
}

#[test]
fn both_ends_of_a_metered_nodes_tunnels_know() {
    let mut scene = beijing();
    scene.put_all([connector(), community("w", &["beijing.edge-1", "beijing.edge-2"]), edge("edge-2", "192.168.1.2")]);
    scene.put(annotated(edge("edge-1", "192.168.1.1"), "metered", "true"));
    let configs = scene.configs();
    let metered = |node: &str| {
        let names = configs[node].peers.iter().filter(|peer| peer.metered).map(|peer| peer.name.as_str());
        (configs[node].metered, names.collect::<Vec<_>>())
    };
    assert_eq!(metered("edge-1"), (true, vec![]));
    assert_eq!(metered("edge-2"), (false, vec!["beijing.edge-1"]));
    assert_eq!(metered("cloud-1"), (false, vec!["beijing.edge-1"]));
}

#[test]
fn what_a_node_has_it_keeps_when_the_pool_moves_and_gets_the_family_it_lacks() {
    let mut scene = beijing();
    scene.put(cluster("beijing", serde_json::json!({"edgePodCIDRs": ["10.234.0.0/16"]})));
    scene.put_all([connector(), edge("edge-1", "192.168.11.2")]);
    assert_eq!(pods(&scene.configs()["edge-1"]), ["10.234.0.0/24"]);
    scene.put(cluster("beijing", serde_json::json!({"edgePodCIDRs": ["10.235.0.0/16", "fd00:234::/48"]})));
    let (configs, problems) = scene.compile();
    assert_eq!(pods(&configs["edge-1"]), ["10.234.0.0/24", "fd00:234::/64"]);
    assert_eq!(
        problems,
        ["Warning: Node edge-1 in test.yaml: spec.podCIDRs: 10.234.0.0/24 lies outside the pools 10.235.0.0/16, \
          fd00:234::/48 of Cluster beijing in test.yaml; it is kept"]
    );
}

#[test]
fn an_exhausted_pool_leaves_out_only_the_newcomer() {
    let mut scene = beijing();
    scene.put(cluster("beijing", serde_json::json!({"edgePodCIDRs": ["10.234.0.0/23"]})));
    scene.put_all([connector(), edge("edge-2", "192.168.12.2"), edge("edge-3", "192.168.13.2")]);
    scene.configs();
    scene.put(edge("edge-1", "192.168.11.2"));
    let (configs, problems) = scene.compile();
    assert_eq!(configs.keys().collect::<Vec<_>>(), ["cloud-1", "edge-2", "edge-3"]);
    assert_eq!(
        problems,
        [
            "Error: Node edge-1 in test.yaml: spec.podCIDRs: no network is left for this node: the pool 10.234.0.0/23 has 2 \
          blocks of /24, all in use (Cluster beijing in test.yaml, spec.edgePodCIDRs)"
        ]
    );
}

#[test]
fn a_second_pool_that_is_too_small_takes_nothing_from_a_living_node() {
    let mut scene = beijing();
    scene.put(cluster("beijing", serde_json::json!({"edgePodCIDRs": ["10.234.0.0/16"]})));
    scene.put_all([connector(), edge("edge-1", "192.168.11.2"), edge("edge-2", "192.168.12.2")]);
    scene.configs();
    scene.put(cluster("beijing", serde_json::json!({"edgePodCIDRs": ["10.234.0.0/16", "fd00:234::/64"]})));
    let (configs, problems) = scene.compile();
    assert_eq!(pods(&configs["edge-1"]), ["10.234.0.0/24", "fd00:234::/64"]);
    assert_eq!(pods(&configs["edge-2"]), ["10.234.1.0/24"]);
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn without_a_pool_an_edge_node_needs_networks_of_its_own() {
    let mut scene = beijing();
    scene.put(cluster("beijing", serde_json::json!({"edgePodCIDRs": []})));
    scene.put_all([
        connector(),
        edge("edge-1", "192.168.11.2"),
        node("edge-2", "edge", "192.168.12.2", &["10.50.1.0/24"]),
    ]);
    let (configs, problems) = scene.compile();
    assert!(configs.contains_key("edge-2"));
    assert_eq!(
        problems,
        [
            "Error: Node edge-1 in test.yaml: spec.podCIDRs: is empty, and there is no pool to take a network from: Cluster \
          beijing in test.yaml, spec.edgePodCIDRs"
        ]
    );
}

#[test]
fn a_removed_node_frees_its_block_only_if_all_manifests_were_read() {
    let mut scene = beijing();
    scene.put(cluster("beijing", serde_json::json!({"edgePodCIDRs": ["10.234.0.0/23"]})));
    scene.put_all([connector(), edge("edge-1", "192.168.11.2"), edge("edge-2", "192.168.12.2")]);
    scene.configs();
    scene.memory.complete = false;
    scene.remove("Node", "edge-1").put(edge("edge-3", "192.168.13.2"));
    assert!(!scene.compile().0.contains_key("edge-3"));
    scene.memory.complete = true;
    assert_eq!(pods(&scene.configs()["edge-3"]), ["10.234.0.0/24"]);
}

#[test]
fn of_the_addresses_of_a_refused_node_none_stays_taken() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", "192.168.11.2,172.16.0.11"), edge("edge-2", "192.168.11.2")]);
    let (configs, problems) = scene.compile();
    assert_eq!(configs.keys().collect::<Vec<_>>(), ["cloud-1", "edge-2"]);
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_refused_node_keeps_its_block() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", "192.168.11.2"), edge("edge-2", "192.168.12.2")]);
    scene.configs();
    scene.put(edge("edge-2", ""));
    scene.put(edge("edge-3", "192.168.13.2"));
    assert_eq!(pods(&scene.compile().0["edge-3"])[0], "10.234.2.0/24");
    scene.put(edge("edge-2", "192.168.12.2"));
    assert_eq!(pods(&scene.configs()["edge-2"])[0], "10.234.1.0/24");
}

#[test]
fn of_several_connectors_the_first_serves() {
    let mut scene = beijing();
    scene.put_all([
        connector(),
        node("cloud-0", "connector", "", &["10.244.7.0/24"]),
        node("cloud-9", "connector", "172.16.0.19", &["10.244.9.0/24"]),
    ]);
    let (configs, problems) = scene.compile();
    assert_eq!(configs["cloud-1"].name, "beijing.connector");
    assert_eq!(configs["cloud-9"].name, "beijing.cloud-9");
    assert_eq!(peers(&configs["cloud-9"]), ["beijing.connector"]);
    assert_eq!(
        problems,
        [
            "Error: Node cloud-0 in test.yaml: status.addresses: has no address of type InternalIP; the node is left out",
            "Warning: Node cloud-9 in test.yaml: metadata.labels: cloud-1 is the connector already; this is an ordinary cloud \
         node",
        ]
    );
}

#[test]
fn without_a_connector_the_edge_still_knows_where_to_call() {
    let mut scene = beijing();
    scene.put_all([edge("edge-1", "192.168.11.2"), node("cloud-2", "", "172.16.0.12", &["10.244.2.0/24"])]);
    let (configs, problems) = scene.compile();
    assert_eq!(peers(&configs["edge-1"]), ["beijing.connector"]);
    assert!(configs["cloud-2"].peers.is_empty());
    assert_eq!(
        problems,
        [
            "Error: Cluster beijing in test.yaml: spec.connectorSelector: no node carries node-role.kubernetes.io/connector=: \
          edge and cloud are not joined"
        ]
    );
}

#[test]
fn names_and_labels_that_would_be_ambiguous_are_refused() {
    let mut scene = beijing();
    let mut both = edge("edge-1", "192.168.11.2");
    both["metadata"]["labels"]["node-role.kubernetes.io/connector"] = serde_json::json!("");
    scene.put_all([connector(), both, edge("connector", "192.168.12.2")]);
    let (configs, problems) = scene.compile();
    assert_eq!(configs.keys().collect::<Vec<_>>(), ["cloud-1"]);
    assert_eq!(
        problems,
        [
            "Error: Node connector in test.yaml: metadata.name: \"beijing.connector\" is the name of the connector in the fabric",
            "Error: Node edge-1 in test.yaml: metadata.labels: make the node both an edge (node-role.kubernetes.io/edge=) and \
         the connector (node-role.kubernetes.io/connector=) of Cluster beijing in test.yaml",
        ]
    );
}

#[test]
fn a_cloud_node_without_pod_networks_is_mentioned() {
    let mut scene = beijing();
    scene.put_all([connector(), node("cloud-2", "", "172.16.0.12", &[])]);
    scene.put(annotated(node("cloud-3", "", "172.16.0.13", &[]), "pod-cidrs", "10.244.3.0/26"));
    let (configs, problems) = scene.compile();
    assert_eq!(configs["cloud-1"].local.prefixes.last().unwrap().to_string(), "10.244.3.0/26");
    assert_eq!(
        problems,
        [
            "Warning: Node cloud-2 in test.yaml: spec.podCIDRs: is empty: pods of this node cannot be reached from the edge"
        ]
    );
}

/// What two admitted nodes are told must never make a third one's configuration unreadable.
#[test]
fn many_nodes_compile() {
    let mut scene = beijing();
    scene.put(connector());
    for i in 0..2000 {
        let (a, b) = (i / 250, i % 250 + 1);
        scene.put(edge(&format!("edge-{i}"), &format!("192.168.{a}.{b}")));
    }
    scene.put(cluster("beijing", serde_json::json!({"edgeMaskSize": 27})));
    let configs = scene.configs();
    assert_eq!(configs["cloud-1"].peers.len(), 2000);
    // The last one by name: 1999 blocks of 32 addresses come before its own.
    assert_eq!(pods(&configs["edge-999"])[0], "10.234.249.224/27");
}
