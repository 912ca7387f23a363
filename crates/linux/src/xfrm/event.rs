//! What the kernel tells about SAs.

use std::net::{IpAddr, SocketAddr};

use super::layout::{SA_INFO, address, read_address};
use super::sa::decode_info;
use crate::Family;
use crate::error::Result;
use crate::netlink::{Monitor, Protocol, Reader};

const XFRM_MSG_EXPIRE: u16 = 0x18;
const XFRM_MSG_MAPPING: u16 = 0x26;

/// Multicast groups.
const XFRMNLGRP_EXPIRE: i32 = 2;
const XFRMNLGRP_MAPPING: i32 = 8;

/// An event of an ESP SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A limit is reached.
    Expire {
        /// The SA's outer destination.
        dst: IpAddr,
        /// The SA.
        spi: u32,
        /// Its reqid.
        reqid: u32,
        /// The kernel has removed it.
        hard: bool,
    },
    /// Authenticated ESP in UDP came from another address or port than the SA has.
    Mapping {
        /// The SA.
        spi: u32,
        /// Its reqid.
        reqid: u32,
        /// What the SA has.
        old: SocketAddr,
        /// Where the packet came from.
        new: SocketAddr,
    },
}

/// Watches the SAs of this network namespace.
pub fn monitor() -> Result<Monitor<Event>> {
    Monitor::open(Protocol::Xfrm, &[XFRMNLGRP_EXPIRE, XFRMNLGRP_MAPPING], decode)
}

fn decode(kind: u16, body: &[u8]) -> Option<Event> {
    match kind {
        XFRM_MSG_EXPIRE => {
            let info = decode_info(body)?;
            let hard = *body.get(SA_INFO)? != 0;
            Some(Event::Expire { dst: info.dst, spi: info.spi, reqid: info.reqid, hard })
        }
        XFRM_MSG_MAPPING => decode_mapping(body),
        _ => None,
    }
}

/// `struct xfrm_user_mapping`.
fn decode_mapping(body: &[u8]) -> Option<Event> {
    let mut fields = Reader(body);
    let (_dst, spi) = (fields.take(16)?, fields.u32_be()?);
    let family = Family::from_raw(u8::try_from(fields.u16()?).ok()?)?;
    let (_protocol, _, reqid) = (fields.u8()?, fields.u8()?, fields.u32()?);
    let old = fields.take(16)?.try_into().ok()?;
    let new = address(&mut fields, family)?;
    let (old_port, new_port) = (fields.u16_be()?, fields.u16_be()?);
    let old = SocketAddr::new(read_address(old, family), old_port);
    Some(Event::Mapping { spi, reqid, old, new: SocketAddr::new(new, new_port) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Request;
    use crate::xfrm::layout::{put_address, put_id};

    #[test]
    fn mapping() {
        let mut request = Request::new(XFRM_MSG_MAPPING, 0);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        put_address(&mut request, ip("192.0.2.9"));
        request.raw(&[1, 2, 3, 4]).u16(2).u8(50).u8(0).u32(77);
        put_address(&mut request, ip("192.0.2.1"));
        put_address(&mut request, ip("198.51.100.1"));
        request.raw(&4500u16.to_be_bytes()).raw(&61_000u16.to_be_bytes());
        assert_eq!(request.body().len(), 64);
        let expected = Event::Mapping {
            spi: 0x0102_0304,
            reqid: 77,
            old: "192.0.2.1:4500".parse().unwrap(),
            new: "198.51.100.1:61000".parse().unwrap(),
        };
        assert_eq!(decode(XFRM_MSG_MAPPING, request.body()), Some(expected));
        for len in 0..64 {
            assert_eq!(decode(XFRM_MSG_MAPPING, &request.body()[..len]), None);
        }
    }

    #[test]
    fn expire() {
        let mut request = Request::new(XFRM_MSG_EXPIRE, 0);
        request.zeros(56);
        put_id(&mut request, "192.0.2.9".parse().unwrap(), 0x0102_0304);
        request.zeros(208 - 80).u32(77).u16(2).zeros(10).u8(1).zeros(7);
        assert_eq!(request.body().len(), SA_INFO + 8);
        let dst = "192.0.2.9".parse().unwrap();
        let expected = Event::Expire { dst, spi: 0x0102_0304, reqid: 77, hard: true };
        assert_eq!(decode(XFRM_MSG_EXPIRE, request.body()), Some(expected));
        assert_eq!(decode(XFRM_MSG_EXPIRE, &request.body()[..SA_INFO]), None);
        assert_eq!(decode(0x10, request.body()), None);
    }
}
