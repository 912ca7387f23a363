//! Answers of upstreams that mean harm, to a question that is out: what clients are told of it stands for itself.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use selvedge_dns::{Name, Response, Server, Settings, kind, question};

fuzz_target!(|bytes: &[u8]| {
    let settings = Settings {
        zone: Name::parse("cluster.local").expect("name"),
        networks: vec!["10.0.0.0/8".parse().expect("network")],
        upstreams: vec!["192.0.2.1:53".parse().expect("address")],
        stubs: Vec::new(),
    };
    let name = Name::parse("a.b").expect("name");
    let mut server = Server::new(settings);
    let query = question(9, &name, kind::A);
    server.handle_query(Duration::ZERO, 1, false, &query, &mut Vec::new());
    while server.wants_transmit() {
        let Some(sent) = server.poll_transmit(Duration::ZERO, [7; 10]) else { continue };
        // As it comes, and as if it were the answer: number, flags and question are right.
        server.handle_upstream(Duration::ZERO, sent.exchange, bytes);
        if bytes.len() > 8 {
            let (_, end) = Name::read(&sent.payload, 12).expect("our own");
            let mut message = sent.payload[..end + 4].to_vec();
            message[2] |= 0x80;
            message[3] = bytes[0];
            message[6..12].copy_from_slice(&bytes[1..7]);
            message.extend_from_slice(&bytes[7..]);
            server.handle_upstream(Duration::ZERO, sent.exchange, &message);
        }
    }
    for now in [0, 1, 2, 5, 9] {
        let now = Duration::from_secs(now);
        server.handle_timeout(now);
        while let Some((_, out)) = server.poll_answer(now) {
            assert!(out.len() <= 1232);
            Response::read(&out, 9, &name, kind::A).expect("readable");
        }
    }
    let mut out = Vec::new();
    server.handle_query(Duration::from_secs(9), 1, true, &query, &mut out);
    assert!(out.is_empty() || Response::read(&out, 9, &name, kind::A).is_some());
});
