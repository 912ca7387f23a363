//! Security associations.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use zeroize::Zeroizing;

use super::layout::{SA_INFO, SELECTOR, UNLIMITED, address, put_address, put_id, read_address};
use crate::Family;
use crate::error::{Context, Error, Result};
use crate::netlink::{Attributes, Reader, Request, Socket, string_from, u64_from};

const XFRM_MSG_NEWSA: u16 = 0x10;
const XFRM_MSG_DELSA: u16 = 0x11;
const XFRM_MSG_GETSA: u16 = 0x12;
const XFRM_MSG_UPDSA: u16 = 0x1a;

const XFRMA_ENCAP: u16 = 4;
const XFRMA_LASTUSED: u16 = 15;
const XFRMA_ALG_AEAD: u16 = 18;
const XFRMA_REPLAY_ESN_VAL: u16 = 23;
const XFRMA_PROTO: u16 = 25;

const XFRM_MODE_TUNNEL: u8 = 1;
/// The SA carries both IPv4 and IPv6 inside.
const XFRM_STATE_AF_UNSPEC: u8 = 32;
const UDP_ENCAP_ESPINUDP: u16 = 2;
/// All AEADs here have a tag of 16 octets.
const ICV_BITS: u32 = 128;
/// The largest window the field of `xfrm_usersa_info` can say, and the largest the kernel has.
const SMALL_WINDOW: u32 = 32;
const MAX_WINDOW: u32 = 4096;

/// A security association in one direction: ESP, tunnel mode, inner packets of both families.
#[derive(Debug, Clone)]
pub struct Sa {
    /// The outer source.
    pub src: IpAddr,
    /// The outer destination.
    pub dst: IpAddr,
    /// The SPI; with `dst` it names the SA.
    pub spi: u32,
    /// What ties it to policies.
    pub reqid: u32,
    /// Cipher and key.
    pub aead: Aead,
    /// ESP in UDP.
    pub encap: Option<Encap>,
    /// Packets that may be late, 0 to 4096. Outbound 0.
    pub replay_window: u32,
    /// When to tell, and when to end.
    pub limits: Limits,
}

/// A cipher with its key.
#[derive(Clone)]
pub struct Aead {
    /// The cipher.
    pub algorithm: Algorithm,
    /// The key, followed by the salt of 4 octets: 20 or 36 octets for AES, 36 for ChaCha20.
    pub key: Zeroizing<Vec<u8>>,
}

/// The kernel's ciphers for ESP that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 4106; the key's length tells 128 from 256 bits.
    AesGcm,
    /// RFC 7634.
    ChaCha20Poly1305,
}

/// UDP ports of ESP in UDP (RFC 3948), as they are in the packets of this SA: inbound, the destination is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encap {
    /// The source port.
    pub sport: u16,
    /// The destination port.
    pub dport: u16,
}

/// Limits of an SA. At a soft one the kernel sends [`super::Event::Expire`]; at a hard one it also removes the SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Octets.
    pub soft_bytes: Option<u64>,
    /// Octets.
    pub hard_bytes: Option<u64>,
    /// Packets.
    pub soft_packets: Option<u64>,
    /// Packets.
    pub hard_packets: Option<u64>,
    /// Seconds since it was added.
    pub soft_seconds: Option<u64>,
    /// Seconds since it was added.
    pub hard_seconds: Option<u64>,
}

/// An SA as the kernel tells about it, without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaInfo {
    /// The outer source.
    pub src: IpAddr,
    /// The outer destination.
    pub dst: IpAddr,
    /// The SPI.
    pub spi: u32,
    /// What ties it to policies.
    pub reqid: u32,
    /// The kernel's name of the AEAD, `None` for other kinds.
    pub algorithm: Option<String>,
    /// ESP in UDP.
    pub encap: Option<Encap>,
    /// Packets that may be late.
    pub replay_window: u32,
    /// The limits.
    pub limits: Limits,
    /// Octets carried.
    pub bytes: u64,
    /// Packets carried.
    pub packets: u64,
    /// When it was added, seconds since 1970.
    pub added: u64,
    /// When it was first used, seconds since 1970; 0: never.
    pub first_used: u64,
    /// When it was last used, seconds since 1970, where the kernel tells.
    pub last_used: Option<u64>,
    /// Packets refused.
    pub errors: Errors,
}

/// Packets an inbound SA refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Errors {
    /// Older than the window.
    pub too_late: u32,
    /// Seen before.
    pub replayed: u32,
    /// Wrong tag.
    pub forged: u32,
}

impl fmt::Debug for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} bits)", self.algorithm, self.key.len() * 8)
    }
}

impl Algorithm {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "rfc4106(gcm(aes))",
            Self::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
        }
    }
}

/// Adds an SA. One with the same destination and SPI gives `EEXIST`.
pub fn add(socket: &mut Socket, sa: &Sa) -> Result<()> {
    let what = || format!("add SA {:#010x} to {}", sa.spi, sa.dst);
    socket.request(&mut encode(XFRM_MSG_NEWSA, sa).context(what)?).context(what)
}

/// Changes the limits and the UDP ports of an SA. Key, replay window and outer addresses stay as they are.
pub fn update(socket: &mut Socket, sa: &Sa) -> Result<()> {
    let what = || format!("update SA {:#010x} to {}", sa.spi, sa.dst);
    socket.request(&mut encode(XFRM_MSG_UPDSA, sa).context(what)?).context(what)
}

/// Removes an SA. Returns whether it was there.
pub fn delete(socket: &mut Socket, dst: IpAddr, spi: u32) -> Result<bool> {
    match socket.request(&mut name(XFRM_MSG_DELSA, dst, spi)) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(libc::ESRCH) => Ok(false),
        Err(e) => Err(e.context(format!("delete SA {spi:#010x} to {dst}"))),
    }
}

/// One SA with its counters.
pub fn get(socket: &mut Socket, dst: IpAddr, spi: u32) -> Result<Option<SaInfo>> {
    match socket.get(&mut name(XFRM_MSG_GETSA, dst, spi), decode) {
        Ok(found) => Ok(found.into_iter().next()),
        Err(e) if e.errno() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e.context(format!("read SA {spi:#010x} to {dst}"))),
    }
}

/// All ESP SAs of this network namespace, whoever made them.
pub fn list(socket: &mut Socket) -> Result<Vec<SaInfo>> {
    let mut request = Request::new(XFRM_MSG_GETSA, 0);
    request.attribute(XFRMA_PROTO, &[libc::IPPROTO_ESP as u8]);
    socket.dump(&mut request, decode).context(|| "list SAs")
}

/// Removes all SAs whose reqid is in the range. Returns how many there were.
pub fn flush(socket: &mut Socket, reqids: RangeInclusive<u32>) -> Result<usize> {
    let mut count = 0;
    for sa in list(socket)?.iter().filter(|sa| reqids.contains(&sa.reqid)) {
        count += usize::from(delete(socket, sa.dst, sa.spi)?);
    }
    Ok(count)
}

fn encode(kind: u16, sa: &Sa) -> Result<Request> {
    let family = Family::of(sa.dst);
    if family != Family::of(sa.src) {
        return Err(Error::new(format!("{} and {} are of different families", sa.src, sa.dst)));
    }
    if sa.replay_window > MAX_WINDOW {
        return Err(Error::new(format!("replay window {} is over {MAX_WINDOW}", sa.replay_window)));
    }
    let large = sa.replay_window > SMALL_WINDOW;
    let small_window = if large { 0 } else { sa.replay_window as u8 };
    let mut request = Request::new(kind, 0);
    // struct xfrm_usersa_info
    request.zeros(SELECTOR);
    put_id(&mut request, sa.dst, sa.spi);
    put_address(&mut request, sa.src);
    put_limits(&mut request, &sa.limits);
    request.zeros(32 + 12).u32(0).u32(sa.reqid);
    request.u16(family.raw().into()).u8(XFRM_MODE_TUNNEL).u8(small_window).u8(XFRM_STATE_AF_UNSPEC).zeros(7);
    // struct xfrm_algo_aead
    request.wrap(XFRMA_ALG_AEAD, |r| {
        let name = sa.aead.algorithm.name().as_bytes();
        r.raw(name).zeros(64 - name.len()).u32(sa.aead.key.len() as u32 * 8).u32(ICV_BITS).raw(&sa.aead.key);
    });
    if let Some(encap) = sa.encap {
        // struct xfrm_encap_tmpl
        request.wrap(XFRMA_ENCAP, |r| {
            r.u16(UDP_ENCAP_ESPINUDP).raw(&encap.sport.to_be_bytes()).raw(&encap.dport.to_be_bytes()).zeros(2 + 16);
        });
    }
    if large {
        // struct xfrm_replay_state_esn; without XFRM_STATE_ESN it is just a larger bitmap.
        let words = sa.replay_window.div_ceil(32);
        request.wrap(XFRMA_REPLAY_ESN_VAL, |r| {
            r.u32(words).zeros(16).u32(sa.replay_window).zeros(words as usize * 4);
        });
    }
    Ok(request)
}

/// `struct xfrm_lifetime_cfg`, in which no limit is the largest number, but 0 for time.
fn put_limits(request: &mut Request, limits: &Limits) {
    for limit in [limits.soft_bytes, limits.hard_bytes, limits.soft_packets, limits.hard_packets] {
        request.u64(limit.unwrap_or(UNLIMITED));
    }
    for limit in [limits.soft_seconds, limits.hard_seconds] {
        request.u64(limit.unwrap_or(0));
    }
    request.zeros(16);
}

/// A request with `struct xfrm_usersa_id`.
fn name(kind: u16, dst: IpAddr, spi: u32) -> Request {
    let mut request = Request::new(kind, 0);
    put_address(&mut request, dst);
    request.raw(&spi.to_be_bytes()).u16(Family::of(dst).raw().into()).u8(libc::IPPROTO_ESP as u8).zeros(1);
    request
}

/// `struct xfrm_usersa_info` and its attributes; `None` for anything but ESP.
pub(super) fn decode(kind: u16, body: &[u8]) -> Option<SaInfo> {
    if kind != XFRM_MSG_NEWSA {
        return None;
    }
    let mut info = decode_info(body)?;
    let attributes = Attributes::after(body, SA_INFO);
    info.algorithm = attributes.find(XFRMA_ALG_AEAD).and_then(|value| value.get(..64)).map(string_from);
    info.last_used = attributes.find(XFRMA_LASTUSED).and_then(u64_from);
    info.encap = attributes.find(XFRMA_ENCAP).and_then(|value| {
        let mut fields = Reader(value);
        let (_kind, sport, dport) = (fields.u16()?, fields.u16_be()?, fields.u16_be()?);
        Some(Encap { sport, dport })
    });
    if let Some(value) = attributes.find(XFRMA_REPLAY_ESN_VAL) {
        let mut fields = Reader(value);
        fields.take(20)?;
        info.replay_window = fields.u32()?;
    }
    Some(info)
}

pub(super) fn decode_info(body: &[u8]) -> Option<SaInfo> {
    let mut fields = Reader(body.get(..SA_INFO)?);
    fields.take(SELECTOR)?;
    let dst: [u8; 16] = fields.take(16)?.try_into().ok()?;
    let (spi, protocol, _) = (fields.u32_be()?, fields.u8()?, fields.take(3)?);
    let mut src = Reader(fields.take(16)?);
    let mut number = || fields.u64();
    let soft_bytes = number()?;
    let (hard_bytes, soft_packets, hard_packets) = (number()?, number()?, number()?);
    let (soft_seconds, hard_seconds, _, _) = (number()?, number()?, number()?, number()?);
    let (bytes, packets, added, first_used) = (number()?, number()?, number()?, number()?);
    let errors = Errors { too_late: fields.u32()?, replayed: fields.u32()?, forged: fields.u32()? };
    let (_sequence, reqid) = (fields.u32()?, fields.u32()?);
    let family = Family::from_raw(u8::try_from(fields.u16()?).ok()?)?;
    let (_mode, window) = (fields.u8()?, fields.u8()?);
    if i32::from(protocol) != libc::IPPROTO_ESP {
        return None;
    }
    let count = |limit| (limit != UNLIMITED).then_some(limit);
    let time = |limit| (limit != 0 && limit != UNLIMITED).then_some(limit);
    Some(SaInfo {
        src: address(&mut src, family)?,
        dst: read_address(dst, family),
        spi,
        reqid,
        algorithm: None,
        encap: None,
        replay_window: window.into(),
        limits: Limits {
            soft_bytes: count(soft_bytes),
            hard_bytes: count(hard_bytes),
            soft_packets: count(soft_packets),
            hard_packets: count(hard_packets),
            soft_seconds: time(soft_seconds),
            hard_seconds: time(hard_seconds),
        },
        bytes,
        packets,
        added,
        first_used,
        last_used: None,
        errors,
    })
}

#[cfg(test)]
mod tests;
