//! Packets that rules of the firewall report (`nft log group`, `-j NFLOG`): that an endpoint did not answer, or refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Context, Result};
use crate::netlink::{Attributes, Monitor, Protocol, Request};

/// `NFNL_SUBSYS_ULOG`, in the upper half of every message type.
const SUBSYSTEM: u16 = 4 << 8;
const MSG_PACKET: u16 = SUBSYSTEM;
const MSG_CONFIG: u16 = SUBSYSTEM | 1;
/// Octets of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// Attributes of `linux/netfilter/nfnetlink_log.h`.
const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_QTHRESH: u16 = 5;
const NFULA_PAYLOAD: u16 = 9;
const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_COPY_PACKET: u8 = 2;

/// What is looked at of a packet: an IPv6 header, ICMP, the header inside and its ports.
const SNAPSHOT: u32 = 40 + 8 + 60 + 8;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A packet on its way to or from an endpoint that does not do its duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Address of the endpoint.
    pub address: IpAddr,
    /// Its protocol, by the number that IP has for it: TCP or UDP.
    pub protocol: u8,
    /// Its port.
    pub port: u16,
    /// The packet is an error of ICMP.
    pub refused: bool,
}

/// Receives what rules of this network namespace report to `group`. Without a right to, or if somebody else does, the error is `EPERM`.
pub fn monitor(group: u16) -> Result<Monitor<Report>> {
    let what = || format!("receive the packets of log group {group}");
    let monitor = Monitor::open(Protocol::Netfilter, &[], decode)?;
    let config = || {
        let mut request = Request::new(MSG_CONFIG, 0);
        request.u8(libc::AF_UNSPEC as u8).u8(0).raw(&group.to_be_bytes());
        request
    };
    let mut request = config();
    request.attribute(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]);
    monitor.request(&mut request).context(what)?;
    let mut request = config();
    let mode = [&SNAPSHOT.to_be_bytes()[..], &[NFULNL_COPY_PACKET, 0]].concat();
    // Each at once: the kernel would wait for a hundred, or a second.
    request.attribute(NFULA_CFG_MODE, &mode).attribute(NFULA_CFG_QTHRESH, &1u32.to_be_bytes());
    monitor.request(&mut request).context(what)?;
    Ok(monitor)
}

fn decode(kind: u16, body: &[u8]) -> Option<Report> {
    (kind == MSG_PACKET).then(|| Attributes::after(body, NFGENMSG).find(NFULA_PAYLOAD)).flatten().and_then(read)
}

/// Whom a packet accuses: the sender of a reset, the receiver of what an ICMP error is about, else its own receiver.
fn read(packet: &[u8]) -> Option<Report> {
    let (source, destination, protocol, payload) = split(packet)?;
    match protocol {
        TCP => {
            const RST: u8 = 4;
            let reset = payload.get(13)? & RST != 0;
            let (address, port) = if reset { (source, port(payload, 0)?) } else { (destination, port(payload, 2)?) };
            Some(Report { address, protocol, port, refused: false })
        }
        UDP => Some(Report { address: destination, protocol, port: port(payload, 2)?, refused: false }),
        ICMP | ICMPV6 => {
            let (_, address, protocol, payload) = split(payload.get(8..)?)?;
            let port = port(payload, 2)?;
            matches!(protocol, TCP | UDP).then_some(Report { address, protocol, port, refused: true })
        }
        _ => None,
    }
}

/// Source, destination, protocol and payload. Later fragments and IPv6 extension headers are nobody's call.
fn split(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet.first()? & 15) * 4;
            let fragment = u16::from_be_bytes([*packet.get(6)? & 0x1f, *packet.get(7)?]);
            let at = |range| packet.get(range).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from);
            let (source, destination) = (at(12..16)?, at(16..20)?);
            let payload = packet.get(header..).filter(|_| fragment == 0 && header >= 20)?;
            Some((source.into(), destination.into(), *packet.get(9)?, payload))
        }
        6 => {
            let at = |range| packet.get(range).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(Ipv6Addr::from);
            Some((at(8..24)?.into(), at(24..40)?.into(), *packet.get(6)?, packet.get(40..)?))
        }
        _ => None,
    }
}

fn port(payload: &[u8], at: usize) -> Option<u16> {
    payload.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let head = [0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
        [&head[..], &source, &destination, payload].concat()
    }

    fn ipv6(protocol: u8, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let address = |last: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).octets();
        [&[0x60, 0, 0, 0, 0, 0, protocol, 64][..], &address(source), &address(destination), payload].concat()
    }

    fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8], &[0x50, flags], &[0; 6]].concat()
    }

    fn report(address: &str, protocol: u8, port: u16) -> Option<Report> {
        Some(Report { address: address.parse().unwrap(), protocol, port, refused: false })
    }

    #[test]
    fn the_endpoint_is_found_in_each_direction() {
        let (client, endpoint) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let call = ipv4(TCP, client, endpoint, &tcp(40_000, 80, 2));
        assert_eq!(read(&call), report("10.0.0.2", TCP, 80));
        assert_eq!(read(&ipv4(TCP, endpoint, client, &tcp(80, 40_000, 0x14))), report("10.0.0.2", TCP, 80));
        let datagram = ipv4(UDP, client, endpoint, &[0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
        assert_eq!(read(&datagram), report("10.0.0.2", UDP, 53));
        for inner in [&call, &datagram] {
            let error = ipv4(ICMP, [10, 0, 0, 254], client, &[&[3, 3, 0, 0, 0, 0, 0, 0], &inner[..28]].concat());
            assert_eq!(read(&error), read(inner).map(|report| Report { refused: true, ..report }));
        }
        let call = ipv6(TCP, 1, 2, &tcp(40_000, 80, 2));
        assert_eq!(read(&call), report("fd00::2", TCP, 80));
        let error = ipv6(ICMPV6, 9, 1, &[&[1, 4, 0, 0, 0, 0, 0, 0], &call[..]].concat());
        assert_eq!(read(&error), report("fd00::2", TCP, 80).map(|report| Report { refused: true, ..report }));
    }

    #[test]
    fn what_is_cut_off_or_strange_says_nothing() {
        let call = ipv4(TCP, [10, 0, 0, 1], [10, 0, 0, 2], &tcp(1, 2, 2));
        for len in 0..34 {
            assert_eq!(read(&call[..len]), None, "{len}");
        }
        let mut fragment = call.clone();
        fragment[7] = 1;
        assert_eq!(read(&fragment), None);
        let mut short = call.clone();
        short[0] = 0x44;
        assert_eq!(read(&short), None);
        assert_eq!(read(&ipv4(132, [10, 0, 0, 1], [10, 0, 0, 2], &[0; 20])), None);
        assert_eq!(read(&ipv6(0, 1, 2, &[0; 20])), None);
        let mut message = Request::new(MSG_PACKET, 0);
        message.u32(0).attribute(NFULA_PAYLOAD, &call);
        assert_eq!(decode(MSG_PACKET, message.body()), read(&call));
        assert_eq!(decode(MSG_CONFIG, message.body()), None);
        assert_eq!(decode(MSG_PACKET, &message.body()[..6]), None);
    }
}
