//! The other side, for people: a question with the wish to know where the answer is from, and the answer as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::message::{self, HEADER, Rcode, Record, flag, kind, u16_at};
use crate::name::Name;
use crate::writer;

/// A question to a running server that asks where the answer is from.
pub fn question(id: u16, name: &Name, kind: u16) -> Vec<u8> {
    let option = [crate::EXPLAIN.to_be_bytes(), [0; 2]].concat();
    writer::question(id, name, kind, flag::RECURSION_DESIRED, Some((false, &option)))
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub rcode: Rcode,
    /// Where it is from, if the server says so.
    pub origin: Option<String>,
    /// Not all of it fitted: it is to be asked again over TCP.
    pub truncated: bool,
    /// Owner, TTL in seconds, type and data of each answer.
    pub answers: Vec<(String, u32, String, String)>,
}

impl Response {
    /// Reads the answer to [`question`]. `None` if it is none.
    pub fn read(message: &[u8], id: u16, name: &Name, kind: u16) -> Option<Response> {
        if !message::answers(message, id, name, kind) {
            return None;
        }
        let flags = u16_at(message, 2)?;
        let counts = [u16_at(message, 6)?, u16_at(message, 8)?, u16_at(message, 10)?];
        let (_, mut at) = Name::read(message, HEADER)?;
        at += 4;
        let truncated = flags & flag::TRUNCATED != 0;
        let rcode = Rcode::of(flags & flag::RCODE);
        let mut response = Response { rcode, origin: None, truncated, answers: Vec::new() };
        for i in 0..counts.iter().map(|count| u32::from(*count)).sum() {
            let record = Record::read(message, at)?;
            at = record.end();
            if record.kind == kind::OPT {
                response.origin = origin(record.data);
            } else if i < u32::from(counts[0]) {
                let data = text(message, &record).unwrap_or_else(|| hex(record.data));
                response.answers.push((record.name.to_string(), record.ttl, kind::name(record.kind), data));
            }
        }
        Some(response)
    }
}

fn origin(mut options: &[u8]) -> Option<String> {
    loop {
        let (code, length) = (u16_at(options, 0)?, usize::from(u16_at(options, 2)?));
        let data = options.get(4..4 + length)?;
        if code == crate::EXPLAIN {
            return Some(
                data.iter().map(|octet| char::from(*octet)).filter(|c| c.is_ascii_graphic() || *c == ' ').collect(),
            );
        }
        options = options.get(4 + length..)?;
    }
}

fn text(message: &[u8], record: &Record<'_>) -> Option<String> {
    let word = |at| u16_at(record.data, at);
    let name = |skip| Some(Name::read(message, record.data_at() + skip)?.0.to_string());
    Some(match record.kind {
        kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(record.data).ok()?).to_string(),
        kind::AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(record.data).ok()?).to_string(),
        kind::CNAME | kind::NS | kind::PTR | kind::DNAME => name(0)?,
        kind::MX => format!("{} {}", word(0)?, name(2)?),
        kind::SRV => format!("{} {} {} {}", word(0)?, word(2)?, word(4)?, name(6)?),
        kind::TXT => {
            let mut rest = record.data;
            let mut parts = Vec::new();
            while let Some((length, tail)) = rest.split_first() {
                let (part, tail) = tail.split_at_checked(usize::from(*length))?;
                parts.push(format!("\"{}\"", part.escape_ascii()));
                rest = tail;
            }
            parts.join(" ")
        }
        _ => return None,
    })
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|octet| format!("{octet:02x}")).collect()
}
