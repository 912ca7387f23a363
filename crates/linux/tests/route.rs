//! Routes, rules, links and addresses, as `ip` sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::{fresh_namespace, sh, until_local};
use selvedge_linux::netlink::{Notice, Protocol, Socket};
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::route::{Kind, OURS, Route};
use selvedge_linux::rule::Rule;
use selvedge_linux::{Family, address, link, route, rule};

const TABLE: u32 = 220;

/// A namespace with `eth0` (10.0.0.1/24, 2001:db8::1/64); returns its index.
fn setup() -> (Socket, u32) {
    fresh_namespace();
    sh("ip link add eth0 type veth peer name peer0 && ip link set peer0 up");
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let index = link::by_name(&mut socket, "eth0").unwrap().unwrap().index;
    link::set_up(&mut socket, index).unwrap();
    assert!(address::add(&mut socket, index, "10.0.0.1/24".parse().unwrap()).unwrap());
    assert!(address::add(&mut socket, index, "2001:db8::1/64".parse().unwrap()).unwrap());
    until_local("2001:db8::1");
    (socket, index)
}

fn via(dst: &str, gateway: &str, dev: u32) -> Route {
    Route {
        dst: dst.parse().unwrap(),
        table: TABLE,
        kind: Kind::Unicast,
        gateway: Some(gateway.parse().unwrap()),
        dev: Some(dev),
        src: None,
        metric: 0,
        onlink: false,
        protocol: OURS,
    }
}

#[test]
fn routes_are_set_replaced_listed_and_deleted() {
    let (mut socket, dev) = setup();
    assert_eq!(route::list(&mut socket, TABLE).unwrap(), []);
    let plain = via("10.1.0.0/24", "10.0.0.2", dev);
    let source = Route { src: Some("10.0.0.1".parse().unwrap()), metric: 5, ..via("10.2.0.0/16", "10.0.0.2", dev) };
    let onlink = Route { onlink: true, ..via("10.3.0.0/16", "192.0.2.7", dev) };
    let direct = Route { gateway: None, ..via("10.4.0.0/16", "10.0.0.2", dev) };
    let dead = Route { kind: Kind::Unreachable, ..via("10.5.0.0/16", "10.0.0.2", dev) }.canonical();
    let hole = Route { kind: Kind::Blackhole, metric: 9, ..via("10.5.0.0/16", "10.0.0.2", dev) }.canonical();
    let six = via("2001:db8:1::/48", "2001:db8::2", dev);
    let six_metric = Route { metric: 7, ..via("2001:db8:1::/48", "2001:db8::3", dev) };
    let six_dead = Route { kind: Kind::Unreachable, ..via("2001:db8:2::/48", "2001:db8::2", dev) }.canonical();
    let mut all = vec![plain.clone(), source, onlink, direct, dead, hole, six, six_metric, six_dead];
    for route in &all {
        route::replace(&mut socket, route).unwrap();
        route::replace(&mut socket, route).unwrap();
    }
    let sorted = |mut routes: Vec<Route>| {
        routes.sort();
        routes
    };
    all.sort();
    assert_eq!(sorted(route::list(&mut socket, TABLE).unwrap()), all);
    let shown = sh("ip route show table 220; ip -6 route show table 220");
    for line in [
        "10.1.0.0/24 via 10.0.0.2 dev eth0 proto 94",
        "10.2.0.0/16 via 10.0.0.2 dev eth0 proto 94 src 10.0.0.1 metric 5",
        "10.3.0.0/16 via 192.0.2.7 dev eth0 proto 94 onlink",
        "10.4.0.0/16 dev eth0 proto 94 scope link",
        "unreachable 10.5.0.0/16 proto 94",
        "blackhole 10.5.0.0/16 proto 94 metric 9",
        "2001:db8:1::/48 via 2001:db8::2 dev eth0 proto 94 metric 1024",
        "unreachable 2001:db8:2::/48 dev lo proto 94 metric 1024",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let moved = via("10.1.0.0/24", "10.0.0.3", dev);
    route::replace(&mut socket, &moved).unwrap();
    assert!(sh("ip route show table 220").contains("10.1.0.0/24 via 10.0.0.3"));
    all.retain(|r| *r != plain);
    all.push(moved);
    for route in &all {
        assert!(route::delete(&mut socket, route).unwrap(), "{route}");
        assert!(!route::delete(&mut socket, route).unwrap(), "{route}");
    }
    assert_eq!(sh("ip route show table 220; ip -6 route show table 220"), "");
}

#[test]
fn tables_are_listed_apart_and_beyond_255() {
    let (mut socket, dev) = setup();
    let far = Route { table: 70_000, ..via("10.1.0.0/24", "10.0.0.2", dev) };
    route::replace(&mut socket, &far).unwrap();
    assert!(sh("ip route show table 70000").contains("10.1.0.0/24"));
    assert_eq!(route::list(&mut socket, TABLE).unwrap(), []);
    assert_eq!(route::list(&mut socket, 70_000).unwrap(), [far]);
    assert!(route::list(&mut socket, 254).unwrap().iter().any(|r| r.dst == "10.0.0.0/24".parse().unwrap()));
}

#[test]
fn thousands_of_routes_are_listed_whole() {
    let (mut socket, dev) = setup();
    for i in 0..3000u32 {
        let dst = format!("10.{}.{}.0/24", 64 + i / 256, i % 256);
        route::replace(&mut socket, &via(&dst, "10.0.0.2", dev)).unwrap();
    }
    assert_eq!(route::list(&mut socket, TABLE).unwrap().len(), 3000);
}

#[test]
fn refusals_say_why() {
    let (mut socket, dev) = setup();
    let error = route::replace(&mut socket, &via("10.1.0.0/24", "192.0.2.1", dev)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENETUNREACH));
    let text = error.to_string();
    assert!(text.starts_with("set route 10.1.0.0/24 via 192.0.2.1 dev #"), "{text}");
    assert!(text.ends_with("unreachable (ENETUNREACH): Nexthop has invalid gateway"), "{text}");
    assert!(!route::delete(&mut socket, &via("10.1.0.0/24", "10.0.0.2", 999)).unwrap());
}

#[test]
fn lookup_follows_routes_and_rules() {
    let (mut socket, dev) = setup();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    route::replace(&mut socket, &via("10.1.0.0/24", "10.0.0.2", dev)).unwrap();
    let error = route::lookup(&mut socket, ip("10.1.0.5")).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENETUNREACH));
    let every = Rule { family: Family::V4, priority: 220, table: TABLE, from: None, to: None };
    assert!(rule::add(&mut socket, &every).unwrap());
    let path = route::lookup(&mut socket, ip("10.1.0.5")).unwrap();
    assert_eq!(path.src, Some(ip("10.0.0.1")));
    assert_eq!((path.gateway, path.dev, path.mtu, path.local), (Some(ip("10.0.0.2")), Some(dev), None, false));
    sh("ip route add 10.9.0.0/24 via 10.0.0.2 mtu 1300");
    assert_eq!(route::lookup(&mut socket, ip("10.9.0.1")).unwrap().mtu, Some(1300));
    assert!(route::lookup(&mut socket, ip("10.0.0.1")).unwrap().local);
    let path = route::lookup(&mut socket, ip("2001:db8::9")).unwrap();
    assert_eq!((path.src, path.dev), (Some(ip("2001:db8::1")), Some(dev)));
    assert!(address::add(&mut socket, dev, "10.0.0.77/32".parse().unwrap()).unwrap());
    let from = Rule { from: Some("10.0.0.77/32".parse().unwrap()), priority: 100, table: 221, ..every };
    assert!(rule::add(&mut socket, &from).unwrap());
    route::replace(&mut socket, &Route { table: 221, ..via("10.1.0.0/24", "10.0.0.9", dev) }).unwrap();
    let path = route::lookup_from(&mut socket, ip("10.1.0.5"), ip("10.0.0.77")).unwrap();
    assert_eq!(path.gateway, Some(ip("10.0.0.9")));
}

#[test]
fn rules_are_added_listed_and_deleted() {
    let (mut socket, _) = setup();
    let rules = [
        Rule { family: Family::V4, priority: 220, table: TABLE, from: None, to: None },
        Rule {
            family: Family::V4,
            priority: 221,
            table: 70_000,
            from: Some("10.1.0.0/24".parse().unwrap()),
            to: Some("10.2.0.0/16".parse().unwrap()),
        },
        Rule {
            family: Family::V6,
            priority: 220,
            table: TABLE,
            from: None,
            to: Some("2001:db8::/32".parse().unwrap()),
        },
    ];
    for rule in &rules {
        assert!(rule::add(&mut socket, rule).unwrap());
        assert!(!rule::add(&mut socket, rule).unwrap());
        assert!(rule::list(&mut socket, rule.family).unwrap().contains(rule));
    }
    sh("ip rule add fwmark 1 table 220 priority 500");
    assert!(rule::list(&mut socket, Family::V4).unwrap().iter().all(|r| r.priority != 500));
    let shown = sh("ip rule; ip -6 rule");
    assert!(shown.contains("220:\tfrom all lookup 220 proto 94"), "{shown}");
    assert!(shown.contains("221:\tfrom 10.1.0.0/24 to 10.2.0.0/16 lookup 70000 proto 94"), "{shown}");
    assert!(shown.contains("220:\tfrom all to 2001:db8::/32 lookup 220 proto 94"), "{shown}");
    for rule in &rules {
        assert!(rule::delete(&mut socket, rule).unwrap());
        assert!(!rule::delete(&mut socket, rule).unwrap());
    }
}

#[test]
fn links_and_addresses() {
    let (mut socket, index) = setup();
    let veth = link::by_name(&mut socket, "eth0").unwrap().unwrap();
    assert_eq!((veth.kind.as_deref(), veth.up, veth.loopback, veth.mtu), (Some("veth"), true, false, 1500));
    assert!(veth.addresses.contains(&"10.0.0.1/24".parse().unwrap()));
    assert!(veth.addresses.contains(&"2001:db8::1/64".parse().unwrap()));
    assert!(!address::add(&mut socket, index, "10.0.0.1/24".parse().unwrap()).unwrap());
    assert!(address::add(&mut socket, index, "fd00::7/128".parse().unwrap()).unwrap());
    assert!(address::add(&mut socket, index, "169.254.20.10/32".parse().unwrap()).unwrap());
    let shown = sh("ip addr show dev eth0");
    assert!(shown.contains("inet6 fd00::7/128 scope global nodad noprefixroute"), "{shown}");
    assert!(shown.contains("inet 169.254.20.10/32 scope global noprefixroute"), "{shown}");
    assert!(address::delete(&mut socket, index, "fd00::7/128".parse().unwrap()).unwrap());
    assert!(!address::delete(&mut socket, index, "fd00::7/128".parse().unwrap()).unwrap());
    link::set_mtu(&mut socket, index, 1400).unwrap();
    assert_eq!(link::by_name(&mut socket, "eth0").unwrap().unwrap().mtu, 1400);
    assert!(link::list(&mut socket).unwrap().iter().any(|l| l.loopback && l.name == "lo"));
    assert!(link::create(&mut socket, "br7", "bridge").unwrap());
    assert!(!link::create(&mut socket, "br7", "bridge").unwrap());
    assert!(sh("ip -d link show br7").contains("bridge"));
    assert!(link::delete(&mut socket, "br7").unwrap());
    assert!(!link::delete(&mut socket, "br7").unwrap());
    assert_eq!(link::by_name(&mut socket, "br7").unwrap(), None);
    let error = link::create(&mut socket, "x0", "nonsense").unwrap_err().to_string();
    assert!(error.starts_with("make nonsense link x0: "), "{error}");
}

#[test]
fn changes_are_noticed() {
    let (mut socket, index) = setup();
    let mut monitor = link::monitor().unwrap();
    assert_eq!(monitor.take().unwrap(), None);
    assert!(address::add(&mut socket, index, "10.0.0.7/24".parse().unwrap()).unwrap());
    route::replace(&mut socket, &via("10.1.0.0/24", "10.0.0.2", index)).unwrap();
    link::set_mtu(&mut socket, index, 1400).unwrap();
    let ready = poll(&mut [Interest::readable(&monitor)], Some(Duration::from_secs(5))).unwrap();
    assert_eq!(ready, 1);
    let events: Vec<_> = std::iter::from_fn(|| monitor.take().unwrap()).collect();
    for event in [link::Event::Address { index }, link::Event::Route { table: TABLE }, link::Event::Link { index }] {
        assert!(events.contains(&Notice::Event(event)), "{event:?} in {events:?}");
    }
    assert_eq!(monitor.take().unwrap(), None);
}
