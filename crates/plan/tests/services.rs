//! Which endpoints a node takes for what is called, and why.
#![cfg(feature = "services")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::*;
use expect_test::expect;
use selvedge_model::{NodeConfig, Protocol};
use selvedge_plan::firewall::{Called, Flow, Serving, Way};
use selvedge_plan::{Datapath, Facts, Plan};

fn serving(config: &NodeConfig) -> Serving {
    Plan::new(config, &edge_facts(Datapath::User)).ruleset.serving.unwrap()
}

/// `10.244.1.1:80*2` for each, with the reason before; `| ` before those for others than this node.
fn way(serving: &Serving, way: &Way) -> String {
    let Some(group) = serving.group(way) else { return format!("{way:?}") };
    let one = |e: &selvedge_plan::firewall::Backend| match e.weight {
        1 => e.address.to_string(),
        weight => format!("{}*{weight}", e.address),
    };
    format!("{:?}: {}", group.why, group.endpoints.iter().map(one).collect::<Vec<_>>().join(" "))
}

fn show(serving: &Serving) -> String {
    let mut text = String::new();
    for (frontend, target) in &serving.frontends {
        let called = match frontend.called {
            Called::Address(ip) => ip.to_string(),
            Called::Node(family) => format!("{family:?}"),
        };
        let far = (target.far != target.near).then(|| format!(" | {}", way(serving, &target.far)));
        let near = way(serving, &target.near);
        let (name, protocol, port) = (&target.name, frontend.protocol.name(), frontend.port);
        text += &format!("{name} {protocol} {called} {port} {near}{}\n", far.unwrap_or_default());
    }
    text
}

#[test]
fn every_kind() {
    expect![[r#"
        a/front:http tcp 10.96.1.2 80 All: 10.234.1.5:8080 10.244.1.77:8080
        a/hashed:53 udp 10.96.1.3 53 All: 10.244.1.1:53 10.244.1.2:53 10.244.1.3:53
        a/inside:80 tcp 10.96.1.4 80 Drop
        a/kept:80 tcp 10.96.1.5 80 All: 10.244.1.1:80 10.244.1.2:80
        a/none:80 sctp 10.96.1.6 80 Refuse
        a/outside:80 tcp 10.96.1.7 80 All: 10.244.1.1:80*2 10.244.1.2:80
        a/outside:80 sctp 10.96.1.7 80 Node: 10.234.1.5:80
        a/zoned:80 tcp 10.96.1.8 80 Zone: 10.244.1.2:80
        a/front:http tcp 192.0.2.80 80 All: 10.234.1.5:8080 10.244.1.77:8080
        a/front:http tcp 192.0.2.81 80 All: 10.234.1.5:8080 10.244.1.77:8080
        a/none:80 sctp 192.0.2.82 80 Refuse
        a/outside:80 tcp 192.0.2.83 80 All: 10.244.1.1:80*2 10.244.1.2:80 | Drop
        a/outside:80 sctp 192.0.2.83 80 Node: 10.234.1.5:80 | Policy: 10.234.1.5:80
        a/front:http tcp 2001:db8::81 80 Drop
        a/front:http tcp fd00:96::102 80 Refuse
        a/kept:80 tcp fd00:96::105 80 All: [fd00:244:0:1::1]:80
        a/none:80 sctp fd00:96::106 80 Refuse
        a/outside:80 tcp fd00:96::107 80 All: [fd00:244:0:1::1]:80
        a/outside:80 sctp fd00:96::107 80 Refuse
        a/front:http tcp V4 30080 All: 10.234.1.5:8080 10.244.1.77:8080
        a/outside:80 tcp V4 30082 All: 10.244.1.1:80*2 10.244.1.2:80 | Drop
        a/none:80 sctp V4 30081 Refuse
        a/outside:80 sctp V4 30082 Node: 10.234.1.5:80 | Policy: 10.234.1.5:80
        a/front:http tcp V6 30080 Refuse
        a/outside:80 tcp V6 30082 All: [fd00:244:0:1::1]:80 | Drop
        a/none:80 sctp V6 30081 Refuse
        a/outside:80 sctp V6 30082 Refuse
    "#]]
    .assert_eq(&show(&serving(&with_services(ALL_KINDS))));
}

fn endpoints(list: &str) -> NodeConfig {
    with_services(&format!(
        r#"[{{"namespace": "a", "name": "s", "clusterIps": ["10.96.1.1"], "ports": [
            {{"protocol": "udp", "port": 53, "endpoints": [{list}]}}]}}]"#
    ))
}

const FAR: &str = r#"{"address": "10.244.1.1", "port": 53, "node": "cloud-1", "zone": "cloud", "weight": 4}"#;
const NEIGHBOUR: &str = r#"{"address": "10.234.2.1", "port": 53, "node": "edge-2", "weight": 6}"#;
const ZONE: &str = r#"{"address": "10.234.9.1", "port": 53, "node": "edge-9", "zone": "shop", "weight": 6}"#;
const HERE: &str = r#"{"address": "10.234.1.1", "port": 53, "node": "edge-1", "weight": 6}"#;

#[test]
fn near_ones_come_first() {
    let line = |list: &[&str]| show(&serving(&endpoints(&list.join(", "))));
    let after = |list: &[&str]| line(list).trim_end().rsplit_once("10.96.1.1 53 ").unwrap().1.to_owned();
    assert_eq!(after(&[FAR, NEIGHBOUR, ZONE, HERE]), "Node: 10.234.1.1:53");
    assert_eq!(after(&[FAR, NEIGHBOUR, ZONE]), "Zone: 10.234.2.1:53 10.234.9.1:53");
    assert_eq!(after(&[FAR]), "All: 10.244.1.1:53");
    assert_eq!(after(&[]), "Refuse");
    let mut any = endpoints(&[FAR, NEIGHBOUR, HERE].join(", "));
    any.services.distribution = selvedge_model::Distribution::Any;
    assert!(show(&serving(&any)).contains("All: 10.234.1.1:53*3 10.234.2.1:53*3 10.244.1.1:53*2"), "{any:?}");
    any.services.list[0].distribution = Some(selvedge_model::Distribution::SameZone);
    assert!(show(&serving(&any)).contains("Zone: 10.234.1.1:53 10.234.2.1:53"));
}

#[test]
fn who_ends_serves_only_where_nobody_else_does() {
    let ends = HERE.replace("\"weight\": 6", "\"terminating\": true");
    let show = |list: &str| show(&serving(&endpoints(list)));
    assert!(show(&format!("{ends}, {FAR}")).ends_with("All: 10.244.1.1:53\n"));
    assert!(show(&ends).ends_with("Node: 10.234.1.1:53\n"));
}

#[test]
fn connections_that_lead_nowhere_are_stale() {
    let local = BTreeSet::from(["192.168.11.2".parse().unwrap()]);
    let list = |endpoints: &str, ips: &str| {
        with_services(&format!(
            r#"[{{"namespace": "a", "name": "s", "clusterIps": {ips}, "ports": [
                {{"protocol": "udp", "port": 53, "nodePort": 30053, "endpoints": [{endpoints}]}}]}}]"#
        ))
    };
    let before = serving(&list(HERE, r#"["10.96.1.1"]"#));
    let after = serving(&list(FAR, r#"["10.96.1.1"]"#));
    let gone = serving(&with_services("[]"));
    let flow = |called: &str, answers: &str| Flow {
        protocol: Protocol::Udp,
        called: called.parse().unwrap(),
        answers: answers.parse().unwrap(),
    };
    for called in ["10.96.1.1:53", "192.168.11.2:30053"] {
        let (old, new) = (flow(called, "10.234.1.1:53"), flow(called, "10.244.1.1:53"));
        assert!(!before.is_stale(&before, &old, &local) && after.is_stale(&before, &old, &local), "{called}");
        assert!(!after.is_stale(&before, &new, &local), "{called}");
        assert!(gone.is_stale(&before, &old, &local), "{called}");
        // Begun before anybody served it.
        assert!(after.is_stale(&gone, &flow(called, called), &local), "{called}");
    }
    // What others translate, or nobody.
    for called in ["10.96.1.2:53", "192.168.11.3:30053", "10.96.1.1:54"] {
        assert!(!after.is_stale(&before, &flow(called, "10.234.1.1:53"), &local), "{called}");
    }
    assert!(after.differs(&before, Protocol::Udp) && !after.differs(&before, Protocol::Tcp));
    assert!(!before.differs(&before, Protocol::Udp) && gone.differs(&before, Protocol::Udp));
}

#[test]
fn nothing_of_a_family_that_is_not_spoken() {
    let mut config = with_services(ALL_KINDS);
    config.local.prefixes.retain(|net| net.addr().is_ipv4());
    let facts = Facts { ipv6_off: true, ..edge_facts(Datapath::User) };
    let serving = Plan::new(&config, &facts).ruleset.serving.unwrap();
    assert!(!show(&serving).contains("fd00"), "{}", show(&serving));
}
