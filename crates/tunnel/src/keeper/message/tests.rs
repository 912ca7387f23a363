use super::*;
use crate::keeper::Mode;
use proptest::prelude::*;
use selvedge_esp::{DropReason, Drops, Event, PairStatus, PeerPrefixes, PeerStatus, Suite, Traffic};
use selvedge_linux::seqpacket::MAX_MESSAGE;
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

fn v4() -> SocketAddr {
    "192.0.2.1:4500".parse().unwrap()
}

fn v6() -> SocketAddr {
    "[fe80::1%7]:500".parse().unwrap()
}

fn install(suite: Suite, key: u8) -> Request {
    Request::Install(Install {
        peer: 9,
        spi_in: 0xc000_0001,
        spi_out: 0xc000_0002,
        suite,
        key_in: Zeroizing::new(vec![key; 36]),
        key_out: Zeroizing::new(vec![key + 1; 20]),
        local: v4(),
        remote: v6(),
        send: true,
    })
}

fn requests() -> Vec<Request> {
    vec![
        Request::Hello { version: VERSION },
        Request::Stop,
        Request::SetPeers { peers: vec![], more: true },
        Request::SetPeers {
            peers: vec![
                PeerPrefixes { id: 1, prefixes: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()] },
                PeerPrefixes { id: u32::MAX, prefixes: vec![] },
            ],
            more: false,
        },
        install(Suite::Aes128Gcm, 1),
        install(Suite::Aes256Gcm, 2),
        install(Suite::ChaCha20Poly1305, 3),
        Request::UseOutbound { peer: 1, spi_in: 2 },
        Request::RemoveInbound { spi_in: 3 },
        Request::RemoveOutbound { spi_in: 4 },
        Request::SendIke(SendIke {
            local: Some(v4().ip()),
            local_port: 4500,
            remote: v6(),
            marker: true,
            payload: vec![1; 3000],
        }),
        Request::SendIke(SendIke { local: None, local_port: 500, remote: v4(), marker: false, payload: vec![] }),
        Request::List,
        Request::Counters,
        Request::CountersAfterTraffic,
        Request::SetKeepalives {
            keepalives: vec![
                Keepalive { remote: v4(), local: None, interval_s: 20 },
                Keepalive { remote: v6(), local: Some(v6().ip()), interval_s: 65535 },
            ],
            more: false,
        },
    ]
}

fn pair(spi_in: u32) -> PairStatus {
    PairStatus {
        peer: 1,
        spi_in,
        spi_out: 2,
        local: v4(),
        remote: v6(),
        age: Duration::from_secs(5_000_000_000),
        receiving: true,
        sending: false,
        received: Traffic { packets: 1, bytes: u64::MAX },
        sent: Traffic { packets: 3, bytes: 4 },
    }
}

fn peer(id: u32) -> PeerStatus {
    let drops = [(DropReason::ForeignSource, 3), (DropReason::NotIp, u64::MAX)].into_iter().collect();
    let (received, sent) = (Traffic { packets: 1, bytes: 2 }, Traffic { packets: 3, bytes: 4 });
    PeerStatus { id, outbound: (id % 2 == 0).then_some(7), received, sent, drops }
}

fn reports() -> Vec<Report> {
    let problem = Some("bind UDP port 500: address in use".to_owned());
    vec![
        Report::Welcome(Welcome {
            version: VERSION,
            mode: Mode::User,
            pid: 4711,
            ports: vec![
                PortState { port: 500, v6: false, bound: false, problem: problem.clone() },
                PortState { port: 4500, v6: true, bound: true, problem: None },
            ],
            tun_problem: problem,
        }),
        Report::Ike(Ike { local: v4(), remote: v6(), payload: vec![7; 2000] }),
        Report::Esp(Event::Moved { peer: 1, spi_in: 2, remote: v4() }),
        Report::Esp(Event::UnknownSpi { spi: 3, remote: v6() }),
        Report::Esp(Event::SoftLimit { peer: 4, spi_in: 5 }),
        Report::SaList { pairs: vec![pair(1), pair(2)], more: true },
        Report::Counters { drops: peer(1).drops, peers: vec![peer(1), peer(2)], more: false },
        Report::Refused { reason: "SPI c0000001 is in use".into() },
    ]
}

#[test]
fn every_message_comes_back_and_none_survives_a_cut_or_a_tail() {
    for request in requests() {
        let message = request.encode();
        assert_eq!(Request::decode(&message).as_ref(), Ok(&request));
        for len in 0..message.len() {
            assert!(Request::decode(&message[..len]).is_err(), "{request:?} cut to {len}");
        }
        let longer = Request::decode(&[&message[..], &[0]].concat());
        assert_eq!(longer.is_ok(), matches!(request, Request::Hello { .. }));
    }
    for report in reports() {
        let message = report.encode();
        assert_eq!(Report::decode(&message).as_ref(), Ok(&report));
        for len in 0..message.len() {
            assert!(Report::decode(&message[..len]).is_err(), "{report:?} cut to {len}");
        }
        assert!(Report::decode(&[&message[..], &[0]].concat()).is_err());
    }
}

#[test]
fn what_all_versions_share_stays_as_it_is() {
    assert_eq!(Request::Hello { version: 0x0203 }.encode()[..], [1, 2, 3]);
    assert_eq!(Request::Stop.encode()[..], [2]);
    let Ok(Report::Welcome(welcome)) = Report::decode(&[1, 0xff, 0xfe, 9, 9, 9]) else { panic!("no welcome") };
    assert_eq!(welcome.version, 0xfffe);
}

#[test]
fn keys_stay_out_of_debug_output() {
    let text = format!("{:?}", install(Suite::Aes128Gcm, 171));
    assert!(!text.contains("171") && !text.contains("key"), "{text}");
}

#[test]
fn long_lists_go_in_parts_that_fit_and_lose_nothing() {
    let prefix = |i: u32| format!("fd00::{:x}:{:x}/128", i >> 16, i & 0xffff).parse().unwrap();
    let mut peers: Vec<_> = (0..5000).map(|id| PeerPrefixes { id, prefixes: vec![prefix(id)] }).collect();
    peers.push(PeerPrefixes { id: 6000, prefixes: (0..10_001).map(prefix).collect() });
    peers.push(PeerPrefixes { id: 6001, prefixes: vec![] });
    let (mut joined, mut ended): (Vec<PeerPrefixes>, u32) = (Vec::new(), 0);
    for part in Request::set_peers(&peers) {
        let message = part.encode();
        assert!(message.len() <= MAX_MESSAGE);
        let Ok(Request::SetPeers { peers, more }) = Request::decode(&message) else { panic!("{part:?}") };
        assert_eq!(ended, 0);
        ended += u32::from(!more);
        for peer in peers {
            match joined.last_mut() {
                Some(last) if last.id == peer.id => last.prefixes.extend(peer.prefixes),
                _ => joined.push(peer),
            }
        }
    }
    assert_eq!(ended, 1);
    assert!(joined == peers);
    assert_eq!(Request::set_peers(&[]), [Request::SetPeers { peers: vec![], more: false }]);

    let pairs: Vec<_> = (0..1001).map(pair).collect();
    let parts = Report::sa_list(&pairs);
    assert!(parts.iter().all(|part| part.encode().len() <= MAX_MESSAGE));
    assert_eq!(parts.len(), 4);
    assert_eq!(Report::sa_list(&[]), [Report::SaList { pairs: vec![], more: false }]);

    let all = |id| PeerStatus { drops: DropReason::ALL.iter().map(|reason| (*reason, 1)).collect(), ..peer(id) };
    let parts = Report::counters(&peer(1).drops, &(0..1001).map(all).collect::<Vec<_>>());
    assert!(parts.iter().all(|part| part.encode().len() <= MAX_MESSAGE));
    let total: Vec<_> = parts
        .into_iter()
        .map(|part| matches!(part, Report::Counters { drops, .. } if drops == Drops::default()))
        .collect();
    assert_eq!(total, [false, true, true, true]);
}

proptest! {
    #[test]
    fn garbage_never_panics(message in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..14_u8) {
        let _ = (Request::decode(&message), Report::decode(&message));
        let message = [&[kind], &message[..]].concat();
        let _ = (Request::decode(&message), Report::decode(&message));
    }

    #[test]
    fn a_changed_byte_never_panics(which in 0..15_usize, at: prop::sample::Index, value: u8) {
        let mut message = requests()[which].encode();
        let at = at.index(message.len());
        message[at] = value;
        let _ = Request::decode(&message);
        let mut message = reports()[which % 8].encode();
        let at = at % message.len();
        message[at] = value;
        let _ = Report::decode(&message);
    }
}
