//! Whole plans of each role, as a person would read them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fmt::Write;

use common::*;
use expect_test::{Expect, expect};
use selvedge_plan::*;

fn check(plan: &Plan, expected: &Expect) {
    expected.assert_eq(&text(plan));
}

/// Everything but the ruleset, in the words of `ip`.
fn text(plan: &Plan) -> String {
    let mut out = String::new();
    if let Some(device) = plan.device {
        writeln!(out, "device {DEVICE} {device:?} mtu {MTU}").unwrap();
    }
    for address in &plan.addresses {
        writeln!(out, "address {address}").unwrap();
    }
    for Rule { priority, from, table, family } in &plan.rules {
        let from = from.map_or("all".into(), |net| net.to_string());
        writeln!(out, "rule {family:?} {priority}: from {from} lookup {table}").unwrap();
    }
    for Route { table, destination, metric, kind, protocol } in &plan.routes {
        assert_eq!(*protocol, PROTOCOL);
        let way = match kind {
            RouteKind::Unreachable => format!("unreachable {destination}"),
            RouteKind::Unicast { gateway, onlink, device, source } => {
                let via = gateway.map_or(String::new(), |g| format!(" via {g}"));
                let onlink = if *onlink { " onlink" } else { "" };
                let source = source.map_or(String::new(), |s| format!(" src {s}"));
                format!("{destination}{via} dev {device}{onlink}{source}")
            }
        };
        writeln!(out, "route {way} table {table} metric {metric}").unwrap();
    }
    for sysctl in &plan.sysctls {
        writeln!(out, "sysctl {} = {}", sysctl.path, sysctl.value).unwrap();
    }
    for Policy { direction, source, destination, priority, action } in &plan.policies {
        let action = match action {
            Action::Block => "block".to_owned(),
            Action::Protect(t) => format!("tmpl src {} dst {} reqid {}", t.source, t.destination, t.reqid),
        };
        writeln!(out, "policy {direction:?} {source} -> {destination} priority {priority:#x} {action}").unwrap();
    }
    for note in &plan.notes {
        writeln!(out, "note {note}").unwrap();
    }
    out
}

#[test]
fn a_node_without_ipv6_gets_its_ipv4_part_and_a_note() {
    let facts = Facts { ipv6_off: true, accept_ra: Default::default(), ..edge_facts(Datapath::Kernel) };
    let plan = Plan::new(&config(EDGE), &facts);
    let text = format!("{plan:?}");
    assert!(!text.contains("fd00:") && !text.contains("V6") && !text.contains("ipv6/"), "{text}");
    assert!(plan.notes.iter().any(|note| note.contains("IPv6 is off")), "{:?}", plan.notes);
    assert!(plan.routes.iter().any(|route| matches!(route.kind, RouteKind::Unicast { .. })));
    let only4 = r#"{"version": 1, "generation": 1, "name": "a.b", "node": "b", "role": "edge",
        "podCidrs": ["10.234.1.0/24"], "local": {"prefixes": ["10.234.1.0/24"]}, "peers": []}"#;
    assert_eq!(Plan::new(&config(only4), &facts).notes, Vec::<String>::new());
}

#[test]
fn edge_in_the_kernel() {
    let plan = Plan::new(&config(EDGE), &edge_facts(Datapath::Kernel));
    check(
        &plan,
        &expect![[r#"
        device selvedge0 Dummy mtu 1400
        address 10.234.1.1/32
        address fd00:234:0:1::1/128
        rule V4 220: from all lookup 220
        rule V4 221: from 10.234.1.0/24 lookup 221
        rule V6 220: from all lookup 220
        route 10.96.0.0/16 dev selvedge0 src 10.234.1.1 table 220 metric 1024
        route unreachable 10.96.0.0/16 table 220 metric 4096
        route 10.234.2.0/24 dev selvedge0 src 10.234.1.1 table 220 metric 1024
        route unreachable 10.234.2.0/24 table 220 metric 4096
        route 10.244.0.0/24 dev selvedge0 src 10.234.1.1 table 220 metric 1024
        route unreachable 10.244.0.0/24 table 220 metric 4096
        route 10.244.1.0/24 dev selvedge0 src 10.234.1.1 table 220 metric 1024
        route unreachable 10.244.1.0/24 table 220 metric 4096
        route 10.244.2.0/24 dev selvedge0 src 10.234.1.1 table 220 metric 1024
        route unreachable 10.244.2.0/24 table 220 metric 4096
        route fd00:96::/112 dev selvedge0 src fd00:234:0:1::1 table 220 metric 1024
        route unreachable fd00:96::/112 table 220 metric 4096
        route fd00:234:0:2::/64 dev selvedge0 src fd00:234:0:1::1 table 220 metric 1024
        route unreachable fd00:234:0:2::/64 table 220 metric 4096
        route fd00:244:0:1::/64 dev selvedge0 src fd00:234:0:1::1 table 220 metric 1024
        route unreachable fd00:244:0:1::/64 table 220 metric 4096
        route 172.16.0.11/32 dev selvedge0 src 10.234.1.1 table 221 metric 1024
        route unreachable 172.16.0.11/32 table 221 metric 4096
        route 172.16.0.12/32 dev selvedge0 src 10.234.1.1 table 221 metric 1024
        route unreachable 172.16.0.12/32 table 221 metric 4096
        route 192.168.12.2/32 dev selvedge0 src 10.234.1.1 table 221 metric 1024
        route unreachable 192.168.12.2/32 table 221 metric 4096
        sysctl net/ipv4/ip_forward = 1
        sysctl net/ipv4/conf/selvedge0/rp_filter = 0
        sysctl net/ipv6/conf/eth0.2/accept_ra = 2
        sysctl net/ipv6/conf/all/forwarding = 1
        sysctl net/bridge/bridge-nf-call-iptables = 1
        sysctl net/bridge/bridge-nf-call-ip6tables = 1
        policy Out 0.0.0.0/0 -> 10.96.0.0/16 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy Out 0.0.0.0/0 -> 10.234.2.0/24 priority 0x5e80 block
        policy Out 0.0.0.0/0 -> 10.244.0.0/24 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy Out 0.0.0.0/0 -> 10.244.1.0/24 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy Out 0.0.0.0/0 -> 10.244.2.0/24 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy Out 10.234.1.0/24 -> 172.16.0.11/32 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy Out 10.234.1.0/24 -> 172.16.0.12/32 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy Out 10.234.1.0/24 -> 192.168.12.2/32 priority 0x5e80 block
        policy Out ::/0 -> fd00:96::/112 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy Out ::/0 -> fd00:234:0:2::/64 priority 0x5e80 block
        policy Out ::/0 -> fd00:244:0:1::/64 priority 0x5e00 tmpl src 192.168.11.2 dst 203.0.113.10 reqid 1
        policy In 10.96.0.0/16 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy In 10.234.2.0/24 -> 0.0.0.0/0 priority 0x5e80 block
        policy In 10.244.0.0/24 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy In 10.244.1.0/24 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy In 10.244.2.0/24 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy In 172.16.0.11/32 -> 10.234.1.0/24 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy In 172.16.0.12/32 -> 10.234.1.0/24 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy In 192.168.12.2/32 -> 10.234.1.0/24 priority 0x5e80 block
        policy In fd00:96::/112 -> ::/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy In fd00:234:0:2::/64 -> ::/0 priority 0x5e80 block
        policy In fd00:244:0:1::/64 -> ::/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward 10.96.0.0/16 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward 10.234.2.0/24 -> 0.0.0.0/0 priority 0x5e80 block
        policy Forward 10.244.0.0/24 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward 10.244.1.0/24 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward 10.244.2.0/24 -> 0.0.0.0/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward 172.16.0.11/32 -> 10.234.1.0/24 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward 172.16.0.12/32 -> 10.234.1.0/24 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward 192.168.12.2/32 -> 10.234.1.0/24 priority 0x5e80 block
        policy Forward fd00:96::/112 -> ::/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
        policy Forward fd00:234:0:2::/64 -> ::/0 priority 0x5e80 block
        policy Forward fd00:244:0:1::/64 -> ::/0 priority 0x5e00 tmpl src 0.0.0.0 dst 0.0.0.0 reqid 1
    "#]],
    );
}

#[test]
fn edge_in_user_space_has_no_policies_but_the_same_routes() {
    let kernel = Plan::new(&config(EDGE), &edge_facts(Datapath::Kernel));
    let user = Plan::new(&config(EDGE), &edge_facts(Datapath::User));
    assert_eq!((user.device, user.policies.len()), (Some(Device::Tun), 0));
    assert_eq!((user.routes, user.rules, user.addresses), (kernel.routes, kernel.rules, kernel.addresses));
}

#[test]
fn an_edges_own_bridge_and_device_change_nothing() {
    let facts = edge_facts(Datapath::User);
    let mut later = facts.clone();
    later.local_addresses.extend(addresses(&[("br-selvedge", "10.234.1.1/24"), ("selvedge0", "10.234.1.1/32")]));
    assert_eq!(Plan::new(&config(EDGE), &facts), Plan::new(&config(EDGE), &later));
}

#[test]
fn a_gateway_without_pods_speaks_from_the_network_it_offers() {
    let plan = text(&Plan::new(&config(GATEWAY), &gateway_facts()));
    assert!(plan.contains("route 192.168.20.0/24 dev selvedge0 src 192.168.10.1 table 220"), "{plan}");
    assert!(!plan.contains("address"), "{plan}");
}

#[test]
fn connector_with_flannel() {
    check(
        &Plan::new(&config(CONNECTOR), &connector_facts()),
        &expect![[r#"
        device selvedge0 Tun mtu 1400
        address fd00:244:0:1::1/128
        rule V4 220: from all lookup 220
        rule V4 221: from 10.244.0.0/23 lookup 221
        rule V4 221: from 10.244.2.0/24 lookup 221
        rule V6 220: from all lookup 220
        route 10.234.1.0/24 dev selvedge0 src 10.244.1.0 table 220 metric 1024
        route unreachable 10.234.1.0/24 table 220 metric 4096
        route 10.234.2.0/24 dev selvedge0 src 10.244.1.0 table 220 metric 1024
        route unreachable 10.234.2.0/24 table 220 metric 4096
        route fd00:234:0:1::/64 dev selvedge0 src fd00:244:0:1::1 table 220 metric 1024
        route unreachable fd00:234:0:1::/64 table 220 metric 4096
        route fd00:234:0:2::/64 dev selvedge0 src fd00:244:0:1::1 table 220 metric 1024
        route unreachable fd00:234:0:2::/64 table 220 metric 4096
        route 192.168.11.2/32 dev selvedge0 src 10.244.1.0 table 221 metric 1024
        route unreachable 192.168.11.2/32 table 221 metric 4096
        route 192.168.12.2/32 dev selvedge0 src 10.244.1.0 table 221 metric 1024
        route unreachable 192.168.12.2/32 table 221 metric 4096
        sysctl net/ipv4/ip_forward = 1
        sysctl net/ipv4/conf/selvedge0/rp_filter = 0
        sysctl net/ipv6/conf/all/forwarding = 1
    "#]],
    );
}

#[test]
fn a_connector_without_any_pod_address_carries_one_itself() {
    let mut facts = connector_facts();
    facts.local_addresses.truncate(2);
    let plan = Plan::new(&config(CONNECTOR), &facts);
    assert_eq!(plan.addresses, ["10.244.1.1/32".parse().unwrap(), "fd00:244:0:1::1/128".parse().unwrap()]);
}

#[test]
fn cloud_node_with_flannel() {
    check(
        &Plan::new(&config(CLOUD), &cloud_facts()),
        &expect![[r#"
        rule V4 220: from all lookup 220
        rule V6 220: from all lookup 220
        route 10.234.1.0/24 via 10.244.1.0 dev flannel.1 onlink src 10.244.2.0 table 220 metric 1024
        route unreachable 10.234.1.0/24 table 220 metric 4096
        route 10.234.2.0/24 via 10.244.1.0 dev flannel.1 onlink src 10.244.2.0 table 220 metric 1024
        route unreachable 10.234.2.0/24 table 220 metric 4096
        route unreachable fd00:234:0:1::/64 table 220 metric 4096
        route unreachable fd00:234:0:2::/64 table 220 metric 4096
        sysctl net/ipv4/ip_forward = 1
        sysctl net/ipv6/conf/all/forwarding = 1
        note fd00:234:0:1::/64 of beijing.connector: no route leads to beijing.connector
        note fd00:234:0:2::/64 of beijing.connector: no route leads to beijing.connector
    "#]],
    );
}

#[test]
fn without_an_overlay_route_the_peer_itself_is_the_next_hop() {
    let next_hop = |facts: &Facts| {
        let plan = Plan::new(&config(CLOUD), facts);
        plan.routes.into_iter().find(|r| r.metric == METRIC).map(|r| r.kind)
    };
    let direct = RouteKind::Unicast {
        gateway: Some("172.16.0.11".parse().unwrap()),
        onlink: true,
        device: "eth0".into(),
        source: Some("10.244.2.0".parse().unwrap()),
    };
    let mut facts = cloud_facts();
    // Only the default route leads to the overlay.
    facts.routes.insert("10.244.1.1".parse().unwrap(), hop("172.16.0.1", "eth0"));
    assert_eq!(next_hop(&facts), Some(direct));
    // The peer itself is behind a router: as a gateway it would not answer.
    facts.routes.insert("172.16.0.11".parse().unwrap(), hop("172.16.0.1", "eth0"));
    assert_eq!(next_hop(&facts), None);
}

#[test]
fn what_is_looked_up_beforehand() {
    let wanted: Vec<String> = probes(&config(CLOUD)).iter().map(ToString::to_string).collect();
    assert_eq!(wanted, ["10.244.1.1", "172.16.0.11", "192.0.2.1", "2001:db8::1", "fd00:244:0:1::1"]);
    assert!(probes(&config(EDGE)).is_empty());
}

#[test]
fn an_empty_own_pod_cidr_gives_no_way_to_nodes() {
    let plan =
        Plan::new(
            &config(&EDGE.replace(
                r#""podCidrs": ["10.234.1.0/24", "fd00:234:0:1::/64"]"#,
                r#""podCidrs": ["fd00:234:0:1::/64"]"#,
            )),
            &edge_facts(Datapath::Kernel),
        );
    assert!(plan.routes.iter().all(|r| r.table == POD_TABLE));
    assert!(plan.rules.iter().all(|r| r.table == POD_TABLE));
}

#[test]
fn notes_say_what_will_not_work() {
    let mut facts = edge_facts(Datapath::User);
    facts.local_addresses.extend(addresses(&[("wlan0", "10.244.0.7/16")]));
    facts.forward_drop = true;
    facts.bridge_netfilter = false;
    let text = EDGE.replace("203.0.113.10", "10.244.2.9");
    expect![[r#"
        br_netfilter is not there: a pod called through a Service by a pod of the same node sees the node's address
        10.244.0.0/24 of beijing.connector overlaps 10.244.0.0/16 on wlan0
        10.244.1.0/24 of beijing.connector overlaps 10.244.0.0/16 on wlan0
        10.244.2.0/24 of beijing.connector holds 10.244.2.9, the outer address of a tunnel
        10.244.2.0/24 of beijing.connector overlaps 10.244.0.0/16 on wlan0
        the FORWARD policy of iptables is DROP, which an accept in a table of nftables does not overrule: set the firewall of this node to iptables"#]].assert_eq(&Plan::new(&config(&text), &facts).notes.join("\n"));
}

#[test]
fn cni_network_list() {
    let plan = Plan::new(&config(EDGE), &edge_facts(Datapath::User));
    let file = plan.cni.unwrap();
    assert_eq!(file.name, "selvedge.conflist");
    expect![[r#"
        {
          "cniVersion": "0.3.1",
          "name": "selvedge",
          "plugins": [
            {
              "type": "bridge",
              "bridge": "br-selvedge",
              "isDefaultGateway": true,
              "forceAddress": true,
              "hairpinMode": true,
              "mtu": 1400,
              "ipam": {
                "type": "host-local",
                "ranges": [
                  [
                    {
                      "subnet": "10.234.1.0/24"
                    }
                  ],
                  [
                    {
                      "subnet": "fd00:234:0:1::/64"
                    }
                  ]
                ]
              }
            },
            {
              "type": "portmap",
              "capabilities": {
                "portMappings": true
              }
            },
            {
              "type": "bandwidth",
              "capabilities": {
                "bandwidth": true
              }
            }
          ]
        }
    "#]]
    .assert_eq(&file.text);
    let off = EDGE.replace(r#""mtu": 1400"#, r#""mtu": 1400, "hairpin": false"#);
    assert!(!Plan::new(&config(&off), &edge_facts(Datapath::User)).cni.unwrap().text.contains("hairpin"));
    assert_eq!(Plan::new(&config(CLOUD), &cloud_facts()).cni, None);
}

#[test]
fn endpoints_that_are_out_take_nothing_as_long_as_there_are_others() {
    use selvedge_model::Protocol;
    let endpoints = |out: &[(&str, u16)]| {
        let out = out.iter().map(|(address, port)| (address.parse().unwrap(), Protocol::Tcp, *port)).collect();
        let plan = Plan::new(&config(EDGE), &Facts { out, ..edge_facts(Datapath::User) });
        let web = &plan.ruleset.serving.unwrap().groups["default/web-tcp-80"];
        web.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>()
    };
    let here = ["10.234.1.5:8080", "10.234.1.6:8080"];
    assert_eq!(endpoints(&[]), here);
    assert_eq!(endpoints(&[("10.234.1.5", 8080)]), here[1..]);
    assert_eq!(endpoints(&[("10.234.1.5", 8081), ("10.234.2.5", 8080)]), here, "another port, another node");
    let both = [("10.234.1.5", 8080), ("10.234.1.6", 8080)];
    assert_eq!(endpoints(&both), ["10.234.2.5:8080"], "those on this node come first only if they answer");
    assert_eq!(endpoints(&[both[0], both[1], ("10.234.2.5", 8080)]), here, "never the last one");
}
