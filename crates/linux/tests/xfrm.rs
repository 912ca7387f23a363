//! IPsec policies, counters and the probe, on whatever kernel runs the test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use common::{fresh_namespace, sh};
use selvedge_linux::netlink::{Protocol, Socket};
use selvedge_linux::xfrm::{self, Action, Direction, Policy, Template};

fn policy(src: &str, dst: &str, direction: Direction) -> Policy {
    Policy {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        direction,
        priority: 1000,
        action: Action::Allow,
        template: Some(Template {
            src: "192.0.2.1".parse().unwrap(),
            dst: "192.0.2.2".parse().unwrap(),
            reqid: 0x5e00_0001,
        }),
    }
}

#[test]
fn policies_are_set_listed_and_deleted() {
    fresh_namespace();
    let mut socket = Socket::open(Protocol::Xfrm).unwrap();
    let six = Template { src: "2001:db8::1".parse().unwrap(), dst: "2001:db8::2".parse().unwrap(), reqid: 0x5e00_0002 };
    let mut all = vec![
        policy("10.1.0.0/24", "10.2.0.0/16", Direction::Out),
        policy("10.2.0.0/16", "10.1.0.0/24", Direction::In),
        policy("10.2.0.0/16", "10.1.0.0/24", Direction::Forward),
        policy("fd00:1::/64", "fd00:2::/64", Direction::Out),
        Policy { template: Some(six), ..policy("10.3.0.0/16", "10.4.0.0/16", Direction::Out) },
        Policy {
            template: None,
            action: Action::Block,
            priority: 9000,
            ..policy("0.0.0.0/0", "10.9.0.0/16", Direction::Out)
        },
        Policy { template: None, ..policy("10.8.0.0/16", "10.9.0.0/16", Direction::In) },
    ];
    for policy in &all {
        xfrm::add_policy(&mut socket, policy).unwrap();
    }
    let error = xfrm::add_policy(&mut socket, &all[0]).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EEXIST));
    sh("ip xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 proto udp dport 53 dir out");
    let mut listed = xfrm::list_policies(&mut socket).unwrap();
    listed.sort();
    all.sort();
    assert_eq!(listed, all);
    let shown = sh("ip xfrm policy");
    for part in [
        "src 10.1.0.0/24 dst 10.2.0.0/16 \n\tdir out priority 1000",
        "tmpl src 192.0.2.1 dst 192.0.2.2\n\t\tproto esp reqid 1577058305 mode tunnel",
        "src fd00:1::/64 dst fd00:2::/64",
        "tmpl src 2001:db8::1 dst 2001:db8::2\n\t\tproto esp reqid 1577058306 mode tunnel",
        "src 0.0.0.0/0 dst 10.9.0.0/16 \n\tdir out action block priority 9000",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let changed = Policy { priority: 500, ..policy("10.1.0.0/24", "10.2.0.0/16", Direction::Out) };
    xfrm::update_policy(&mut socket, &changed).unwrap();
    let listed = xfrm::list_policies(&mut socket).unwrap();
    assert_eq!(listed.len(), all.len());
    assert!(listed.contains(&changed));
    assert_eq!(xfrm::flush_policies(&mut socket, 0x5e00_0000..=0x5e00_0001).unwrap(), 4);
    assert_eq!(xfrm::list_policies(&mut socket).unwrap().len(), 3);
    for policy in xfrm::list_policies(&mut socket).unwrap() {
        assert!(xfrm::delete_policy(&mut socket, &policy).unwrap());
        assert!(!xfrm::delete_policy(&mut socket, &policy).unwrap());
    }
    assert!(sh("ip xfrm policy").contains("dport 53"), "a foreign policy stays");
}

#[test]
fn block_policy_blocks_and_is_counted() {
    fresh_namespace();
    let mut socket = Socket::open(Protocol::Xfrm).unwrap();
    let count = || xfrm::stats().unwrap().get("XfrmOutPolBlock").copied().unwrap();
    assert_eq!(count(), 0);
    let all = policy("0.0.0.0/0", "10.0.0.5/32", Direction::Out);
    let block = Policy { template: None, action: Action::Block, ..all };
    xfrm::add_policy(&mut socket, &block).unwrap();
    sh("ip link add v0 type veth peer name v1; ip addr add 10.0.0.1/24 dev v0; ip link set v0 up");
    sh("! ping -c1 -W1 10.0.0.5 >/dev/null 2>&1");
    assert!(count() > 0);
}

#[test]
fn probe_leaves_nothing_and_gives_reasons() {
    fresh_namespace();
    let support = xfrm::probe();
    assert_eq!(sh("ip xfrm state"), "");
    for part in [support.aes_gcm.clone(), support.chacha20_poly1305.clone(), support.udp_encap.clone()] {
        if let Err(reason) = part {
            assert!(reason.to_string().starts_with("no "), "{reason}");
        }
    }
    assert_eq!(support.usable().is_ok(), support.udp_encap.is_ok());
}
