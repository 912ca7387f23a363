//! A node that answers DNS.
#![cfg(feature = "dns")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use expect_test::expect;
use selvedge_model::{Dns, IpNet, NodeConfig};
use selvedge_plan::*;

fn edge() -> NodeConfig {
    NodeConfig { dns: Some(Dns::default()), ..config(EDGE) }
}

fn incoming(config: &NodeConfig, facts: &Facts, family: Family) -> String {
    let ruleset = Plan::new(config, facts).ruleset;
    let text = iptables::update("", &iptables::tables(&ruleset, family)).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("-A SELVEDGE-INPUT -d")).collect();
    lines.join("\n")
}

#[test]
fn the_device_has_the_addresses() {
    let facts = edge_facts(Datapath::Kernel);
    let plan = Plan::new(&edge(), &facts);
    assert_eq!(plan.dns, Dns::ADDRESSES);
    let without = Plan::new(&config(EDGE), &facts);
    assert_eq!(plan.addresses[without.addresses.len()..], Dns::ADDRESSES.map(IpNet::from));
    // Pods that speak no IPv6 ask by IPv4.
    let mut only4 = edge();
    only4.pod_cidrs.retain(|net| net.addr().is_ipv4());
    assert_eq!(Plan::new(&only4, &facts).dns, Dns::ADDRESSES[..1]);
    assert_eq!(Plan::new(&edge(), &Facts { ipv6_off: true, ..facts }).dns, Dns::ADDRESSES[..1]);
    let cloud = NodeConfig { dns: Some(Dns::default()), ..config(CLOUD) };
    assert!(Plan::new(&cloud, &cloud_facts()).dns.is_empty());
}

#[test]
fn strangers_are_not_answered() {
    let facts = edge_facts(Datapath::Kernel);
    expect![[r#"
        -A SELVEDGE-INPUT -d 169.254.25.10/32 -i lo -j ACCEPT
        -A SELVEDGE-INPUT -d 169.254.25.10/32 -m set --match-set SELVEDGE-LOCAL src -j ACCEPT
        -A SELVEDGE-INPUT -d 169.254.25.10/32 -j DROP"#]]
    .assert_eq(&incoming(&edge(), &facts, Family::V4));
    assert_eq!(incoming(&edge(), &facts, Family::V6).lines().count(), 3);
    assert_eq!(incoming(&config(EDGE), &facts, Family::V4), "");
    let nft = nft::replace(&Plan::new(&edge(), &Facts { firewall: Backend::Nftables, ..facts }).ruleset);
    for rule in [
        "ip daddr 169.254.25.10/32 iif \"lo\" accept",
        "ip daddr 169.254.25.10/32 udp dport 53 notrack",
        "ip saddr 169.254.25.10/32 udp sport 53 notrack",
    ] {
        assert!(nft.contains(rule), "{rule}: {nft}");
    }
}
