//! The little of the inner IP header that tunnel mode needs: version, addresses, total length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Next header values of tunnel mode (RFC 4303 section 2.6).
pub(crate) const NEXT_IPV4: u8 = 4;
pub(crate) const NEXT_IPV6: u8 = 41;
/// "No next header": a dummy packet, made only to hide how much is said.
pub(crate) const NEXT_NONE: u8 = 59;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// The next header that announces `packet`; `None` if it is neither IPv4 nor IPv6 or cut short.
pub(crate) fn next_header(packet: &[u8]) -> Option<u8> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER => Some(NEXT_IPV4),
        6 if packet.len() >= IPV6_HEADER => Some(NEXT_IPV6),
        _ => None,
    }
}

/// The packet's own length; `None` if its header contradicts itself or claims more than there is.
pub(crate) fn total_len(packet: &[u8]) -> Option<usize> {
    let (len, header) = match next_header(packet)? {
        NEXT_IPV4 => (be16(packet, 2)?, usize::from(packet[0] & 15) * 4),
        _ => (be16(packet, 4)? + IPV6_HEADER, IPV6_HEADER),
    };
    (header >= IPV4_HEADER && len >= header && len <= packet.len()).then_some(len)
}

/// Source address of an IP packet.
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 12, 8)
}

/// Destination address of an IP packet.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 16, 24)
}

fn address(packet: &[u8], at_v4: usize, at_v6: usize) -> Option<IpAddr> {
    Some(match next_header(packet)? {
        NEXT_IPV4 => Ipv4Addr::from(*packet.get(at_v4..)?.first_chunk::<4>()?).into(),
        _ => Ipv6Addr::from(*packet.get(at_v6..)?.first_chunk::<16>()?).into(),
    })
}

fn be16(packet: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?).into())
}
