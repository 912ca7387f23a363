//! Joining consecutive TCP segments into one frame for the TUN device.

use super::vnet::{self, Work};
use super::{ACK, PROTOCOL_TCP, PSH, TCP_CHECKSUM, TCP_HEADER, VNET_HEADER, checksum};
use crate::inner;
use std::io::IoSlice;

/// Most segments of one frame; also what UDP segmentation offload sends at once.
const MAX_PARTS: usize = 64;
const MAX_IP: usize = 65_535;
/// IP and TCP header, both with all options.
const MAX_HEADERS: usize = 120;
const DONT_FRAGMENT: u8 = 0x40;

/// Takes inner packets in order and gives frames, virtio header first, to a sink.
///
/// Only neighbours are joined, so no packet overtakes another: a burst of one connection stays together all the way
/// from the sender's segmentation. A segment is joined only if its checksum holds, since the kernel will write a new
/// one.
pub struct Coalescer<'a, F: FnMut(&[IoSlice<'_>])> {
    sink: F,
    group: Option<Group<'a>>,
}

/// A TCP segment with payload and no flags but ACK and PSH.
#[derive(Clone, Copy)]
struct Segment<'a> {
    packet: &'a [u8],
    v6: bool,
    tcp: usize,
    headers: usize,
}

struct Group<'a> {
    first: Segment<'a>,
    /// Payload of each segment but the last.
    size: usize,
    len: usize,
    parts: [&'a [u8]; MAX_PARTS],
    count: usize,
    /// No more may follow: the last segment was short or pushed.
    closed: bool,
    pushed: bool,
}

impl<'a, F: FnMut(&[IoSlice<'_>])> Coalescer<'a, F> {
    /// Calls `sink` with the pieces of each frame.
    pub fn new(sink: F) -> Self {
        Coalescer { sink, group: None }
    }

    /// Takes the next packet.
    pub fn push(&mut self, packet: &'a [u8]) {
        let segment = Segment::parse(packet);
        let joined = match (&mut self.group, &segment) {
            (Some(group), Some(segment)) => group.append(segment),
            _ => false,
        };
        if joined {
            return;
        }
        self.flush();
        match segment {
            Some(segment) => self.group = Some(Group::new(segment)),
            None => (self.sink)(&[IoSlice::new(&vnet::emit(Work::None, 0)), IoSlice::new(packet)]),
        }
    }

    /// Gives away what is held back. To be called when no packet follows.
    pub fn flush(&mut self) {
        let Some(group) = self.group.take() else { return };
        let mut head = [0; VNET_HEADER + MAX_HEADERS];
        let mut pieces = [IoSlice::new(&[]); MAX_PARTS + 2];
        if group.count == 1 {
            pieces[0] = IoSlice::new(&head[..VNET_HEADER]);
            pieces[1] = IoSlice::new(group.first.packet);
            return (self.sink)(&pieces[..2]);
        }
        let headers = group.write_headers(&mut head);
        pieces[0] = IoSlice::new(&head[..headers]);
        for (piece, part) in pieces[1..].iter_mut().zip(&group.parts[..group.count]) {
            *piece = IoSlice::new(part);
        }
        (self.sink)(&pieces[..=group.count]);
    }
}

impl<'a> Segment<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let v6 = packet.first()? >> 4 == 6;
        let (tcp, protocol) = match v6 {
            true => (40, *packet.get(6)?),
            false => (usize::from(packet[0] & 15) * 4, *packet.get(9)?),
        };
        let fragment = !v6 && (packet[6] & 0x3f, packet[7]) != (0, 0);
        if protocol != PROTOCOL_TCP || fragment || inner::total_len(packet) != Some(packet.len()) {
            return None;
        }
        let header = packet.get(tcp..tcp + TCP_HEADER)?;
        let headers = tcp + usize::from(header[12] >> 4) * 4;
        let right = headers >= tcp + TCP_HEADER && headers < packet.len() && header[13] & !PSH == ACK;
        right.then_some(Segment { packet, v6, tcp, headers })
    }

    fn payload(&self) -> &'a [u8] {
        &self.packet[self.headers..]
    }

    fn flags(&self) -> u8 {
        self.packet[self.tcp + 13]
    }

    fn sequence(&self) -> u32 {
        self.word(self.tcp + 4)
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.packet[at], self.packet[at + 1], self.packet[at + 2], self.packet[at + 3]])
    }

    fn identification(&self) -> u16 {
        u16::from_be_bytes([self.packet[4], self.packet[5]])
    }

    fn pseudo_header(&self, len: usize) -> u64 {
        match (inner::source(self.packet), inner::destination(self.packet)) {
            (Some(source), Some(destination)) => checksum::pseudo_header(source, destination, PROTOCOL_TCP, len),
            _ => 0,
        }
    }

    fn checksums_hold(&self) -> bool {
        let (ip, tcp) = self.packet.split_at(self.tcp);
        let ip_holds = self.v6 || checksum::fold(checksum::sum(0, ip)) == [0xff; 2];
        ip_holds && checksum::fold(checksum::sum(self.pseudo_header(tcp.len()), tcp)) == [0xff; 2]
    }

    /// Whether both headers agree in all that one frame can say only once.
    fn alike(&self, next: &Segment<'_>, nth: usize) -> bool {
        if (self.v6, self.tcp, self.headers) != (next.v6, next.tcp, next.headers) {
            return false;
        }
        let same = |from: usize, to: usize| self.packet[from..to] == next.packet[from..to];
        let ip = match self.v6 {
            true => same(0, 4) && same(6, 40),
            false => {
                let numbered = self.packet[6] & DONT_FRAGMENT != 0
                    || next.identification() == self.identification().wrapping_add(nth as u16);
                same(0, 2) && numbered && same(6, 10) && same(12, self.tcp)
            }
        };
        let tcp = self.tcp;
        ip && same(tcp, tcp + 4)
            && same(tcp + 8, tcp + 13)
            && same(tcp + 14, tcp + TCP_CHECKSUM)
            && same(tcp + TCP_CHECKSUM + 2, self.headers)
    }
}

impl<'a> Group<'a> {
    fn new(first: Segment<'a>) -> Self {
        let pushed = first.flags() & PSH != 0;
        let mut parts = [&[][..]; MAX_PARTS];
        parts[0] = first.payload();
        let (size, len) = (first.payload().len(), first.packet.len());
        Group { first, size, len, parts, count: 1, closed: pushed, pushed }
    }

    fn append(&mut self, next: &Segment<'a>) -> bool {
        let payload = next.payload();
        let follows = self.first.sequence().wrapping_add((self.len - self.first.headers) as u32) == next.sequence();
        let fits = payload.len() <= self.size && self.len + payload.len() <= MAX_IP && self.count < MAX_PARTS;
        if self.closed || !follows || !fits || !self.first.alike(next, self.count) || !next.checksums_hold() {
            return false;
        }
        if self.count == 1 && !self.first.checksums_hold() {
            return false;
        }
        self.parts[self.count] = payload;
        self.count += 1;
        self.len += payload.len();
        self.pushed = next.flags() & PSH != 0;
        self.closed = self.pushed || payload.len() < self.size;
        true
    }

    /// Writes virtio, IP and TCP header of the whole and returns their length.
    fn write_headers(&self, head: &mut [u8; VNET_HEADER + MAX_HEADERS]) -> usize {
        let Segment { packet, v6, tcp, headers } = self.first;
        let work = Work::Tcp { v6, start: tcp, size: self.size };
        let (vnet, out) = head.split_at_mut(VNET_HEADER);
        vnet.copy_from_slice(&vnet::emit(work, headers));
        out[..headers].copy_from_slice(&packet[..headers]);
        if v6 {
            out[4..6].copy_from_slice(&((self.len - 40) as u16).to_be_bytes());
        } else {
            out[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
            out[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(0, &out[..tcp]));
            out[10..12].copy_from_slice(&sum);
        }
        if self.pushed {
            out[tcp + 13] |= PSH;
        }
        let pseudo = checksum::fold(self.first.pseudo_header(self.len - tcp));
        out[tcp + TCP_CHECKSUM..tcp + TCP_CHECKSUM + 2].copy_from_slice(&pseudo);
        VNET_HEADER + headers
    }
}
