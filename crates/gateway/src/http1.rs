//! HTTP/1.1 (RFC 9112): heads, and where bodies end.
//!
//! What two readers could read differently is refused: two lengths, a length and chunks, other codings, names with spaces.

use crate::{Bad, Fields, MAX_FIELDS, MAX_HEAD, Request, Response};

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk, and trailers behind it.
    Chunked,
    /// With the connection; answers only.
    UntilClose,
}

/// A head and what follows from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<T> {
    /// Request or answer.
    pub message: T,
    /// How its body ends.
    pub framing: Framing,
    /// Another message may follow on this connection.
    pub keep_alive: bool,
    /// It is HTTP/1.0: chunks are not understood there.
    pub old: bool,
    /// Bytes it took.
    pub length: usize,
}

/// Reads the head of a request. `None`: more is needed.
pub fn request(bytes: &[u8]) -> Result<Option<Head<Request>>, Bad> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let Some(length) = complete(parsed.parse(bytes), bytes.len())? else { return Ok(None) };
    let minor = parsed.version.unwrap_or(1);
    let mut fields: Fields = parsed.headers.iter().map(|h| (h.name, h.value)).collect();
    let (target, method) = (parsed.path.unwrap_or_default(), parsed.method.unwrap_or_default().to_owned());
    let hosts: Vec<&[u8]> = fields.all("host").collect();
    let host = match hosts[..] {
        [] if minor == 0 => "",
        [host] => std::str::from_utf8(host).map_err(|_| Bad(400, "the host is none"))?,
        _ => return Err(Bad(400, "not one host")),
    };
    let (authority, path) = match target.split_once("://") {
        // In absolute form, as for a proxy.
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            (authority, if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
        }
        _ => (host, target.to_owned()),
    };
    let authority = authority.trim().to_ascii_lowercase();
    let framing = framing(&fields)?.unwrap_or(Framing::None);
    if minor == 0 && framing == Framing::Chunked {
        return Err(Bad(400, "chunks in HTTP/1.0"));
    }
    // A proxy keeps no connection of a client of HTTP/1.0 (RFC 9112, 9.3).
    let keep_alive = minor > 0 && keep_alive(&fields, minor);
    let upgrade = upgrade(&fields).filter(|_| framing == Framing::None && minor > 0);
    fields.remove("host");
    fields.strip();
    let message = Request { method, authority, path, fields, upgrade };
    message.check()?;
    Ok(Some(Head { message, framing, keep_alive, old: minor == 0, length }))
}

/// Reads the head of an answer to a request of that method. `None`: more is needed.
pub fn response(bytes: &[u8], method: &str) -> Result<Option<Head<Response>>, Bad> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let Some(length) = complete(parsed.parse(bytes), bytes.len())? else { return Ok(None) };
    let status = parsed.code.filter(|code| (100..=599).contains(code)).ok_or(Bad(502, "the status is none"))?;
    let minor = parsed.version.unwrap_or(1);
    let mut fields: Fields = parsed.headers.iter().map(|h| (h.name, h.value)).collect();
    let framing = match framing(&fields)? {
        _ if status < 200 || matches!(status, 204 | 304) || method == "HEAD" => Framing::None,
        Some(framing) => framing,
        None => Framing::UntilClose,
    };
    let keep_alive = keep_alive(&fields, minor) && framing != Framing::UntilClose;
    let upgrade = upgrade(&fields).filter(|_| status == 101);
    // Where there is no body its length still says what there would be.
    let length_field = fields.get("content-length").map(<[u8]>::to_vec).filter(|_| framing == Framing::None);
    fields.strip();
    if let Some(value) = length_field.filter(|_| status >= 200 && status != 204) {
        fields.set("content-length", value);
    }
    crate::message::check_fields(&fields)?;
    Ok(Some(Head { message: Response { status, fields, upgrade }, framing, keep_alive, old: minor == 0, length }))
}

fn complete(result: httparse::Result<usize>, got: usize) -> Result<Option<usize>, Bad> {
    match result {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => Ok(Some(length)),
        Ok(httparse::Status::Partial) if got <= MAX_HEAD => Ok(None),
        Ok(_) => Err(Bad(431, "the header is too long")),
        Err(httparse::Error::TooManyHeaders) => Err(Bad(431, "too many header fields")),
        Err(httparse::Error::Version) => Err(Bad(505, "not HTTP/1")),
        Err(_) => Err(Bad(400, "not HTTP/1.1")),
    }
}

fn framing(fields: &Fields) -> Result<Option<Framing>, Bad> {
    let mut lengths = fields.all("content-length");
    let length = lengths.next();
    if lengths.any(|other| Some(other) != length) {
        return Err(Bad(400, "two lengths"));
    }
    let coding: Vec<&[u8]> = fields.all("transfer-encoding").collect();
    match (length, &coding[..]) {
        (None, []) => Ok(None),
        (Some(text), []) => {
            let digits =
                std::str::from_utf8(text).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|t| t.parse::<u64>().ok()).ok_or(Bad(400, "the length is none"))?;
            Ok(Some(if length == 0 { Framing::None } else { Framing::Length(length) }))
        }
        (None, [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        (None, _) => Err(Bad(501, "a transfer coding other than chunked")),
        (Some(_), _) => Err(Bad(400, "a length and chunks")),
    }
}

fn keep_alive(fields: &Fields, minor: u8) -> bool {
    let says = |word: &str| fields.elements("connection").any(|element| element.eq_ignore_ascii_case(word));
    if minor == 0 { says("keep-alive") } else { !says("close") }
}

fn upgrade(fields: &Fields) -> Option<String> {
    let asked = fields.elements("connection").any(|element| element.eq_ignore_ascii_case("upgrade"));
    // To HTTP/2 nobody changes this way any more (RFC 9113, 3.1), and its requests would pass by the rules.
    let h2c = fields.elements("upgrade").any(|to| to.eq_ignore_ascii_case("h2c"));
    fields.text("upgrade").filter(|_| asked && !h2c).map(str::to_owned)
}

/// Writes the head of a request.
pub fn write_request(out: &mut Vec<u8>, request: &Request, framing: Framing) {
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(request.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    // What the request says of its length is not what is sent: a backend would take the next request for the body.
    write_fields(out, &request.fields, framing, false);
    if framing == Framing::None && matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    write_upgrade(out, request.upgrade.as_deref());
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of an answer; `last`: nothing follows on this connection.
pub fn write_response(out: &mut Vec<u8>, response: &Response, framing: Framing, last: bool) {
    out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status)).as_bytes());
    write_fields(out, &response.fields, framing, framing == Framing::None);
    let says_length = response.fields.get("content-length").is_some();
    if framing == Framing::None && !says_length && response.status >= 200 && !matches!(response.status, 204 | 304) {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    write_upgrade(out, response.upgrade.as_deref());
    if last && response.upgrade.is_none() {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// `length`: that of the fields is written.
fn write_fields(out: &mut Vec<u8>, fields: &Fields, framing: Framing, length: bool) {
    for (name, value) in fields.iter() {
        if name == "content-length" && !length {
            continue;
        }
        write_field(out, name, value);
    }
    match framing {
        Framing::Length(length) => write_field(out, "content-length", length.to_string().as_bytes()),
        Framing::Chunked => write_field(out, "transfer-encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_upgrade(out: &mut Vec<u8>, upgrade: Option<&str>) {
    if let Some(protocol) = upgrade {
        write_field(out, "connection", b"upgrade");
        write_field(out, "upgrade", protocol.as_bytes());
    }
}

/// Writes a piece of a body.
pub fn write_data(out: &mut Vec<u8>, data: &[u8], framing: Framing) {
    if framing != Framing::Chunked {
        out.extend_from_slice(data);
    } else if !data.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the end of a body.
pub fn write_end(out: &mut Vec<u8>, trailers: &Fields, framing: Framing) {
    if framing == Framing::Chunked {
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter() {
            write_field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some of it.
    Data(Vec<u8>),
    /// That was all; the trailers.
    End(Fields),
}

/// Takes a body out of what is read.
#[derive(Debug)]
pub struct Body(State);

#[derive(Debug)]
enum State {
    Left(u64),
    UntilClose,
    /// Before the line with a chunk's size.
    Size,
    /// Within a chunk.
    Chunk(u64),
    /// Before the line's end behind a chunk.
    Gap,
    Trailers,
    Done,
}

/// The longest line between chunks, in bytes.
const MAX_LINE: usize = 1024;

impl Body {
    /// A body that ends so.
    pub fn new(framing: Framing) -> Self {
        Body(match framing {
            Framing::None => State::Left(0),
            Framing::Length(length) => State::Left(length),
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::Size,
        })
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// The next piece at the beginning of `input`, which loses it. `None`: more is needed.
    pub fn next(&mut self, input: &mut Vec<u8>) -> Result<Option<Piece>, Bad> {
        match self.0 {
            State::Left(0) => {
                self.0 = State::Done;
                Ok(Some(Piece::End(Fields::default())))
            }
            State::Done => Ok(None),
            State::Left(_) | State::UntilClose if input.is_empty() => Ok(None),
            State::UntilClose => Ok(Some(Piece::Data(std::mem::take(input)))),
            State::Left(ref mut left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                let data = if take == input.len() { std::mem::take(input) } else { input.drain(..take).collect() };
                Ok(Some(Piece::Data(data)))
            }
            State::Trailers => self.trailers(input),
            State::Size | State::Chunk(_) | State::Gap => {
                // All chunks that are there are one piece, however small they are.
                let (data, length) = self.chunks(input)?;
                input.drain(..length);
                match data.is_empty() {
                    true if matches!(self.0, State::Trailers) => self.trailers(input),
                    true => Ok(None),
                    false => Ok(Some(Piece::Data(data))),
                }
            }
        }
    }

    /// What is in the chunks at the beginning of `input`, and how much of it they take.
    fn chunks(&mut self, input: &[u8]) -> Result<(Vec<u8>, usize), Bad> {
        let (mut data, mut rest) = (Vec::new(), input);
        loop {
            match self.0 {
                State::Chunk(ref mut left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    let (part, behind) = rest.split_at(take);
                    data.extend_from_slice(part);
                    rest = behind;
                    *left -= take as u64;
                    if *left > 0 {
                        break;
                    }
                    self.0 = State::Gap;
                }
                State::Gap => match rest.split_at_checked(2) {
                    Some((b"\r\n", behind)) => {
                        rest = behind;
                        self.0 = State::Size;
                    }
                    Some(_) => return Err(Bad(400, "a chunk is longer than it says")),
                    None => break,
                },
                State::Size => {
                    let line = rest.get(..rest.len().min(MAX_LINE)).unwrap_or_default();
                    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
                        return if rest.len() < MAX_LINE {
                            Ok((data, input.len() - rest.len()))
                        } else {
                            Err(Bad(400, "the size of a chunk is none"))
                        };
                    };
                    let (line, behind) = rest.split_at(end);
                    let size = chunk_size(line).ok_or(Bad(400, "the size of a chunk is none"))?;
                    rest = behind.get(2..).unwrap_or_default();
                    self.0 = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                _ => break,
            }
        }
        Ok((data, input.len() - rest.len()))
    }

    fn trailers(&mut self, input: &mut Vec<u8>) -> Result<Option<Piece>, Bad> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        match httparse::parse_headers(input, &mut fields) {
            Ok(httparse::Status::Complete((length, fields))) => {
                let mut fields: Fields = fields.iter().map(|h| (h.name, h.value)).collect();
                for name in ["content-length", "host", "transfer-encoding"] {
                    fields.remove(name);
                }
                fields.strip();
                input.drain(..length);
                self.0 = State::Done;
                Ok(Some(Piece::End(fields)))
            }
            Ok(httparse::Status::Partial) if input.len() <= MAX_HEAD => Ok(None),
            _ => Err(Bad(400, "the trailers are none")),
        }
    }
}

/// Hexadecimal digits, and perhaps extensions behind `;`.
fn chunk_size(line: &[u8]) -> Option<u64> {
    // Somebody before us might have taken it for the end of the line.
    if line.iter().any(|b| matches!(b, b'\r' | b'\n')) {
        return None;
    }
    let digits = line.split(|b| *b == b';').next()?;
    let text = std::str::from_utf8(digits).ok()?.trim_end_matches([' ', '\t']);
    let hex = !text.is_empty() && text.len() <= 15 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { u64::from_str_radix(text, 16).ok() } else { None }
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "-",
    }
}

/// Whether these bytes begin a connection of HTTP/2 with prior knowledge. `None`: too few to say.
pub fn is_http2(bytes: &[u8]) -> Option<bool> {
    let preface = crate::http2::PREFACE;
    if bytes.len() >= preface.len() {
        return Some(bytes.starts_with(preface));
    }
    if preface.starts_with(bytes) { None } else { Some(false) }
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
