//! Rekeying by one end at a time, without losing a packet.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use selvedge_ike::{Endpoint, Event};

use crate::harness::{Net, id};

fn joined(seed: u64) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    let a = net.add("beijing.edge-1", "10.0.0.2");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.behind_nat(a, "198.51.100.1");
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, Duration::from_secs(60));
    net.start_traffic();
    (net, a, b)
}

#[test]
fn either_end_rekeys_the_child() {
    let (mut net, a, b) = joined(1);
    for (node, peer) in [(a, b), (b, a), (a, b)] {
        let before = net.live(a, b)[0].spi_in;
        net.act(node, |endpoint, now| endpoint.rekey_child(now, id(peer)));
        net.run_secs(12);
        net.assert_settled(a, b);
        let after = net.live(a, b)[0];
        assert_ne!(after.spi_in, before);
        assert_eq!((after.replaces, after.initiator), (Some(before), node == a));
    }
    net.assert_no_esp_lost();
}

#[test]
fn either_end_rekeys_the_ike_sa() {
    let (mut net, a, b) = joined(2);
    for (node, peer) in [(a, b), (b, a), (b, a)] {
        let ike = net.established(a, b).unwrap().ike_spis;
        let child = net.live(a, b)[0].spi_in;
        net.act(node, |endpoint, now| endpoint.rekey_ike(now, id(peer)));
        net.run_secs(12);
        net.assert_settled(a, b);
        assert_ne!(net.established(a, b).unwrap().ike_spis, ike);
        assert_eq!(net.live(a, b)[0].spi_in, child);
        // The successor works in both directions.
        for (node, peer) in [(a, b), (b, a)] {
            net.act(node, |endpoint, now| endpoint.rekey_child(now, id(peer)));
            net.run_secs(12);
            net.assert_settled(a, b);
        }
    }
    net.assert_no_esp_lost();
}

#[test]
fn keys_are_renewed_by_their_age() {
    let (mut net, a, b) = joined(3);
    for node in [a, b] {
        net.configure(node, |config| {
            config.timers.child_rekey = Duration::from_secs(60);
            config.timers.ike_rekey = Duration::from_secs(200);
        });
    }
    // The lives of the first pair were drawn before.
    net.act(a, |endpoint, now| {
        endpoint.rekey_ike(now, id(b));
    });
    net.run_secs(1);
    net.act(a, |endpoint, now| endpoint.rekey_child(now, id(b)));
    let ike = net.established(a, b).unwrap().ike_spis;
    net.run_secs(2000);
    net.run_secs(5);
    net.assert_joined(a, b);
    assert_ne!(net.established(a, b).unwrap().ike_spis, ike);
    let ups = net.count(a, |event| matches!(event, Event::ChildUp { .. }));
    assert!((30..45).contains(&ups), "{ups}");
    net.assert_no_esp_lost();
}

#[test]
fn rekeying_survives_loss_duplication_and_reordering() {
    for seed in 0..25 {
        let (mut net, a, b) = joined(seed);
        net.traffic = false;
        net.loss_percent = 20;
        net.duplicate_percent = 10;
        net.jitter = Duration::from_millis(200);
        for round in 0..6 {
            let (node, peer) = if net.random(2) == 0 { (a, b) } else { (b, a) };
            if net.random(2) == 0 {
                net.act(node, |endpoint, now| endpoint.rekey_child(now, id(peer)));
            } else {
                net.act(node, |endpoint, now| endpoint.rekey_ike(now, id(peer)));
            }
            let pause = net.random(12);
            net.run_secs(pause);
            assert!(net.count(a, |event| matches!(event, Event::PeerDown { .. })) == 0, "{seed} {round}");
        }
        net.loss_percent = 0;
        net.run_secs(120);
        net.assert_settled(a, b);
        assert_eq!(net.count(b, |event| matches!(event, Event::PeerDown { .. })), 0);
    }
}

#[test]
fn the_responder_switches_when_the_old_pair_is_deleted() {
    let (mut net, a, b) = joined(5);
    let old = net.live(b, a)[0].spi_in;
    net.act(a, |endpoint, now| endpoint.rekey_child(now, id(b)));
    net.run(Duration::from_millis(25));
    // The responder can receive on the new pair but sends on the old one.
    assert_eq!(net.live(b, a).len(), 2);
    assert_eq!(net.nodes[b].sending[&id(a)], old);
    net.run(Duration::from_millis(60));
    assert_ne!(net.nodes[b].sending[&id(a)], old);
    net.run_secs(1);
    net.assert_settled(a, b);
}

#[test]
fn the_responder_switches_by_itself_if_the_delete_stays_away() {
    let (mut net, a, b) = joined(6);
    let old = net.live(b, a)[0].spi_in;
    net.act(a, |endpoint, now| endpoint.rekey_child(now, id(b)));
    net.run(Duration::from_millis(39));
    net.filter = Some(Box::new(|packet| packet.ike().is_none_or(|(exchange, response, _)| exchange != 37 || response)));
    net.run_secs(4);
    assert_eq!(net.nodes[b].sending[&id(a)], old);
    net.run_secs(2);
    assert_ne!(net.nodes[b].sending[&id(a)], old);
    net.filter = None;
    net.run_secs(12);
    net.assert_settled(a, b);
}

#[test]
fn a_rebound_nat_is_followed_and_the_child_rekeyed() {
    let (mut net, a, b) = joined(7);
    net.run_secs(1);
    let before = net.live(b, a)[0].remote;
    net.rebind(a);
    net.run_secs(12);
    net.assert_settled(a, b);
    let after = net.live(b, a)[0].remote;
    assert_ne!(before, after);
    assert_eq!(net.established(b, a).unwrap().remote, after);
    let lost = net.nodes[a].esp_lost;
    net.run_secs(10);
    assert_eq!(net.nodes[a].esp_lost, lost);
}

#[test]
fn a_rebound_nat_is_followed_without_traffic_too() {
    let (mut net, a, b) = joined(8);
    net.traffic = false;
    net.rebind(a);
    net.run_secs(60);
    net.assert_settled(a, b);
    let port = net.established(b, a).unwrap().remote.port();
    assert_eq!(port, 20_003);
    assert_eq!(net.live(b, a)[0].remote.port(), port);
}

/// While the caller has not heard of it, the responder makes no request about or on what the rekey made.
#[test]
fn what_the_peer_may_not_know_is_left_alone() {
    for wish in [Endpoint::rekey_child, Endpoint::rekey_ike] {
        let (mut net, a, b) = joined(9);
        net.run_secs(1);
        let requests = Rc::new(Cell::new(0));
        let counter = Rc::clone(&requests);
        net.filter = Some(Box::new(move |packet| match packet.ike() {
            Some((36, response, _)) if packet.from.port() == 4500 => {
                counter.set(counter.get() + usize::from(!response));
                false
            }
            _ => true,
        }));
        net.act(a, |endpoint, now| wish(endpoint, now, id(b)));
        net.run_secs(1);
        net.act(b, |endpoint, now| endpoint.rekey_child(now, id(a)));
        net.run_secs(20);
        assert_eq!(requests.get(), 0, "{}", net.story());
        net.filter = None;
        net.run_secs(90);
        net.assert_settled(a, b);
    }
}
