//! What the endpoint knows about its peers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Peer, PeerId, Timers};
use crate::event::LastError;

/// A peer, its IKE SAs and our attempts to reach it.
pub(crate) struct PeerEntry {
    pub(crate) config: Arc<Peer>,
    /// The established IKE SA that counts; there may be others for a moment.
    pub(crate) current: Option<u64>,
    /// All of its IKE SAs, by our SPI.
    pub(crate) sas: Vec<u64>,
    /// Our call that is not established yet.
    pub(crate) connecting: Option<u64>,
    /// Calls without success.
    pub(crate) attempt: u32,
    pub(crate) since: Duration,
    /// Not to be called before.
    pub(crate) retry_at: Option<Duration>,
    /// Counts through the addresses to call.
    pub(crate) candidate: usize,
    /// To be called there once, though it is for the peer to call.
    pub(crate) called: Option<SocketAddr>,
    /// Our address towards the peer, if we were told.
    pub(crate) local: Option<IpAddr>,
    /// The peer may have lost the current IKE SA.
    pub(crate) suspected: bool,
    pub(crate) suspected_at: Option<Duration>,
    /// The current IKE SA, or its CHILD_SA, cannot be rekeyed.
    pub(crate) worn_out: bool,
    /// When superfluous IKE SAs are deleted.
    pub(crate) dedup_at: Option<Duration>,
    pub(crate) last_error: Option<LastError>,
}

impl PeerEntry {
    pub(crate) fn new(config: Peer) -> Self {
        Self {
            config: Arc::new(config),
            current: None,
            sas: Vec::new(),
            connecting: None,
            attempt: 0,
            since: Duration::ZERO,
            retry_at: None,
            candidate: 0,
            called: None,
            local: None,
            suspected: false,
            suspected_at: None,
            worn_out: false,
            dedup_at: None,
            last_error: None,
        }
    }

    /// Forgets past failures: there is a working IKE SA.
    pub(crate) fn reached(&mut self) {
        self.attempt = 0;
        self.retry_at = None;
        self.candidate = 0;
        self.called = None;
        self.suspected = false;
        self.worn_out = false;
    }

    /// The pause after the last failed attempt: doubling, capped, give or take a quarter by `jitter` of at most `most`.
    pub(crate) fn backoff(&self, timers: &Timers, jitter: impl FnOnce(Duration) -> Duration) -> Duration {
        let doubled = 1_u32.checked_shl(self.attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = timers.backoff_first.saturating_mul(doubled).min(timers.backoff_cap);
        (pause / 4 * 3).saturating_add(jitter(pause / 2))
    }
}

/// All peers, by id and by name.
#[derive(Default)]
pub(crate) struct Directory {
    entries: BTreeMap<PeerId, PeerEntry>,
    names: BTreeMap<String, PeerId>,
}

impl Directory {
    pub(crate) fn get(&self, id: PeerId) -> Option<&PeerEntry> {
        self.entries.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut PeerEntry> {
        self.entries.get_mut(&id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&PeerEntry> {
        self.entries.get(self.names.get(name)?)
    }

    pub(crate) fn id(&self, name: &str) -> Option<PeerId> {
        self.names.get(name).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PeerEntry> {
        self.entries.values()
    }

    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.entries.keys().copied().collect()
    }

    pub(crate) fn insert(&mut self, peer: Peer) {
        self.names.insert(peer.name.clone(), peer.id);
        self.entries.insert(peer.id, PeerEntry::new(peer));
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<PeerEntry> {
        let entry = self.entries.remove(&id)?;
        if self.names.get(&entry.config.name) == Some(&id) {
            self.names.remove(&entry.config.name);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_its_cap() {
        let peer = Peer {
            id: PeerId(1),
            name: "a".into(),
            remotes: vec![],
            initiate: true,
            metered: false,
            local_ts: vec![],
            remote_ts: vec![],
        };
        let mut entry = PeerEntry::new(peer);
        let mut pause = |attempt| {
            entry.attempt = attempt;
            entry.backoff(&Timers::default(), |most| most / 2).as_millis()
        };
        assert_eq!([pause(1), pause(2), pause(3), pause(6), pause(1000)], [1000, 2000, 4000, 30_000, 30_000]);
    }
}
