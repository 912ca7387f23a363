use super::*;
use crate::{HEADROOM, Suite, TAILROOM};

const A: &str = "10.1.0.0/16";
const B: &str = "10.2.0.0/16";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn peer(id: u32, prefixes: &[&str]) -> PeerPrefixes {
    PeerPrefixes { id, prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect() }
}

fn packet(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0; 60];
    packet[0] = 0x45;
    packet[3] = 60;
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&destination);
    packet
}

fn install(spi_in: u32, spi_out: u32, send: bool) -> Install<'static> {
    let key = |spi: u32| if spi % 2 == 0 { &[2; 36] } else { &[1; 36] };
    Install {
        peer: 7,
        spi_in,
        spi_out,
        suite: Suite::ChaCha20Poly1305,
        key_in: key(spi_in),
        key_out: key(spi_out),
        local: addr("192.0.2.1:4500"),
        remote: addr("192.0.2.2:4500"),
        send,
    }
}

/// Two ends that know each other as peer 7, net 10.1 behind the first, 10.2 behind the second.
fn ends() -> (SaTable, SaTable) {
    let (mut a, mut b) = (SaTable::default(), SaTable::default());
    a.set_peers(&[peer(7, &[B])]);
    b.set_peers(&[peer(7, &[A])]);
    a.install(at(0), &install(0x1000, 0x2001, true)).unwrap();
    b.install(at(0), &install(0x2001, 0x1000, true)).unwrap();
    (a, b)
}

fn seal(from: &mut SaTable, inner: &[u8]) -> Result<Vec<u8>, DropReason> {
    let route = from.route(inner)?;
    let mut frame = vec![0; HEADROOM + inner.len() + TAILROOM];
    frame[HEADROOM..HEADROOM + inner.len()].copy_from_slice(inner);
    let len = from.seal(at(1), &route, &mut frame, inner.len())?;
    frame.truncate(len);
    Ok(frame)
}

fn open(to: &mut SaTable, now: Duration, mut esp: Vec<u8>) -> Result<Vec<u8>, DropReason> {
    let opened = to.open(now, addr("192.0.2.2:4500"), &mut esp)?;
    Ok(esp[opened.inner].to_vec())
}

#[test]
fn packets_pass_both_ways_and_are_counted() {
    let (mut a, mut b) = ends();
    let there = packet([10, 1, 0, 1], [10, 2, 0, 1]);
    let back = packet([10, 2, 0, 1], [10, 1, 0, 1]);
    for _ in 0..3 {
        let esp = seal(&mut a, &there).unwrap();
        assert_eq!(open(&mut b, at(1), esp).unwrap(), there);
    }
    let esp = seal(&mut b, &back).unwrap();
    assert_eq!(open(&mut a, at(1), esp).unwrap(), back);

    let status = a.pairs(at(5)).next().unwrap();
    assert_eq!((status.sent.packets, status.sent.bytes, status.received.packets), (3, 180, 1));
    assert_eq!((status.age, status.sending, status.receiving), (at(5), true, true));
    assert_eq!(b.peers().next().unwrap().received, Traffic { packets: 3, bytes: 180 });
    assert_eq!(a.last_sent().collect::<Vec<_>>(), [(addr("192.0.2.2:4500"), at(1))]);
    assert_eq!((a.poll_event(), b.drops()), (None, &Drops::default()));
}

#[test]
fn a_foreign_source_is_dropped_and_counted_at_its_peer() {
    let (mut a, mut b) = ends();
    let esp = seal(&mut a, &packet([10, 9, 0, 1], [10, 2, 0, 1])).unwrap();
    assert_eq!(open(&mut b, at(1), esp), Err(DropReason::ForeignSource));
    let peer = b.peers().next().unwrap();
    assert_eq!((peer.drops.get(DropReason::ForeignSource), peer.received.packets), (1, 0));
}

#[test]
fn nothing_leaves_without_a_security_association() {
    let (mut a, _) = ends();
    let there = packet([10, 1, 0, 1], [10, 2, 0, 1]);
    assert!(a.remove_outbound(0x1000));
    assert_eq!(a.route(&there), Err(DropReason::NoSa));
    assert_eq!(a.peers().next().unwrap().drops.get(DropReason::NoSa), 1);
    assert_eq!(a.route(&packet([10, 1, 0, 1], [8, 8, 8, 8])), Err(DropReason::NoRoute));
    assert_eq!(a.route(&[0; 60]), Err(DropReason::NotIp));
    assert_eq!((a.drops().get(DropReason::NoRoute), a.drops().get(DropReason::NotIp)), (1, 1));
}

#[test]
fn a_pair_replaces_another_without_a_gap() {
    let (mut a, mut b) = ends();
    let there = packet([10, 1, 0, 1], [10, 2, 0, 1]);
    let old = seal(&mut a, &there).unwrap();
    b.install(at(2), &install(0x2003, 0x1004, false)).unwrap();
    a.install(at(2), &install(0x1004, 0x2003, true)).unwrap();
    let new = seal(&mut a, &there).unwrap();
    assert_eq!(new[..4], [0, 0, 0x20, 3]);
    assert!(open(&mut b, at(2), new).is_ok());
    assert!(open(&mut b, at(2), old).is_ok());

    let back = packet([10, 2, 0, 1], [10, 1, 0, 1]);
    assert_eq!(seal(&mut b, &back).unwrap()[..4], [0, 0, 0x10, 0]);
    assert!(b.use_outbound(7, 0x2003));
    assert_eq!(seal(&mut b, &back).unwrap()[..4], [0, 0, 0x10, 4]);
    assert!(b.remove_outbound(0x2001) && b.remove_inbound(at(3), 0x2001));
    assert_eq!(b.pairs(at(3)).map(|pair| pair.spi_in).collect::<Vec<_>>(), [0x2003]);
    b.set_peers(&[peer(7, &[A]), peer(8, &[])]);
    assert!(!b.use_outbound(8, 0x2003), "another peer's pair");
    assert!(!b.use_outbound(7, 0x2001) && !b.remove_inbound(at(3), 0x2001));
}

#[test]
fn keys_are_never_installed_over_others() {
    let (mut a, _) = ends();
    assert_eq!(a.install(at(1), &install(0x1000, 0x2005, true)), Err(InstallError::SpiInUse(0x1000)));
    let stranger = Install { peer: 8, ..install(0x1002, 0x2003, true) };
    assert_eq!(a.install(at(1), &stranger), Err(InstallError::UnknownPeer(8)));
    let short = Install { key_in: &[0; 35], ..install(0x1002, 0x2003, true) };
    assert!(matches!(a.install(at(1), &short), Err(InstallError::Sa(_))));
    assert_eq!(a.pairs(at(1)).count(), 1);
}

#[test]
fn a_new_address_is_told_once_a_second_and_changes_nothing() {
    let (mut a, mut b) = ends();
    let there = packet([10, 1, 0, 1], [10, 2, 0, 1]);
    let elsewhere = addr("198.51.100.9:1024");
    let mut told = Vec::new();
    let late = seal(&mut a, &there).unwrap();
    for now in [10_000, 10_001, 10_999, 11_000] {
        let mut esp = seal(&mut a, &there).unwrap();
        b.open(Duration::from_millis(now), elsewhere, &mut esp).unwrap();
        told.extend(b.poll_event());
    }
    b.open(at(20), elsewhere, &mut late.clone()).unwrap();
    assert_eq!(b.poll_event(), None, "a packet that was overtaken says nothing about the peer's address");
    let moved = Event::Moved { peer: 7, spi_in: 0x2001, remote: elsewhere };
    assert_eq!(told, [moved.clone(), moved]);
    assert_eq!(b.pairs(at(20)).next().unwrap().remote, addr("192.0.2.2:4500"));
}

#[test]
fn unknown_spis_are_told_at_a_bounded_rate_but_not_late_packets() {
    let (mut a, mut b) = ends();
    let there = packet([10, 1, 0, 1], [10, 2, 0, 1]);
    let late = [seal(&mut a, &there).unwrap(), seal(&mut a, &there).unwrap()];
    b.remove_inbound(at(100), 0x2001);
    assert_eq!(open(&mut b, at(101), late[0].clone()), Err(DropReason::UnknownSpi));
    assert_eq!(b.poll_event(), None);
    open(&mut b, at(111), late[1].clone()).unwrap_err();
    assert_eq!(b.poll_event(), Some(Event::UnknownSpi { spi: 0x2001, remote: addr("192.0.2.2:4500") }));
    for spi in 0..100_000_u32 {
        open(&mut b, at(120), spi.to_be_bytes().to_vec()).unwrap_err();
    }
    assert_eq!(std::iter::from_fn(|| b.poll_event()).count(), 10);
    assert_eq!(b.drops().get(DropReason::UnknownSpi), 100_002);
}

#[test]
fn the_last_sequence_numbers_ask_for_a_new_pair_and_then_end() {
    let (mut a, _) = ends();
    let there = packet([10, 1, 0, 1], [10, 2, 0, 1]);
    let set = |a: &mut SaTable, sequence| a.pairs.get_mut(&0x1000).unwrap().set_sequence(sequence);
    set(&mut a, (3 << 30) - 2);
    seal(&mut a, &there).unwrap();
    assert_eq!(a.poll_event(), None);
    seal(&mut a, &there).unwrap();
    assert_eq!(a.poll_event(), Some(Event::SoftLimit { peer: 7, spi_in: 0x1000 }));
    set(&mut a, u32::MAX - 1);
    assert_eq!(seal(&mut a, &there).unwrap()[4..8], [0xff; 4]);
    assert_eq!(seal(&mut a, &there), Err(DropReason::Exhausted));
    assert_eq!(a.peers().next().unwrap().drops.get(DropReason::Exhausted), 1);
}

#[test]
fn peers_that_stay_keep_their_pairs_and_those_that_vanish_lose_them() {
    let (mut a, _) = ends();
    a.set_peers(&[peer(7, &[B, "10.3.0.0/16"]), peer(8, &["10.4.0.0/16"])]);
    assert!(a.route(&packet([10, 1, 0, 1], [10, 3, 0, 1])).is_ok());
    assert_eq!(a.route(&packet([10, 1, 0, 1], [10, 4, 0, 1])), Err(DropReason::NoSa));
    a.set_peers(&[peer(8, &[B])]);
    assert_eq!((a.pairs(at(1)).count(), a.peers().count()), (0, 1));
    assert_eq!(a.route(&packet([10, 1, 0, 1], [10, 2, 0, 1])), Err(DropReason::NoSa));
}

#[test]
fn of_two_peers_with_one_prefix_the_first_is_sent_to_and_both_may_send() {
    let (mut a, mut b) = ends();
    let there = packet([10, 1, 0, 1], [10, 2, 0, 1]);
    a.set_peers(&[peer(9, &[B]), peer(7, &[B])]);
    assert_eq!(a.route(&there), Err(DropReason::NoSa));
    a.set_peers(&[peer(7, &[B]), peer(9, &[B])]);
    assert_eq!(a.route(&there).unwrap().peer, 7);
    b.set_peers(&[peer(9, &[A]), peer(7, &[A])]);
    let esp = seal(&mut a, &there).unwrap();
    assert!(open(&mut b, at(1), esp).is_ok());
}
