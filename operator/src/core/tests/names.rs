use serde_json::json;

use super::*;

fn configs(changes: Value) -> BTreeMap<String, NodeConfig> {
    let mut scene = beijing();
    scene.put(cluster("beijing", changes));
    scene.put_all([connector(), edge("edge-1", "192.168.11.2")]);
    scene.put(service("web", &["10.96.0.7"], json!([{"port": 80}])));
    scene.configs()
}

#[test]
fn edges_that_serve_services_answer_dns_unless_told() {
    let default = configs(json!({}));
    let dns = default["edge-1"].dns.as_ref().unwrap();
    assert_eq!((dns.addresses.as_slice(), dns.zone.as_str()), (&selvedge_model::Dns::ADDRESSES[..], "cluster.local"));
    assert!(dns.networks.contains(&"10.244.0.0/16".parse().unwrap()), "{:?}", dns.networks);
    assert!(default["cloud-1"].dns.is_none());
    assert!(configs(json!({"dns": {"enabled": false}}))["edge-1"].dns.is_none());
    assert!(configs(json!({"services": {"edge": "off"}}))["edge-1"].dns.is_none());
}

#[test]
fn names_without_services_need_the_services_too() {
    let configs = configs(json!({"services": {"edge": "off"}, "dns": {"enabled": true, "zone": "Edge.Local",
        "upstreams": ["192.0.2.1", "[2001:db8::1]:54"], "stubs": [{"zone": "Corp.example", "upstreams": ["192.0.2.2:5353"]}]}}));
    let edge = &configs["edge-1"];
    assert_eq!(edge.services.list.len(), 1);
    let dns = edge.dns.as_ref().unwrap();
    assert_eq!((dns.zone.as_str(), dns.stubs[0].zone.as_str()), ("edge.local", "corp.example"));
    assert_eq!(dns.upstreams, ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:54".parse().unwrap()]);
}

#[test]
fn impossible_settings_are_refused_by_field() {
    for (dns, field, message) in [
        (json!({"addresses": []}), "addresses", "is empty; `enabled: false` has none answer DNS"),
        (json!({"addresses": ["127.0.0.1"]}), "addresses", "127.0.0.1 is not an address that pods can ask"),
        (json!({"zone": "a..b"}), "zone", "\"a..b\" is no domain"),
        (json!({"upstreams": ["192.0.2.1", "ns"]}), "upstreams[1]", "\"ns\" is no address, with or without a port"),
        (json!({"stubs": [{"zone": "a", "upstreams": []}]}), "stubs[0].upstreams", "is empty"),
    ] {
        let error = api::read(&cluster("beijing", json!({"dns": dns}))).unwrap_err();
        assert_eq!((error.field.as_str(), error.message.as_str()), (format!("spec.dns.{field}").as_str(), message));
    }
}
