//! Messages that are read: questions of clients, answers of upstreams (RFC 1035, RFC 6891).

use crate::name::Name;

/// Octets of the header.
pub(crate) const HEADER: usize = 12;

/// The largest answer over UDP that we send or ask for: no link on the way cuts it (DNS flag day 2020).
pub const MAX_UDP: u16 = 1232;

/// What fits without EDNS.
const CLASSIC_UDP: u16 = 512;

/// More octets than that are not kept of one answer.
const MAX_RECORDS: usize = 65_535;

/// Bits of the second 16 of the header.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 1 << 15;
    pub(crate) const OPCODE: u16 = 0xf << 11;
    pub(crate) const AUTHORITATIVE: u16 = 1 << 10;
    pub(crate) const TRUNCATED: u16 = 1 << 9;
    pub(crate) const RECURSION_DESIRED: u16 = 1 << 8;
    pub(crate) const RECURSION_AVAILABLE: u16 = 1 << 7;
    pub(crate) const AUTHENTIC: u16 = 1 << 5;
    pub(crate) const CHECKING_DISABLED: u16 = 1 << 4;
    pub(crate) const RCODE: u16 = 0xf;
}

/// Types of records.
pub mod kind {
    #![allow(missing_docs)]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;

    /// Types that have a name for people.
    const NAMES: [(u16, &str); 11] = [
        (A, "A"),
        (NS, "NS"),
        (CNAME, "CNAME"),
        (SOA, "SOA"),
        (PTR, "PTR"),
        (HINFO, "HINFO"),
        (MX, "MX"),
        (TXT, "TXT"),
        (AAAA, "AAAA"),
        (SRV, "SRV"),
        (ANY, "ANY"),
    ];

    /// The type of this name, or of this number: `TYPE65` (RFC 3597).
    pub fn parse(text: &str) -> Option<u16> {
        let text = text.to_ascii_uppercase();
        let known = NAMES.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind);
        known.or_else(|| text.strip_prefix("TYPE")?.parse().ok())
    }

    /// Its name.
    pub fn name(kind: u16) -> String {
        let known = NAMES.iter().find(|(known, _)| *known == kind);
        known.map_or_else(|| format!("TYPE{kind}"), |(_, name)| (*name).to_owned())
    }
}

/// The class of the internet.
pub(crate) const IN: u16 = 1;

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
#[repr(u16)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    BadVersion = 16,
}

impl Rcode {
    pub(crate) fn of(number: u16) -> Rcode {
        let known = [Rcode::NoError, Rcode::FormErr, Rcode::ServFail, Rcode::NxDomain, Rcode::NotImp];
        // Whatever else it is, the question was not answered.
        known.into_iter().find(|rcode| *rcode as u16 == number).unwrap_or(Rcode::Refused)
    }

    /// As tools write it.
    pub fn name(self) -> &'static str {
        match self {
            Rcode::NoError => "NOERROR",
            Rcode::FormErr => "FORMERR",
            Rcode::ServFail => "SERVFAIL",
            Rcode::NxDomain => "NXDOMAIN",
            Rcode::NotImp => "NOTIMP",
            Rcode::Refused => "REFUSED",
            Rcode::BadVersion => "BADVERS",
        }
    }
}

/// What a client asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// In the case it was asked in.
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
    /// The longest answer in octets.
    pub(crate) room: u16,
}

/// What its extension says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) size: u16,
    pub(crate) version: u8,
    /// Signatures are wanted.
    pub(crate) dnssec: bool,
    /// The client wants to know from where the answer is ([`crate::EXPLAIN`]).
    pub(crate) explain: bool,
}

/// Why a message is no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Not even an answer can be given.
    Silent,
    /// The header can be answered with this.
    Refused { id: u16, flags: u16, rcode: Rcode },
}

impl Asked {
    /// Reads a question; `tcp`: answers may be long.
    pub(crate) fn read(message: &[u8], tcp: bool) -> Result<Asked, Unusable> {
        let header = Header::read(message).ok_or(Unusable::Silent)?;
        if header.flags & flag::RESPONSE != 0 {
            return Err(Unusable::Silent);
        }
        let refuse = |rcode| Unusable::Refused { id: header.id, flags: header.flags, rcode };
        if header.flags & flag::OPCODE != 0 {
            return Err(refuse(Rcode::NotImp));
        }
        let malformed = || refuse(Rcode::FormErr);
        if header.counts[0] != 1 {
            return Err(malformed());
        }
        let (name, at) = Name::read(message, HEADER).ok_or_else(malformed)?;
        let (kind, class) = u16_at(message, at).zip(u16_at(message, at + 2)).ok_or_else(malformed)?;
        let mut edns = None;
        let mut at = at + 4;
        let records = header.counts[1..].iter().map(|count| u32::from(*count)).sum::<u32>();
        for _ in 0..records {
            let record = Record::read(message, at).ok_or_else(malformed)?;
            if record.kind == kind::OPT && edns.replace(Edns::of(&record)).is_some() {
                return Err(malformed());
            }
            at = record.end;
        }
        let room = match (tcp, edns) {
            (true, _) => u16::MAX,
            (false, Some(edns)) => edns.size.clamp(CLASSIC_UDP, MAX_UDP),
            (false, None) => CLASSIC_UDP,
        };
        Ok(Asked { id: header.id, flags: header.flags, name, kind, class, edns, room })
    }

    pub(crate) fn dnssec(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec)
    }

    pub(crate) fn explain(&self) -> bool {
        self.edns.is_some_and(|edns| edns.explain)
    }
}

impl Edns {
    fn of(record: &Record<'_>) -> Edns {
        let mut options = record.data;
        let mut explain = false;
        while let Some((code, length)) = u16_at(options, 0).zip(u16_at(options, 2)) {
            explain |= code == crate::EXPLAIN;
            options = options.get(4 + usize::from(length)..).unwrap_or_default();
        }
        Edns { size: record.class, version: (record.ttl >> 16) as u8, dnssec: record.ttl & 0x8000 != 0, explain }
    }
}

struct Header {
    id: u16,
    flags: u16,
    /// Questions, answers, authorities, additional records.
    counts: [u16; 4],
}

impl Header {
    fn read(message: &[u8]) -> Option<Header> {
        let at = |place| u16_at(message, place);
        Some(Header { id: at(0)?, flags: at(2)?, counts: [at(4)?, at(6)?, at(8)?, at(10)?] })
    }
}

/// A record where it lies.
pub(crate) struct Record<'a> {
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: &'a [u8],
    data_at: usize,
    end: usize,
}

impl<'a> Record<'a> {
    pub(crate) fn read(message: &'a [u8], at: usize) -> Option<Record<'a>> {
        let (name, at) = Name::read(message, at)?;
        let word = |offset| u16_at(message, at + offset);
        let (kind, class, length) = (word(0)?, word(2)?, word(8)?);
        let ttl = u32::from(word(4)?) << 16 | u32::from(word(6)?);
        let data_at = at + 10;
        let end = data_at + usize::from(length);
        Some(Record { name, kind, class, ttl, data: message.get(data_at..end)?, data_at, end })
    }

    /// Where its data begins.
    pub(crate) fn data_at(&self) -> usize {
        self.data_at
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> usize {
        self.end
    }
}

/// What an upstream answered, in a form that stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How it went.
    pub rcode: Rcode,
    /// The upstream verified signatures.
    pub(crate) authentic: bool,
    /// Not all of it fitted.
    pub(crate) truncated: bool,
    /// Records one after another, uncompressed: answers, then authorities.
    pub(crate) records: Box<[u8]>,
    /// How many of them are answers.
    pub(crate) answers: u16,
    /// Seconds it may be kept.
    pub(crate) ttl: u32,
}

/// Whether a message is an answer to this question.
pub(crate) fn answers(message: &[u8], id: u16, name: &Name, kind: u16) -> bool {
    let Some(header) = Header::read(message) else { return false };
    let question = || {
        let (found, at) = Name::read(message, HEADER)?;
        Some((found, u16_at(message, at)?, u16_at(message, at + 2)?))
    };
    header.id == id
        && header.flags & (flag::RESPONSE | flag::OPCODE) == flag::RESPONSE
        && header.counts[0] == 1
        && question() == Some((*name, kind, IN))
}

impl Reply {
    /// Reads an answer that [`answers`] the question. `None` if it is malformed.
    pub(crate) fn read(message: &[u8]) -> Option<Reply> {
        let header = Header::read(message)?;
        let (_, at) = Name::read(message, HEADER)?;
        let mut at = at + 4;
        let rcode = Rcode::of(header.flags & flag::RCODE);
        let truncated = header.flags & flag::TRUNCATED != 0;
        let mut reply = Reply {
            rcode,
            authentic: header.flags & flag::AUTHENTIC != 0,
            truncated,
            records: Box::default(),
            answers: header.counts[1],
            ttl: 0,
        };
        if truncated {
            // It is asked again for all of it.
            return Some(reply);
        }
        let mut records = Vec::new();
        let (mut shortest, mut negative) = (u32::MAX, 0);
        for i in 0..u32::from(header.counts[1]) + u32::from(header.counts[2]) {
            let record = Record::read(message, at)?;
            put_record(&mut records, message, &record)?;
            if records.len() > MAX_RECORDS {
                return None;
            }
            // A first bit that is set means zero (RFC 2181, 8).
            let ttl = if record.ttl >> 31 == 0 { record.ttl } else { 0 };
            shortest = shortest.min(ttl);
            if record.kind == kind::SOA && i >= u32::from(header.counts[1]) {
                let minimum = record.data.len().checked_sub(4).and_then(|at| u32_at(record.data, at))?;
                negative = ttl.min(minimum);
            }
            at = record.end;
        }
        let positive = rcode == Rcode::NoError && header.counts[1] > 0;
        reply.ttl = if positive { shortest } else { negative };
        reply.records = records.into();
        Some(reply)
    }

    /// Its records: owner, type, class, TTL, data; and whether each is an answer.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Record<'_>, bool)> {
        let (mut at, mut index) = (0, 0);
        std::iter::from_fn(move || {
            let record = Record::read(&self.records, at)?;
            at = record.end;
            index += 1;
            Some((record, index <= u32::from(self.answers)))
        })
    }
}

/// Writes a record so that it needs nothing of its message: the names in its data are spelt out.
fn put_record(out: &mut Vec<u8>, message: &[u8], record: &Record<'_>) -> Option<()> {
    out.extend_from_slice(record.name.wire());
    for word in [record.kind, record.class, (record.ttl >> 16) as u16, record.ttl as u16, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let start = out.len();
    // Octets before the names, and how many names there are (types of RFC 1035, and those that became like them).
    let (fixed, names) = match record.kind {
        kind::NS | kind::CNAME | kind::PTR | kind::DNAME => (0, 1),
        kind::MX => (2, 1),
        kind::SRV => (6, 1),
        kind::SOA => (0, 2),
        _ => (record.data.len(), 0),
    };
    out.extend_from_slice(record.data.get(..fixed)?);
    let end = record.data_at + record.data.len();
    let mut at = record.data_at + fixed;
    for _ in 0..names {
        let (name, next) = Name::read(message, at)?;
        if next > end {
            return None;
        }
        out.extend_from_slice(name.wire());
        at = next;
    }
    out.extend_from_slice(message.get(at..end)?);
    let length = u16::try_from(out.len() - start).ok()?;
    out.get_mut(start - 2..start)?.copy_from_slice(&length.to_be_bytes());
    Some(())
}

pub(crate) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}
