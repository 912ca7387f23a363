use expect_test::expect_file;
use serde_json::json;

use super::*;

/// Two edge nodes of one community behind routers, three cloud nodes, one of them the connector.
fn lab() -> Scene {
    let mut scene = beijing();
    scene.put_all([
        node("master", "", "172.16.0.10,fd00:172::10", &["10.244.0.0/24", "fd00:244::/64"]),
        node("cloud-1", "connector", "172.16.0.11,fd00:172::11", &["10.244.1.0/24", "fd00:244:0:1::/64"]),
        node("cloud-2", "", "172.16.0.12,fd00:172::12", &["10.244.2.0/24", "fd00:244:0:2::/64"]),
        annotated(edge("edge-1", "192.168.11.2"), "public-addresses", "203.0.113.21"),
        annotated(annotated(edge("edge-2", "192.168.12.2"), "datapath", "user"), "firewall", "iptables"),
        community("workshop", &["beijing.edge-1", "beijing.edge-2"]),
        service("web", &["10.96.0.80", "fd00:96::80"], json!([{"name": "http", "port": 80}])),
        slice(
            "web-1",
            "web",
            json!([{"name": "http", "port": 8080}]),
            json!([
                {"addresses": ["10.244.2.15"], "nodeName": "cloud-2"},
                {"addresses": ["10.234.0.7"], "nodeName": "edge-1", "conditions": {"ready": true}},
            ]),
        ),
    ]);
    scene
}

#[test]
fn every_node_of_the_lab() {
    let text = serde_json::to_string_pretty(&lab().configs()).unwrap() + "\n";
    expect_file!["snapshots/lab.json"].assert_eq(&text);
}

#[test]
fn the_same_state_gives_the_same_configurations() {
    let mut scene = lab();
    assert_eq!(scene.configs(), scene.configs());
}

#[test]
fn the_generation_grows_only_with_a_change() {
    let mut scene = lab();
    let mut first = scene.configs().remove("edge-1").unwrap();
    assert!(number(&mut first, 0, None));
    assert_eq!(first.generation, 1);
    let mut same = scene.configs().remove("edge-1").unwrap();
    assert!(!number(&mut same, 1, Some(&first)));
    assert_eq!(same.generation, 1);
    let mut other = scene.put(cluster("beijing", json!({"datapath": "user"}))).configs().remove("edge-1").unwrap();
    assert!(number(&mut other, 1, Some(&first)));
    assert_eq!(other.generation, 2);
}

/// What one node becomes, its peers hear at once.
#[test]
fn a_change_of_one_node_reaches_all_it_concerns() {
    let mut scene = lab();
    scene.configs();
    scene.put(node("cloud-2", "", "172.16.0.99", &["10.244.77.0/24"]));
    scene.put(edge("edge-2", "192.168.99.2"));
    let configs = scene.configs();
    let to_connector = &configs["edge-1"].peers[0];
    assert!(to_connector.prefixes.contains(&"10.244.77.0/24".parse().unwrap()));
    assert!(to_connector.node_addresses.contains(&"172.16.0.99".parse().unwrap()));
    assert_eq!(configs["edge-1"].peers[1].node_addresses, ["192.168.99.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(configs["cloud-1"].peers[1].node_addresses, ["192.168.99.2".parse::<std::net::IpAddr>().unwrap()]);

    scene.put(community("workshop", &["beijing.edge-1"]));
    let configs = scene.configs();
    assert_eq!(peers(&configs["edge-1"]), ["beijing.connector"]);
    assert_eq!(peers(&configs["edge-2"]), ["beijing.connector"]);
}
