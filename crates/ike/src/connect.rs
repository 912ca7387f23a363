//! When a peer is called, and where.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{Now, Peer, PeerId};
use crate::ctx::jitter;
use crate::endpoint::{Alarm, Endpoint};
use crate::error::Failure;
use crate::event::{Event, LastError};
use crate::path::Path;
use crate::peer::PeerEntry;
use crate::sa::{IkeSa, Phase};
use crate::sa_init;

/// The least time for a response to IKE_SA_INIT when several addresses share the budget.
const LEAST_BUDGET: Duration = Duration::from_secs(8);

impl Endpoint {
    /// Calls the peer if there should be an IKE SA, or another one, and it may be tried now.
    pub(crate) fn reconcile(&mut self, now: Now, id: PeerId) {
        let Some(entry) = self.directory.get(id) else { return };
        if !self.stopping && entry.connecting.is_none() && self.wanted(entry) {
            match entry.retry_at {
                Some(at) if at > now.mono => {}
                _ => return self.call(now, id),
            }
        }
        self.schedule(id);
    }

    /// Whether to call, apart from the time.
    fn wanted(&self, entry: &PeerEntry) -> bool {
        match entry.current.and_then(|key| self.sas.get(&key)) {
            None => entry.called.is_some() || (entry.config.initiate && !entry.config.remotes.is_empty()),
            Some(sa) => entry.suspected || entry.worn_out || outdated(sa, entry),
        }
    }

    pub(crate) fn schedule(&mut self, id: PeerId) {
        let Some(entry) = self.directory.get(id) else { return };
        let retry = entry.retry_at.filter(|_| entry.connecting.is_none() && self.wanted(entry));
        let at = [retry, entry.dedup_at].into_iter().flatten().min();
        self.timetable.set(Alarm::Peer(id), at.filter(|_| !self.stopping));
    }

    fn call(&mut self, now: Now, id: PeerId) {
        let Some(entry) = self.directory.get_mut(id) else { return };
        let candidates = candidates(entry, entry.current.and_then(|key| self.sas.get(&key)));
        let Some(remote) = candidates.get(entry.candidate % candidates.len().max(1)).copied() else {
            return self.schedule(id);
        };
        if entry.attempt == 0 {
            entry.since = now.mono;
        }
        if entry.candidate == 0 {
            entry.attempt = entry.attempt.saturating_add(1);
        }
        let peer = entry.config.clone();
        let path = Path::calling(entry.local, remote);
        let budget = share(self.config.timers_for(self.directory.get(id)).retransmit.budget, candidates.len());
        let called = sa_init::call(&mut self.ctx(now, &mut Vec::new()), peer, path, budget);
        match (called, self.directory.get_mut(id)) {
            (Ok(sa), Some(entry)) => {
                let key = sa.local_spi;
                entry.connecting = Some(key);
                entry.sas.push(key);
                self.sas.insert(key, sa);
                self.with_sa(now, key, |_, _| ());
                self.schedule(id);
            }
            (Ok(_), None) => {}
            (Err(failure), _) => self.call_failed(now, id, &failure),
        }
    }

    /// Notes the failure and decides when and where to try next.
    pub(crate) fn call_failed(&mut self, now: Now, id: PeerId, failure: &Failure) {
        self.note(now, Some(id), failure);
        let crypto = &*self.crypto;
        let Some(entry) = self.directory.get_mut(id) else { return };
        let count = candidates(entry, entry.current.and_then(|key| self.sas.get(&key))).len().max(1);
        let timers = self.config.timers_for(Some(entry));
        entry.connecting = None;
        entry.candidate = (entry.candidate + 1) % count;
        let round_over = entry.candidate == 0;
        let pause = if round_over { entry.backoff(timers, |most| jitter(crypto, most)) } else { Duration::ZERO };
        entry.retry_at = Some(now.mono.saturating_add(pause));
        if round_over {
            // A mere suspicion, or a single call, is not pursued.
            entry.suspected = false;
            entry.called = None;
        }
        let pursued = self.directory.get(id).is_some_and(|entry| self.wanted(entry));
        if let Some(entry) = self.directory.get_mut(id).filter(|_| !pursued) {
            entry.retry_at = None;
            entry.attempt = 0;
        }
        self.drop_expired(now, id);
        self.schedule(id);
    }

    /// Drops the call of a peer that is not answered yet, if it is `outdated`.
    pub(crate) fn abandon_call(&mut self, now: Now, id: PeerId, outdated: impl FnOnce(&IkeSa, &Peer) -> bool) {
        let Some(entry) = self.directory.get_mut(id) else { return };
        let Some(call) = entry.connecting.and_then(|key| self.sas.get(&key)) else { return };
        if matches!(call.phase, Phase::Init(_)) && outdated(call, &entry.config) {
            entry.attempt = entry.attempt.saturating_sub(1);
            let key = call.local_spi;
            self.abandon(now, key);
        }
    }

    /// Something unauthenticated says that the peer does not know this call of ours, so it begins anew. Rate-limited as
    /// suspicions are: who can read along must not be able to keep us from getting through.
    pub(crate) fn call_again(&mut self, now: Now, id: PeerId, key: u64) {
        let pause = self.config.timers.suspicion;
        let Some(entry) = self.directory.get_mut(id).filter(|entry| entry.connecting == Some(key)) else { return };
        if entry.suspected_at.is_none_or(|at| now.mono >= at.saturating_add(pause)) {
            entry.suspected_at = Some(now.mono);
            entry.attempt = entry.attempt.saturating_sub(1);
            self.abandon(now, key);
        }
    }

    /// Drops a call of ours that is no longer of use.
    pub(crate) fn abandon(&mut self, now: Now, key: u64) {
        self.with_sa(now, key, |sa, _| sa.phase = Phase::Gone);
        self.out.transmits.retain(|transmit| !transmit.payload.starts_with(&key.to_be_bytes()));
    }

    /// Keeps the sentence for the status.
    pub(crate) fn note(&mut self, now: Now, id: Option<PeerId>, failure: &Failure) {
        if let Some(entry) = id.and_then(|id| self.directory.get_mut(id)) {
            entry.last_error = Some(LastError { reason: failure.to_string(), wall: now.wall.seconds() });
        }
    }

    pub(crate) fn remove_peer(&mut self, now: Now, id: PeerId) {
        self.close_peer(now, id, &Failure::Removed);
        self.directory.remove(id);
        self.timetable.set(Alarm::Peer(id), None);
    }

    /// Deletes all IKE SAs with a peer.
    pub(crate) fn close_peer(&mut self, now: Now, id: PeerId, why: &Failure) {
        let Some(entry) = self.directory.get_mut(id) else { return };
        let was_up = entry.current.take().is_some();
        entry.connecting = None;
        entry.dedup_at = None;
        // Nothing is to be called while its IKE SAs go.
        entry.retry_at = Some(Duration::MAX);
        for key in std::mem::take(&mut entry.sas) {
            self.with_sa(now, key, |sa, ctx| {
                sa.retire_all(ctx);
                sa.close(ctx);
            });
        }
        if was_up {
            self.out.events.push_back(Event::PeerDown { peer: id, reason: why.to_string() });
        }
    }
}

/// Whether the current IKE SA was made with other traffic selectors, from another address of ours, or with an address
/// that the peer no longer has.
fn outdated(sa: &IkeSa, entry: &PeerEntry) -> bool {
    let selectors = sa.peer.as_ref().is_some_and(|made_with| {
        made_with.local_ts != entry.config.local_ts || made_with.remote_ts != entry.config.remote_ts
    });
    let address = entry.local.is_some_and(|local| {
        local.is_ipv4() == sa.path.remote.is_ipv4() && sa.path.local.is_some_and(|ip| ip != local)
    });
    selectors || address || withdrawn(sa, entry)
}

/// Whether the peer was at a configured address that its configuration has replaced by others. A peer behind a NAT may
/// be at any other.
fn withdrawn(sa: &IkeSa, entry: &PeerEntry) -> bool {
    let (remote, now) = (&sa.path.remote, &entry.config.remotes);
    let before = sa.peer.as_ref().is_some_and(|made_with| made_with.remotes.contains(remote));
    entry.config.initiate && before && !now.is_empty() && !now.contains(remote)
}

/// Where the peer may be, the likeliest first.
fn candidates(entry: &PeerEntry, current: Option<&IkeSa>) -> Vec<SocketAddr> {
    let mut candidates: Vec<SocketAddr> = Vec::new();
    let current = current.filter(|sa| !withdrawn(sa, entry));
    let known = current.map(|sa| sa.path.remote).into_iter().chain(entry.called);
    for remote in known.chain(entry.config.remotes.iter().copied()) {
        if !candidates.contains(&remote) {
            candidates.push(remote);
        }
    }
    candidates
}

fn share(budget: Duration, candidates: usize) -> Duration {
    let count = u32::try_from(candidates).unwrap_or(u32::MAX).max(1);
    (budget / count).max(LEAST_BUDGET).min(budget)
}
