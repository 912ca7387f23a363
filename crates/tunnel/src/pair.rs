//! What is remembered of a peer's SAs.

use std::net::SocketAddr;
use std::time::Duration;

/// Packets under way on a replaced SA may still arrive this long.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// Two SAs, one each way.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) encap: bool,
    /// Cipher in words; empty for adopted pairs.
    pub(crate) cipher: &'static str,
    pub(crate) since: Duration,
    pub(crate) use_: Use,
}

impl Pair {
    /// An earlier run keyed it.
    pub(crate) fn is_left_over(&self) -> bool {
        self.cipher.is_empty()
    }
}

/// What a pair is good for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Packets are accepted on it, and sent on another.
    Receiving,
    /// Packets are sent on it.
    Sending,
    /// Late packets are accepted until then.
    Retired(Duration),
}

/// Bytes and packets each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub bytes_in: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Packets sent.
    pub packets_out: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, other: Traffic) {
        self.bytes_in += other.bytes_in;
        self.packets_in += other.packets_in;
        self.bytes_out += other.bytes_out;
        self.packets_out += other.packets_out;
    }
}

/// Where a tunnel runs, for routes and policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPath {
    /// Fabric name of the peer.
    pub peer: String,
    /// Request id of its SAs and policies.
    pub reqid: u32,
    /// Own outer address and port.
    pub local: SocketAddr,
    /// The peer's outer address and port.
    pub remote: SocketAddr,
    /// ESP travels in UDP.
    pub encap: bool,
}
