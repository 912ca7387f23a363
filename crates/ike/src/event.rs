//! What comes out of the endpoint.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config::PeerId;
use crate::crypto::Aead;
use crate::proposal::IkeSuite;
use crate::ts::TrafficSelector;

/// The cipher of a CHILD_SA.
pub type EspSuite = Aead;

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// For whom, if that is known.
    pub peer: Option<PeerId>,
    /// The address to send from; the system's choice if `None`.
    pub local: Option<IpAddr>,
    /// The port to send from: 500 or 4500.
    pub local_port: u16,
    /// Where to.
    pub remote: SocketAddr,
    /// The octets, without the non-ESP marker. A single octet `0xff` is a NAT keepalive.
    pub payload: Vec<u8>,
    /// Put four zero octets in front (RFC 3948 section 2.2).
    pub non_esp_marker: bool,
}

/// A pair of ESP SAs.
#[derive(Clone, PartialEq, Eq)]
pub struct Child {
    /// The SPI in packets we receive.
    pub spi_in: u32,
    /// The SPI in packets we send.
    pub spi_out: u32,
    /// The cipher, without extended sequence numbers, in tunnel mode.
    pub suite: EspSuite,
    /// Key and salt of what we receive: 20 octets for AES-128, else 36.
    pub key_in: Zeroizing<Vec<u8>>,
    /// Key and salt of what we send.
    pub key_out: Zeroizing<Vec<u8>>,
    /// Our outer address.
    pub local: SocketAddr,
    /// The peer's outer address.
    pub remote: SocketAddr,
    /// ESP travels in UDP between `local` and `remote`; if not, their ports mean nothing.
    pub encap: bool,
    /// Inner addresses on our side.
    pub local_ts: Vec<TrafficSelector>,
    /// Inner addresses on the peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// `spi_in` of the pair this one takes over from.
    pub replaces: Option<u32>,
    /// Send on it from now on. If false the peer may not know it yet: [`Event::ChildSend`] follows.
    pub send: bool,
    /// We asked for it.
    pub initiator: bool,
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("spi_in", &format_args!("{:08x}", self.spi_in))
            .field("spi_out", &format_args!("{:08x}", self.spi_out))
            .field("suite", &self.suite)
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("encap", &self.encap)
            .field("local_ts", &self.local_ts)
            .field("remote_ts", &self.remote_ts)
            .field("replaces", &self.replaces)
            .field("send", &self.send)
            .field("initiator", &self.initiator)
            .finish_non_exhaustive()
    }
}

/// What happened. Events are to be handled in their order, and all of them before datagrams are sent: the peer may use
/// a new pair as soon as it has our answer.
///
/// The pair to send on is always the one named by the latest [`Event::ChildUp`] with `send` or [`Event::ChildSend`].
/// A pair is announced before the one it replaces is retired, and the peer keeps receiving on a retired pair for a
/// moment, so no packet is lost if inbound SAs of retired pairs are kept for a few seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Receive on a new pair; send on it too if it says so.
    ChildUp {
        /// Whose.
        peer: PeerId,
        /// The pair with its keys.
        child: Child,
    },
    /// From now on send on this pair.
    ChildSend {
        /// Whose.
        peer: PeerId,
        /// Names the pair.
        spi_in: u32,
        /// Names the pair.
        spi_out: u32,
    },
    /// Stop sending on this pair.
    ChildRetired {
        /// Whose.
        peer: PeerId,
        /// Names the pair.
        spi_in: u32,
        /// Names the pair.
        spi_out: u32,
    },
    /// The peer is authenticated and has a pair, and had none before.
    PeerUp {
        /// Who.
        peer: PeerId,
        /// Its outer address.
        remote: SocketAddr,
    },
    /// The last IKE SA with the peer is gone.
    PeerDown {
        /// Who.
        peer: PeerId,
        /// A sentence.
        reason: String,
    },
    /// A caller was turned away.
    Refused {
        /// Its address.
        remote: SocketAddr,
        /// Who it said it is.
        claimed: Option<String>,
        /// A sentence.
        reason: String,
    },
    /// An authenticated peer proved that the clock, which is not set, is behind.
    Later {
        /// Unix time in seconds that has come.
        wall: u64,
    },
}

/// How things stand with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// As configured.
    pub metered: bool,
    /// Now.
    pub state: PeerState,
    /// The last failure, even if things went well since.
    pub last_error: Option<LastError>,
}

/// A failure and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// A sentence.
    pub reason: String,
    /// Unix time in seconds.
    pub wall: u64,
}

/// Whether there is a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Nothing is going on: the peer is to call us.
    Idle,
    /// We call, or wait until we call again.
    Connecting {
        /// Counts from 1.
        attempt: u32,
        /// Monotonic time of the first attempt.
        since: Duration,
    },
    /// There is an authenticated IKE SA.
    Established(Established),
}

/// An IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Monotonic time of its authentication.
    pub since: Duration,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address, if it is known.
    pub local: Option<IpAddr>,
    /// We are behind a NAT.
    pub nat_local: bool,
    /// The peer is behind a NAT, or says so.
    pub nat_remote: bool,
    /// Its algorithms.
    pub suite: IkeSuite,
    /// Who called.
    pub role: Role,
    /// Initiator's and responder's SPI.
    pub ike_spis: (u64, u64),
    /// Monotonic time of its next rekey from our side.
    pub next_rekey: Duration,
}

/// Which end of an IKE SA we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We made the first request.
    Initiator,
    /// The peer did.
    Responder,
}
