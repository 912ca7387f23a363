//! Whatever comes in, nothing panics and a tunnel that is up stays up.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use crate::harness::{Net, Packet, Payload};

/// Two joined nodes, and all IKE messages they exchanged with where they went.
fn recorded() -> (Net, usize, usize, Vec<Packet>) {
    let mut net = Net::new(1);
    let a = net.add("beijing.edge-1", "192.0.2.1");
    let b = net.add("beijing.connector", "192.0.2.10");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&seen);
    net.filter = Some(Box::new(move |packet| {
        if matches!(packet.payload, Payload::Ike { .. }) {
            sink.borrow_mut().push(packet.clone());
        }
        true
    }));
    net.call(a, b, "192.0.2.10:500");
    net.wait_joined(a, b, Duration::from_secs(10));
    for wish in [selvedge_ike::Endpoint::rekey_child, selvedge_ike::Endpoint::rekey_ike] {
        net.act(a, |endpoint, now| wish(endpoint, now, crate::harness::id(b)));
        net.run_secs(5);
        net.act(b, |endpoint, now| wish(endpoint, now, crate::harness::id(a)));
        net.run_secs(5);
    }
    net.run_secs(40);
    net.filter = None;
    net.assert_settled(a, b);
    let packets = seen.borrow().clone();
    (net, a, b, packets)
}

fn bytes(packet: &Packet) -> &[u8] {
    match &packet.payload {
        Payload::Ike { bytes, .. } => bytes,
        Payload::Esp { .. } => unreachable!("only IKE is recorded"),
    }
}

#[test]
fn replayed_messages_change_nothing() {
    let (mut net, a, b, packets) = recorded();
    let (spis, child) = (net.established(a, b).unwrap().ike_spis, net.live(a, b)[0].spi_in);
    let events = (net.nodes[a].events.len(), net.nodes[b].events.len());
    assert!(packets.len() > 20);
    for _ in 0..2 {
        for packet in &packets {
            net.inject(packet.clone());
            net.run(Duration::from_millis(7));
        }
    }
    net.run_secs(60);
    net.assert_settled(a, b);
    assert_eq!((net.established(a, b).unwrap().ike_spis, net.live(a, b)[0].spi_in), (spis, child));
    assert_eq!((net.nodes[a].events.len(), net.nodes[b].events.len()), events, "{}", net.story());
}

#[test]
fn changed_messages_change_nothing() {
    let (mut net, a, b, packets) = recorded();
    let events = (net.nodes[a].events.len(), net.nodes[b].events.len());
    for (i, packet) in packets.iter().enumerate() {
        let len = bytes(packet).len();
        for position in (0..len).step_by(1 + i % 3) {
            let mut changed = packet.clone();
            if let Payload::Ike { bytes, .. } = &mut changed.payload {
                bytes[position] ^= 1 << (position % 8);
            }
            net.inject(changed);
        }
        net.run(Duration::from_millis(30));
    }
    net.run_secs(60);
    net.assert_settled(a, b);
    assert_eq!((net.nodes[a].events.len(), net.nodes[b].events.len()), events);
}

#[test]
fn a_flood_of_callers_is_bounded() {
    let (mut net, a, b, packets) = recorded();
    net.configure(b, |config| {
        config.cookie_threshold = 1000;
        config.max_half_open = 50;
    });
    let init = packets.iter().find(|packet| packet.ike() == Some((34, false, 0))).unwrap().clone();
    for i in 0_u16..500 {
        let mut flood = init.clone();
        flood.from = format!("203.0.113.{}:{}", i % 200, 1000 + i).parse().unwrap();
        net.inject(flood);
    }
    net.run_secs(1);
    assert_eq!(net.nodes[b].endpoint.as_ref().unwrap().ike_sas(), 51);
    net.run_secs(60);
    net.assert_settled(a, b);
}

#[test]
fn unknown_spis_are_answered_at_a_bounded_rate() {
    let (mut net, a, b, _) = recorded();
    let mut request = vec![1; 16];
    request.extend_from_slice(&[46, 0x20, 37, 0x08, 0, 0, 0, 7, 0, 0, 0, 28]);
    let (local, remote) = ("192.0.2.10:500".parse().unwrap(), "203.0.113.1:500".parse().unwrap());
    let now = net.now();
    let endpoint = net.endpoint(b);
    let mut answers = Vec::new();
    for _ in 0..100 {
        endpoint.handle_datagram(now, local, remote, &request);
        answers.extend(endpoint.poll_transmit());
    }
    assert_eq!(answers.len(), 20);
    let mut expected = vec![1; 16];
    expected.extend_from_slice(&[41, 0x20, 37, 0x20, 0, 0, 0, 7, 0, 0, 0, 36, 0, 0, 0, 8, 0, 0, 0, 4]);
    assert_eq!(answers[0].payload, expected);
    // A response is never answered.
    request[19] = 0x28;
    let later = selvedge_ike::Now { mono: now.mono + Duration::from_secs(2), ..now };
    endpoint.handle_datagram(later, local, remote, &request);
    assert_eq!(endpoint.poll_transmit(), None);
    net.assert_settled(a, b);
}

#[test]
fn an_unknown_critical_payload_and_another_version_are_named() {
    let (mut net, _, b, packets) = recorded();
    let (local, remote) = ("192.0.2.10:500".parse().unwrap(), "203.0.113.1:500".parse().unwrap());
    let init = bytes(packets.iter().find(|packet| packet.ike() == Some((34, false, 0))).unwrap()).to_vec();
    let now = net.now();
    let mut ask = |request: &[u8]| {
        net.endpoint(b).handle_datagram(now, local, remote, request);
        net.endpoint(b).poll_transmit().map(|transmit| transmit.payload[28..].to_vec())
    };
    let mut critical = init.clone();
    critical[16] = 99;
    critical[29] |= 0x80;
    assert_eq!(ask(&critical), Some(vec![0, 0, 0, 9, 0, 0, 0, 1, 99]));
    let mut version = init.clone();
    version[17] = 0x30;
    assert_eq!(ask(&version), Some(vec![0, 0, 0, 8, 0, 0, 0, 5]));
    let mut skipped = init;
    skipped[17] = 0x10;
    assert_eq!(ask(&skipped), None);
}

thread_local! {
    static RECORDED: RefCell<(Net, usize, usize, Vec<Packet>)> = RefCell::new(recorded());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        selvedge_ike::fuzz_parse(&bytes);
        let mut framed = bytes.clone();
        if framed.len() >= 28 {
            framed[17] = 0x20;
            let len = u32::try_from(framed.len()).unwrap();
            framed[24..28].copy_from_slice(&len.to_be_bytes());
            selvedge_ike::fuzz_parse(&framed);
        }
        RECORDED.with_borrow_mut(|(net, _, b, _)| {
            let (local, remote) = ("192.0.2.10:4500".parse().unwrap(), "203.0.113.1:4500".parse().unwrap());
            let now = net.now();
            net.endpoint(*b).handle_datagram(now, local, remote, &bytes);
            net.endpoint(*b).handle_datagram(now, local, remote, &framed);
            while net.endpoint(*b).poll_transmit().is_some() {}
        });
    }

    #[test]
    fn mutated_messages_do_not_panic(
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        fix_length in any::<bool>(),
    ) {
        RECORDED.with_borrow_mut(|(net, a, b, packets)| {
            let packet = which.get(packets).clone();
            let mut bytes = bytes(&packet).to_vec();
            for (position, value) in edits {
                let position = position.index(bytes.len());
                bytes[position] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if fix_length && bytes.len() >= 28 {
                let len = u32::try_from(bytes.len()).unwrap();
                bytes[24..28].copy_from_slice(&len.to_be_bytes());
            }
            selvedge_ike::fuzz_parse(&bytes);
            net.inject(Packet { payload: Payload::Ike { bytes, marker: false }, ..packet });
            net.run(Duration::from_millis(100));
            net.assert_joined(*a, *b);
        });
    }
}
