//! Both ends do something at once.

use std::time::Duration;

use selvedge_ike::{Endpoint, Event, Now};

use crate::harness::{Net, id};

fn joined(seed: u64) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.edge-2", "192.0.2.2");
    net.call(a, b, "192.0.2.2:500");
    net.wait_joined(a, b, Duration::from_secs(60));
    net.start_traffic();
    (net, a, b)
}

type Wish = fn(&mut Endpoint, Now, selvedge_ike::PeerId);

/// Both ends wish something with a small, varying lag between them; nothing is lost and one of everything remains.
fn collide(first: Wish, second: Wish) {
    for lag_ms in [0, 5, 19, 20, 21, 30, 39, 40, 41, 50, 60, 79, 80, 81, 100, 120] {
        for swapped in [false, true] {
            for seed in 0..3 {
                let (mut net, a, b) = joined(seed);
                net.run(Duration::from_millis(100));
                let (x, y) = if swapped { (b, a) } else { (a, b) };
                net.act(x, |endpoint, now| first(endpoint, now, id(y)));
                net.run(Duration::from_millis(lag_ms));
                net.act(y, |endpoint, now| second(endpoint, now, id(x)));
                net.run_secs(60);
                net.assert_settled(a, b);
                net.assert_no_esp_lost();
                for node in [a, b] {
                    assert_eq!(net.count(node, |event| matches!(event, Event::PeerDown { .. })), 0);
                }
            }
        }
    }
}

#[test]
fn child_rekey_meets_child_rekey() {
    collide(Endpoint::rekey_child, Endpoint::rekey_child);
}

#[test]
fn ike_rekey_meets_ike_rekey() {
    collide(Endpoint::rekey_ike, Endpoint::rekey_ike);
}

#[test]
fn child_rekey_meets_ike_rekey() {
    collide(Endpoint::rekey_child, Endpoint::rekey_ike);
}

#[test]
fn ike_rekey_meets_child_rekey() {
    collide(Endpoint::rekey_ike, Endpoint::rekey_child);
}

#[test]
fn everything_at_once_over_a_bad_network() {
    for seed in 0..40 {
        let (mut net, a, b) = joined(seed);
        net.traffic = false;
        net.loss_percent = 20;
        net.duplicate_percent = 10;
        net.jitter = Duration::from_millis(100);
        for _ in 0..4 {
            for (node, peer) in [(a, b), (b, a)] {
                match net.random(3) {
                    0 => net.act(node, |endpoint, now| endpoint.rekey_child(now, id(peer))),
                    1 => net.act(node, |endpoint, now| endpoint.rekey_ike(now, id(peer))),
                    _ => net.act(node, |endpoint, now| {
                        endpoint.rekey_child(now, id(peer));
                        endpoint.rekey_ike(now, id(peer));
                    }),
                }
            }
            let pause = net.random(3000);
            net.run(Duration::from_millis(pause));
        }
        net.loss_percent = 0;
        net.run_secs(200);
        net.assert_settled(a, b);
        net.start_traffic();
        net.run_secs(2);
        net.assert_no_esp_lost();
    }
}

#[test]
fn shutdown_meets_rekey() {
    for wish in [Endpoint::rekey_child as Wish, Endpoint::rekey_ike] {
        for lag_ms in [0, 10, 20, 30, 40, 50, 60] {
            for shutdown_first in [false, true] {
                let (mut net, a, b) = joined(lag_ms);
                net.traffic = false;
                let (x, y) = (a, b);
                if shutdown_first {
                    net.act(x, |endpoint, now| endpoint.shutdown(now));
                    net.run(Duration::from_millis(lag_ms));
                    net.act(y, |endpoint, now| wish(endpoint, now, id(x)));
                } else {
                    net.act(y, |endpoint, now| wish(endpoint, now, id(x)));
                    net.run(Duration::from_millis(lag_ms));
                    net.act(x, |endpoint, now| endpoint.shutdown(now));
                }
                net.run_secs(60);
                for (node, peer) in [(a, b), (b, a)] {
                    assert!(net.live(node, peer).is_empty(), "{}", net.story());
                    assert_eq!(net.nodes[node].endpoint.as_ref().unwrap().ike_sas(), 0, "{}", net.story());
                    let downs = net.count(node, |event| matches!(event, Event::PeerDown { .. }));
                    assert_eq!(downs, 1, "{}", net.story());
                }
            }
        }
    }
}

#[test]
fn two_ends_that_call_each_other_keep_one_ike_sa() {
    for (first, second) in [("beijing.edge-1", "beijing.edge-2"), ("beijing.edge-2", "beijing.edge-1")] {
        for lag_ms in [0, 1, 10, 19, 20, 21, 30, 39, 40, 41, 59, 60, 61, 79, 80, 81, 100, 3000] {
            let mut net = Net::new(lag_ms);
            let a = net.add(first, "192.0.2.1");
            let b = net.add(second, "192.0.2.2");
            let of_a = net.peer(a, b, &["192.0.2.2:500"]);
            let of_b = net.peer(b, a, &["192.0.2.1:500"]);
            let waiting = net.peer(b, a, &[]);
            // The second end knows the first one, but does not call it before the lag is over.
            net.set_peers(b, vec![waiting]);
            net.set_peers(a, vec![of_a]);
            net.run(Duration::from_millis(lag_ms));
            net.set_peers(b, vec![of_b]);
            net.wait_joined(a, b, Duration::from_secs(10));
            net.start_traffic();
            net.run_secs(60);
            net.assert_settled(a, b);
            net.assert_no_esp_lost();
            for node in [a, b] {
                assert_eq!(net.count(node, |event| matches!(event, Event::PeerDown { .. })), 0, "{}", net.story());
                assert_eq!(net.count(node, |event| matches!(event, Event::PeerUp { .. })), 1);
            }
        }
    }
}

#[test]
fn calling_each_other_over_a_bad_network_ends_with_one_ike_sa() {
    for seed in 0..40 {
        let mut net = Net::new(seed);
        let a = net.add("beijing.edge-1", "192.0.2.1");
        let b = net.add("beijing.edge-2", "192.0.2.2");
        net.loss_percent = 25;
        net.duplicate_percent = 10;
        net.jitter = Duration::from_millis(150);
        net.call_each_other(a, b);
        net.run_secs(60);
        net.loss_percent = 0;
        net.run_secs(120);
        net.assert_settled(a, b);
    }
}

#[test]
fn a_call_that_was_not_heard_is_dropped_for_the_peers() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.edge-2", "192.0.2.2");
    net.filter =
        Some(Box::new(|packet| packet.ike() != Some((34, false, 0)) || packet.from.ip().to_string() == "192.0.2.2"));
    net.call_each_other(a, b);
    net.run(Duration::from_millis(100));
    net.filter = None;
    net.assert_joined(a, b);
    net.run_secs(20);
    net.assert_settled(a, b);
    for node in [a, b] {
        assert_eq!(net.count(node, |event| matches!(event, Event::ChildUp { .. })), 1);
    }
}
