//! Netlink messages and attributes: making and reading them, with every length checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use zeroize::Zeroize;

use super::HEADER;

/// Attribute types use 14 bits; the upper two say "nested" and "network order".
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
const ATTRIBUTE_HEADER: usize = 4;

/// A request in the making. Wiped when dropped, because it may hold a key.
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// `flags` is added to the ones every request has.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        // Large enough never to move, and so never to leave a copy of a key behind.
        let mut request = Self { bytes: Vec::with_capacity(2048) };
        request.u32(0).u16(kind).u16(flags | super::flags::REQUEST).u32(0).u32(0);
        request
    }

    /// The finished message, numbered.
    pub(super) fn finish(&mut self, sequence: u32) -> &[u8] {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.patch(0, &len.to_ne_bytes());
        self.patch(8, &sequence.to_ne_bytes());
        &self.bytes
    }

    pub(super) fn add_flags(&mut self, flags: u16) {
        let now = self.bytes.get(6..8).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes);
        self.patch(6, &(now | flags).to_ne_bytes());
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_ne_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_ne_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_ne_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// `count` zero octets, as C puts between and after a structure's fields.
    pub(crate) fn zeros(&mut self, count: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.wrap(kind, |r| {
            r.raw(value);
        })
    }

    pub(crate) fn attribute_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub(crate) fn attribute_ip(&mut self, kind: u16, ip: IpAddr) -> &mut Self {
        match ip {
            IpAddr::V4(ip) => self.attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attribute(kind, &ip.octets()),
        }
    }

    /// A text with its closing zero.
    pub(crate) fn attribute_text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.wrap(kind, |r| {
            r.raw(text.as_bytes()).u8(0);
        })
    }

    /// An attribute that holds attributes.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.wrap(kind | NESTED, fill)
    }

    /// An attribute whose value is what `fill` adds.
    pub(crate) fn wrap(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.zeros(self.bytes.len().next_multiple_of(4) - self.bytes.len());
        let start = self.bytes.len();
        self.u16(0).u16(kind);
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.patch(start, &len.to_ne_bytes());
        self.zeros(self.bytes.len().next_multiple_of(4) - self.bytes.len())
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// What follows the header.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// One message out of what the kernel sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Splits off the first message. `None` at the end and at anything malformed.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader(bytes);
        let len = reader.u32()? as usize;
        let (kind, flags, sequence) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let body = bytes.get(HEADER..len)?;
        let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((Self { kind, flags, sequence, body }, rest))
    }
}

/// Attributes of a message, in order. Ends at anything malformed.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes behind a structure of `skip` octets.
    pub(crate) fn after(body: &'a [u8], skip: usize) -> Self {
        Self(body.get(skip.next_multiple_of(4)..).unwrap_or_default())
    }

    /// The first attribute of this type.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find_map(|(k, value)| (k == kind).then_some(value))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader(self.0);
        let (len, kind) = (usize::from(reader.u16()?), reader.u16()? & TYPE_MASK);
        let value = self.0.get(ATTRIBUTE_HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A structure's fields, one after the other; `None` past the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    /// In network order.
    pub(crate) fn u16_be(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// In network order.
    pub(crate) fn u32_be(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }
}

/// An attribute's value as an integer.
pub(crate) fn u32_from(value: &[u8]) -> Option<u32> {
    Reader(value).u32()
}

/// An attribute's value as an integer.
pub(crate) fn u64_from(value: &[u8]) -> Option<u64> {
    Reader(value).u64()
}

/// An attribute's value as a text up to its closing zero.
pub(crate) fn string_from(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// An attribute's value as an address, by its length.
pub(crate) fn ip_from(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    <[u8; 16]>::try_from(value).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
}

/// An attribute's value (absent: the unspecified address of `family`) with a prefix length.
pub(crate) fn prefix_from(family: u8, value: Option<&[u8]>, len: u8) -> Option<IpNet> {
    let ip = match (value, i32::from(family)) {
        (Some(value), _) => ip_from(value)?,
        (None, libc::AF_INET) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (None, libc::AF_INET6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    IpNet::new(ip, len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut request = Request::new(0x18, 0x500);
        request.attribute(1, &[0xaa]).nested(2, |r| {
            r.attribute_u32(3, 7).attribute_text(4, "abc");
        });
        let bytes = request.finish(9).to_vec();
        let (message, rest) = Message::split(&bytes).unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (0x18, 0x501, 9));
        assert!(rest.is_empty());
        assert_eq!(bytes.len(), 16 + 8 + 4 + 8 + 8);
        let attributes = Attributes(message.body);
        assert_eq!(attributes.find(1), Some(&[0xaa][..]));
        let inner = Attributes(attributes.find(2).unwrap());
        assert_eq!(inner.find(3).and_then(u32_from), Some(7));
        assert_eq!(inner.find(4).map(string_from).as_deref(), Some("abc"));
        assert_eq!(inner.find(5), None);
    }

    #[test]
    fn attribute_after_an_odd_structure_is_aligned() {
        let mut request = Request::new(1, 0);
        request.raw(&[1, 2, 3]).attribute(5, &[9]);
        assert_eq!(Attributes::after(request.body(), 3).find(5), Some(&[9][..]));
    }

    #[test]
    fn malformed_input_ends() {
        let attribute = |len: u16| [len.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
        for len in [0, 1, 3, 5, 0xffff] {
            assert_eq!(Attributes(&attribute(len)).count(), 0, "length {len}");
        }
        assert_eq!(Attributes(&attribute(4)).collect::<Vec<_>>(), [(1, &[][..])]);
        for len in [0u32, 15, 17, u32::MAX] {
            let mut bytes = [0; HEADER];
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            assert!(Message::split(&bytes).is_none(), "length {len}");
        }
        assert!(Message::split(&[0; 8]).is_none());
    }

    #[test]
    fn addresses_by_length() {
        assert_eq!(ip_from(&[192, 0, 2, 1]), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(ip_from(&[0; 5]), None);
        assert_eq!(prefix_from(2, None, 0), Some("0.0.0.0/0".parse().unwrap()));
        assert_eq!(prefix_from(10, None, 0), Some("::/0".parse().unwrap()));
        assert_eq!(prefix_from(7, None, 0), None);
        assert_eq!(prefix_from(2, Some(&[10, 0, 0, 0]), 33), None);
    }
}
