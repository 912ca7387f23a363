//! Messages that are written: answers to clients, questions to upstreams.

use std::net::IpAddr;

use crate::message::{Asked, HEADER, IN, MAX_UDP, Rcode, flag, kind};
use crate::name::Name;

/// Places of names that later ones may point at.
const MAX_PLACES: usize = 24;

/// Octets of an OPT record without options.
const OPT: usize = 11;

/// Writes one message behind what is in `out`.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Octets the message may have, less what its end needs.
    room: usize,
    places: [u16; MAX_PLACES],
    known: usize,
    counts: [u16; 3],
    section: usize,
    full: bool,
    truncated: bool,
}

/// Sections behind the question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// What an answer says about itself to those who speak EDNS.
#[derive(Clone, Copy, Default)]
pub(crate) struct Remarks<'a> {
    /// Code of an extended error (RFC 8914).
    pub(crate) error: Option<u16>,
    /// Where it is from, in words, for clients that asked.
    pub(crate) origin: &'a str,
}

impl<'a> Writer<'a> {
    /// Begins the answer to a question.
    pub(crate) fn answer(out: &'a mut Vec<u8>, asked: &Asked) -> Self {
        let mut writer = Writer::begin(out, asked.id, asked.flags, &asked.name, asked.kind, asked.class);
        // The remarks of an explanation are short.
        let end = if asked.edns.is_some() { OPT + 6 + if asked.explain() { 80 } else { 0 } } else { 0 };
        writer.room = usize::from(asked.room) - end;
        writer
    }

    fn begin(out: &'a mut Vec<u8>, id: u16, flags: u16, name: &Name, kind: u16, class: u16) -> Self {
        let start = out.len();
        for word in [id, flags, 1, 0, 0, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        let mut writer = Writer {
            out,
            start,
            room: usize::from(u16::MAX),
            places: [0; MAX_PLACES],
            known: 0,
            counts: [0; 3],
            section: 0,
            full: false,
            truncated: false,
        };
        writer.name(name);
        writer.words(&[kind, class]);
        writer
    }

    pub(crate) fn section(&mut self, section: Section) {
        self.section = section as usize;
    }

    /// Adds a record whose data `write` writes; without it if it does not fit.
    pub(crate) fn record(&mut self, owner: &Name, kind: u16, class: u16, ttl: u32, write: impl FnOnce(&mut Self)) {
        if self.full {
            return;
        }
        let (begin, known) = (self.out.len(), self.known);
        self.name(owner);
        self.words(&[kind, class, (ttl >> 16) as u16, ttl as u16, 0]);
        let data = self.out.len();
        write(self);
        let length = self.out.len() - data;
        if self.out.len() - self.start > self.room || length > usize::from(u16::MAX) {
            self.out.truncate(begin);
            self.known = known;
            self.full = true;
            // What is additional may be missing.
            self.truncated = self.section != Section::Additional as usize;
            return;
        }
        self.set(data - 2, length as u16);
        if let Some(count) = self.counts.get_mut(self.section) {
            *count += 1;
        }
    }

    pub(crate) fn address(&mut self, owner: &Name, ttl: u32, address: IpAddr) {
        match address {
            IpAddr::V4(a) => self.record(owner, kind::A, IN, ttl, |w| w.octets(&a.octets())),
            IpAddr::V6(a) => self.record(owner, kind::AAAA, IN, ttl, |w| w.octets(&a.octets())),
        }
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    pub(crate) fn words(&mut self, words: &[u16]) {
        for word in words {
            self.out.extend_from_slice(&word.to_be_bytes());
        }
    }

    /// A name, its end replaced by a pointer to one that is there already.
    pub(crate) fn name(&mut self, name: &Name) {
        let mut rest = name.labels();
        loop {
            if rest.wire().is_empty() {
                self.out.push(0);
                return;
            }
            let place = self.places.iter().take(self.known).find(|place| self.is_at(**place, rest));
            if let Some(place) = place {
                let pointer = 0xc000 | place;
                self.words(&[pointer]);
                return;
            }
            let here = self.out.len() - self.start;
            if let (Ok(here), Some(place)) =
                (u16::try_from(here).map(|h| h.min(0x4000)), self.places.get_mut(self.known))
            {
                if here < 0x4000 {
                    *place = here;
                    self.known += 1;
                }
            }
            let Some(label) = rest.next() else { return };
            self.out.push(label.len() as u8);
            self.out.extend_from_slice(label);
        }
    }

    /// A name without pointers, where none are allowed (SRV, RFC 2782).
    pub(crate) fn plain_name(&mut self, name: &Name) {
        self.out.extend_from_slice(name.wire());
    }

    /// Ends the message.
    pub(crate) fn finish(mut self, asked: &Asked, rcode: Rcode, mut flags: u16, remarks: &Remarks<'_>) {
        if self.truncated {
            flags |= flag::TRUNCATED;
        }
        if let Some(edns) = asked.edns {
            let dnssec = if edns.dnssec { 0x8000 } else { 0 };
            self.out.push(0);
            self.words(&[kind::OPT, MAX_UDP, (rcode as u16 >> 4) << 8, dnssec, 0]);
            let data = self.out.len();
            if let Some(error) = remarks.error {
                self.words(&[15, 2, error]);
            }
            if edns.explain {
                let text: String = remarks.origin.chars().take(70).collect();
                self.words(&[crate::EXPLAIN, text.len() as u16]);
                self.octets(text.as_bytes());
            }
            let length = self.out.len() - data;
            self.set(data - 2, length as u16);
            self.counts[Section::Additional as usize] += 1;
        }
        let kept = asked.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let flags = flag::RESPONSE | flag::RECURSION_AVAILABLE | kept | flags | (rcode as u16 & flag::RCODE);
        self.set(self.start + 2, flags);
        for (i, count) in self.counts.into_iter().enumerate() {
            self.set(self.start + 6 + 2 * i, count);
        }
    }

    fn set(&mut self, at: usize, word: u16) {
        if let Some(place) = self.out.get_mut(at..at + 2) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }

    /// Whether the name at `place` of this message is these labels and then the root.
    fn is_at(&self, place: u16, mut labels: crate::name::Labels<'_>) -> bool {
        let message = self.out.get(self.start..).unwrap_or_default();
        let mut at = usize::from(place);
        // What we wrote ourselves ends: pointers lead backwards.
        loop {
            match message.get(at) {
                Some(0) => return labels.wire().is_empty(),
                Some(high @ 0xc0..) => {
                    let Some(low) = message.get(at + 1) else { return false };
                    at = usize::from(high & 0x3f) << 8 | usize::from(*low);
                }
                Some(length) => {
                    let next = at + 1 + usize::from(*length);
                    match (labels.next(), message.get(at + 1..next)) {
                        (Some(wanted), Some(found)) if found.eq_ignore_ascii_case(wanted) => at = next,
                        _ => return false,
                    }
                }
                None => return false,
            }
        }
    }
}

/// An answer of a header alone, to what was no question.
pub(crate) fn refusal(out: &mut Vec<u8>, id: u16, flags: u16, rcode: Rcode) {
    let kept = flags & (flag::OPCODE | flag::RECURSION_DESIRED);
    for word in [id, flag::RESPONSE | kept | rcode as u16, 0, 0, 0, 0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// A question, as it is sent to upstreams and to the running server.
pub(crate) fn question(id: u16, name: &Name, kind: u16, flags: u16, edns: Option<(bool, &[u8])>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + name.wire().len() + 4 + OPT);
    let mut writer = Writer::begin(&mut out, id, flags, name, kind, IN);
    if let Some((dnssec, options)) = edns {
        writer.out.push(0);
        let length = options.len() as u16;
        writer.words(&[kind::OPT, MAX_UDP, 0, if dnssec { 0x8000 } else { 0 }, length]);
        writer.octets(options);
        writer.set(10, 1);
    }
    out
}
