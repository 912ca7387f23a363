//! A capture by `tcpdump`, and what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::netdevice::name_to_index;
use rustix::process::Signal;

use crate::netns::{Netns, kill};
use crate::server::MARKER;

/// Stands in the packet that is sent last: once it is seen, so is everything before it.
const END: &[u8] = b"selvedge-lab-end-of-capture";

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    reader: Option<JoinHandle<Result<Verdict>>>,
    ended: Receiver<()>,
    device: UdpSocket,
    all_nodes: SocketAddrV6,
}

impl Capture {
    /// Starts and waits until packets are really taken. They are also written to `path`, for reading by people.
    pub fn start(ns: &Netns, device: &str, path: &Path) -> Result<Self> {
        let mut command = ns.command("tcpdump");
        // Immediately, so that nothing waits in a buffer; and only so much of each packet that many fit into the ring.
        let ring = ring(&std::fs::read_to_string("/proc/meminfo")?).to_string();
        command.args(["--immediate-mode", "-n", "-U", "-s", "2048", "-B", &ring, "-Z", "root"]);
        command.args(["-i", device, "-w", "-"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().context("standard error of tcpdump")?);
        let mut said = String::new();
        while !said.contains("listening on") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("tcpdump: {}", said.trim());
            }
        }
        let (socket, index) = ns.enter(|| {
            let socket = UdpSocket::bind("[::]:0")?;
            let index = name_to_index(&socket, device)?;
            Ok((socket, index))
        })?;
        let output = child.stdout.take().context("output of tcpdump")?;
        let (copy, (tell, ended)) = (File::create(path)?, channel());
        let reader = Some(std::thread::spawn(move || read(output, copy, &tell)));
        let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 9, 0, index);
        Ok(Self { child, stderr, reader, ended, device: socket, all_nodes })
    }

    /// Ends it; what it saw until now.
    pub fn stop(mut self) -> Result<Verdict> {
        self.device.send_to(END, self.all_nodes).context("send the last packet")?;
        let seen = self.ended.recv_timeout(crate::pace::limit(Duration::from_secs(10)));
        kill(self.child.id(), Signal::INT);
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        self.child.wait()?;
        let verdict = self.reader.take().map(JoinHandle::join);
        ensure!(said.contains("\n0 packets dropped by kernel"), "tcpdump lost packets: {}", said.trim());
        seen.context("the last packet was not captured")?;
        match verdict {
            Some(Ok(verdict)) => verdict,
            _ => bail!("the reader of tcpdump panicked"),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// KiB of packets that wait to be read, by `/proc/meminfo`: an emulated machine has less memory, and sends less.
fn ring(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    u64::clamp(available / 8, 16 << 10, 64 << 10)
}

/// Reads a pcap file of Ethernet frames in this machine's byte order as it grows.
fn read(output: ChildStdout, mut copy: impl Write, ended: &Sender<()>) -> Result<Verdict> {
    let mut input = BufReader::new(output);
    let mut head = [0; 24];
    input.read_exact(&mut head).context("head of the capture")?;
    copy.write_all(&head)?;
    ensure!(word(&head, 0) == Some(0xa1b2_c3d4), "not a pcap file");
    ensure!(word(&head, 20) == Some(1), "not a capture of Ethernet frames");
    let mut verdict = Verdict::default();
    let mut head = [0; 16];
    loop {
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(verdict),
            other => other?,
        }
        let mut frame = vec![0; word(&head, 8).unwrap_or_default() as usize];
        input.read_exact(&mut frame).context("capture ends within a packet")?;
        copy.write_all(&head)?;
        copy.write_all(&frame)?;
        if frame.windows(END.len()).any(|window| window == END) {
            // Nobody may wait for it any more.
            let _ = ended.send(());
        } else {
            verdict.add(&frame);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What a capture holds.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Packets by kind: `ARP`, `ND`, `UDP 4500`, `UDP 500`, `ESP`, or the description of one.
    pub kinds: BTreeMap<String, u64>,
    /// Descriptions of packets that carry the marker in plain text.
    pub plain: Vec<String>,
    fragments: BTreeMap<(IpAddr, IpAddr, u16), String>,
}

/// Kinds that may stand on a wire between sites. `ICMP` is that about one of the others: nobody listens there.
const SEALED: [&str; 6] = ["ARP", "ND", "UDP 500", "UDP 4500", "ESP", "ICMP"];

impl Verdict {
    /// Packets of a kind that ought not to be there, `expected` hosts apart.
    pub fn unexpected(&self, expected: &[&str]) -> BTreeSet<&str> {
        let known = |kind: &str| SEALED.contains(&kind) || expected.iter().any(|host| kind.contains(host));
        self.kinds.keys().map(String::as_str).filter(|kind| !known(kind)).collect()
    }

    /// Packets that carry the marker, `expected` hosts apart.
    pub fn plain_text(&self, expected: &[&str]) -> Vec<&str> {
        let known = |packet: &str| expected.iter().any(|host| packet.contains(host));
        self.plain.iter().map(String::as_str).filter(|packet| !known(packet)).collect()
    }

    /// Leaves out what comes from addresses that begin like one of these.
    pub fn ignore_from(&mut self, senders: &[&str]) {
        let ignored = |kind: &str| {
            let sender = kind.split_once(" > ").and_then(|(before, _)| before.rsplit(' ').next());
            sender.is_some_and(|sender| senders.iter().any(|prefix| sender.starts_with(prefix)))
        };
        self.kinds.retain(|kind, _| !ignored(kind));
        self.plain.retain(|kind| !ignored(kind));
    }

    /// One line: how many of what.
    pub fn summary(&self) -> String {
        let of = |kind: &&str| self.kinds.get(*kind).map(|count| format!("{count} {kind}"));
        let mut parts: Vec<String> = SEALED.iter().filter_map(of).collect();
        let others: u64 = self.kinds.iter().filter(|(k, _)| !SEALED.contains(&k.as_str())).map(|(_, n)| n).sum();
        if others > 0 {
            parts.push(format!("{others} others"));
        }
        parts.join(", ")
    }

    fn add(&mut self, frame: &[u8]) {
        let packet = frame.get(14..).unwrap_or_default();
        let kind = match frame.get(12..14) {
            Some([0x08, 0x06]) => "ARP".to_owned(),
            Some([0x08, 0x00]) => self.ipv4(packet).unwrap_or_else(|| "short IPv4".to_owned()),
            Some([0x86, 0xdd]) => ipv6(packet).unwrap_or_else(|| "short IPv6".to_owned()),
            other => format!("Ethernet type {other:02x?}"),
        };
        if frame.windows(MARKER.len()).any(|window| window == MARKER.as_bytes()) {
            self.plain.push(kind.clone());
        }
        *self.kinds.entry(kind).or_default() += 1;
    }

    fn ipv4(&mut self, packet: &[u8]) -> Option<String> {
        let address = |at: usize| -> Option<IpAddr> {
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?).into())
        };
        let (from, to) = (address(12)?, address(16)?);
        let id = u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]);
        let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]);
        if fragment & 0x1fff != 0 {
            let kind = self.fragments.get(&(from, to, id)).cloned();
            return Some(kind.unwrap_or_else(|| format!("stray fragment {from} > {to}")));
        }
        let kind = transport(packet.get(usize::from(packet[0] & 15) * 4..)?, packet[9], from, to)?;
        if fragment & 0x2000 != 0 {
            self.fragments.insert((from, to, id), kind.clone());
        }
        Some(kind)
    }
}

fn ipv6(packet: &[u8]) -> Option<String> {
    let address = |at: usize| -> Option<IpAddr> {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).into())
    };
    let (from, to) = (address(8)?, address(24)?);
    let (mut next, mut at) = (packet[6], 40);
    if next == 0 {
        // Hop-by-hop options, as multicast listener reports carry them.
        next = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    match (next, packet.get(at)) {
        (58, Some(130..=137 | 143)) => Some("ND".to_owned()),
        _ => transport(packet.get(at..)?, next, from, to),
    }
}

fn transport(segment: &[u8], protocol: u8, from: IpAddr, to: IpAddr) -> Option<String> {
    let port = |at: usize| -> Option<u16> { Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?])) };
    Some(match protocol {
        50 => "ESP".to_owned(),
        17 => {
            let ports = (port(0)?, port(2)?);
            match [4500, 500].into_iter().find(|p| *p == ports.0 || *p == ports.1) {
                Some(port) => format!("UDP {port}"),
                None => format!("UDP {from}:{} > {to}:{}", ports.0, ports.1),
            }
        }
        6 => format!("TCP {from} > {to}"),
        // Destination unreachable, and what came with it.
        1 if segment.first() == Some(&3) && segment.get(8).is_some_and(|version| version >> 4 == 4) => {
            let inner = segment.get(8..)?;
            let address = |at: usize| -> Option<IpAddr> {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(inner.get(at..at + 4)?).ok()?).into())
            };
            let payload = inner.get(usize::from(inner[0] & 15) * 4..)?;
            match transport(payload, *inner.get(9)?, address(12)?, address(16)?)? {
                kind if SEALED.contains(&kind.as_str()) => "ICMP".to_owned(),
                kind => format!("ICMP about {kind}"),
            }
        }
        1 | 58 => format!("ICMP type {} {from} > {to}", segment.first()?),
        other => format!("IP protocol {other} {from} > {to}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend([8, 0, 0x45, 0, 0, 0, 0, 9]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn there_is_as_much_room_as_memory_allows() {
        let of = |kib: u64| ring(&format!("MemTotal:       9 kB\nMemAvailable:   {kib} kB\n"));
        assert_eq!([of(20 << 20), of(300 << 10), of(1), ring("")], [65536, 38400, 16384, 16384]);
    }

    #[test]
    fn sealed_packets_are_expected_and_others_are_named() {
        let mut verdict = Verdict::default();
        verdict.add(&frame(17, 0x2000, &[0x11, 0x94, 0x30, 0x39, 0, 8, 0, 0]));
        verdict.add(&frame(17, 100, b"rest"));
        verdict.add(&frame(50, 0, b"secret"));
        assert!(verdict.unexpected(&[]).is_empty());
        verdict.add(&frame(6, 0, MARKER.as_bytes()));
        verdict.add(&frame(17, 0, &[0, 53, 0, 53, 0, 8, 0, 0]));
        let unexpected: Vec<_> = verdict.unexpected(&[]).into_iter().collect();
        assert_eq!(unexpected, ["TCP 192.0.2.1 > 192.0.2.2", "UDP 192.0.2.1:53 > 192.0.2.2:53"]);
        assert_eq!(verdict.plain_text(&[]), ["TCP 192.0.2.1 > 192.0.2.2"]);
        assert!(verdict.plain_text(&["192.0.2.1"]).is_empty());
        assert_eq!(verdict.summary(), "2 UDP 4500, 1 ESP, 2 others");
        verdict.ignore_from(&["192.0.2.2"]);
        assert_eq!(verdict.unexpected(&[]).len(), 2);
        verdict.ignore_from(&["192.0.2.1"]);
        assert!(verdict.unexpected(&[]).is_empty() && verdict.plain_text(&[]).is_empty());
    }

    #[test]
    fn errors_are_as_good_as_what_they_are_about() {
        let about = |protocol: u8| {
            let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
            icmp.extend(&frame(protocol, 0, &[0x11, 0x94, 0x11, 0x94, 0, 8, 0, 0])[14..]);
            frame(1, 0, &icmp)
        };
        let mut verdict = Verdict::default();
        verdict.add(&about(17));
        assert!(verdict.unexpected(&[]).is_empty(), "{:?}", verdict.kinds);
        verdict.add(&about(6));
        assert_eq!(verdict.unexpected(&[]).into_iter().collect::<Vec<_>>(), ["ICMP about TCP 192.0.2.1 > 192.0.2.2"]);
    }

    #[test]
    fn a_marker_in_udp_4500_is_plain_text() {
        let mut verdict = Verdict::default();
        let mut datagram = vec![0x11, 0x94, 0x11, 0x94, 0, 0, 0, 0];
        datagram.extend(MARKER.as_bytes());
        verdict.add(&frame(17, 0, &datagram));
        assert_eq!(verdict.plain_text(&[]), ["UDP 4500"]);
    }
}
