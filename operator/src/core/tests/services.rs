use serde_json::json;

use super::*;

fn scene() -> Scene {
    let mut scene = beijing();
    scene.put_all([connector(), edge("edge-1", "192.168.11.2")]);
    scene
}

/// `default/web [10.96.0.1] http tcp 80 -> 10.244.1.5:8080@cloud-1`, one line per port.
fn list(config: &NodeConfig) -> Vec<String> {
    let mut lines = Vec::new();
    for service in &config.services.list {
        for port in &service.ports {
            let endpoints: Vec<String> =
                port.endpoints.iter().map(|e| format!("{}:{}@{}", e.address, e.port, e.node)).collect();
            let protocol = format!("{:?}", port.protocol).to_lowercase();
            lines.push(format!(
                "{}/{} {:?} {} {protocol} {} -> {}",
                service.namespace,
                service.name,
                service.cluster_ips,
                port.name,
                port.port,
                endpoints.join(" ")
            ));
        }
    }
    lines
}

#[test]
fn ready_endpoints_by_port_name_and_protocol() {
    let mut scene = scene();
    scene.put_all([
        service(
            "dns",
            &["10.96.0.53"],
            json!([
                {"name": "dns", "protocol": "UDP", "port": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53},
                {"name": "metrics", "port": 9153},
            ]),
        ),
        slice(
            "dns-b",
            "dns",
            json!([{"name": "dns", "protocol": "UDP", "port": 1053}]),
            json!([
                {"addresses": ["10.244.1.9"]},
                {"addresses": ["10.244.1.6"], "nodeName": "cloud-1"},
            ]),
        ),
        slice(
            "dns-a",
            "dns",
            json!([
                {"name": "dns", "protocol": "UDP", "port": 1053},
                {"name": "dns-tcp", "protocol": "TCP", "port": 1054},
                {"name": "metrics", "protocol": "UDP", "port": 1},
                {"name": "other", "port": 2},
            ]),
            json!([
                {"addresses": ["10.244.1.6"], "nodeName": "cloud-1", "conditions": {"ready": null}},
                {"addresses": ["10.244.1.7"], "nodeName": "cloud-1", "conditions": {"ready": false}},
                {"addresses": ["10.244.1.5"], "nodeName": "cloud-1", "conditions": {"ready": true}},
            ]),
        ),
        slice("stray", "no-such-service", json!([{"port": 2}]), json!([{"addresses": ["10.244.1.5"]}])),
    ]);
    assert_eq!(
        list(&scene.configs()["edge-1"]),
        [
            "default/dns [10.96.0.53] dns udp 53 -> 10.244.1.5:1053@cloud-1 10.244.1.6:1053@cloud-1 10.244.1.9:1053@",
            "default/dns [10.96.0.53] dns-tcp tcp 53 -> 10.244.1.5:1054@cloud-1 10.244.1.6:1054@cloud-1",
            "default/dns [10.96.0.53] metrics tcp 9153 -> ",
        ]
    );
}

#[test]
fn services_without_cluster_ip_are_names() {
    let mut scene = scene();
    let mut external = service("external", &[], json!([{"port": 80}]));
    external["spec"] = json!({"type": "ExternalName", "externalName": "example.org"});
    scene.put_all([
        external,
        service("headless", &["None"], json!([{"port": 80}])),
        service("unborn", &[], json!([{"port": 80}])),
    ]);
    let mut single = service("single", &[], json!([{"port": 80}]));
    single["spec"]["clusterIP"] = json!("10.96.0.9");
    scene.put(single);
    let config = &scene.configs()["edge-1"];
    assert_eq!(list(config), ["default/headless []  tcp 80 -> ", "default/single [10.96.0.9]  tcp 80 -> "]);
    assert_eq!(config.services.list[0].external_name.as_deref(), Some("example.org"));
}

#[test]
fn weights_and_zones_reach_the_nodes() {
    let mut scene = scene();
    let mut edge = edge("edge-1", "192.168.11.2");
    edge["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("shop");
    let web = annotated(service("web", &["10.96.0.1"], json!([{"port": 80}])), "weights", "cloud-1=3");
    let endpoint = json!([{"addresses": ["10.244.1.5"], "nodeName": "cloud-1", "zone": "cloud"}]);
    scene.put_all([edge, web, slice("web-a", "web", json!([{"port": 80}]), endpoint)]);
    let services = &scene.configs()["edge-1"].services;
    let endpoint = &services.list[0].ports[0].endpoints[0];
    assert_eq!((services.zone.as_str(), endpoint.zone.as_str(), endpoint.weight), ("shop", "cloud", 3));
}

#[test]
fn a_node_that_serves_none_is_told_of_none() {
    let mut scene = scene();
    scene.put(service("web", &["10.96.0.1"], json!([{"port": 80}])));
    let configs = scene.configs();
    assert!(configs["cloud-1"].services.list.is_empty());
    assert_eq!(configs["cloud-1"].services.cidrs.len(), 2);
}

#[test]
fn cluster_ips_are_ours_and_unique() {
    let mut scene = scene();
    scene.put_all([
        service("far", &["10.97.0.1"], json!([{"port": 80}])),
        service("first", &["10.96.0.1"], json!([{"port": 80}])),
        service("second", &["10.96.0.1"], json!([{"port": 80}])),
    ]);
    let (configs, problems) = scene.compile();
    assert_eq!(list(&configs["edge-1"]), ["default/first [10.96.0.1]  tcp 80 -> "]);
    assert_eq!(
        problems,
        [
            "Error: Service default/far in test.yaml: spec.clusterIPs: 10.97.0.1 lies outside 10.96.0.0/16, fd00:96::/112 of \
         Cluster beijing in test.yaml, spec.serviceCIDRs",
            "Error: Service default/second in test.yaml: spec.clusterIPs: 10.96.0.1 is the cluster IP of Service default/first \
         in test.yaml",
        ]
    );
}

#[test]
fn other_protocols_and_repeated_ports_are_named() {
    let mut scene = scene();
    scene.put(service(
        "mixed",
        &["10.96.0.1"],
        json!([
            {"name": "a", "port": 80},
            {"name": "b", "port": 81, "protocol": "DCCP"},
            {"name": "c", "port": 80},
            {"name": "d", "port": 80, "protocol": "UDP"},
        ]),
    ));
    let (configs, problems) = scene.compile();
    assert_eq!(
        list(&configs["edge-1"]),
        ["default/mixed [10.96.0.1] a tcp 80 -> ", "default/mixed [10.96.0.1] d udp 80 -> ",]
    );
    assert_eq!(
        problems,
        [
            "Warning: Service default/mixed in test.yaml: spec.ports[1].protocol: \"DCCP\" is none of TCP, UDP, SCTP",
            "Warning: Service default/mixed in test.yaml: spec.ports[2].port: 80 is there already with the same protocol",
        ]
    );
}
