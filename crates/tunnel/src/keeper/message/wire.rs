//! Fields of a message: integers in network order, lists and texts behind their length, everything bounds-checked.

use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use zeroize::Zeroizing;

/// A message that is cut short, too long or holds an impossible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed keeper message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

pub(super) type Result<T> = std::result::Result<T, Malformed>;

/// Appends fields; wiped on drop, because it may hold keys.
pub(super) struct Writer(pub(super) Zeroizing<Vec<u8>>);

impl Writer {
    /// With `capacity` for the whole message, so that growing leaves no copy of a key behind.
    pub(super) fn new(kind: u8, capacity: usize) -> Self {
        let mut writer = Writer(Zeroizing::new(Vec::with_capacity(capacity)));
        writer.u8(kind);
        writer
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.0.extend(value);
    }

    pub(super) fn ip(&mut self, value: IpAddr) {
        match value {
            IpAddr::V4(ip) => {
                self.u8(4);
                self.0.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(6);
                self.0.extend(ip.octets());
            }
        }
    }

    pub(super) fn socket(&mut self, value: SocketAddr) {
        self.ip(value.ip());
        self.u16(value.port());
        if let SocketAddr::V6(value) = value {
            self.u32(value.scope_id());
        }
    }

    pub(super) fn prefix(&mut self, value: IpNet) {
        self.ip(value.addr());
        self.u8(value.prefix_len());
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn list<T>(&mut self, values: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.u32(values.len() as u32);
        values.iter().for_each(|value| write(self, value));
    }
}

/// Takes fields off the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed("cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.take::<1>().map(|[value]| value)
    }

    pub(super) fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither true nor false")),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed("cut short"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Malformed("text is not UTF-8"))
    }

    pub(super) fn ip(&mut self) -> Result<IpAddr> {
        match self.u8()? {
            4 => self.take::<4>().map(IpAddr::from),
            6 => self.take::<16>().map(IpAddr::from),
            _ => Err(Malformed("unknown address family")),
        }
    }

    pub(super) fn socket(&mut self) -> Result<SocketAddr> {
        let (ip, port) = (self.ip()?, self.u16()?);
        match ip {
            IpAddr::V4(_) => Ok(SocketAddr::new(ip, port)),
            IpAddr::V6(ip) => Ok(SocketAddrV6::new(ip, port, 0, self.u32()?).into()),
        }
    }

    pub(super) fn prefix(&mut self) -> Result<IpNet> {
        let (ip, len) = (self.ip()?, self.u8()?);
        IpNet::new(ip, len).map_err(|_| Malformed("prefix too long"))
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut values = Vec::new();
        for _ in 0..self.u32()? {
            // Each item takes at least a byte, so a wrong count ends here and not in an allocation.
            values.push(read(self)?);
        }
        Ok(values)
    }

    pub(super) fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("longer than it should be")) }
    }
}
