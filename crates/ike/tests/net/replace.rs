//! An IKE SA is replaced by another: restarts, suspicion, changed addresses and configuration.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use selvedge_ike::{Event, Peer, PeerState};

use crate::harness::{Net, Packet, Payload, id, subnets};

fn joined() -> (Net, usize, usize) {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, Duration::from_secs(60));
    (net, a, b)
}

/// Positions of the events that fit.
fn positions(net: &Net, node: usize, fits: impl Fn(&Event) -> bool) -> Vec<usize> {
    let events = net.nodes[node].events.iter().enumerate();
    events.filter(|(_, event)| fits(event)).map(|(at, _)| at).collect()
}

#[test]
fn a_restarted_caller_replaces_its_old_ike_sa_at_once() {
    let (mut net, a, b) = joined();
    let old = net.live(b, a)[0].spi_in;
    net.restart(a);
    net.run(Duration::from_millis(200));
    net.assert_settled(a, b);
    let up = positions(&net, b, |event| matches!(event, Event::ChildUp { child, .. } if child.replaces == Some(old)));
    let send = positions(&net, b, |event| matches!(event, Event::ChildSend { spi_in, .. } if *spi_in != old));
    let retired = positions(&net, b, |event| matches!(event, Event::ChildRetired { spi_in, .. } if *spi_in == old));
    assert_eq!((up.len(), send.len(), retired.len()), (1, 1, 1));
    assert!(up < send && send < retired);
    assert_eq!(net.count(b, |event| matches!(event, Event::PeerDown { .. })), 0);
}

#[test]
fn a_restart_over_living_pairs_loses_nothing() {
    for restarted in [0, 1] {
        let (mut net, a, b) = joined();
        net.jitter = Duration::from_millis(15);
        net.start_traffic();
        net.run_secs(1);
        let node = [a, b][restarted];
        net.restart_over_its_pairs(node);
        if node == b {
            net.act(b, |endpoint, now| endpoint.initiate(now, id(a), "192.0.2.1:500".parse().unwrap()));
        }
        net.run_secs(10);
        net.assert_no_esp_lost();
        let established = net.established(a, b).unwrap();
        assert!(established.since > net.now - Duration::from_secs(11), "keyed anew");
        assert_eq!(net.nodes[1 - node].pairs.values().filter(|pair| pair.retired.is_none()).count(), 1);
    }
}

#[test]
fn a_caller_that_confirms_nothing_is_sent_the_new_pair_after_a_moment() {
    let (mut net, a, b) = joined();
    let old = net.live(b, a)[0].spi_in;
    net.kill(a);
    net.filter = Some(Box::new(|packet| packet.ike().is_none_or(|(exchange, ..)| exchange != 37)));
    net.start(a);
    net.run_secs(1);
    assert_eq!(net.nodes[b].sending.get(&id(a)), Some(&old));
    net.run(Duration::from_millis(1400));
    assert_ne!(net.nodes[b].sending.get(&id(a)), Some(&old));
    assert_eq!(net.live(b, a).len(), 1);
}

#[test]
fn a_restarted_responder_is_called_again_on_suspicion() {
    let (mut net, a, b) = joined();
    net.restart(b);
    let before = net.ike_packets;
    net.act(a, |endpoint, now| endpoint.handle_suspicion(now, id(b)));
    net.run_secs(30);
    net.assert_settled(a, b);
    assert_eq!(net.count(a, |event| matches!(event, Event::PeerDown { .. })), 0);
    // Four for the call, two for the farewell to the old one and its echo, and life signs.
    assert!(net.ike_packets - before < 10, "{}", net.story());
}

#[test]
fn a_restarted_responder_is_noticed_by_its_answer_to_a_life_sign() {
    let (mut net, a, b) = joined();
    net.restart(b);
    net.run_secs(36);
    net.assert_joined(a, b);
    net.run_secs(20);
    net.assert_settled(a, b);
    assert_eq!(net.count(a, |event| matches!(event, Event::PeerDown { .. })), 0);
}

#[test]
fn a_responder_that_restarts_amid_a_call_is_called_again_at_once() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.filter = Some(Box::new(|packet| packet.ike().is_none_or(|(exchange, ..)| exchange != 35)));
    net.call(a, b, "192.0.2.10:500");
    net.run(Duration::from_millis(500));
    net.restart(b);
    net.filter = None;
    net.wait_joined(a, b, Duration::from_secs(3));
}

#[test]
fn who_says_that_a_call_is_unknown_cannot_prevent_it() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    let calls = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&calls);
    net.filter = Some(Box::new(move |packet| {
        if let (Some((35, false, _)), Payload::Ike { bytes, .. }) = (packet.ike(), &packet.payload) {
            seen.borrow_mut().push(bytes[..16].to_vec());
        }
        true
    }));
    net.call(a, b, "192.0.2.10:500");
    for _ in 0..300 {
        let heard: Vec<Vec<u8>> = calls.borrow_mut().drain(..).collect();
        for mut bytes in heard {
            bytes.extend_from_slice(&[41, 0x20, 35, 0x20, 0, 0, 0, 1, 0, 0, 0, 36, 0, 0, 0, 8, 0, 0, 0, 4]);
            let (from, to) = ("192.0.2.10:500".parse().unwrap(), "192.0.2.1:500".parse().unwrap());
            net.inject(Packet { from, to, payload: Payload::Ike { bytes, marker: false } });
        }
        net.run(Duration::from_millis(10));
    }
    net.assert_joined(a, b);
    assert_eq!(net.count(a, |event| matches!(event, Event::PeerUp { .. })), 1);
}

#[test]
fn a_call_that_is_answered_only_at_first_begins_anew_in_seconds() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    // The first IKE_AUTH and its repetitions go to where nobody is any more.
    let mut first = None;
    net.filter = Some(Box::new(move |packet| match (packet.ike(), &packet.payload) {
        (Some((35, ..)), Payload::Ike { bytes, .. }) => bytes[..8] != first.get_or_insert(bytes[..8].to_vec())[..],
        _ => true,
    }));
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, Duration::from_secs(15));
}

#[test]
fn a_check_of_life_finds_a_restarted_responder_even_right_after_the_start() {
    let mut net = Net::new(1);
    net.now = Duration::from_secs(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, Duration::from_secs(1));
    net.restart(b);
    net.act(a, |endpoint, now| endpoint.check_liveness(now, id(b)));
    net.run_secs(1);
    net.assert_joined(a, b);
}

#[test]
fn suspicion_is_rate_limited_and_harmless() {
    let (mut net, a, b) = joined();
    net.start_traffic();
    for _ in 0..90 {
        net.act(a, |endpoint, now| endpoint.handle_suspicion(now, id(b)));
        net.run_secs(1);
    }
    let ups = net.count(a, |event| matches!(event, Event::ChildUp { .. }));
    assert!((40..=46).contains(&ups), "{ups}");
    net.run_secs(30);
    net.assert_settled(a, b);
    net.assert_no_esp_lost();
}

#[test]
fn the_old_ike_sa_stays_while_the_answer_that_makes_the_new_one_is_lost() {
    let (mut net, a, b) = joined();
    let lost = net.now + Duration::from_secs(8);
    net.filter =
        Some(Box::new(|packet| packet.ike().is_none_or(|(exchange, response, _)| exchange != 35 || !response)));
    net.act(a, |endpoint, now| endpoint.handle_suspicion(now, id(b)));
    net.run_until(Duration::from_secs(20), "the loss", |net| net.now >= lost);
    assert!(net.established(a, b).is_some());
    net.filter = None;
    net.run_secs(20);
    net.assert_settled(a, b);
    for node in [a, b] {
        assert_eq!(net.count(node, |event| matches!(event, Event::PeerDown { .. })), 0);
    }
}

#[test]
fn a_false_suspicion_of_an_unreachable_peer_changes_nothing() {
    let (mut net, a, b) = joined();
    net.filter = Some(Box::new(|packet| packet.ike().is_none_or(|(exchange, ..)| exchange != 34)));
    net.act(a, |endpoint, now| endpoint.handle_suspicion(now, id(b)));
    net.run_secs(120);
    net.assert_settled(a, b);
    assert_eq!(net.count(a, |event| matches!(event, Event::ChildUp { .. })), 1);
    assert_eq!(net.last_error(a, b), "no answer from 192.0.2.10:500 after 60 s");
}

#[test]
fn an_unprotected_invalid_spi_from_the_peers_address_is_a_suspicion() {
    let (mut net, a, b) = joined();
    let spi = net.live(a, b)[0].spi_out;
    let hint = |spi: u32| {
        let mut bytes = vec![0; 16];
        bytes.extend_from_slice(&[41, 0x20, 37, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 12, 0, 0, 0, 11]);
        bytes.extend_from_slice(&spi.to_be_bytes());
        bytes
    };
    let before = net.ike_packets;
    let local = "192.0.2.1:500".parse().unwrap();
    let (peer, other) = ("192.0.2.10:500".parse().unwrap(), "192.0.2.66:500".parse().unwrap());
    net.act(a, |endpoint, now| endpoint.handle_datagram(now, local, peer, &hint(spi + 1)));
    net.act(a, |endpoint, now| endpoint.handle_datagram(now, local, other, &hint(spi)));
    assert_eq!(net.ike_packets, before);
    net.act(a, |endpoint, now| endpoint.handle_datagram(now, local, peer, &hint(spi)));
    assert_eq!(net.ike_packets, before + 1);
    net.run_secs(30);
    net.assert_settled(a, b);
}

#[test]
fn a_new_local_address_makes_a_new_ike_sa_before_the_old_one_goes() {
    let (mut net, a, b) = joined();
    net.act(a, |endpoint, now| endpoint.handle_local_address(now, id(b), "192.0.2.1".parse().unwrap()));
    net.run_secs(1);
    assert_eq!(net.count(a, |event| matches!(event, Event::ChildUp { .. })), 1);
    net.nodes[a].ip = "192.0.2.77".parse().unwrap();
    net.act(a, |endpoint, now| endpoint.handle_local_address(now, id(b), "192.0.2.77".parse().unwrap()));
    // The farewell to the old one goes from the new address too: the peer does not go on sending to the old one.
    net.run(Duration::from_millis(500));
    net.assert_joined(a, b);
    net.run_secs(30);
    net.assert_settled(a, b);
    assert_eq!(net.live(b, a)[0].remote.ip(), net.nodes[a].ip);
    for node in [a, b] {
        assert_eq!(net.count(node, |event| matches!(event, Event::PeerDown { .. })), 0);
    }
}

#[test]
fn a_peer_whose_configured_address_changed_is_called_there() {
    let (mut net, a, b) = joined();
    net.nodes[b].ip = "192.0.2.20".parse().unwrap();
    let of_a = net.peer(a, b, &["192.0.2.20:500"]);
    net.set_peers(a, vec![of_a.clone()]);
    net.run_secs(1);
    net.assert_joined(a, b);
    assert_eq!(net.established(a, b).unwrap().remote, "192.0.2.20:500".parse().unwrap());
    assert_eq!(net.count(a, |event| matches!(event, Event::PeerDown { .. })), 0);
    let ups = net.count(a, |event| matches!(event, Event::ChildUp { .. }));
    net.set_peers(
        a,
        vec![Peer { remotes: ["192.0.2.99:500", "192.0.2.20:500"].map(|r| r.parse().unwrap()).into(), ..of_a }],
    );
    net.run_secs(10);
    assert_eq!(net.count(a, |event| matches!(event, Event::ChildUp { .. })), ups, "where it is, is still configured");
}

#[test]
fn a_call_to_an_address_that_is_configured_no_more_is_given_up_at_once() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.edge-2", "192.0.2.20");
    net.call(a, b, "192.0.2.10:500");
    net.run_secs(2);
    let of_a = net.peer(a, b, &["192.0.2.20:500"]);
    net.set_peers(a, vec![of_a]);
    net.wait_joined(a, b, Duration::from_secs(1));
}

#[test]
fn a_new_local_address_restarts_a_call_under_way() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.77");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.nodes[a].ip = "192.0.2.1".parse().unwrap();
    net.act(a, |endpoint, now| endpoint.handle_local_address(now, id(b), "192.0.2.77".parse().unwrap()));
    let (of_a, of_b) = (net.peer(a, b, &["192.0.2.10:500"]), net.peer(b, a, &[]));
    net.set_peers(b, vec![of_b]);
    net.set_peers(a, vec![of_a.clone()]);
    net.act(a, |endpoint, now| endpoint.handle_local_address(now, id(b), "192.0.2.77".parse().unwrap()));
    net.run_secs(2);
    assert!(!net.is_joined(a, b));
    net.act(a, |endpoint, now| endpoint.handle_local_address(now, id(b), "192.0.2.1".parse().unwrap()));
    net.wait_joined(a, b, Duration::from_secs(1));
}

#[test]
fn changed_traffic_selectors_are_negotiated_without_a_gap() {
    for first in [0, 1] {
        let (mut net, a, b) = joined();
        net.start_traffic();
        let mut of_a = net.peer(a, b, &["192.0.2.10:500"]);
        let mut of_b = net.peer(b, a, &[]);
        of_a.local_ts.extend(subnets(9));
        of_b.remote_ts.extend(subnets(9));
        let wanted = of_a.local_ts.clone();
        if first == 0 {
            net.set_peers(a, vec![of_a]);
            net.run_secs(1);
            net.set_peers(b, vec![of_b]);
        } else {
            net.set_peers(b, vec![of_b]);
            net.run_secs(1);
            net.set_peers(a, vec![of_a]);
        }
        net.run_secs(60);
        net.assert_settled(a, b);
        assert_eq!(net.live(b, a)[0].remote_ts, wanted);
        net.assert_no_esp_lost();
        assert_eq!(net.count(a, |event| matches!(event, Event::PeerDown { .. })), 0);
    }
}

#[test]
fn an_unchanged_peer_is_not_touched_and_a_vanished_one_is_told() {
    let (mut net, a, b) = joined();
    let packets = net.ike_packets;
    let same = net.nodes[a].peers.clone();
    net.set_peers(a, same);
    net.run_secs(1);
    assert_eq!(net.ike_packets, packets);
    net.set_peers(a, vec![]);
    net.run_secs(20);
    assert_eq!(net.count(a, |event| matches!(event, Event::PeerDown { .. })), 1);
    assert_eq!(net.count(b, |event| matches!(event, Event::PeerDown { reason, .. } if reason.contains("closed"))), 1);
    assert_eq!(net.status(b, a).state, PeerState::Idle);
    for node in [a, b] {
        assert_eq!(net.nodes[node].endpoint.as_ref().unwrap().ike_sas(), 0);
        assert!(net.nodes[node].pairs.values().all(|pair| pair.retired.is_some()));
    }
}

#[test]
fn many_peers_come_up_side_by_side() {
    let mut net = Net::new(4);
    let hub = net.add("beijing.connector", "192.0.2.10");
    let edges: Vec<usize> =
        (1..=60).map(|i| net.add(&format!("beijing.edge-{i}"), &format!("192.0.2.{}", i + 20))).collect();
    let of_hub = edges.iter().map(|edge| net.peer(hub, *edge, &[])).collect();
    net.set_peers(hub, of_hub);
    for edge in &edges {
        let of_edge = net.peer(*edge, hub, &["192.0.2.10:500"]);
        net.set_peers(*edge, vec![of_edge]);
    }
    net.run_secs(1);
    for edge in &edges {
        net.assert_joined(*edge, hub);
    }
    net.restart(hub);
    net.run_secs(60);
    for edge in &edges {
        net.assert_joined(*edge, hub);
    }
}
