//! What real sockets see through the rules and routes of an edge, with each backend.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::netns::Netns;
use common::talk::{Server, call, call_from, send_from};
use common::*;
use selvedge_model::NodeConfig;
use selvedge_plan::*;

#[test]
fn talk() {
    common::talk::helper();
}

/// `edge-1` with pods `a` and `b` on a bridge, a peer behind `selvedge0` (a veth pair here), an uplink to the world.
struct Edge {
    node: Netns,
    a: Netns,
    b: Netns,
    peer: Netns,
    world: Netns,
    _servers: Vec<Server>,
}

const ROUND_ROBIN: &str = r#""mode": "kernel", "balance": "roundRobin""#;

impl Edge {
    fn new(backend: &str, change: impl Fn(&mut Facts)) -> Edge {
        Edge::with(backend, &config(&EDGE.replace(r#""mode": "kernel""#, ROUND_ROBIN)), change)
    }

    fn with(backend: &str, config: &NodeConfig, change: impl Fn(&mut Facts)) -> Edge {
        let (node, a, b, peer, world) = (Netns::new(), Netns::new(), Netns::new(), Netns::new(), Netns::new());
        for netns in [&node, &a, &b, &peer, &world] {
            for family in ["ipv4", "ipv6"] {
                netns.run(&format!("sysctl -qw net.{family}.conf.all.forwarding=1"));
            }
            netns.run("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        }
        node.run("ip link add br-selvedge type bridge");
        node.run("ip addr add 10.234.1.1/24 dev br-selvedge");
        node.run("ip addr add fd00:234:0:1::1/64 dev br-selvedge nodad");
        node.run("ip link set br-selvedge up");
        for (pod, number) in [(&a, 5), (&b, 6)] {
            node.run(&format!("ip link add pod{number} type veth peer name eth0 netns {}", pod.name()));
            node.run(&format!("ip link set pod{number} master br-selvedge up"));
            node.run(&format!("bridge link set dev pod{number} hairpin on"));
            pod.run(&format!("ip addr add 10.234.1.{number}/24 dev eth0"));
            pod.run(&format!("ip addr add fd00:234:0:1::{number}/64 dev eth0 nodad"));
            pod.run("ip link set eth0 up");
            pod.run("ip route add default via 10.234.1.1");
            pod.run("ip route add default via fd00:234:0:1::1");
        }
        node.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", world.name()));
        node.run("ip addr add 192.168.11.2/24 dev eth0");
        node.run("ip link set eth0 up");
        node.run("ip route add default via 192.168.11.1 dev eth0 onlink");
        world.run("ip addr add 192.168.11.1/24 dev eth0");
        world.run("ip link set eth0 up");
        world.run("ip addr add 10.234.2.66/32 dev lo");
        world.run("ip route add 10.234.1.0/24 via 192.168.11.2 src 10.234.2.66");
        // As with a TUN device, neighbours are not asked for: both ends have one address.
        let link = "address 02:00:00:00:00:01";
        node.run(&format!("ip link add selvedge0 {link} type veth peer name tun0 {link} netns {}", peer.name()));
        node.run("ip link set selvedge0 arp off mtu 1400 up");
        peer.run("ip link set tun0 arp off up");
        for address in ["10.234.2.5/32", "10.244.1.5/32", "10.244.2.5/32", "10.244.2.6/32"] {
            peer.run(&format!("ip addr add {address} dev tun0"));
        }
        peer.run("ip route add default dev tun0");

        let mut facts = edge_facts(Datapath::User);
        change(&mut facts);
        let plan = Plan::new(config, &facts);
        if !facts.bridge_netfilter {
            node.run("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
        }
        for sysctl in &plan.sysctls {
            let _ = node.try_feed(&format!("sysctl -qw {}={}", sysctl.path, sysctl.value), "");
        }
        apply_routes(&node, &plan);
        // What gateways have on their own, and what must not touch traffic of tunnels.
        let foreign = "*nat\n-A POSTROUTING ! -o lo -j MASQUERADE\nCOMMIT\n";
        let program = if backend == "nft" { "iptables-nft" } else { program(backend) };
        node.feed(&format!("{program}-restore --noflush"), foreign);
        load(&node, &plan, backend);
        if backend != "nft" {
            for family in [program.to_owned(), program.replace("ip", "ip6")] {
                node.run(&format!("{family} -P FORWARD DROP"));
            }
        }

        let servers = [
            (&a, "tcp", "a", "0.0.0.0:8080"),
            (&a, "tcp", "a", "[fd00:234:0:1::5]:8080"),
            (&b, "tcp", "b", "0.0.0.0:8080"),
            (&peer, "udp", "peer", "10.244.1.5:123"),
            (&peer, "udp", "peer", "10.244.2.5:123"),
            (&peer, "udp", "peer", "10.244.2.6:123"),
            (&peer, "tcp", "peer", "10.234.2.5:8080"),
            (&peer, "udp", "peer", "10.234.2.5:7"),
            (&world, "tcp", "world", "192.168.11.1:8080"),
        ];
        let servers = servers.map(|(netns, protocol, name, address)| Server::start(netns, protocol, name, address));
        Edge { node, a, b, peer, world, _servers: servers.into() }
    }
}

const KINDS: &str = r#"[
  {"namespace": "a", "name": "away", "clusterIps": ["10.96.1.1"], "externalLocal": true, "ports": [
    {"protocol": "tcp", "port": 80, "nodePort": 30081, "endpoints": [{"address": "10.234.2.5", "port": 8080, "node": "edge-2"}]}]},
  {"namespace": "a", "name": "front", "clusterIps": ["10.96.1.2", "fd00:96::102"], "externalIps": ["192.0.2.80"],
   "loadBalancerIps": ["192.0.2.81"], "loadBalancerSources": ["192.168.11.0/24"], "distribution": "any", "balance": "roundRobin",
   "ports": [{"name": "http", "protocol": "tcp", "port": 80, "nodePort": 30080, "endpoints": [
      {"address": "10.234.1.5", "port": 8080, "node": "edge-1"}, {"address": "10.234.2.5", "port": 8080, "node": "edge-2"}]}]},
  {"namespace": "a", "name": "inside", "clusterIps": ["10.96.1.3"], "internalLocal": true, "ports": [
    {"protocol": "tcp", "port": 80, "endpoints": [{"address": "10.234.2.5", "port": 8080, "node": "edge-2"}]}]},
  {"namespace": "a", "name": "kept", "clusterIps": ["10.96.1.4"], "externalIps": ["192.0.2.82"], "affinity": 600,
   "balance": "roundRobin", "ports": [{"protocol": "tcp", "port": 80, "endpoints": [
      {"address": "10.234.1.5", "port": 8080, "node": "edge-1"}, {"address": "10.234.1.6", "port": 8080, "node": "edge-1"}]}]},
  {"namespace": "a", "name": "outside", "clusterIps": ["10.96.1.5"], "externalIps": ["192.0.2.83"], "externalLocal": true,
   "distribution": "any", "balance": "roundRobin", "ports": [{"protocol": "tcp", "port": 80, "endpoints": [
      {"address": "10.234.1.6", "port": 8080, "node": "edge-1"}, {"address": "10.234.2.5", "port": 8080, "node": "edge-2"}]}]},
  {"namespace": "a", "name": "shut", "clusterIps": ["10.96.1.6"], "loadBalancerIps": ["192.0.2.84"],
   "loadBalancerSources": ["198.51.100.0/24"], "ports": [{"protocol": "tcp", "port": 80, "endpoints": [
      {"address": "10.234.1.5", "port": 8080, "node": "edge-1"}]}]}
]"#;

fn kinds_of_services(backend: &str) {
    let Edge { node, a, b, world, .. } = &Edge::with(backend, &with_services(KINDS), |_| ());
    world.run("ip route add 192.0.2.0/24 via 192.168.11.2");

    // From outside: whoever is here sees the client, whoever is elsewhere sees this node.
    for front in ["192.168.11.2:30080", "192.0.2.80:80", "192.0.2.81:80"] {
        assert_eq!(calls(world, front), ["a 192.168.11.1", "peer 10.234.1.1"], "{front}");
    }
    // From the node and its pods, through each of its faces, one of them itself.
    for front in ["10.96.1.2:80", "192.168.11.2:30080", "192.0.2.80:80"] {
        assert_eq!(calls(b, front), ["a 10.234.1.6", "peer 10.234.1.6"], "{front}");
        assert_eq!(calls(a, front), ["a 10.234.1.1", "peer 10.234.1.5"], "{front}");
        assert_eq!(calls(node, front), ["a 10.234.1.1", "peer 10.234.1.1"], "{front}");
    }
    assert_eq!(call(node, "tcp", "127.0.0.1:30080"), "ConnectionRefused");

    // Strangers get what is here and nothing else; the node and its pods are no strangers.
    assert_eq!(calls(world, "192.0.2.83:80"), ["b 192.168.11.1"]);
    assert_eq!(calls(a, "192.0.2.83:80"), ["b 10.234.1.5", "peer 10.234.1.5"]);
    assert_eq!(calls(a, "192.168.11.2:30081"), ["peer 10.234.1.5"]);
    assert_eq!(calls(node, "192.168.11.2:30081"), ["peer 10.234.1.1"]);

    // A client stays where it is.
    for (client, from) in [(a, "10.96.1.4:80"), (world, "192.0.2.82:80")] {
        assert_eq!(calls(client, from).len(), 1);
    }

    // Nobody answers, and nobody says so.
    for (client, to) in [(world, "192.168.11.2:30081"), (a, "10.96.1.3:80"), (world, "192.0.2.84:80")] {
        assert_eq!(call(client, "tcp", to), "TimedOut", "{to}");
    }
}

#[test]
fn kinds_of_services_with_nft() {
    kinds_of_services("nft");
}

#[test]
fn kinds_of_services_with_iptables_nft_and_no_ipset() {
    kinds_of_services("iptables-nft without ipset");
}

#[test]
fn kinds_of_services_with_iptables_legacy() {
    kinds_of_services("iptables-legacy");
}

/// By the client's address; whoever leaves takes only its own clients along.
fn hashed_services(backend: &str) {
    let all = r#"[{"namespace": "a", "name": "hashed", "clusterIps": ["10.96.1.7"], "externalIps": ["192.0.2.85"],
        "balance": "sourceHash", "distribution": "any", "ports": [{"protocol": "udp", "port": 7, "endpoints": [
        {"address": "10.234.1.5", "port": 7}, {"address": "10.234.1.6", "port": 7}, {"address": "10.234.2.5", "port": 7}]}]}]"#;
    let edge = Edge::with(backend, &with_services(all), |_| ());
    let Edge { node, a, b, world, .. } = &edge;
    let _servers = [(a, "a", "10.234.1.5:7"), (b, "b", "10.234.1.6:7")]
        .map(|(netns, name, address)| Server::start(netns, "udp", name, address));
    world.run("ip route add 192.0.2.0/24 via 192.168.11.2");
    let clients: Vec<String> = (100..112).map(|n| format!("192.168.11.{n}")).collect();
    for client in &clients {
        world.run(&format!("ip addr add {client}/24 dev eth0"));
    }
    let ask = || -> Vec<String> {
        let name = |answer: String| answer.split(' ').next().unwrap().to_owned();
        clients.iter().map(|client| name(call_from(world, client, "192.0.2.85:7"))).collect()
    };
    let first = ask();
    assert_eq!(ask(), first);
    for name in ["a", "b", "peer"] {
        assert!(first.iter().any(|n| n == name), "{first:?}");
    }
    let facts = edge_facts(Datapath::User);
    let fewer = all.replace(r#"{"address": "10.234.1.6", "port": 7},"#, "");
    let [before, after] = [all, &fewer].map(|list| Plan::new(&with_services(list), &facts).ruleset);
    if backend == "nft" {
        node.feed("nft -f -", &nft::update(&before, &after).unwrap());
    } else {
        let [before, after] = [before, after].map(|ruleset| iptables::tables(&ruleset, Family::V4));
        node.feed(&format!("{backend}-restore --noflush"), &iptables::change(&before, &after).unwrap());
    }
    for (now, before) in ask().iter().zip(&first) {
        assert!(now != "b" && (before == "b" || now == before), "{before} {now}");
    }
}

#[test]
fn hashed_services_with_nft() {
    hashed_services("nft");
}

#[test]
fn hashed_services_with_iptables_legacy() {
    hashed_services("iptables-legacy");
}

fn apply_routes(node: &Netns, plan: &Plan) {
    for address in &plan.addresses {
        node.run(&format!(
            "ip addr add {address} dev {DEVICE} {}",
            if address.addr().is_ipv6() { "nodad" } else { "" }
        ));
    }
    for Route { table, destination, metric, kind, protocol } in &plan.routes {
        let end = format!("table {table} metric {metric} proto {protocol}");
        match kind {
            RouteKind::Unreachable => node.run(&format!("ip route add unreachable {destination} {end}")),
            RouteKind::Unicast { device, source, .. } => {
                node.run(&format!("ip route add {destination} dev {device} src {} {end}", source.unwrap()))
            }
        };
    }
    for Rule { family, priority, from, table } in &plan.rules {
        let family = if *family == Family::V4 { "-4" } else { "-6" };
        let from = from.map_or("all".into(), |net| net.to_string());
        node.run(&format!("ip {family} rule add priority {priority} from {from} lookup {table}"));
    }
}

/// Follows the name of a program.
const WITHOUT_IPSET: &str = " without ipset";

fn program(backend: &str) -> &str {
    backend.trim_end_matches(WITHOUT_IPSET)
}

fn load(node: &Netns, plan: &Plan, backend: &str) {
    let ruleset = &plan.ruleset;
    if backend == "nft" {
        node.feed("nft -f -", &nft::replace(ruleset));
        return;
    }
    let ruleset = if backend.ends_with(WITHOUT_IPSET) {
        ruleset.spelt()
    } else {
        node.feed("ipset restore", &ipset::update("", ruleset).unwrap());
        ruleset.clone()
    };
    let backend = program(backend);
    for (program, family) in [(backend.to_owned(), Family::V4), (backend.replace("ip", "ip6"), Family::V6)] {
        let save = node.run(&format!("{program}-save"));
        let text = iptables::update(&save, &iptables::tables(&ruleset, family)).unwrap();
        node.feed(&format!("{program}-restore --noflush"), &text);
    }
}

/// A few calls, with equal answers counted once.
fn calls(netns: &Netns, to: &str) -> Vec<String> {
    let mut answers: Vec<String> = (0..4).map(|_| call(netns, "tcp", to)).collect();
    answers.sort();
    answers.dedup();
    answers
}

/// One rule of this listing dropped one packet.
fn one_dropped(text: &str) {
    let dropped = |line: &&str| line.contains("packets 1 ") || line.split_whitespace().next() == Some("1");
    assert_eq!(text.lines().filter(dropped).filter(|line| line.to_lowercase().contains("drop")).count(), 1, "{text}");
}

fn edge_traffic(backend: &str) {
    let Edge { node, a, b, peer, world, _servers } = &Edge::new(backend, |_| ());

    // Local endpoints only, in turn; clients keep their address, except a pod that reaches itself.
    assert_eq!(calls(a, "10.96.0.7:80"), ["a 10.234.1.1", "b 10.234.1.5"]);
    assert_eq!(calls(b, "10.96.0.7:80"), ["a 10.234.1.6", "b 10.234.1.1"]);
    assert_eq!(calls(node, "10.96.0.7:80"), ["a 10.234.1.1", "b 10.234.1.1"]);
    assert_eq!(calls(b, "[fd00:96::7]:80"), ["a fd00:234:0:1::6"]);
    assert_eq!(calls(a, "[fd00:96::7]:80"), ["a fd00:234:0:1::1"]);

    // Through the tunnel, beside a rule of others that masquerades everything.
    assert_eq!(call(a, "udp", "10.96.0.8:123"), "peer 10.234.1.5");
    assert_eq!(call(node, "udp", "10.96.0.8:123"), "peer 10.234.1.1");
    assert_eq!(calls(a, "10.234.2.5:8080"), ["peer 10.234.1.5"]);
    assert_eq!(calls(peer, "10.234.1.6:8080"), ["b 10.234.2.5"]);
    assert_eq!(call_from(node, "192.168.11.2", "10.234.2.5:7"), "peer 10.234.1.1");
    assert_eq!(calls(a, "10.234.1.6:8080"), ["b 10.234.1.5"]);
    assert_eq!(calls(a, "192.168.11.1:8080"), ["world 192.168.11.2"]);

    // Nobody serves these: refused at once, which the kernel tells a sending UDP socket of the host in its own word.
    for (client, udp) in [(a, "ConnectionRefused"), (node, "PermissionDenied")] {
        for address in ["10.96.0.9:80", "[fd00:96::9]:80"] {
            assert_eq!(call(client, "tcp", address), "ConnectionRefused", "tcp {address}");
            assert_eq!(call(client, "udp", address), udp, "udp {address}");
        }
    }

    let counters = |chain: &str, (table, old_chain): (&str, &str)| match backend {
        "nft" => node.run(&format!("nft list chain inet selvedge {chain}")),
        _ => node.run(&format!("{} -t {table} -nvxL {old_chain}", program(backend))),
    };
    // The world pretends to be the peer.
    send_from(world, "10.234.2.66", "10.234.1.5:9");
    one_dropped(&counters("arriving", ("raw", "SELVEDGE-PREROUTING")));
    // The peer takes this node for a router.
    send_from(peer, "10.234.2.5", "192.168.11.1:9");
    one_dropped(&counters("permitted", ("filter", "SELVEDGE-FORWARD")));
    // The world calls a pod: whether it may is for others to say.
    if backend != "nft" {
        send_from(world, "192.168.11.1", "10.234.1.5:9");
        let text = node.run(&format!("{} -nvxL FORWARD", program(backend)));
        assert!(text.contains("policy DROP 1 packets"), "{text}");
    }
}

#[test]
fn edge_traffic_with_nft() {
    edge_traffic("nft");
}

#[test]
fn edge_traffic_with_iptables_nft() {
    edge_traffic("iptables-nft");
}

#[test]
fn edge_traffic_with_iptables_nft_and_no_ipset() {
    edge_traffic("iptables-nft without ipset");
}

#[test]
fn edge_traffic_with_iptables_legacy() {
    edge_traffic("iptables-legacy");
}

#[test]
fn services_work_without_bridge_netfilter() {
    for backend in ["nft", "iptables-legacy"] {
        let edge = Edge::new(backend, |facts| facts.bridge_netfilter = false);
        assert_eq!(calls(&edge.a, "10.96.0.7:80"), ["a 10.234.1.1", "b 10.234.1.1"]);
        assert_eq!(calls(&edge.b, "[fd00:96::7]:80"), ["a fd00:234:0:1::1"]);
    }
}

/// `cloud-1` between edges (`pods`, and `other` behind it) and the cloud's LAN.
fn connector_traffic(backend: &str) {
    let (node, pods, other, lan) = (Netns::new(), Netns::new(), Netns::new(), Netns::new());
    for netns in [&node, &pods, &other, &lan] {
        netns.run("sysctl -qw net.ipv4.conf.all.forwarding=1");
    }
    node.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", lan.name()));
    node.run("ip addr add 172.16.0.11/24 dev eth0");
    node.run("ip link set eth0 up");
    node.run("ip link add flannel.1 type bridge");
    node.run("ip addr add 10.244.1.0/32 dev flannel.1");
    node.run("ip link set flannel.1 up");
    node.run("ip route add 10.244.2.0/24 via 172.16.0.12");
    node.run("ip route add default via 172.16.0.12");
    for address in ["172.16.0.12/24", "172.16.0.99/24", "10.244.2.5/32"] {
        lan.run(&format!("ip addr add {address} dev eth0"));
    }
    lan.run("ip link set eth0 up");
    lan.run("ip route add default via 172.16.0.11");

    let link = "address 02:00:00:00:00:01";
    node.run(&format!("ip link add {DEVICE} {link} type veth peer name tun0 {link} netns {}", pods.name()));
    node.run(&format!("ip link set {DEVICE} arp off mtu 1400 up"));
    pods.run("ip link set tun0 arp off up");
    pods.run("ip addr add 10.234.1.5/32 dev tun0");
    pods.run("ip addr add 192.168.11.2/32 dev tun0");
    pods.run("ip route add default dev tun0");
    pods.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", other.name()));
    pods.run("ip link set eth0 up");
    // The edges share a tunnel here: what one sends to the other comes back, and only that goes on.
    pods.run("sysctl -qw net.ipv4.conf.all.accept_local=1");
    pods.run("ip route add 10.234.2.5 via 10.0.0.2 dev eth0 onlink table 100");
    pods.run("ip rule add iif tun0 lookup 100");
    other.run("ip addr add 10.0.0.2/32 dev eth0");
    other.run("ip addr add 10.234.2.5/32 dev lo");
    other.run("ip link set eth0 up");
    other.run("ip route add default via 10.0.0.1 dev eth0 onlink");
    pods.run("ip addr add 10.0.0.1/32 dev eth0");

    let plan = Plan::new(&config(CONNECTOR), &connector_facts());
    apply_routes(&node, &plan);
    // A Service and a NodePort of kube-proxy, and a rule that masquerades everything.
    let program = if backend == "nft" { "iptables-nft" } else { backend };
    let foreign = "*nat\n-A PREROUTING -d 10.96.0.50 -p udp --dport 7 -j DNAT --to-destination 10.234.2.5:7\n\
        -A PREROUTING -d 10.96.0.51 -p udp --dport 7 -j DNAT --to-destination 192.168.12.2:7\n\
        -A PREROUTING -d 172.16.0.11 -p udp --dport 30007 -j DNAT --to-destination 10.234.1.5:7\n\
        -A POSTROUTING ! -o lo -j MASQUERADE\nCOMMIT\n";
    node.feed(&format!("{program}-restore --noflush"), foreign);
    load(&node, &plan, backend);
    let _servers = [
        (&pods, "pod", "10.234.1.5:7"),
        (&pods, "edge", "192.168.11.2:7"),
        (&other, "other", "10.234.2.5:7"),
        (&lan, "cloudpod", "10.244.2.5:7"),
        (&lan, "node", "172.16.0.12:7"),
    ]
    .map(|(netns, name, address)| Server::start(netns, "udp", name, address));

    assert_eq!(call_from(&pods, "10.234.1.5", "10.244.2.5:7"), "cloudpod 10.234.1.5");
    assert_eq!(call_from(&lan, "10.244.2.5", "10.234.1.5:7"), "pod 10.244.2.5");
    assert_eq!(call_from(&lan, "10.244.2.5", "192.168.11.2:7"), "edge 10.244.2.5");
    assert_eq!(call_from(&pods, "10.234.1.5", "172.16.0.12:7"), "node 172.16.0.11");
    assert_eq!(call_from(&pods, "192.168.11.2", "10.244.2.5:7"), "cloudpod 172.16.0.11");
    assert_eq!(call_from(&pods, "10.234.1.5", "10.234.2.5:7"), "other 10.234.1.5");
    assert_eq!(call_from(&pods, "10.234.1.5", "10.96.0.50:7"), "other 10.244.1.0");
    assert_eq!(call_from(&lan, "172.16.0.99", "172.16.0.11:30007"), "pod 10.244.1.0");
    assert_eq!(call(&node, "udp", "10.234.1.5:7"), "pod 10.244.1.0");
    assert_eq!(call_from(&node, "172.16.0.11", "10.234.1.5:7"), "pod 10.244.1.0");

    // A Service that is the host of another edge: there is no tunnel to it for these packets.
    send_from(&pods, "10.234.1.5", "10.96.0.51:7");
    let text = match backend {
        "nft" => node.run("nft list chain inet selvedge permitted"),
        _ => node.run(&format!("{backend} -nvxL SELVEDGE-FORWARD")),
    };
    one_dropped(&text);
}

#[test]
fn connector_traffic_with_nft() {
    connector_traffic("nft");
}

#[test]
fn connector_traffic_with_iptables_legacy() {
    connector_traffic("iptables-legacy");
}
