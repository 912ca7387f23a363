//! Whatever clients and endpoints say in HTTP and TLS is read, in any pieces, and what is passed on is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_gateway::http1::{self, Body, Framing, Piece};
use selvedge_gateway::http2::{Connection, Event, PREFACE, read_answer, read_request};
use selvedge_gateway::server_name;

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let all = pieces.concat();
    let _ = server_name(&all);
    if let Ok(Some(head)) = http1::request(&all) {
        let mut out = Vec::new();
        http1::write_request(&mut out, &head.message, head.framing);
        let again = http1::request(&out).expect("what is written is read").expect("and whole");
        assert_eq!((again.message.method, again.message.path), (head.message.method, head.message.path));
        assert_eq!(again.framing, head.framing);
    }
    let _ = http1::response(&all, "GET");
    for framing in [Framing::Chunked, Framing::Length(100), Framing::UntilClose] {
        let (mut body, mut input) = (Body::new(framing), Vec::new());
        'all: for piece in &pieces {
            input.extend_from_slice(piece);
            loop {
                match body.next(&mut input) {
                    Ok(Some(Piece::Data(_))) => {}
                    Ok(None) => break,
                    Ok(Some(Piece::End(_))) | Err(_) => break 'all,
                }
            }
        }
    }
    for server in [true, false] {
        let mut side = if server { Connection::server() } else { Connection::client() };
        if server {
            side.handle_input(PREFACE).expect("the preface");
        } else {
            side.open();
        }
        for piece in &pieces {
            if side.handle_input(piece).is_err() {
                break;
            }
            while let Some(event) = side.poll_event() {
                match event {
                    Event::Head { fields, end, .. } if server => drop(read_request(fields, end)),
                    Event::Head { fields, .. } => drop(read_answer(fields)),
                    Event::Data { stream, data, .. } => side.release(stream, data.len()),
                    _ => {}
                }
            }
            let _ = side.poll_output();
        }
    }
});
