//! Cutting a frame of the TUN device into packets that are complete in themselves.

use super::vnet::{self, Work};
use super::{CWR, FIN, PROTOCOL_TCP, PSH, TCP_CHECKSUM, TCP_HEADER, checksum};
use crate::inner;

/// The packets of one frame, written out one by one.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    work: Work,
    /// Of all headers together; 0 for a packet that stays whole.
    headers: usize,
    /// Pseudo header without its length.
    pseudo: u64,
    /// Payload written so far.
    done: usize,
    index: u16,
    finished: bool,
}

impl<'a> Segments<'a> {
    /// Reads a frame, virtio header first; `None` if its fields contradict the packet or ask for what was not
    /// offered.
    pub fn new(frame: &'a [u8]) -> Option<Self> {
        let (work, packet) = vnet::parse(frame)?;
        let mut segments = Segments { packet, work, headers: 0, pseudo: 0, done: 0, index: 0, finished: false };
        match work {
            Work::None => {}
            Work::Checksum { start, offset } => {
                packet.get(start + offset..start + offset + 2)?;
            }
            Work::Tcp { v6, start, .. } => {
                let least = if v6 { 40 } else { 20 };
                let ipv4_header = usize::from(*packet.first()? & 15) * 4;
                let tcp = packet.get(start..)?;
                let tcp_header = usize::from(*tcp.get(12)? >> 4) * 4;
                let version = packet[0] >> 4 == if v6 { 6 } else { 4 };
                let right = version && start >= least && (v6 || ipv4_header == start) && tcp_header >= TCP_HEADER;
                if !right || tcp.len() <= tcp_header {
                    return None;
                }
                segments.headers = start + tcp_header;
                let (source, destination) = (inner::source(packet)?, inner::destination(packet)?);
                segments.pseudo = checksum::pseudo_header(source, destination, PROTOCOL_TCP, 0);
            }
        }
        Some(segments)
    }

    /// The packet as it came; its addresses are those of all segments.
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// Length of the next packet; `None` when all are written.
    pub fn next_len(&self) -> Option<usize> {
        match self.work {
            _ if self.finished => None,
            Work::Tcp { size, .. } => Some(self.headers + size.min(self.packet.len() - self.headers - self.done)),
            _ => Some(self.packet.len()),
        }
    }

    /// Writes the next packet to the start of `out` and returns its length; `None` when all are written or `out` is
    /// shorter than [`next_len`](Self::next_len).
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..self.next_len()?)?;
        match self.work {
            Work::None => self.copy_whole(out),
            Work::Checksum { start, offset } => {
                self.copy_whole(out);
                let mut sum = checksum::finish(checksum::sum(0, &out[start..]));
                // Only UDP gives zero a meaning of its own ("no checksum"), and ones are as good for all.
                if sum == [0; 2] {
                    sum = [0xff; 2];
                }
                out[start + offset..start + offset + 2].copy_from_slice(&sum);
            }
            Work::Tcp { v6, start, .. } => self.write_segment(v6, start, out),
        }
        Some(out.len())
    }

    fn copy_whole(&mut self, out: &mut [u8]) {
        out.copy_from_slice(self.packet);
        self.finished = true;
    }

    fn write_segment(&mut self, v6: bool, start: usize, out: &mut [u8]) {
        let (headers, payload) = out.split_at_mut(self.headers);
        let from = self.headers + self.done;
        headers.copy_from_slice(&self.packet[..self.headers]);
        payload.copy_from_slice(&self.packet[from..from + payload.len()]);
        let last = from + payload.len() == self.packet.len();

        let (ip, tcp) = headers.split_at_mut(start);
        let tcp_len = tcp.len() + payload.len();
        if v6 {
            ip[4..6].copy_from_slice(&((start - 40 + tcp_len) as u16).to_be_bytes());
        } else {
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(self.index);
            ip[2..4].copy_from_slice(&((start + tcp_len) as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(0, ip));
            ip[10..12].copy_from_slice(&sum);
        }
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(self.done as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if !last {
            tcp[13] &= !(FIN | PSH);
        }
        if self.done > 0 {
            tcp[13] &= !CWR;
        }
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        let length = checksum::sum(self.pseudo, &(tcp_len as u32).to_be_bytes());
        let sum = checksum::finish(checksum::sum(checksum::sum(length, tcp), payload));
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum);

        self.done += payload.len();
        self.index = self.index.wrapping_add(1);
        self.finished = last;
    }
}
