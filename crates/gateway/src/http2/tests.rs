use proptest::prelude::*;

use super::*;
use crate::{Request, Response};

/// Two sides, and what each was told.
struct Pair {
    client: Connection,
    server: Connection,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Pair { client: Connection::client(), server: Connection::server() };
        pair.talk().unwrap();
        pair
    }

    /// Carries bytes in odd portions until there are none.
    fn talk(&mut self) -> Result<(), Lost> {
        loop {
            let (a, b) = (self.client.poll_output(), self.server.poll_output());
            if a.is_none() && b.is_none() {
                return Ok(());
            }
            for part in a.unwrap_or_default().chunks(7) {
                self.server.handle_input(part)?;
            }
            for part in b.unwrap_or_default().chunks(11) {
                self.client.handle_input(part)?;
            }
        }
    }

    fn request(&mut self, path: &str, end: bool) -> u32 {
        let request = Request {
            method: "GET".into(),
            authority: "a.example".into(),
            path: path.into(),
            fields: [("x-a", &b"b"[..])].into_iter().collect(),
            upgrade: None,
        };
        let stream = self.client.open();
        self.client.send_head(stream, request_fields(&request, "http"), end);
        stream
    }
}

#[test]
fn a_request_and_its_answer_with_trailers() {
    let mut pair = Pair::new();
    let stream = pair.request("/x?y", false);
    pair.client.send_data(stream, b"hello", false);
    pair.client.send_end(stream, &Fields::default());
    pair.talk().unwrap();
    let Some(Event::Head { fields, end: false, .. }) = pair.server.poll_event() else { panic!("no head") };
    let request = read_request(fields, false).unwrap();
    assert_eq!((&*request.path, &*request.authority, request.fields.text("x-a")), ("/x?y", "a.example", Some("b")));
    assert_eq!(pair.server.poll_event(), Some(Event::Data { stream, data: b"hello".to_vec(), end: false }));
    assert_eq!(pair.server.poll_event(), Some(Event::Data { stream, data: vec![], end: true }));
    let answer = Response { status: 201, fields: Fields::default(), upgrade: None };
    pair.server.send_head(stream, answer_fields(&answer, "201"), false);
    pair.server.send_data(stream, b"there", false);
    pair.server.send_end(stream, &[("grpc-status", &b"0"[..])].into_iter().collect());
    pair.talk().unwrap();
    let Some(Event::Head { fields, .. }) = pair.client.poll_event() else { panic!("no answer") };
    assert_eq!(read_answer(fields).unwrap().status, 201);
    assert!(matches!(pair.client.poll_event(), Some(Event::Data { .. })));
    let Some(Event::Trailers { fields, .. }) = pair.client.poll_event() else { panic!("no trailers") };
    assert_eq!(fields.text("grpc-status"), Some("0"));
    assert_eq!((pair.client.streams(), pair.server.streams()), (0, 0));
}

#[test]
fn nobody_sends_more_than_there_is_room_for() {
    let mut pair = Pair::new();
    let stream = pair.request("/", false);
    let room = pair.client.send_room(stream).unwrap();
    assert_eq!(room, 65_535);
    pair.client.send_data(stream, &vec![7; room], false);
    pair.talk().unwrap();
    assert_eq!(pair.client.send_room(stream), Some(0));
    pair.server.release(stream, 40_000);
    pair.talk().unwrap();
    assert_eq!(pair.client.send_room(stream), Some(40_000));
    // Who sends more all the same has lost the stream, and in the end the connection.
    pair.client.send_data(stream, &vec![7; 60_000], false);
    pair.talk().unwrap();
    assert!(std::iter::from_fn(|| pair.server.poll_event()).any(|e| matches!(e, Event::Reset { .. })));
    for _ in 0..4 {
        let stream = pair.request("/", false);
        pair.client.send_data(stream, &vec![7; 65_535], false);
    }
    assert_eq!(pair.talk().unwrap_err().0, Code::FLOW_CONTROL);
}

#[test]
fn a_large_header_takes_several_frames() {
    let mut pair = Pair::new();
    let stream = pair.client.open();
    let long = vec![b'x'; 25_000];
    let fields = [(":method", &b"GET"[..]), (":scheme", b"http"), (":path", b"/"), (":authority", b"a"), ("a", &long)];
    pair.client.send_head(stream, fields.into_iter(), true);
    pair.talk().unwrap();
    assert!(matches!(pair.server.poll_event(), Some(Event::Head { end: true, .. })));
    let longer = vec![b'x'; 40_000];
    let stream = pair.client.open();
    pair.client.send_head(stream, [("a", &longer[..])].into_iter(), true);
    assert_eq!(pair.talk().unwrap_err().0, Code::CALM);
}

#[test]
fn who_floods_loses_the_connection() {
    let mut pair = Pair::new();
    for _ in 0..MAX_RESETS {
        let stream = pair.request("/", false);
        pair.client.reset(stream, Code::CANCEL);
    }
    pair.talk().unwrap();
    let stream = pair.request("/", false);
    pair.client.reset(stream, Code::CANCEL);
    assert_eq!(pair.talk().unwrap_err().0, Code::CALM, "rapid resets");

    // Who makes us reset them does the same.
    let mut pair = Pair::new();
    for _ in 0..=MAX_RESETS {
        let stream = pair.request("/", false);
        frame::window_update(&mut pair.client.output, stream, 0);
    }
    assert_eq!(pair.talk().unwrap_err().0, Code::CALM, "resets that were provoked");

    let mut server = Connection::server();
    server.handle_input(PREFACE).unwrap();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let flooded = (0..100_000).find_map(|_| server.handle_input(&ping).err());
    assert_eq!(flooded.map(|lost| lost.0), Some(Code::CALM), "pings");

    let mut server = Connection::server();
    server.handle_input(PREFACE).unwrap();
    server.handle_input(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).unwrap();
    let lost = server.handle_input(&[0, 0, 0, 9, 0, 0, 0, 0, 1]).unwrap_err();
    assert_eq!(lost.0, Code::CALM, "empty continuations");
}

#[test]
fn more_streams_than_announced_are_refused() {
    let mut pair = Pair::new();
    let streams: Vec<u32> = (0..=MAX_STREAMS).map(|_| pair.request("/", false)).collect();
    pair.talk().unwrap();
    let refused = std::iter::from_fn(|| pair.client.poll_event()).collect::<Vec<_>>();
    assert_eq!(refused, [Event::Reset { stream: *streams.last().unwrap(), code: Code::REFUSED }]);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let base = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let read = |extra: &[(&str, &str)], without: &str| {
        let fields = base.iter().filter(|(n, _)| *n != without).chain(extra);
        read_request(fields.map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(), true)
    };
    assert!(read(&[], "").is_ok() && read(&[("content-length", "0")], "").is_ok());
    for without in [":method", ":scheme", ":path", ":authority"] {
        assert!(read(&[], without).is_err(), "{without}");
    }
    for (name, value) in [
        ("X-A", "b"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("a", "b\r\nc: d"),
        ("host", "b"),
        // A backend of HTTP/1.1 would wait for a body, and take the next request for it.
        ("content-length", "5"),
        (":path", "/other"),
        (":strange", "x"),
        ("", "x"),
    ] {
        assert!(read(&[(name, value)], "").is_err(), "{name}: {value}");
    }
    let cookies = read(&[("cookie", "a=1"), ("cookie", "b=2")], "").unwrap();
    assert_eq!(cookies.fields.text("cookie"), Some("a=1; b=2"));
}

proptest! {
    #[test]
    fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for mut side in [Connection::server(), Connection::client()] {
            let _ = side.handle_input(PREFACE);
            let _ = side.handle_input(&bytes);
        }
    }

    #[test]
    fn never_panics_on_frames(frames in proptest::collection::vec(
        (0u8..10, any::<u8>(), 0u32..6, proptest::collection::vec(any::<u8>(), 0..20)), 0..30)) {
        for mut side in [Connection::server(), Connection::client()] {
            let _ = side.open();
            let _ = side.handle_input(PREFACE);
            for (kind, flags, stream, payload) in &frames {
                let mut bytes = vec![0, 0, payload.len() as u8, *kind, *flags];
                bytes.extend_from_slice(&stream.to_be_bytes());
                bytes.extend_from_slice(payload);
                if side.handle_input(&bytes).is_err() {
                    break;
                }
                while side.poll_event().is_some() {}
            }
        }
    }
}
