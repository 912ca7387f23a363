//! The contract, as both sides see it.
#![allow(clippy::expect_used)]

use proptest::prelude::*;
use selvedge_model::*;

const EDGE: &str = r#"{
  "version": 1, "generation": 7, "name": "beijing.edge-1", "node": "edge-1", "role": "edge",
  "podCidrs": ["10.234.1.0/24", "fd00:234:0:1::/64"],
  "local": {"prefixes": ["10.234.1.0/24", "fd00:234:0:1::/64"], "nodeAddresses": ["10.1.1.2"]},
  "peers": [
    {"name": "beijing.connector", "via": "tunnel", "addresses": ["192.0.2.10"], "initiate": true,
     "prefixes": ["10.96.0.0/16", "10.244.0.0/24"], "nodeAddresses": ["172.16.0.1"]},
    {"name": "beijing.edge-2", "via": "tunnel", "port": 4501, "metered": true, "prefixes": ["10.234.2.0/24"], "future": {"x": [1.5e3, null]}}
  ],
  "services": {"mode": "kernel", "balance": "roundRobin", "zone": "shop", "cidrs": ["10.96.0.0/16"],
    "nodePortAddresses": ["10.1.1.0/24"], "list": [
    {"namespace": "default", "name": "away", "clusterIps": [], "ports": [], "externalName": "example.org"},
    {"namespace": "default", "name": "db", "clusterIps": [], "publishNotReady": true, "ports": [
      {"protocol": "tcp", "port": 0, "endpoints": [{"address": "10.234.1.6", "port": 0, "hostname": "db-0"}]}]},
    {"namespace": "default", "name": "web", "clusterIps": ["10.96.0.7"], "externalIps": ["192.0.2.80"],
      "loadBalancerIps": ["192.0.2.81"], "loadBalancerSources": ["192.0.2.0/24"], "affinity": 600,
      "internalLocal": true, "externalLocal": true, "distribution": "sameZone", "balance": "sourceHash",
      "health": "http:/live", "otherProxy": true, "ports": [
      {"name": "http", "protocol": "sctp", "port": 80, "nodePort": 30080, "appProtocol": "kubernetes.io/h2c", "endpoints": [
        {"address": "10.234.1.5", "port": 8080, "node": "edge-1", "zone": "shop", "terminating": true, "weight": 3}]}]}]},
  "cni": {"version": "0.3.1", "network": "selvedge", "bridge": "br-selvedge", "mtu": 1400}, "metered": true,
  "dns": {"zone": "Edge.local", "networks": ["10.234.0.0/16"], "upstreams": ["192.0.2.53", "[2001:db8::53]:5353"],
    "stubs": [{"zone": "corp.example", "upstreams": ["192.0.2.54:54"]}]}
}"#;

fn refused(from: &str, to: &str) -> String {
    assert!(EDGE.contains(from), "{from}");
    NodeConfig::parse(&EDGE.replacen(from, to, 1)).expect_err("must be refused").to_string()
}

#[test]
fn reads_every_field_and_ignores_unknown_ones() {
    let config = NodeConfig::parse(EDGE).unwrap();
    assert_eq!(config.role, Role::Edge);
    assert_eq!(config.peers[0].port, 4500);
    assert!(config.peers[0].initiate && !config.peers[1].initiate);
    assert_eq!(config.peers[1].port, 4501);
    assert!(config.metered && !config.peers[0].metered && config.peers[1].metered);
    assert_eq!(config.services.balance, Balance::RoundRobin);
    let [away, db, web] = &config.services.list[..] else { panic!("{:?}", config.services.list) };
    assert_eq!((away.external_name.as_deref(), away.is_headless()), (Some("example.org"), false));
    assert!(db.is_headless() && db.publish_not_ready && db.ports[0].endpoints[0].weight == 1);
    assert_eq!(db.ports[0].endpoints[0].hostname, "db-0");
    assert_eq!((web.balance, web.distribution), (Some(Balance::SourceHash), Some(Distribution::SameZone)));
    assert_eq!((web.affinity, &web.health), (Some(600), &Some(HealthCheck::Http("/live".into()))));
    assert!(web.internal_local && web.external_local && web.other_proxy && !web.is_proxied());
    assert_eq!((web.ports[0].protocol, web.ports[0].node_port), (Protocol::Sctp, 30080));
    let endpoint = &web.ports[0].endpoints[0];
    assert_eq!((endpoint.port, endpoint.zone.as_str(), endpoint.terminating, endpoint.weight), (8080, "shop", true, 3));
    let dns = config.dns.as_ref().unwrap();
    assert_eq!((&dns.addresses[..], dns.zone.as_str()), (&Dns::ADDRESSES[..], "edge.local"));
    assert_eq!(dns.upstreams, ["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:5353".parse().unwrap()]);
    assert_eq!(dns.stubs[0].upstreams, ["192.0.2.54:54".parse().unwrap()]);
    assert!(config.cni.as_ref().unwrap().hairpin);
    assert_eq!((config.datapath, config.firewall), (DatapathMode::Auto, FirewallBackend::Auto));
    assert_eq!(config.peers[0].networks().last().unwrap().to_string(), "172.16.0.1/32");
}

#[test]
fn what_the_cloud_writes_the_edge_reads() {
    let config = NodeConfig::parse(EDGE).unwrap();
    let text = serde_json::to_string_pretty(&config).unwrap();
    assert_eq!(NodeConfig::parse(&text).unwrap(), config);
}

#[test]
fn what_is_usual_is_not_written() {
    let port = ServicePort { endpoints: vec![Endpoint::new([10, 0, 0, 1].into(), 80, "")], ..ServicePort::default() };
    let plain = Service { ports: vec![port], ..Service::default() };
    let text = serde_json::to_string(&plain).unwrap();
    let port = r#"{"name":"","protocol":"tcp","port":0,"endpoints":[{"address":"10.0.0.1","port":80,"node":""}]}"#;
    assert_eq!(text, format!(r#"{{"namespace":"","name":"","clusterIps":[],"ports":[{port}]}}"#));
}

#[test]
fn errors_name_field_and_reason() {
    for (from, to, expected) in [
        ("\"version\": 1", "\"version\": 2", "version: is 2, this program reads version 1"),
        ("\"name\": \"beijing.edge-1\", ", "", "name: is missing"),
        ("\"role\": \"edge\"", "\"role\": \"hub\"", "role: \"hub\" is none of edge, connector, cloud"),
        (
            "10.96.0.0/16\", \"10.244",
            "10.96.0.0/33\", \"10.244",
            "peers[0].prefixes[0]: \"10.96.0.0/33\" is not a network in CIDR notation",
        ),
        (
            "10.244.0.0/24",
            "10.244.0.9/24",
            "peers[0].prefixes[1]: \"10.244.0.9/24\" has host bits set; the network is 10.244.0.0/24",
        ),
        ("192.0.2.10", "192.0.2.256", "peers[0].addresses[0]: \"192.0.2.256\" is not an IP address"),
        ("4501", "0", "peers[1].port: 0 is not within 1 to 65535"),
        ("4501", "\"x\"", "peers[1].port: expected a whole number, found a string"),
        (
            "\"metered\": true, \"prefixes\"",
            "\"metered\": 1, \"prefixes\"",
            "peers[1].metered: expected true or false, found a number",
        ),
        ("beijing.edge-2", "beijing.connector", "peers[1].name: \"beijing.connector\" is already peers[0]"),
        ("beijing.edge-2", "beijing_edge", "peers[1].name: \"beijing_edge\" is not of the form <cluster>.<node>"),
        (
            "10.234.2.0/24",
            "10.244.0.0/16",
            "peers[1].prefixes[0]: 10.244.0.0/16 overlaps 10.244.0.0/24 of peers[0].prefixes[1]",
        ),
        (
            "10.234.2.0/24",
            "10.234.1.128/25",
            "peers[1].prefixes[0]: 10.234.1.128/25 overlaps 10.234.1.0/24 of podCidrs[0]",
        ),
        (
            "\"prefixes\": [\"10.234.1.0/24\"",
            "\"prefixes\": [\"10.234.2.128/25\"",
            "peers[1].prefixes[0]: 10.234.2.0/24 overlaps 10.234.2.128/25 of local.prefixes[0]",
        ),
        (
            "\"network\": \"selvedge\"",
            "\"network\": \"../x\"",
            "cni.network: \"../x\" is not a plain name of at most 64 characters",
        ),
        ("[\"192.0.2.54:54\"]", "[]", "dns.stubs[0].upstreams: must hold 1 to 8"),
        (
            "192.0.2.54:54",
            "ns.example",
            "dns.stubs[0].upstreams[0]: \"ns.example\" is no address, with or without a port",
        ),
        ("Edge.local", "edge..local", "dns.zone: \"edge..local\" is no domain"),
        (
            "\"zone\": \"Edge.local\"",
            "\"addresses\": [\"127.0.0.1\"]",
            "dns.addresses[0]: 127.0.0.1 is not an address that pods can ask",
        ),
        ("http:/live", "http:live", "services.list[2].health: \"http:live\" is neither tcp nor http:/path"),
        ("600", "0", "services.list[2].affinity: 0 is not within 1 to 86400"),
        (
            "\"weight\": 3",
            "\"weight\": 101",
            "services.list[2].ports[0].endpoints[0].weight: 101 is not within 1 to 100",
        ),
        ("\"mtu\": 1400", "\"mtu\": 100", "cni.mtu: 100 is not within 1280 to 65535"),
        ("\"peers\": [", "\"peers\": [17, ", "peers[0]: expected an object, found a number"),
    ] {
        assert_eq!(refused(from, to), expected);
    }
}

#[test]
fn garbage_and_truncation_name_the_place() {
    assert_eq!(NodeConfig::parse("").unwrap_err().to_string(), "line 1, column 1: not JSON: the text ends too early");
    assert_eq!(
        NodeConfig::parse("{\n  \"version\": 1;\n}").unwrap_err().to_string(),
        "line 2, column 15: not JSON: expected ',' or the closing bracket"
    );
    assert_eq!(NodeConfig::parse("[]").unwrap_err().to_string(), "configuration: expected an object, found a list");
    for end in (0..EDGE.len()).filter(|i| EDGE.is_char_boundary(*i)) {
        let error = NodeConfig::parse(&EDGE[..end]).unwrap_err();
        assert!(error.problem.contains("ends too early"), "{end}: {error}");
    }
    let deep = "[".repeat(1 << 20);
    assert!(NodeConfig::parse(&deep).unwrap_err().problem.contains("nested too deeply"));
}

proptest! {
    #[test]
    fn never_panics_on_noise(text in ".{0,200}") {
        let _ = NodeConfig::parse(&text);
    }

    #[test]
    fn never_panics_on_mutations(at in 0..EDGE.len(), byte in 0x20u8..0x7f) {
        let mut bytes = EDGE.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = NodeConfig::parse(std::str::from_utf8(&bytes).unwrap());
    }

    #[test]
    fn syntax_check_agrees_with_serde_json(text in "[\\[\\]{}:,\"0-9eE.+\\-tfnrualse \\\\]{0,24}") {
        let ours = NodeConfig::parse(&text).map(|_| ()).map_err(|e| e.problem.starts_with("not JSON"));
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(ours == Err(true), !theirs, "{}", text);
    }
}
