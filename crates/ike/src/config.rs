//! What the endpoint is told: identity, peers, timers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::crypto::Aead;
use crate::peer::PeerEntry;
use crate::proposal;
use crate::ts::TrafficSelector;

/// The present, passed to every `handle_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary origin; never runs backwards.
    pub mono: Duration,
    /// The calendar, for certificates and for reports to people only.
    pub wall: Wall,
}

/// Unix time in seconds, and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// The clock is set.
    Is(u64),
    /// The clock is not set, or nobody knows whether it is: it is this time or later.
    AtLeast(u64),
}

impl Wall {
    /// The seconds, however well known.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Is(seconds) | Self::AtLeast(seconds) => seconds,
        }
    }
}

/// Names a peer between the endpoint and its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// What holds for all peers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our identity, sent as ID_FQDN; our certificate names it.
    pub name: String,
    /// Our certificate and whom we trust.
    pub credentials: Credentials,
    /// Intervals and limits in time.
    pub timers: Timers,
    /// The same for metered peers.
    pub metered: Timers,
    /// Offer and choose ChaCha20-Poly1305 before AES-GCM: right for a CPU without AES instructions.
    pub prefer_chacha: bool,
    /// The ciphers that the datapath has for ESP: no others are offered or chosen.
    pub esp_aeads: Vec<Aead>,
    /// Claim a NAT in front of us so that ESP always travels in UDP: right for a user-space datapath.
    pub force_encap: bool,
    /// Demand cookies while at least this many callers have not authenticated (RFC 7296 section 2.6).
    pub cookie_threshold: usize,
    /// Ignore new callers while this many have not authenticated.
    pub max_half_open: usize,
}

impl Config {
    /// The defaults for a node.
    pub fn new(name: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            name: name.into(),
            credentials,
            timers: Timers::default(),
            metered: Timers::metered(),
            prefer_chacha: false,
            esp_aeads: vec![Aead::Aes256Gcm, Aead::Aes128Gcm, Aead::ChaCha20Poly1305],
            force_encap: false,
            cookie_threshold: 100,
            max_half_open: 2000,
        }
    }

    pub(crate) fn timers_for(&self, peer: Option<&PeerEntry>) -> &Timers {
        if peer.is_some_and(|entry| entry.config.metered) { &self.metered } else { &self.timers }
    }

    /// The ciphers for ESP in our order of preference.
    pub(crate) fn esp(&self) -> Vec<Aead> {
        let preferred = proposal::aeads(self.prefer_chacha).into_iter();
        preferred.filter(|aead| self.esp_aeads.contains(aead)).collect()
    }
}

/// Another end to hold a tunnel with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Chosen by the user.
    pub id: PeerId,
    /// Must be a dNSName in the peer's certificate; the peer identifies itself by it (ID_FQDN) or by its
    /// certificate's subject (ID_DER_ASN1_DN).
    pub name: String,
    /// Addresses to call, tried in turn; empty if only the peer can call. On any port but 500 the non-ESP marker is
    /// used from the first packet.
    pub remotes: Vec<SocketAddr>,
    /// Call the peer and keep the tunnel up, rather than wait for its call.
    pub initiate: bool,
    /// Every byte on the way to it costs money: [`Config::metered`] holds.
    pub metered: bool,
    /// What of ours belongs into the tunnel. At most 255.
    pub local_ts: Vec<TrafficSelector>,
    /// What of the peer's belongs into the tunnel. At most 255.
    pub remote_ts: Vec<TrafficSelector>,
}

/// Intervals. Rekeying happens up to a tenth earlier, at random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Requests that are not answered.
    pub retransmit: Retransmit,
    /// How long a caller may take to authenticate.
    pub half_open: Duration,
    /// Ask whether the peer lives after this long without anything from it, or up to a sixth later, so that questions to
    /// several peers leave together; zero never asks. The end that was called waits half as long again: else both would
    /// ask at once, for ever.
    pub dpd: Duration,
    /// Life of a CHILD_SA.
    pub child_rekey: Duration,
    /// Life of an IKE SA.
    pub ike_rekey: Duration,
    /// After this long the responder of a rekey sends on the new CHILD_SA even if the old one was not deleted.
    pub switch_delay: Duration,
    /// First pause after a failed attempt; it doubles with each failure.
    pub backoff_first: Duration,
    /// Longest pause between attempts.
    pub backoff_cap: Duration,
    /// Keepalives while we are behind a NAT (RFC 3948 section 2.3); zero sends none.
    pub nat_keepalive: Duration,
    /// Least time between two parallel re-establishments with one peer on mere suspicion.
    pub suspicion: Duration,
    /// A request that is repeated for this long without a response is a suspicion.
    pub unanswered: Duration,
}

/// The schedule of retransmissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retransmit {
    /// Pause before the first.
    pub first: Duration,
    /// Growth of the pause in percent.
    pub factor_percent: u32,
    /// Longest pause.
    pub cap: Duration,
    /// Give up after this long.
    pub budget: Duration,
}

impl Timers {
    /// For a path where every byte costs money: as few messages as can be while nothing else is sent. What traffic
    /// brings to light (suspicions, repetitions without response) is as quick as ever.
    pub fn metered() -> Self {
        Self {
            retransmit: Retransmit {
                first: Duration::from_secs(2),
                factor_percent: 200,
                cap: Duration::from_secs(16),
                ..Retransmit::default()
            },
            dpd: Duration::from_secs(600),
            child_rekey: Duration::from_secs(8 * 3600),
            ike_rekey: Duration::from_secs(24 * 3600),
            backoff_cap: Duration::from_secs(600),
            nat_keepalive: Duration::from_secs(110),
            ..Self::default()
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            retransmit: Retransmit::default(),
            half_open: Duration::from_secs(30),
            dpd: Duration::from_secs(30),
            child_rekey: Duration::from_secs(3600),
            ike_rekey: Duration::from_secs(4 * 3600),
            switch_delay: Duration::from_secs(5),
            backoff_first: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(30),
            nat_keepalive: Duration::from_secs(20),
            suspicion: Duration::from_secs(2),
            unanswered: Duration::from_secs(10),
        }
    }
}

impl Default for Retransmit {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor_percent: 150,
            cap: Duration::from_secs(4),
            budget: Duration::from_secs(60),
        }
    }
}
