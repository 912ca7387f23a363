use serde_json::json;

use super::*;

fn refused(changes: Value) -> Vec<String> {
    let mut scene = beijing();
    scene.put(cluster("beijing", changes)).put(connector());
    let (configs, problems) = scene.compile();
    assert!(configs.is_empty(), "nothing may follow from a refused Cluster");
    problems
}

#[test]
fn impossible_settings_are_refused_by_field() {
    for (changes, expected) in [
        (
            json!({"edgePodCIDRs": ["10.244.8.0/22"]}),
            "spec.edgePodCIDRs[0]: 10.244.8.0/22 overlaps 10.244.0.0/16 of spec.clusterCIDRs[0]",
        ),
        (
            json!({"edgePodCIDRs": ["10.96.0.0/12"]}),
            "spec.edgePodCIDRs[0]: 10.96.0.0/12 overlaps 10.96.0.0/16 of spec.serviceCIDRs[0]",
        ),
        (
            json!({"serviceCIDRs": ["10.244.1.0/24"]}),
            "spec.serviceCIDRs[0]: 10.244.1.0/24 overlaps 10.244.0.0/16 of spec.clusterCIDRs[0]",
        ),
        (json!({"serviceCIDRs": []}), "spec.serviceCIDRs: is empty; every cluster has a network of cluster IPs"),
        (json!({"edgeMaskSize": 31}), "spec.edgeMaskSize: 31 is not within 8 to 30"),
        (
            json!({"edgeMaskSize": 15}),
            "spec.edgeMaskSize: a block of /15 does not fit into 10.234.0.0/16 of spec.edgePodCIDRs",
        ),
        (json!({"edgeMaskSize6": 127}), "spec.edgeMaskSize6: 127 is not within 16 to 126"),
        (json!({"edgeSelector": {}}), "spec.edgeSelector: is empty and would take every node"),
        (
            json!({"connector": {}}),
            "spec.connector.addresses: is empty: edge nodes need an address where they reach the connector",
        ),
        (
            json!({"cni": {"bridge": "a-bridge-too-far"}}),
            "spec.cni.bridge: \"a-bridge-too-far\" is not a plain name of at most 15 characters",
        ),
        (json!({"cni": {"mtu": 1200}}), "spec.cni.mtu: 1200 is not within 1280 to 65535"),
        (json!({"certificateDays": 0}), "spec.certificateDays: 0 is not within 1 to 825"),
    ] {
        assert_eq!(refused(changes), [format!("Error: Cluster beijing in test.yaml: {expected}")]);
    }
}

#[test]
fn a_name_with_a_dot_is_refused() {
    let mut scene = Scene::default();
    scene.put(cluster("bei.jing", json!({})));
    assert_eq!(
        scene.problems(),
        [
            "Error: Cluster bei.jing in test.yaml: metadata.name: \"bei.jing\" is not a single label of small letters, digits \
          and '-'"
        ]
    );
}

#[test]
fn the_own_cluster_is_the_one_not_marked_or_the_one_named() {
    let mut scene = beijing();
    scene.put(connector()).put(remote("shanghai", "10.245.0.0/16"));
    assert_eq!(scene.configs()["cloud-1"].name, "beijing.connector");

    scene.put(cluster("shanghai", json!({})));
    assert_eq!(
        scene.problems(),
        [
            "Error: Cluster shanghai in test.yaml: spec.remote: both beijing and shanghai may be the own cluster: mark the \
          other one with \"remote: true\" or say --cluster NAME"
        ]
    );
    let named = compile(&scene.state, &called("shanghai"), &scene.memory).output.unwrap();
    assert_eq!(named.nodes["cloud-1"].name, "shanghai.connector");
    let unknown = compile(&scene.state, &called("nanjing"), &scene.memory);
    assert!(unknown.output.is_none());
    assert_eq!(
        unknown.problems[0].to_string(),
        "no object of kind Cluster named nanjing describes the own cluster; there is only: beijing, shanghai"
    );
    assert_eq!(Scene::default().problems(), ["Error: no object of kind Cluster describes the own cluster"]);
}

#[test]
fn another_cluster_that_overlaps_ours_is_refused_alone() {
    let mut scene = beijing();
    scene.put(connector()).put_all([
        remote("pool", "10.234.128.0/17"),
        remote("fine", "10.245.0.0/16"),
        remote("lan", "172.16.0.0/16"),
    ]);
    let (configs, problems) = scene.compile();
    assert_eq!(configs.len(), 1);
    assert_eq!(
        problems,
        [
            "Error: Cluster lan in test.yaml: spec.clusterCIDRs[0]: 172.16.0.0/16 overlaps 172.16.0.11/32 of Node cloud-1 in \
         test.yaml",
            "Error: Cluster pool in test.yaml: spec.clusterCIDRs[0]: 10.234.128.0/17 overlaps 10.234.0.0/16 of Cluster beijing \
         in test.yaml, spec.edgePodCIDRs[0]",
        ]
    );
}

#[test]
fn settings_reach_the_nodes() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", "192.168.11.2")]);
    scene.put(cluster(
        "beijing",
        json!({
            "services": {"edge": "off", "cloud": "kernel", "balance": "roundRobin", "distribution": "any",
                         "nodePortAddresses": ["192.168.0.0/16"]},
            "datapath": "kernel", "firewall": "nftables",
            "cni": {"network": "n", "bridge": "b", "mtu": 1300, "hairpin": false},
            "connector": {"addresses": ["203.0.113.10", "2001:db8::10"], "port": 4501},
        }),
    ));
    let configs = scene.configs();
    let json = serde_json::to_value(&configs["edge-1"]).unwrap();
    assert_eq!(json["services"]["mode"], "off");
    assert_eq!((&json["datapath"], &json["firewall"]), (&json!("kernel"), &json!("nftables")));
    assert_eq!(json["cni"], json!({"version": "0.3.1", "network": "n", "bridge": "b", "mtu": 1300, "hairpin": false}));
    assert_eq!(json["peers"][0]["port"], 4501);
    assert_eq!(json["peers"][0]["addresses"], json!(["203.0.113.10", "2001:db8::10"]));
    let json = serde_json::to_value(&configs["cloud-1"]).unwrap();
    assert_eq!((&json["services"]["mode"], &json["services"]["balance"]), (&json!("kernel"), &json!("roundRobin")));
    assert_eq!(json["services"]["distribution"], "any");
    assert_eq!(json["services"]["nodePortAddresses"], json!(["192.168.0.0/16"]));
    assert_eq!(json["cni"], Value::Null);
}

fn called(cluster: &str) -> Options {
    Options { cluster: Some(cluster.to_owned()), ..Options::default() }
}
