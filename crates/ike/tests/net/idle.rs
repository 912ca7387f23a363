//! What a quiet tunnel costs: a pair of endpoints for a day of virtual time. The keepalives are those of the endpoint; the
//! keeper's follow the same rule.

use std::time::Duration;

use selvedge_ike::{Peer, Timers};

use crate::harness::{Budget, Net, id};

const DAY: u64 = 24 * 3600;

/// An edge behind a NAT and a connector; each end says whether the path is metered.
fn pair(seed: u64, metered: [bool; 2]) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    let a = net.add("beijing.edge-1", "10.0.0.2");
    let b = net.add("beijing.connector", "192.0.2.10");
    net.behind_nat(a, "198.51.100.1");
    join(net, a, b, metered)
}

fn join(mut net: Net, a: usize, b: usize, metered: [bool; 2]) -> (Net, usize, usize) {
    net.set_peers(b, vec![Peer { metered: metered[1], ..net.peer(b, a, &[]) }]);
    net.set_peers(a, vec![Peer { metered: metered[0], ..net.peer(a, b, &["192.0.2.10:4500"]) }]);
    net.wait_joined(a, b, Duration::from_secs(60));
    (net, a, b)
}

/// Octets of a day, both ways, setting up not counted.
#[expect(clippy::print_stdout, reason = "the budget in docs/field.md")]
fn day(net: &mut Net) -> Budget {
    net.bytes = Budget::default();
    net.run_secs(DAY);
    println!("{:?} total {}", net.bytes, net.bytes.total());
    net.bytes
}

#[test]
fn a_quiet_day_costs_less_than_a_megabyte() {
    for seed in 0..3 {
        let (mut net, a, b) = pair(seed, [false; 2]);
        let day = day(&mut net);
        net.assert_settled(a, b);
        assert!(day.total() <= 700_000, "{day:?}");
        // One end asks, every 30 to 35 s, and its question is a keepalive too.
        let questions = day.liveness / (2 * 89);
        assert!((2400..=2900).contains(&questions), "{questions} questions: {day:?}");
        assert!(day.keepalive <= 2900 * 29, "{day:?}");
        assert!(day.rekey <= 30_000 && day.handshake == 0, "{day:?}");
    }
}

#[test]
fn a_quiet_metered_day_costs_less_than_a_hundred_kilobytes() {
    for seed in 0..3 {
        let (mut net, a, b) = pair(seed, [true; 2]);
        let day = day(&mut net);
        net.assert_settled(a, b);
        assert!(day.total() <= 60_000, "{day:?}");
        assert!(day.keepalive > 0 && day.liveness > 0 && day.rekey > 0 && day.handshake == 0, "{day:?}");
    }
}

#[test]
fn two_metered_edges_behind_nats_stay_within_a_hundred_kilobytes() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "10.0.0.2");
    let b = net.add("beijing.edge-2", "10.9.0.2");
    net.behind_nat(a, "198.51.100.1");
    net.behind_nat(b, "192.0.2.10");
    net.forward(b);
    let (mut net, a, b) = join(net, a, b, [true; 2]);
    assert!([(a, b), (b, a)].iter().all(|(node, peer)| net.established(*node, *peer).unwrap().nat_local));
    let day = day(&mut net);
    assert!(day.total() <= 100_000, "{day:?}");
}

#[test]
fn a_nat_as_that_of_linux_never_forgets_a_metered_edge() {
    let (mut net, a, b) = pair(1, [true; 2]);
    net.nodes[a].nat.as_mut().unwrap().forgetful = true;
    // Made anew, so that the mapping is.
    net.rebind(a);
    net.restart(a);
    net.wait_joined(a, b, Duration::from_secs(60));
    let port = net.established(b, a).unwrap().remote;
    for _ in 0..500 {
        let pause = net.random(400);
        net.run_secs(pause);
        assert_eq!(net.established(b, a).unwrap().remote, port);
        // The cloud reaches the edge whenever it wants to.
        net.act(b, |endpoint, now| endpoint.check_liveness(now, id(a)));
        let before = net.bytes.liveness;
        net.run_secs(1);
        assert_eq!(net.bytes.liveness - before, 89, "the edge does not answer");
    }
}

#[test]
fn one_metered_end_saves_what_it_sends_itself() {
    let (mut net, a, b) = pair(1, [true, false]);
    let day = day(&mut net);
    net.assert_settled(a, b);
    // The other end goes on asking whether we live.
    assert!((200_000..700_000).contains(&day.total()), "{day:?}");
}

#[test]
fn a_metered_peer_out_of_reach_is_called_rarely() {
    for (metered, most, back) in [(false, 6_000_000, 60), (true, 300_000, 11 * 60)] {
        let (mut net, a, b) = pair(1, [metered; 2]);
        net.kill(b);
        net.run_secs(4 * 3600);
        let day = day(&mut net);
        assert!(day.total() <= most, "{day:?}");
        net.start(b);
        net.wait_joined(a, b, Duration::from_secs(back));
    }
}

#[test]
fn traffic_finds_a_dead_metered_peer_in_seconds() {
    let (mut net, a, b) = pair(1, [true; 2]);
    net.run_secs(60);
    net.restart(b);
    // What the datapath does when packets go out and none come in.
    net.act(a, |endpoint, now| endpoint.check_liveness(now, id(b)));
    net.wait_joined(a, b, Duration::from_secs(5));
}

#[test]
fn becoming_metered_and_back_takes_effect_at_once() {
    let (mut net, a, b) = pair(1, [false; 2]);
    for metered in [true, false] {
        for (node, peer) in [(a, b), (b, a)] {
            let mut peers = net.nodes[node].peers.clone();
            peers[0].metered = metered;
            net.set_peers(node, peers);
            assert_eq!(net.status(node, peer).metered, metered);
        }
        let before = net.bytes;
        net.run_secs(590);
        let questions = (net.bytes.liveness - before.liveness) / (2 * 89);
        assert_eq!(questions > 5, !metered, "{questions} questions");
        net.assert_settled(a, b);
    }
}

#[test]
fn questions_to_many_peers_leave_together() {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    for number in 1..=10 {
        let b = net.add(&format!("beijing.edge-{}", number + 1), &format!("192.0.2.{}", 100 + number));
        net.call(a, b, &format!("192.0.2.{}:500", 100 + number));
        net.run_secs(3);
    }
    net.run_secs(60);
    let dpd = Timers::default().dpd;
    let mut instants = std::collections::BTreeSet::new();
    let end = net.now + dpd * 4;
    while net.now < end {
        let at = net.endpoint(a).poll_timeout().unwrap();
        instants.insert(at);
        net.run(at.saturating_sub(net.now) + Duration::from_millis(50));
    }
    assert!(instants.len() <= 4 * 6, "{} times in {:?}", instants.len(), dpd * 4);
}
