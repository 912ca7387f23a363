//! Packets through the tunnel.

use crate::lab::{Lab, answered, counters, next, pairs};
use selvedge_esp::{DropReason, Event};
use selvedge_tunnel::keeper::Mode;
use selvedge_tunnel::keeper::message::{Install, Report, Request};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

#[test]
fn both_families_pass_both_ways() {
    let (lab, mut a, mut b) = Lab::joined();
    for (end, other) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        assert_eq!(answered(end.ping(&format!("-c 3 -i 0.05 10.{}.0.1", other.n))), (3, 3));
        assert_eq!(answered(end.ping(&format!("-c 3 -i 0.05 fd00:{}::1", other.n))), (3, 3));
    }
    let (at_a, at_b) = (pairs(&mut a), pairs(&mut b));
    assert_eq!((at_a.len(), at_b.len()), (1, 1));
    assert_eq!((at_a[0].spi_in, at_a[0].spi_out, at_a[0].peer), (0x1001, 0x1002, 2));
    assert!(at_a[0].sent.packets >= 12 && at_a[0].sent == at_b[0].received, "{at_a:?} {at_b:?}");
    assert_eq!(counters(&mut a, DropReason::Unauthentic).0.drops.iter().count(), 0);
}

#[test]
fn ipv6_carries_the_tunnel_as_well() {
    let lab = Lab::new(Mode::User);
    for (end, other) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        let client = end.client();
        client.send(&lab.peers(other)).unwrap();
        let local = format!("[2001:db8::{}]:4500", end.n).parse().unwrap();
        let remote = format!("[2001:db8::{}]:4500", other.n).parse().unwrap();
        client.send(&Request::Install(Install { local, remote, ..lab.pair(end, 0x1000) })).unwrap();
        pairs(&mut { client });
    }
    assert_eq!(answered(lab.a.ping("-c 3 -i 0.05 10.2.0.1")), (3, 3));
}

#[test]
fn a_foreign_source_goes_no_further_and_is_counted() {
    let (lab, _a, mut b) = Lab::joined();
    let (sent, got) = answered(lab.a.ping("-c 3 -i 0.05 -W 1 -I 10.9.0.1 10.2.0.1"));
    assert_eq!(got, 0);
    let (peer, _) = counters(&mut b, DropReason::NoRoute);
    assert_eq!((peer.drops.get(DropReason::ForeignSource), peer.received.packets), (sent.into(), 0));
}

#[test]
fn a_peer_without_a_pair_gets_nothing_not_even_in_clear() {
    let lab = Lab::new(Mode::User);
    let (mut a, mut b) = (lab.a.client(), lab.b.client());
    a.send(&lab.peers(&lab.b)).unwrap();
    let (sent, got) = answered(lab.a.ping("-c 3 -i 0.05 -W 1 10.2.0.1"));
    assert_eq!(got, 0);
    let (peer, _) = counters(&mut a, DropReason::NoRoute);
    assert_eq!((peer.drops.get(DropReason::NoSa), peer.sent.packets), (sent.into(), 0));
    b.send(&Request::Counters).unwrap();
    let Report::Counters { drops, .. } = next(&mut b) else { panic!("no counters") };
    assert_eq!(drops.get(DropReason::UnknownSpi), 0, "the other end got something");
}

#[test]
fn counters_come_by_themselves_once_there_was_traffic() {
    let (lab, mut a, _b) = Lab::joined();
    a.send(&Request::CountersAfterTraffic).unwrap();
    assert_eq!(pairs(&mut a).len(), 1, "counters came without traffic");
    assert_eq!(answered(lab.a.ping("-c 3 -i 0.05 10.2.0.1")), (3, 3));
    let Report::Counters { peers, .. } = next(&mut a) else { panic!("no counters") };
    assert_eq!((peers[0].sent.packets, peers[0].received.packets), (3, 3));
    assert_eq!(answered(lab.a.ping("-c 1 10.2.0.1")), (1, 1));
    assert_eq!(pairs(&mut a).len(), 1, "counters came that were not asked for");
    // What went through before the question counts too.
    a.send(&Request::CountersAfterTraffic).unwrap();
    assert!(matches!(next(&mut a), Report::Counters { .. }));
}

#[test]
fn peers_may_come_in_several_messages() {
    let (lab, mut a, _b) = Lab::joined();
    let Request::SetPeers { mut peers, .. } = lab.peers(&lab.b) else { panic!("no peers") };
    let many = (0..2500_u32).map(|i| format!("172.{}.{}.0/24", 16 + i / 256, i % 256).parse().unwrap());
    peers[0].prefixes.splice(0..0, many);
    let messages = Request::set_peers(&peers);
    assert_eq!(messages.len(), 2);
    messages.iter().for_each(|message| a.send(message).unwrap());
    assert_eq!(pairs(&mut a).len(), 1);
    assert_eq!(answered(lab.a.ping("-c 3 -i 0.05 10.2.0.1")), (3, 3));
}

#[test]
fn an_unknown_spi_is_told() {
    let (lab, mut a, mut b) = Lab::joined();
    a.send(&Request::Install(Install { spi_out: 0xdead_beef, ..lab.pair(&lab.a, 0x2000) })).unwrap();
    assert_eq!(pairs(&mut a).len(), 2);
    answered(lab.a.ping("-c 1 -W 1 10.2.0.1"));
    let told = Report::Esp(Event::UnknownSpi { spi: 0xdead_beef, remote: "192.0.2.1:4500".parse().unwrap() });
    assert_eq!(next(&mut b), told);
}

#[test]
fn a_peer_that_moved_is_told_and_not_followed() {
    let (lab, mut a, mut b) = Lab::joined();
    let moved = "192.0.2.11:4500".parse().unwrap();
    b.send(&lab.install(&lab.b, 0x2000)).unwrap();
    assert_eq!(pairs(&mut b).len(), 2);
    a.send(&Request::Install(Install { local: moved, ..lab.pair(&lab.a, 0x2000) })).unwrap();
    assert_eq!(pairs(&mut a).len(), 2);
    assert_eq!(answered(lab.a.ping("-c 3 -i 0.05 10.2.0.1")), (3, 3));
    assert_eq!(next(&mut b), Report::Esp(Event::Moved { peer: 1, spi_in: 0x2002, remote: moved }));
    let remote = pairs(&mut b).into_iter().find(|pair| pair.spi_in == 0x2002).map(|pair| pair.remote);
    assert_eq!(remote, Some("192.0.2.1:4500".parse().unwrap()));
}

#[test]
fn a_new_pair_takes_over_without_loss() {
    let (lab, mut a, mut b) = Lab::joined();
    let ping = lab.a.ping("-c 60 -i 0.02 10.2.0.1");
    for base in [0x2000, 0x3000, 0x4000] {
        let old = base - 0x1000;
        b.send(&Request::Install(Install { send: false, ..lab.pair(&lab.b, base) })).unwrap();
        assert_eq!(pairs(&mut b).iter().find(|pair| pair.sending).unwrap().spi_in, old + 2);
        a.send(&lab.install(&lab.a, base)).unwrap();
        assert!(pairs(&mut a).iter().any(|pair| pair.sending && pair.spi_in == base + 1));
        b.send(&Request::UseOutbound { peer: 1, spi_in: base + 2 }).unwrap();
        b.send(&Request::RemoveOutbound { spi_in: old + 2 }).unwrap();
        a.send(&Request::RemoveOutbound { spi_in: old + 1 }).unwrap();
    }
    assert_eq!(answered(ping), (60, 60));
    let sending = pairs(&mut a).into_iter().filter(|pair| pair.sending).map(|pair| pair.spi_in);
    assert_eq!(sending.collect::<Vec<_>>(), [0x4001]);
}

/// Sends `len` patterned bytes from A to B over TCP and back, and compares them.
pub fn transfer(lab: &Lab, address: &'static str, len: usize) {
    let pattern = |len: usize| (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect::<Vec<_>>();
    let (ready, listening) = std::sync::mpsc::channel();
    let server = lab.b.thread(move || {
        let listener = TcpListener::bind(address).unwrap();
        ready.send(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = vec![0; len];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
        stream.flush().unwrap();
    });
    let address = listening.recv().unwrap();
    let client = lab.a.thread(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let sent = pattern(len);
        stream.write_all(&sent).unwrap();
        let mut got = vec![0; len];
        stream.read_exact(&mut got).unwrap();
        assert!(got == sent, "bytes changed on the way");
    });
    client.join().unwrap();
    server.join().unwrap();
}

#[test]
fn a_long_transfer_arrives_whole_in_few_large_pieces() {
    let (lab, mut a, _b) = Lab::joined();
    transfer(&lab, "10.2.0.1:0", 30 << 20);
    transfer(&lab, "[fd00:2::1]:0", 30 << 20);
    let (peer, not_sent) = counters(&mut a, DropReason::NotSent);
    assert_eq!((peer.drops.iter().count(), not_sent), (0, 0));
}

#[test]
fn a_path_narrower_than_the_tunnel_is_slow_but_works() {
    let (lab, _a, _b) = Lab::joined();
    for end in [&lab.a, &lab.b] {
        end.ip("link set veth0 mtu 1300");
    }
    transfer(&lab, "10.2.0.1:0", 3 << 20);
}
