//! Random events over a bad network; whatever happened, once it is quiet both ends hold one IKE SA and one pair.

use std::time::Duration;

use crate::harness::{Net, id, subnets};

fn soak(seed: u64, both_call: bool) {
    let mut net = Net::new(seed);
    let a = net.add("beijing.edge-1", "10.0.0.2");
    let b = net.add("beijing.edge-2", "192.0.2.2");
    let mut addresses = 2;
    if both_call {
        net.nodes[a].ip = "192.0.2.1".parse().unwrap();
        net.call_each_other(a, b);
    } else {
        net.behind_nat(a, "198.51.100.1");
        net.call(a, b, "192.0.2.2:500");
    }
    net.start_traffic();
    net.loss_percent = 15;
    net.duplicate_percent = 5;
    net.jitter = Duration::from_millis(120);
    for _ in 0..20 {
        let (node, peer) = if net.random(2) == 0 { (a, b) } else { (b, a) };
        match net.random(11) {
            0 => net.restart(node),
            1 => net.act(node, |endpoint, now| endpoint.handle_suspicion(now, id(peer))),
            2 | 3 => net.act(node, |endpoint, now| endpoint.rekey_child(now, id(peer))),
            4 | 5 => net.act(node, |endpoint, now| endpoint.rekey_ike(now, id(peer))),
            6 => {
                let mut peers = net.nodes[node].peers.clone();
                let ts = &mut peers[0].local_ts;
                if ts.len() == 3 {
                    ts.extend(subnets(9))
                } else {
                    ts.truncate(3)
                }
                let ts = ts.clone();
                net.set_peers(node, peers);
                let mut peers = net.nodes[peer].peers.clone();
                peers[0].remote_ts = ts;
                net.set_peers(peer, peers);
            }
            7 if net.nodes[node].nat.is_some() => net.rebind(node),
            7 if node == a => {
                addresses += 1;
                let ip = format!("192.0.2.{addresses}").parse().unwrap();
                net.nodes[a].ip = ip;
                net.act(a, |endpoint, now| endpoint.handle_local_address(now, id(b), ip));
            }
            8 => {
                let peers = net.nodes[node].peers.clone();
                net.act(node, |endpoint, now| endpoint.set_peers(now, vec![]));
                let pause = net.random(4000);
                net.run(Duration::from_millis(pause));
                net.set_peers(node, peers);
            }
            9 => net.run_secs(100),
            _ => {}
        }
        let pause = net.random(5000);
        net.run(Duration::from_millis(pause));
    }
    net.loss_percent = 0;
    net.duplicate_percent = 0;
    net.run_secs(400);
    net.assert_settled(a, b);
    assert_eq!(net.live(a, b)[0].local_ts, net.nodes[a].peers[0].local_ts, "{}", net.story());
    assert_eq!(net.live(a, b)[0].remote_ts, net.nodes[a].peers[0].remote_ts, "{}", net.story());
    let lost = net.nodes[a].esp_lost + net.nodes[b].esp_lost;
    net.run_secs(20);
    assert_eq!(net.nodes[a].esp_lost + net.nodes[b].esp_lost, lost, "{}", net.story());
}

#[test]
fn one_end_calls() {
    for seed in 0..SEEDS {
        soak(seed, false);
    }
}

#[test]
fn both_ends_call() {
    for seed in 0..SEEDS {
        soak(seed + 10_000, true);
    }
}

const SEEDS: u64 = 40;
