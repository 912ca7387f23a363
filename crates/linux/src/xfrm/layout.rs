//! The structures of `linux/xfrm.h` that several messages share, field by field.
//!
//! Their 64-bit fields are aligned to 8 octets on every target (not so on 32-bit x86).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::Family;
use crate::netlink::{Reader, Request};

/// Octets of `struct xfrm_selector`.
pub(super) const SELECTOR: usize = 56;
/// Octets of `struct xfrm_usersa_info` and `struct xfrm_userpolicy_info`.
pub(super) const SA_INFO: usize = 224;
pub(super) const POLICY_INFO: usize = 168;

/// `XFRM_INF`: no limit.
pub(super) const UNLIMITED: u64 = u64::MAX;

/// `xfrm_address_t`: 16 octets, of which IPv4 uses the first four.
pub(super) fn put_address(request: &mut Request, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => request.raw(&ip.octets()).zeros(12),
        IpAddr::V6(ip) => request.raw(&ip.octets()),
    };
}

pub(super) fn address(reader: &mut Reader<'_>, family: Family) -> Option<IpAddr> {
    Some(read_address(reader.take(16)?.try_into().ok()?, family))
}

/// The same, when the family comes later in the structure.
pub(super) fn read_address(octets: [u8; 16], family: Family) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = octets;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

/// `struct xfrm_id`: destination, SPI, protocol ESP.
pub(super) fn put_id(request: &mut Request, dst: IpAddr, spi: u32) {
    put_address(request, dst);
    request.raw(&spi.to_be_bytes()).u8(libc::IPPROTO_ESP as u8).zeros(3);
}

/// `struct xfrm_selector` with all protocols and ports.
pub(super) fn put_selector(request: &mut Request, src: IpNet, dst: IpNet) {
    put_address(request, dst.network());
    put_address(request, src.network());
    request.zeros(8);
    request.u16(Family::of(dst.addr()).raw().into()).u8(dst.prefix_len()).u8(src.prefix_len());
    request.zeros(SELECTOR - 44);
}

/// Source and destination; `None` when the selector also names protocols, ports, a link or a user.
pub(super) fn selector(reader: &mut Reader<'_>) -> Option<(IpNet, IpNet)> {
    let mut fields = Reader(reader.take(SELECTOR)?);
    let dst: [u8; 16] = fields.take(16)?.try_into().ok()?;
    let src: [u8; 16] = fields.take(16)?.try_into().ok()?;
    let ports = fields.u64()?;
    let family = Family::from_raw(u8::try_from(fields.u16()?).ok()?)?;
    let (dst_len, src_len, protocol) = (fields.u8()?, fields.u8()?, fields.u8()?);
    let (_padding, link, user) = (fields.take(3)?, fields.u32()?, fields.u32()?);
    if ports != 0 || protocol != 0 || link != 0 || user != 0 {
        return None;
    }
    let prefix = |octets, len| IpNet::new(read_address(octets, family), len).ok();
    Some((prefix(src, src_len)?, prefix(dst, dst_len)?))
}
