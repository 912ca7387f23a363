//! Configurations of a small cluster: `cloud-1` (connector), `cloud-2`, `edge-1`, `edge-2`.
#![allow(dead_code, clippy::disallowed_methods, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

pub mod netns;
pub mod talk;

use std::collections::BTreeMap;

use selvedge_model::NodeConfig;
use selvedge_plan::{Datapath, Facts, NextHop, Path};

pub const EDGE: &str = r#"{
  "version": 1, "generation": 7, "name": "beijing.edge-1", "node": "edge-1", "role": "edge",
  "podCidrs": ["10.234.1.0/24", "fd00:234:0:1::/64"],
  "local": {"prefixes": ["10.234.1.0/24", "fd00:234:0:1::/64"], "nodeAddresses": ["192.168.11.2"]},
  "peers": [
    {"name": "beijing.connector", "via": "tunnel", "addresses": ["203.0.113.10"], "initiate": true,
     "prefixes": ["10.96.0.0/16", "10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "fd00:96::/112", "fd00:244:0:1::/64"],
     "nodeAddresses": ["172.16.0.11", "172.16.0.12"]},
    {"name": "beijing.edge-2", "via": "tunnel", "addresses": ["203.0.113.22"],
     "prefixes": ["10.234.2.0/24", "fd00:234:0:2::/64"], "nodeAddresses": ["192.168.12.2"]}
  ],
  "services": {"mode": "kernel", "cidrs": ["10.96.0.0/16", "fd00:96::/112"], "list": [
    {"namespace": "default", "name": "web", "clusterIps": ["10.96.0.7", "fd00:96::7"], "ports": [
      {"name": "http", "protocol": "tcp", "port": 80, "endpoints": [
        {"address": "10.234.2.5", "port": 8080, "node": "edge-2"},
        {"address": "10.234.1.5", "port": 8080, "node": "edge-1"},
        {"address": "10.234.1.6", "port": 8080, "node": "edge-1"},
        {"address": "fd00:234:0:1::5", "port": 8080, "node": "edge-1"}]}]},
    {"namespace": "default", "name": "time", "clusterIps": ["10.96.0.8"], "ports": [
      {"protocol": "udp", "port": 123, "endpoints": [
        {"address": "10.244.1.5", "port": 123, "node": "cloud-1"},
        {"address": "10.244.2.5", "port": 123, "node": "cloud-2"},
        {"address": "10.244.2.6", "port": 123, "node": "cloud-2"}]}]},
    {"namespace": "default", "name": "gone", "clusterIps": ["10.96.0.9", "fd00:96::9"], "ports": [
      {"protocol": "tcp", "port": 80}, {"protocol": "udp", "port": 80}]}]},
  "cni": {"version": "0.3.1", "network": "selvedge", "bridge": "br-selvedge", "mtu": 1400}
}"#;

/// A gateway without pods that offers its LAN.
pub const GATEWAY: &str = r#"{
  "version": 1, "generation": 7, "name": "home.gate-1", "node": "gate-1", "role": "edge", "podCidrs": [],
  "local": {"prefixes": ["192.168.10.0/24"], "nodeAddresses": []},
  "peers": [{"name": "home.gate-2", "via": "tunnel", "addresses": ["203.0.113.7"], "prefixes": ["192.168.20.0/24"]}]
}"#;

pub const CONNECTOR: &str = r#"{
  "version": 1, "generation": 7, "name": "beijing.connector", "node": "cloud-1", "role": "connector",
  "podCidrs": ["10.244.1.0/24", "fd00:244:0:1::/64"],
  "local": {"prefixes": ["10.96.0.0/16", "10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "fd00:96::/112", "fd00:244:0:1::/64"],
            "nodeAddresses": ["172.16.0.11", "172.16.0.12"]},
  "peers": [
    {"name": "beijing.edge-1", "via": "tunnel", "prefixes": ["10.234.1.0/24", "fd00:234:0:1::/64"], "nodeAddresses": ["192.168.11.2"]},
    {"name": "beijing.edge-2", "via": "tunnel", "prefixes": ["10.234.2.0/24", "fd00:234:0:2::/64"], "nodeAddresses": ["192.168.12.2"]}
  ],
  "services": {"mode": "off", "cidrs": ["10.96.0.0/16", "fd00:96::/112"]}
}"#;

pub const CLOUD: &str = r#"{
  "version": 1, "generation": 7, "name": "beijing.cloud-2", "node": "cloud-2", "role": "cloud",
  "podCidrs": ["10.244.2.0/24", "fd00:244:0:2::/64"],
  "local": {"prefixes": ["10.244.2.0/24", "fd00:244:0:2::/64"], "nodeAddresses": ["172.16.0.12"]},
  "peers": [
    {"name": "beijing.connector", "via": "lan", "addresses": ["172.16.0.11"], "overlay": ["10.244.1.0/24", "fd00:244:0:1::/64"],
     "prefixes": ["10.234.1.0/24", "10.234.2.0/24", "fd00:234:0:1::/64", "fd00:234:0:2::/64"]}
  ]
}"#;

/// Services of every kind, as an edge that is called `edge-1`, in zone `shop`, knows them.
pub const ALL_KINDS: &str = r#"[
  {"namespace": "a", "name": "alias", "clusterIps": [], "ports": [], "externalName": "example.org"},
  {"namespace": "a", "name": "db", "clusterIps": [], "ports": [{"protocol": "tcp", "port": 5432, "endpoints": [
    {"address": "10.234.1.9", "port": 5432, "node": "edge-1"}]}]},
  {"namespace": "a", "name": "elsewhere", "clusterIps": ["10.96.1.1"], "otherProxy": true, "ports": [
    {"protocol": "tcp", "port": 80, "endpoints": [{"address": "10.244.1.9", "port": 80}]}]},
  {"namespace": "a", "name": "front", "clusterIps": ["10.96.1.2", "fd00:96::102"], "externalIps": ["192.0.2.80"],
   "loadBalancerIps": ["192.0.2.81", "2001:db8::81"], "loadBalancerSources": ["198.51.100.0/24"], "ports": [
    {"name": "http", "protocol": "tcp", "port": 80, "nodePort": 30080, "endpoints": [
      {"address": "10.234.1.5", "port": 8080, "node": "edge-1"}, {"address": "10.244.1.77", "port": 8080, "node": "cloud-1"}]}],
   "distribution": "any"},
  {"namespace": "a", "name": "hashed", "clusterIps": ["10.96.1.3"], "balance": "sourceHash", "ports": [
    {"protocol": "udp", "port": 53, "endpoints": [{"address": "10.244.1.1", "port": 53},
      {"address": "10.244.1.2", "port": 53}, {"address": "10.244.1.3", "port": 53}]}]},
  {"namespace": "a", "name": "inside", "clusterIps": ["10.96.1.4"], "internalLocal": true, "ports": [
    {"protocol": "tcp", "port": 80, "endpoints": [{"address": "10.244.1.1", "port": 80, "node": "cloud-1"}]}]},
  {"namespace": "a", "name": "kept", "clusterIps": ["10.96.1.5", "fd00:96::105"], "affinity": 600, "ports": [
    {"protocol": "tcp", "port": 80, "endpoints": [{"address": "10.244.1.1", "port": 80},
      {"address": "10.244.1.2", "port": 80}, {"address": "fd00:244:0:1::1", "port": 80}]}]},
  {"namespace": "a", "name": "none", "clusterIps": ["10.96.1.6", "fd00:96::106"], "externalIps": ["192.0.2.82"], "ports": [
    {"protocol": "sctp", "port": 80, "nodePort": 30081}]},
  {"namespace": "a", "name": "outside", "clusterIps": ["10.96.1.7", "fd00:96::107"], "externalIps": ["192.0.2.83"],
   "externalLocal": true, "balance": "roundRobin", "ports": [
    {"protocol": "tcp", "port": 80, "nodePort": 30082, "endpoints": [
      {"address": "10.244.1.1", "port": 80, "node": "cloud-1", "weight": 2}, {"address": "10.244.1.2", "port": 80, "node": "cloud-1"},
      {"address": "fd00:244:0:1::1", "port": 80, "node": "cloud-1"}]},
    {"protocol": "sctp", "port": 80, "nodePort": 30082, "endpoints": [
      {"address": "10.234.1.5", "port": 80, "node": "edge-1"}, {"address": "10.244.1.2", "port": 80, "node": "cloud-1", "zone": "shop"}]}]},
  {"namespace": "a", "name": "zoned", "clusterIps": ["10.96.1.8"], "ports": [
    {"protocol": "tcp", "port": 80, "endpoints": [
      {"address": "10.244.1.1", "port": 80, "node": "cloud-1"}, {"address": "10.244.1.2", "port": 80, "node": "cloud-2", "zone": "shop"}]}]}
]"#;

/// `edge-1` with these Services and no others.
pub fn with_services(list: &str) -> NodeConfig {
    let mut text = EDGE.to_owned();
    let (start, end) = (text.find(r#""list": ["#).unwrap() + 8, text.find("]},\n  \"cni\"").unwrap() + 1);
    text.replace_range(start..end, list);
    let mut config = config(&text);
    config.services.zone = "shop".into();
    config
}

pub fn config(text: &str) -> NodeConfig {
    NodeConfig::parse(text).unwrap()
}

pub fn hop(gateway: &str, device: &str) -> NextHop {
    NextHop { gateway: (!gateway.is_empty()).then(|| gateway.parse().unwrap()), device: device.into() }
}

/// An edge at home, both peers up in the kernel datapath.
pub fn edge_facts(datapath: Datapath) -> Facts {
    let path =
        |reqid, remote: &str| Path { reqid, local: "192.168.11.2".parse().unwrap(), remote: remote.parse().unwrap() };
    Facts {
        datapath,
        local_addresses: addresses(&[("lo", "127.0.0.1/8"), ("eth0", "192.168.11.2/24")]),
        paths: BTreeMap::from([("beijing.connector".into(), path(1, "203.0.113.10"))]),
        accept_ra: BTreeMap::from([("eth0.2".into(), 1)]),
        bridge_netfilter: true,
        ..Facts::default()
    }
}

/// A gateway with its LAN and an uplink.
pub fn gateway_facts() -> Facts {
    let local_addresses = addresses(&[("wan", "198.51.100.1/24"), ("br-lan", "192.168.10.1/24")]);
    Facts { datapath: Datapath::User, local_addresses, ..Facts::default() }
}

/// A connector in a flannel cluster without IPv6.
pub fn connector_facts() -> Facts {
    Facts {
        local_addresses: addresses(&[
            ("eth0", "172.16.0.11/24"),
            ("eth1", "203.0.113.10/24"),
            ("flannel.1", "10.244.1.0/32"),
            ("cni0", "10.244.1.1/24"),
        ]),
        ..Facts::default()
    }
}

/// A cloud node of that cluster.
pub fn cloud_facts() -> Facts {
    Facts {
        local_addresses: addresses(&[
            ("eth0", "172.16.0.12/24"),
            ("flannel.1", "10.244.2.0/32"),
            ("cni0", "10.244.2.1/24"),
        ]),
        routes: BTreeMap::from([
            ("10.244.1.1".parse().unwrap(), hop("10.244.1.0", "flannel.1")),
            ("172.16.0.11".parse().unwrap(), hop("", "eth0")),
            ("192.0.2.1".parse().unwrap(), hop("172.16.0.1", "eth0")),
        ]),
        ..Facts::default()
    }
}

pub fn addresses(list: &[(&str, &str)]) -> Vec<(String, ipnet::IpNet)> {
    list.iter().map(|(link, net)| ((*link).to_owned(), net.parse().unwrap())).collect()
}
