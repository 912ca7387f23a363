//! Bytes on the wire by what they are for.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// NAT keepalive.
    Keepalive,
    /// Whether the other end lives, and that it does.
    Liveness,
    /// New keys, and the end of the old ones.
    Rekey,
    /// A new IKE SA.
    Handshake,
    /// What goes through the tunnel.
    Esp,
}

/// Packets and their bytes, IP header included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: usize,
    pub bytes: usize,
}

/// By the end of the tunnel beyond the WAN.
pub type Seen = BTreeMap<Ipv4Addr, BTreeMap<Kind, Count>>;

/// Counts on a device until it is dropped.
#[derive(Debug)]
pub struct Meter {
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

impl Meter {
    /// Starts and waits until packets are really counted.
    pub fn start(ns: &Netns, device: &str) -> Result<Self> {
        let own = ns.run(&format!("ip -4 -o address show dev {device} scope global"))?;
        let own = own.split_whitespace().find_map(|word| word.split_once('/')?.0.parse().ok());
        let own: Ipv4Addr = own.with_context(|| format!("address of {device}"))?;
        let mut command = ns.command("tcpdump");
        command.args(["--immediate-mode", "-n", "-U", "-s", "128", "-Z", "root", "-i", device, "-w", "-"]);
        command.args(["udp port 4500 or udp port 500 or esp"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("output of tcpdump")?;
        let mut stderr = BufReader::new(child.stderr.take().context("standard error of tcpdump")?);
        let seen = Arc::new(Mutex::new(Seen::new()));
        let meter = Self { child, seen: seen.clone() };
        let mut said = String::new();
        while !said.contains("listening on") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("tcpdump: {}", said.trim());
            }
        }
        std::thread::spawn(move || {
            let _ = read(BufReader::new(output), own, &seen);
        });
        Ok(meter)
    }

    /// What there was until now.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came after `before`.
pub fn difference(before: &Seen, after: &Seen) -> Seen {
    let mut seen = after.clone();
    for (remote, kinds) in &mut seen {
        for (kind, count) in kinds {
            let old = before.get(remote).and_then(|kinds| kinds.get(kind)).copied().unwrap_or_default();
            count.packets -= old.packets;
            count.bytes -= old.bytes;
        }
    }
    seen
}

/// Reads a pcap file of Ethernet frames in this machine's byte order until it ends.
fn read(mut input: impl Read, own: Ipv4Addr, seen: &Mutex<Seen>) -> std::io::Result<()> {
    input.read_exact(&mut [0; 24])?;
    let mut head = [0; 16];
    loop {
        input.read_exact(&mut head)?;
        let length = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        let mut frame = vec![0; length as usize];
        input.read_exact(&mut frame)?;
        if let Some((remote, kind, bytes)) = frame.get(14..).and_then(|packet| judge(packet, own)) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry(remote).or_default().entry(kind).or_default();
            count.packets += 1;
            count.bytes += bytes;
        }
    }
}

/// The other end, the kind and the length of an IPv4 packet.
fn judge(packet: &[u8], own: Ipv4Addr) -> Option<(Ipv4Addr, Kind, usize)> {
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let (from, to) = (address(12)?, address(16)?);
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let remote = if from == own { to } else { from };
    let head = usize::from(packet[0] & 15) * 4;
    let kind = match packet[9] {
        50 => Kind::Esp,
        _ => match packet.get(head + 8..)? {
            [0xff] => Kind::Keepalive,
            // Ethernet pads what is short.
            [0xff, ..] if total == head + 9 => Kind::Keepalive,
            [0, 0, 0, 0, ike @ ..] => of_ike(ike, total - head - 12)?,
            _ => Kind::Esp,
        },
    };
    Some((remote, kind, total))
}

/// By exchange type; an INFORMATIONAL message that holds nothing is about life.
fn of_ike(message: &[u8], length: usize) -> Option<Kind> {
    /// Header, generic header, IV, padding length, tag.
    const NOTHING: usize = 28 + 4 + 8 + 1 + 16;
    Some(match message.get(18)? {
        34 | 35 => Kind::Handshake,
        37 if length == NOTHING => Kind::Liveness,
        _ => Kind::Rekey,
    })
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keepalive => "keepalive",
            Self::Liveness => "liveness",
            Self::Rekey => "rekey",
            Self::Handshake => "handshake",
            Self::Esp => "ESP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let total = u8::try_from(28 + payload.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, total, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        packet.extend([0x11, 0x94, 0x11, 0x94, 0, 0, 0, 0]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn packets_are_told_apart() {
        let ike = |exchange: u8, length: usize| {
            let mut message = vec![0; 4 + length];
            message[4 + 18] = exchange;
            message
        };
        for (payload, kind) in [
            (vec![0xff], Kind::Keepalive),
            (ike(34, 60), Kind::Handshake),
            (ike(36, 60), Kind::Rekey),
            (ike(37, 57), Kind::Liveness),
            (ike(37, 69), Kind::Rekey),
            (vec![1; 60], Kind::Esp),
        ] {
            let packet = packet(&payload);
            for own in [[192, 0, 2, 1], [192, 0, 2, 2]].map(Ipv4Addr::from) {
                let (remote, found, bytes) = judge(&packet, own).unwrap();
                assert_eq!((found, bytes), (kind, 28 + payload.len()));
                assert!(remote != own);
            }
        }
        let mut padded = packet(&[0xff]);
        padded.resize(46, 0);
        assert_eq!(judge(&padded, [192, 0, 2, 1].into()).unwrap().1, Kind::Keepalive);
    }
}
