//! What the kernel says of firewalls and connections, as `nft`, `iptables` and sockets make them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::net::UdpSocket;

use common::{fresh_namespace, sh};
use selvedge_linux::Family;
use selvedge_linux::conntrack::Conntrack;
use selvedge_linux::netfilter::{Generation, has_chain};

const TABLES: [&str; 2] = ["nat", "filter"];

#[test]
fn whoever_touches_nftables_is_noticed() {
    fresh_namespace();
    let read = || Generation::read(&[], &[]).unwrap();
    let before = read();
    assert_eq!(read(), before);
    assert!(!has_chain(None, "selvedge", "digest-1").unwrap());
    sh("nft 'table inet selvedge { chain digest-1 { }; }'");
    let after = read();
    assert!(after != before && after.follows(&before));
    assert!(has_chain(None, "selvedge", "digest-1").unwrap());
    assert!(!has_chain(None, "selvedge", "digest-2").unwrap());
    sh("nft add table ip a; nft add table ip b");
    assert!(read() != after && !read().follows(&after));
}

#[test]
fn whoever_touches_legacy_tables_is_noticed() {
    fresh_namespace();
    let families = [Family::V4, Family::V6];
    sh(
        "iptables-legacy -t nat -N OURS; iptables-legacy -A INPUT -p tcp -j ACCEPT; ip6tables-legacy -t nat -N OURS; ip6tables-legacy -L",
    );
    let mut before = Generation::read(&families, &TABLES).unwrap();
    assert_eq!(Generation::read(&families, &TABLES).unwrap(), before);
    for change in [
        "iptables-legacy -t nat -I PREROUTING 1 -j ACCEPT",
        "iptables-legacy -D INPUT -p tcp -j ACCEPT",
        "ip6tables-legacy -t nat -A OURS -j ACCEPT",
    ] {
        sh(change);
        let after = Generation::read(&families, &TABLES).unwrap();
        assert_ne!(after, before, "{change}");
        before = after;
    }
}

#[test]
fn a_connection_is_found_and_forgotten() {
    fresh_namespace();
    sh("ip addr add 10.0.0.1/24 dev lo; ip addr add fd00::1/64 dev lo nodad");
    sh("nft 'table inet t { chain c { type nat hook output priority -100; \
        ip daddr 10.96.0.1 udp dport 53 dnat ip to 10.0.0.1:5353; ip6 daddr fd00:96::1 udp dport 53 dnat ip6 to [fd00::1]:5353; }; }'");
    sh("ip route add 10.96.0.0/16 dev lo; ip route add fd00:96::/64 dev lo");
    for (family, from, called, answers) in [
        (Family::V4, "10.0.0.1:0", "10.96.0.1:53", "10.0.0.1:5353"),
        (Family::V6, "[fd00::1]:0", "[fd00:96::1]:53", "[fd00::1]:5353"),
    ] {
        let socket = UdpSocket::bind(from).unwrap();
        let server = UdpSocket::bind(answers).unwrap();
        socket.send_to(b"x", called).unwrap();
        let mut conntrack = Conntrack::open().unwrap();
        let called = called.parse().unwrap();
        let mut find = |protocol| conntrack.find(family, protocol, |c| c.called == called).unwrap();
        assert_eq!(find(6), []);
        let found = find(17);
        assert_eq!(
            found.iter().map(|c| (c.answers, c.answered)).collect::<Vec<_>>(),
            [(answers.parse().unwrap(), false)]
        );
        let (_, client) = server.recv_from(&mut [0; 1]).unwrap();
        server.send_to(b"y", client).unwrap();
        assert!(find(17)[0].answered);
        conntrack.forget(&found[0]).unwrap();
        assert_eq!(conntrack.find(family, 17, |c| c.called == called).unwrap(), []);
        conntrack.forget(&found[0]).unwrap();
    }
}
