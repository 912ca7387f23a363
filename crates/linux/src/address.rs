//! Addresses on links.

use ipnet::IpNet;

use crate::Family;
use crate::error::{Context, Result};
use crate::netlink::{Attributes, Reader, Request, Socket, flags, prefix_from};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// Octets of `struct ifaddrmsg`.
const IFADDR: usize = 8;

/// Attributes and flags of `linux/if_addr.h`.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// Gives a link an address. Returns whether it did not have it yet.
///
/// An IPv6 address is not tested for duplicates, but the kernel puts it to use in the background: wait for the
/// [`crate::link::Event::Route`] of table 255 before relying on it. One with a full prefix (/32, /128) makes no route
/// but the local one.
pub fn add(socket: &mut Socket, index: u32, address: IpNet) -> Result<bool> {
    let mut request = encode(RTM_NEWADDR, flags::CREATE | flags::EXCL, index, address);
    request.attribute_u32(IFA_FLAGS, flags_of(address));
    match socket.request(&mut request) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(false),
        Err(e) => Err(e.context(format!("add address {address} to link #{index}"))),
    }
}

/// Takes an address from a link. Returns whether it had it.
pub fn delete(socket: &mut Socket, index: u32, address: IpNet) -> Result<bool> {
    match socket.request(&mut encode(RTM_DELADDR, 0, index, address)) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(false),
        Err(e) => Err(e.context(format!("delete address {address} of link #{index}"))),
    }
}

/// All addresses of all links: link index, and the address with its prefix length.
pub fn list(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>> {
    let mut request = Request::new(RTM_GETADDR, 0);
    request.zeros(IFADDR);
    socket
        .dump(&mut request, |kind, body| (kind == RTM_NEWADDR).then(|| decode(body)).flatten())
        .context(|| "list addresses")
}

fn flags_of(address: IpNet) -> u32 {
    let no_detection = if address.addr().is_ipv6() { IFA_F_NODAD } else { 0 };
    let no_route = if address.prefix_len() == address.max_prefix_len() { IFA_F_NOPREFIXROUTE } else { 0 };
    no_detection | no_route
}

fn encode(kind: u16, extra: u16, index: u32, address: IpNet) -> Request {
    let mut request = Request::new(kind, extra);
    request
        .u8(Family::of(address.addr()).raw())
        .u8(address.prefix_len())
        .zeros(2)
        .u32(index)
        .attribute_ip(IFA_LOCAL, address.addr())
        .attribute_ip(IFA_ADDRESS, address.addr());
    request
}

fn decode(body: &[u8]) -> Option<(u32, IpNet)> {
    let mut head = Reader(body);
    let (family, len, _, index) = (head.u8()?, head.u8()?, head.take(2)?, head.u32()?);
    let attributes = Attributes::after(body, IFADDR);
    // On a point-to-point link IFA_ADDRESS is the other end's.
    let own = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?;
    Some((index, prefix_from(family, Some(own), len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in ["10.1.0.1/24", "2001:db8::1/128"] {
            let address: IpNet = text.parse().unwrap();
            let request = encode(RTM_NEWADDR, 0, 3, address);
            assert_eq!(decode(request.body()), Some((3, address)));
            assert_eq!(decode(&request.body()[..7]), None);
        }
    }

    #[test]
    fn flags_by_family_and_length() {
        let flags = |text: &str| flags_of(text.parse().unwrap());
        assert_eq!(flags("10.1.0.1/24"), 0);
        assert_eq!(flags("169.254.20.10/32"), IFA_F_NOPREFIXROUTE);
        assert_eq!(flags("2001:db8::1/64"), IFA_F_NODAD);
        assert_eq!(flags("2001:db8::1/128"), IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
    }

    #[test]
    fn own_end_of_a_point_to_point_link() {
        let mut request = Request::new(RTM_NEWADDR, 0);
        request
            .u8(2)
            .u8(32)
            .zeros(2)
            .u32(3)
            .attribute(IFA_ADDRESS, &[10, 0, 0, 2])
            .attribute(IFA_LOCAL, &[10, 0, 0, 1]);
        assert_eq!(decode(request.body()), Some((3, "10.0.0.1/32".parse().unwrap())));
    }
}
