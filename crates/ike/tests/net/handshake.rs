//! Tunnels come up: over loss, through NATs, past cookies and other groups.

use std::time::Duration;

use selvedge_ike::{EspSuite, Event, Group, PeerState, Role};

use crate::harness::{Net, subnets};

const MINUTE: Duration = Duration::from_secs(60);

fn two() -> (Net, usize, usize) {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    (net, a, b)
}

#[test]
fn two_round_trips_make_a_tunnel_without_nat() {
    let (mut net, a, b) = two();
    net.call(a, b, "192.0.2.10:500");
    net.run(Duration::from_millis(81));
    net.assert_settled(a, b);
    // The fifth says that the caller has the pair.
    assert_eq!(net.ike_packets, 5);
    let child = net.live(a, b)[0];
    assert!(!child.encap);
    assert_eq!((child.suite, child.initiator, child.replaces), (EspSuite::Aes256Gcm, true, None));
    assert_eq!((child.local_ts.clone(), child.remote_ts.clone()), (subnets(a), subnets(b)));
    assert_eq!(child.key_in.len(), 36);
    let established = net.established(b, a).unwrap();
    assert_eq!((established.role, established.nat_local, established.nat_remote), (Role::Responder, false, false));
    assert_eq!(established.suite.group, Group::Curve25519);
    assert_eq!(established.remote.port(), 500);
    assert_eq!(net.count(a, |event| matches!(event, Event::PeerUp { .. })), 1);
}

#[test]
fn traffic_flows_both_ways() {
    let (mut net, a, b) = two();
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    net.start_traffic();
    net.run_secs(5);
    net.assert_no_esp_lost();
}

#[test]
fn behind_a_nat_everything_moves_to_port_4500() {
    let (mut net, a, b) = two();
    net.behind_nat(a, "198.51.100.1");
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    net.assert_settled(a, b);
    let at_a = net.established(a, b).unwrap();
    let at_b = net.established(b, a).unwrap();
    assert_eq!((at_a.nat_local, at_a.nat_remote, at_a.remote.port()), (true, false, 4500));
    assert_eq!((at_b.nat_local, at_b.nat_remote), (false, true));
    assert!(net.live(a, b)[0].encap);
    assert_eq!(net.live(b, a)[0].remote, at_b.remote);
    net.start_traffic();
    net.run_secs(5);
    net.assert_no_esp_lost();
}

#[test]
fn another_port_is_called_with_the_marker_from_the_first_packet() {
    let (mut net, a, b) = two();
    net.behind_nat(a, "198.51.100.1");
    net.call(a, b, "192.0.2.10:4500");
    net.wait_joined(a, b, MINUTE);
    assert_eq!(net.nodes[a].nat.as_ref().unwrap().public, net.live(b, a)[0].remote.ip());
    net.assert_settled(a, b);
}

#[test]
fn forced_encapsulation_looks_like_a_nat_to_both() {
    for forced in 0..3 {
        let (mut net, a, b) = two();
        for node in [a, b].into_iter().filter(|node| forced == 2 || *node == forced) {
            net.configure(node, |config| config.force_encap = true);
        }
        net.call(a, b, "192.0.2.10:500");
        net.wait_joined(a, b, MINUTE);
        assert!(net.live(a, b)[0].encap && net.live(b, a)[0].encap, "{forced}");
        assert_eq!(net.established(a, b).unwrap().remote.port(), 4500);
    }
}

#[test]
fn a_nat_keeps_hearing_from_us() {
    let (mut net, a, b) = two();
    net.behind_nat(a, "198.51.100.1");
    net.configure(a, |config| config.timers.dpd = Duration::ZERO);
    net.configure(b, |config| config.timers.dpd = Duration::ZERO);
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    let before = net.ike_packets;
    net.run_secs(101);
    assert_eq!(net.ike_packets - before, 5);
}

#[test]
fn loss_duplication_and_reordering_delay_but_do_not_prevent() {
    for loss in [0, 10, 20, 30] {
        for seed in 0..15 {
            let mut net = Net::new(seed * 100 + loss);
            let a = net.add("beijing.edge-1", "192.0.2.1");
            let b = net.add("beijing.connector", "192.0.2.10");
            net.behind_nat(a, "198.51.100.1");
            net.loss_percent = loss;
            net.duplicate_percent = 10;
            net.jitter = Duration::from_millis(300);
            net.call(a, b, "192.0.2.10:500");
            net.wait_joined(a, b, Duration::from_secs(120));
            net.loss_percent = 0;
            net.run_secs(60);
            net.assert_settled(a, b);
        }
    }
}

#[test]
fn cookies_are_demanded_while_many_are_half_open() {
    let (mut net, a, b) = two();
    net.configure(b, |config| config.cookie_threshold = 0);
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    // One round trip more than without, and the caller's sign that it has the pair.
    assert_eq!(net.ike_packets, 8);
    net.assert_settled(a, b);
}

#[test]
fn callers_beyond_the_cap_are_ignored_until_others_are_through() {
    let mut net = Net::new(3);
    let b = net.add("beijing.connector", "192.0.2.10");
    net.configure(b, |config| config.max_half_open = 1);
    let edges: Vec<usize> =
        (0..5).map(|i| net.add(&format!("beijing.edge-{i}"), &format!("192.0.2.{}", 20 + i))).collect();
    for edge in &edges {
        net.call(*edge, b, "192.0.2.10:500");
    }
    for edge in edges {
        net.wait_joined(edge, b, MINUTE);
    }
}

#[test]
fn another_group_is_used_if_the_responder_asks_for_it() {
    let (mut net, a, b) = two();
    // An INVALID_KE_PAYLOAD that asks for group 19, as a responder without curve25519 sends it.
    net.filter = Some(Box::new(|packet| packet.ike() != Some((34, false, 0)) || packet.to.port() != 500));
    net.call(a, b, "192.0.2.10:500");
    net.filter = None;
    let spi = {
        let line = net.story();
        assert!(line.contains("dropped by the filter"));
        net.run(Duration::from_millis(900));
        let mut spi = None;
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let sink = std::rc::Rc::clone(&seen);
        net.filter = Some(Box::new(move |packet| {
            if let crate::harness::Payload::Ike { bytes, .. } = &packet.payload {
                sink.borrow_mut().push(bytes.clone());
            }
            packet.ike() != Some((34, false, 0))
        }));
        net.run(Duration::from_millis(200));
        net.filter = None;
        if let Some(bytes) = seen.borrow().first() {
            spi = Some(bytes[..8].to_vec());
        }
        spi.unwrap()
    };
    let mut bytes = spi;
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 38, 0, 0, 0, 10, 0, 0, 0, 17, 0, 19]);
    net.act(a, |endpoint, now| {
        endpoint.handle_datagram(now, "192.0.2.1:500".parse().unwrap(), "192.0.2.10:500".parse().unwrap(), &bytes);
    });
    net.wait_joined(a, b, MINUTE);
    assert_eq!(net.established(b, a).unwrap().suite.group, Group::Ecp256);
    net.act(a, |endpoint, now| endpoint.rekey_child(now, crate::harness::id(b)));
    net.run_secs(2);
    net.assert_settled(a, b);
}

#[test]
fn the_cipher_follows_the_responders_preference() {
    let (mut net, a, b) = two();
    net.configure(b, |config| config.prefer_chacha = true);
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    assert_eq!(net.live(a, b)[0].suite, EspSuite::ChaCha20Poly1305);
    assert_eq!(net.established(a, b).unwrap().suite.aead, EspSuite::ChaCha20Poly1305);
    net.act(b, |endpoint, now| endpoint.rekey_ike(now, crate::harness::id(a)));
    net.run_secs(12);
    net.assert_settled(a, b);
}

#[test]
fn only_ciphers_of_the_datapath_are_agreed_on() {
    let (mut net, a, b) = two();
    net.configure(b, |config| config.esp_aeads = vec![EspSuite::ChaCha20Poly1305]);
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    assert_eq!(net.live(a, b)[0].suite, EspSuite::ChaCha20Poly1305);
    assert_eq!(net.established(a, b).unwrap().suite.aead, EspSuite::Aes256Gcm, "IKE itself has them all");
    net.act(b, |endpoint, now| endpoint.rekey_child(now, crate::harness::id(a)));
    net.run_secs(2);
    net.assert_settled(a, b);
    assert_eq!(net.live(a, b)[0].suite, EspSuite::ChaCha20Poly1305);
}

#[test]
fn the_responder_narrows() {
    let (mut net, a, b) = two();
    let ts = |net: &str| selvedge_ike::TrafficSelector::from(net.parse::<ipnet::IpNet>().unwrap());
    let mut of_a = net.peer(a, b, &["192.0.2.10:500"]);
    let mut of_b = net.peer(b, a, &[]);
    of_a.local_ts = vec![ts("10.0.0.0/8"), ts("fd00::/16")];
    of_a.remote_ts = vec![ts("0.0.0.0/0")];
    of_b.remote_ts = vec![ts("10.0.0.0/24"), ts("fd00:0::/64")];
    of_b.local_ts = vec![ts("10.1.0.0/24")];
    net.set_peers(b, vec![of_b]);
    net.set_peers(a, vec![of_a]);
    net.wait_joined(a, b, MINUTE);
    assert_eq!(net.live(a, b)[0].local_ts, [ts("10.0.0.0/24"), ts("fd00:0::/64")]);
    assert_eq!(net.live(a, b)[0].remote_ts, [ts("10.1.0.0/24")]);
}

#[test]
fn without_common_subnets_both_ends_say_so() {
    let (mut net, a, b) = two();
    let mut of_b = net.peer(b, a, &[]);
    of_b.remote_ts = subnets(7);
    let of_a = net.peer(a, b, &["192.0.2.10:500"]);
    net.set_peers(b, vec![of_b]);
    net.set_peers(a, vec![of_a]);
    net.run_secs(3);
    assert_eq!(net.last_error(a, b), "beijing.connector answered TS_UNACCEPTABLE: no subnets in common");
    assert!(net.last_error(b, a).starts_with("no subnets in common: offered 10.0.0.0/24"), "{}", net.last_error(b, a));
    assert!(net.established(b, a).is_none() && net.established(a, b).is_none());
    // Once the configuration is right it comes up.
    let of_b = net.peer(b, a, &[]);
    net.set_peers(b, vec![of_b]);
    net.wait_joined(a, b, MINUTE);
    net.run_secs(60);
    net.assert_settled(a, b);
}

#[test]
fn addresses_are_tried_in_turn() {
    let (mut net, a, b) = two();
    let of_b = net.peer(b, a, &[]);
    let of_a = net.peer(a, b, &["203.0.113.1:500", "203.0.113.2:4500", "192.0.2.10:500"]);
    net.set_peers(b, vec![of_b]);
    net.set_peers(a, vec![of_a]);
    net.wait_joined(a, b, Duration::from_secs(41));
    assert_eq!(net.last_error(a, b), "no answer from 203.0.113.2:4500 after 20 s");
}

#[test]
fn nobody_home_is_tried_for_ever_with_pauses() {
    let (mut net, a, b) = two();
    net.kill(b);
    let of_a = net.peer(a, b, &["192.0.2.10:4500"]);
    net.set_peers(a, vec![of_a]);
    net.run(Duration::from_millis(60_500));
    assert_eq!(net.last_error(a, b), "no answer from 192.0.2.10:4500 after 60 s");
    let PeerState::Connecting { attempt, .. } = net.status(a, b).state else { panic!("not connecting") };
    assert_eq!(attempt, 1);
    net.run_secs(1000);
    let PeerState::Connecting { attempt, .. } = net.status(a, b).state else { panic!("not connecting") };
    assert!((10..16).contains(&attempt), "{attempt}");
    net.nodes[b].peers = vec![net.peer(b, a, &[])];
    net.start(b);
    net.wait_joined(a, b, Duration::from_secs(40));
}

#[test]
fn one_dead_peer_delays_no_other() {
    let mut net = Net::new(9);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let dead = net.add("beijing.connector-1", "192.0.2.10");
    let alive = net.add("beijing.connector-2", "192.0.2.11");
    net.kill(dead);
    let of_alive = net.peer(alive, a, &[]);
    net.set_peers(alive, vec![of_alive]);
    let peers = vec![net.peer(a, dead, &["192.0.2.10:500"]), net.peer(a, alive, &["192.0.2.11:500"])];
    net.set_peers(a, peers);
    net.wait_joined(a, alive, Duration::from_millis(150));
}

#[test]
fn a_waiting_end_can_be_told_to_call() {
    let (mut net, a, b) = two();
    let of_b = net.peer(b, a, &[]);
    let of_a = net.peer(a, b, &[]);
    net.set_peers(b, vec![of_b]);
    net.set_peers(a, vec![of_a]);
    net.run_secs(10);
    assert_eq!(net.status(b, a).state, PeerState::Idle);
    net.act(b, |endpoint, now| endpoint.initiate(now, crate::harness::id(a), "192.0.2.1:500".parse().unwrap()));
    net.wait_joined(a, b, MINUTE);
    net.act(b, |endpoint, now| endpoint.shutdown(now));
    net.run_secs(60);
    assert_eq!(net.status(a, b).state, PeerState::Idle);
    assert_eq!(net.nodes[b].endpoint.as_ref().unwrap().ike_sas(), 0);
    assert_eq!(net.nodes[a].endpoint.as_ref().unwrap().ike_sas(), 0);
    assert!(net.live(a, b).is_empty() && net.live(b, a).is_empty());
}

#[test]
fn a_dead_peer_is_noticed_and_called_again() {
    let (mut net, a, b) = two();
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    net.kill(b);
    net.run_secs(95);
    assert_eq!(
        net.count(a, |event| matches!(event, Event::PeerDown { reason, .. } if reason.starts_with("no answer"))),
        1
    );
    assert!(net.live(a, b).is_empty());
    net.start(b);
    net.wait_joined(a, b, MINUTE);
}

#[test]
fn an_idle_tunnel_asks_for_life_and_a_busy_one_does_not() {
    let (mut net, a, b) = two();
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, MINUTE);
    let before = net.ike_packets;
    for _ in 0..30 {
        net.run_secs(10);
        for (node, peer) in [(a, b), (b, a)] {
            net.act(node, |endpoint, now| endpoint.handle_inbound(now, crate::harness::id(peer)));
        }
    }
    assert_eq!(net.ike_packets, before);
    net.run_secs(300);
    assert!(net.ike_packets > before + 8);
    net.assert_settled(a, b);
}
