use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> Bad {
    request(text.as_bytes()).expect_err(text)
}

#[test]
fn a_request_is_read_whole_or_not_at_all() {
    let text = b"POST /a?b=1 HTTP/1.1\r\nHost: Shop.Example:8080\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc";
    for end in 0..text.len() - 3 {
        assert_eq!(request(&text[..end]), Ok(None), "{end}");
    }
    let head = request(text).unwrap().unwrap();
    assert_eq!(head.length, text.len() - 3);
    assert_eq!((head.framing, head.keep_alive), (Framing::Length(3), true));
    assert_eq!(head.message.authority, "shop.example:8080");
    assert_eq!(head.message.host(), "shop.example");
    assert_eq!(head.message.split_path(), ("/a", "b=1"));
    assert_eq!(head.message.fields.text("x-a"), Some("b"));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (text, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ] {
        assert!([status, 405].contains(&refused(text).0), "{text}: {:?}", refused(text));
    }
    let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).0, 431);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}", "b".repeat(MAX_HEAD));
    assert_eq!(refused(&long).0, 431);
}

#[test]
fn an_absolute_target_names_the_host() {
    let head = request(b"GET http://B.example?x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
    assert_eq!((&*head.message.authority, &*head.message.path), ("b.example", "/?x"));
}

#[test]
fn connections_are_kept_and_upgraded_as_asked() {
    let keep = |text: &str| request(text.as_bytes()).unwrap().unwrap().keep_alive;
    assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    let head = request(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(head.unwrap().unwrap().message.upgrade.as_deref(), Some("websocket"));
    let head = request(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n");
    assert_eq!(head.unwrap().unwrap().message.upgrade, None);
    let head = request(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n");
    assert_eq!(head.unwrap().unwrap().message.upgrade, None);
}

#[test]
fn a_path_that_goes_up_is_refused() {
    for path in ["/a/../b", "/..", "/a/%2e%2E/b", "/a/.%2e", "/a/..;x=y/b", "/a/..\\b?c", "http://a/../b"] {
        assert_eq!(refused(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).0, 400, "{path}");
    }
    for path in ["/a/...", "/a..b/", "/..a", "/a/.;..", "/a?../..", "/a/%2e"] {
        assert!(request(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).is_ok(), "{path}");
    }
}

#[test]
fn a_request_without_a_body_announces_none() {
    let fields = [("content-length", &b"50"[..])].into_iter().collect();
    let request = Request { method: "GET".into(), path: "/".into(), fields, ..Request::default() };
    let mut out = Vec::new();
    write_request(&mut out, &request, Framing::None);
    assert_eq!(String::from_utf8(out).unwrap(), "GET / HTTP/1.1\r\nhost: \r\n\r\n");
}

#[test]
fn an_answer_ends_where_its_request_says() {
    let framing = |text: &str, method: &str| response(text.as_bytes(), method).unwrap().unwrap().framing;
    let with_length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(framing(with_length, "GET"), Framing::Length(5));
    assert_eq!(framing(with_length, "HEAD"), Framing::None);
    assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", "GET"), Framing::UntilClose);
    assert_eq!(framing("HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n", "GET"), Framing::None);
    let head = response(with_length.as_bytes(), "HEAD").unwrap().unwrap();
    let mut out = Vec::new();
    write_response(&mut out, &head.message, head.framing, false);
    assert_eq!(String::from_utf8(out).unwrap(), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
}

/// Body, trailers, and what is behind them.
type Read = (Vec<u8>, Option<Fields>, Vec<u8>);

fn pieces(framing: Framing, text: &[u8], step: usize) -> Result<Read, Bad> {
    let (mut body, mut input, mut data) = (Body::new(framing), Vec::new(), Vec::new());
    for part in text.chunks(step) {
        input.extend_from_slice(part);
        while let Some(piece) = body.next(&mut input)? {
            match piece {
                Piece::Data(more) => data.extend(more),
                Piece::End(trailers) => return Ok((data, Some(trailers), input)),
            }
        }
    }
    Ok((data, None, input))
}

#[test]
fn chunks_are_read_in_any_portions() {
    let text = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 7\r\nHost: evil\r\n\r\n";
    for step in 1..=text.len() {
        let (data, trailers, rest) = pieces(Framing::Chunked, text, step).unwrap();
        assert_eq!(data, b"abc0123456789");
        let trailers = trailers.unwrap();
        assert_eq!((trailers.len(), trailers.text("x-sum")), (1, Some("7")));
        assert!(rest.is_empty());
    }
    for bad in
        ["3\r\nabcd\r\n", "-1\r\n", "0x1\r\na\r\n", "\r\n", "1 2\r\n", "fffffffffffffffff\r\n", "1;a\nb\r\nx\r\n"]
    {
        assert!(pieces(Framing::Chunked, bad.as_bytes(), 100).is_err(), "{bad}");
    }
}

#[test]
fn small_chunks_are_one_piece() {
    let mut input = b"1\r\nx\r\n".repeat(3000);
    input.extend_from_slice(b"1\r\ny");
    let mut body = Body::new(Framing::Chunked);
    let piece = body.next(&mut input).unwrap();
    assert!(matches!(piece, Some(Piece::Data(data)) if data.len() == 3001 && data.ends_with(b"xy")));
    assert_eq!((body.next(&mut input), input.len()), (Ok(None), 0));
    input.extend_from_slice(b"\r\n0\r\n\r\nnext");
    assert_eq!(body.next(&mut input), Ok(Some(Piece::End(Fields::default()))));
    assert_eq!(input, b"next");
}

#[test]
fn what_is_written_is_read_again() {
    let mut wire = Vec::new();
    write_data(&mut wire, b"hello", Framing::Chunked);
    write_data(&mut wire, b"", Framing::Chunked);
    write_end(&mut wire, &[("a", &b"b"[..])].into_iter().collect(), Framing::Chunked);
    let (data, trailers, _) = pieces(Framing::Chunked, &wire, 7).unwrap();
    assert_eq!((data.as_slice(), trailers.unwrap().text("a")), (&b"hello"[..], Some("b")));
    assert_eq!(is_http2(b"PRI * HT"), None);
    assert_eq!(is_http2(b"PUT / HT"), Some(false));
}

proptest! {
    #[test]
    fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = request(&bytes);
        let _ = response(&bytes, "GET");
        let _ = pieces(Framing::Chunked, &bytes, 5);
    }
}
