//! The two Security Associations of one CHILD_SA.

use crate::{DropReason, InboundSa, OpenError, OutboundSa, SaError, Suite};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// A pair of Security Associations to add.
pub struct Install<'a> {
    /// The peer at the other end.
    pub peer: u32,
    /// The SPI chosen here.
    pub spi_in: u32,
    /// The SPI the peer chose.
    pub spi_out: u32,
    /// The cipher of both directions.
    pub suite: Suite,
    /// Key and salt of what the peer sends.
    pub key_in: &'a [u8],
    /// Key and salt of what is sent to it.
    pub key_out: &'a [u8],
    /// Where to send from.
    pub local: SocketAddr,
    /// Where to send to.
    pub remote: SocketAddr,
    /// Whether to send on it at once.
    pub send: bool,
}

/// Why a pair was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// No peer has this number.
    UnknownPeer(u32),
    /// The inbound SPI is taken.
    SpiInUse(u32),
    /// SPI or keys are not usable.
    Sa(SaError),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::UnknownPeer(peer) => write!(f, "no peer {peer}"),
            InstallError::SpiInUse(spi) => write!(f, "SPI {spi:08x} is in use"),
            InstallError::Sa(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InstallError {}

/// Packets and their bytes, counted as inner packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}

/// What is known of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// The peer at the other end.
    pub peer: u32,
    /// The SPI chosen here.
    pub spi_in: u32,
    /// The SPI the peer chose.
    pub spi_out: u32,
    /// Where it is sent from.
    pub local: SocketAddr,
    /// Where it is sent to.
    pub remote: SocketAddr,
    /// Time since it was installed.
    pub age: Duration,
    /// Whether packets on it are received.
    pub receiving: bool,
    /// Whether the peer's traffic is sent on it.
    pub sending: bool,
    /// Inner packets received.
    pub received: Traffic,
    /// Inner packets sent.
    pub sent: Traffic,
}

/// Sequence number from which on a new pair should be made: three quarters of all.
const SOFT_LIMIT: u32 = 3 << 30;

/// A peer's new address is told at most once in this time.
const MOVED_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Pair {
    pub(super) peer: u32,
    spi_out: u32,
    pub(super) inbound: Option<InboundSa>,
    pub(super) outbound: Option<OutboundSa>,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    installed: Duration,
    pub(super) last_sent: Option<Duration>,
    pub(super) received: Traffic,
    sent: Traffic,
    told_moved: Option<Duration>,
}

impl Pair {
    pub(super) fn new(now: Duration, install: &Install<'_>) -> Result<Self, SaError> {
        Ok(Pair {
            peer: install.peer,
            spi_out: install.spi_out,
            inbound: Some(InboundSa::new(install.spi_in, install.suite, install.key_in)?),
            outbound: Some(OutboundSa::new(install.spi_out, install.suite, install.key_out)?),
            local: install.local,
            remote: install.remote,
            installed: now,
            last_sent: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            told_moved: None,
        })
    }

    pub(super) fn open(&mut self, packet: &mut [u8]) -> Result<(Range<usize>, bool), OpenError> {
        self.inbound.as_mut().ok_or(OpenError::WrongSpi)?.open(packet)
    }

    /// Seals a packet; true with the one that reaches the soft limit.
    pub(super) fn seal(&mut self, now: Duration, frame: &mut [u8], len: usize) -> Result<(usize, bool), DropReason> {
        let outbound = self.outbound.as_mut().ok_or(DropReason::NoSa)?;
        let sealed = outbound.seal(frame, len)?;
        self.last_sent = Some(now);
        self.sent.count(len);
        Ok((sealed, outbound.sequence() == SOFT_LIMIT))
    }

    /// Whether `remote` is news: another address than the pair's own, not told within the last second.
    pub(super) fn moved(&mut self, now: Duration, remote: SocketAddr) -> bool {
        let news =
            remote != self.remote && self.told_moved.is_none_or(|told| now.saturating_sub(told) >= MOVED_INTERVAL);
        if news {
            self.told_moved = Some(now);
        }
        news
    }

    pub(super) fn status(&self, now: Duration, spi_in: u32, sending: bool) -> PairStatus {
        PairStatus {
            peer: self.peer,
            spi_in,
            spi_out: self.spi_out,
            local: self.local,
            remote: self.remote,
            age: now.saturating_sub(self.installed),
            receiving: self.inbound.is_some(),
            sending,
            received: self.received,
            sent: self.sent,
        }
    }

    #[cfg(test)]
    pub(super) fn set_sequence(&mut self, sequence: u32) {
        self.outbound.as_mut().unwrap().set_sequence(sequence);
    }
}
