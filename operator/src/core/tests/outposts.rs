use selvedge_model::{Role, ServiceMode, ServiceSource};

use super::*;

fn outpost(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": api::API_VERSION, "kind": "Outpost",
        "metadata": {"name": name, "labels": {"tier": "mill"}}, "spec": spec,
    })
}

fn mill() -> Value {
    outpost("mill", json!({"lanPrefixes": ["192.168.50.0/24"], "addresses": ["192.168.50.1", "100.64.0.9"]}))
}

#[test]
fn an_outpost_is_an_edge_whose_networks_are_its_lan() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", "192.168.11.2"), mill()]);
    let configs = scene.configs();
    let mill = &configs["mill"];
    assert_eq!((mill.role, mill.name.as_str()), (Role::Edge, "beijing.mill"));
    assert_eq!(pods(mill), ["192.168.50.0/24"]);
    // Somebody else's network is behind it: there is no CNI network to write.
    assert_eq!(mill.cni, None);
    // The address within its own network is reached with that.
    assert_eq!(mill.local.node_addresses, ["100.64.0.9".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(peers(mill), ["beijing.connector"]);
    assert_eq!(peers(&configs["cloud-1"]), ["beijing.edge-1", "beijing.mill"]);
}

#[test]
fn communities_take_outposts_by_name_and_by_label() {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", "192.168.11.2"), edge("edge-2", "192.168.12.2"), mill()]);
    scene.put(community("named", &["beijing.edge-1", "beijing.mill"]));
    let spec = json!({"members": ["beijing.edge-2"], "selector": {"matchLabels": {"tier": "mill"}}});
    scene.put(json!({"apiVersion": api::API_VERSION, "kind": "Community", "metadata": {"name": "c"}, "spec": spec}));
    assert_eq!(peers(&scene.configs()["mill"]), ["beijing.connector", "beijing.edge-1", "beijing.edge-2"]);
}

#[test]
fn an_outpost_gets_its_services_with_its_configuration() {
    let mut scene = beijing();
    scene.options.services = ServiceSource::Api;
    scene.put_all([connector(), edge("edge-1", "192.168.11.2"), mill()]);
    scene.put(service("web", &["10.96.0.80"], json!([{"port": 80}])));
    let configs = scene.configs();
    let services = |node: &str| (configs[node].services.source, configs[node].services.list.len());
    assert_eq!(services("edge-1"), (ServiceSource::Api, 0));
    assert_eq!(services("mill"), (ServiceSource::Config, 1));

    scene.put(outpost("mill", json!({"lanPrefixes": ["192.168.50.0/24"], "services": "off"})));
    let mill = &scene.configs()["mill"];
    assert_eq!((mill.services.mode, mill.services.list.len()), (ServiceMode::Off, 0));
}

#[test]
fn where_services_come_from_can_be_said() {
    for (said, default, expected) in [
        ("auto", ServiceSource::Config, ServiceSource::Config),
        ("auto", ServiceSource::Api, ServiceSource::Api),
        ("config", ServiceSource::Api, ServiceSource::Config),
        ("api", ServiceSource::Config, ServiceSource::Api),
    ] {
        let mut scene = beijing();
        scene.options.services = default;
        scene.put(cluster("beijing", json!({"services": {"source": said}})));
        scene.put_all([connector(), edge("edge-1", "192.168.11.2")]);
        assert_eq!(scene.configs()["edge-1"].services.source, expected, "{said} where {default:?} is usual");
    }
}

#[test]
fn networks_that_are_not_its_own_are_refused() {
    for (lan, message) in [
        ("10.244.0.0/16", "10.244.0.0/16 overlaps 10.244.0.0/16 of Cluster beijing in test.yaml, spec.clusterCIDRs[0]"),
        ("10.234.9.0/24", "10.234.9.0/24 overlaps 10.234.0.0/16 of Cluster beijing in test.yaml, spec.edgePodCIDRs[0]"),
        ("10.96.0.0/24", "10.96.0.0/24 overlaps 10.96.0.0/16 of Cluster beijing in test.yaml, spec.serviceCIDRs[0]"),
        ("192.168.11.0/24", "192.168.11.0/24 overlaps 192.168.11.2/32 of Node edge-1 in test.yaml"),
    ] {
        let mut scene = beijing();
        scene.put_all([connector(), edge("edge-1", "192.168.11.2"), outpost("mill", json!({"lanPrefixes": [lan]}))]);
        assert_eq!(scene.problems(), [format!("Error: Outpost mill in test.yaml: spec.lanPrefixes: {message}")]);
    }
    let error = api::read(&outpost("mill", json!({"lanPrefixes": []}))).unwrap_err();
    assert_eq!(error.field, "spec.lanPrefixes");
}
