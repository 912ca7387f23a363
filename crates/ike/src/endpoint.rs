//! The endpoint: many IKE SAs with many peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Now, Peer, PeerId};
use crate::cookie::CookieJar;
use crate::crypto::Crypto;
use crate::ctx::{Ctx, Ids, Output, Signal};
use crate::error::Failure;
use crate::event::{Established, Event, PeerState, PeerStatus, Transmit};
use crate::peer::{Directory, PeerEntry};
use crate::sa::{IkeSa, Phase};
use crate::timetable::Timetable;

/// IKEv2 with all peers, for one program.
///
/// Four kinds of methods: inputs are called `handle_*`; [`Endpoint::set_config`], [`Endpoint::set_peers`],
/// [`Endpoint::rekey_child`], [`Endpoint::rekey_ike`], [`Endpoint::initiate`] and [`Endpoint::shutdown`] are the user's
/// wishes; outputs are called `poll_*`; [`Endpoint::peers`] tells how things stand. After every input and wish drain
/// [`Endpoint::poll_event`] first, then [`Endpoint::poll_transmit`], then ask [`Endpoint::poll_timeout`] when to call
/// [`Endpoint::handle_timeout`].
pub struct Endpoint {
    pub(crate) config: Arc<Config>,
    pub(crate) crypto: Box<dyn Crypto>,
    pub(crate) directory: Directory,
    /// By our SPI.
    pub(crate) sas: BTreeMap<u64, IkeSa>,
    /// IKE SAs of callers that have not authenticated, by the caller's address and SPI.
    pub(crate) half_open: BTreeMap<(SocketAddr, u64), u64>,
    pub(crate) timetable: Timetable<Alarm>,
    pub(crate) out: Output,
    ids: Ids,
    pub(crate) jar: CookieJar,
    pub(crate) replies: RateLimit,
    pub(crate) hints: RateLimit,
    pub(crate) stopping: bool,
}

/// Whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    Sa(u64),
    Peer(PeerId),
}

/// At most so many in a second.
#[derive(Default)]
pub(crate) struct RateLimit {
    since: Duration,
    count: u32,
}

impl RateLimit {
    const PER_SECOND: u32 = 20;

    pub(crate) fn allow(&mut self, now: Duration) -> bool {
        if now >= self.since + Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= Self::PER_SECOND
    }
}

impl Endpoint {
    /// Without peers: every caller is refused.
    pub fn new(config: Config, crypto: Box<dyn Crypto>) -> Self {
        Self {
            config: Arc::new(config),
            crypto,
            directory: Directory::default(),
            sas: BTreeMap::new(),
            half_open: BTreeMap::new(),
            timetable: Timetable::default(),
            out: Output::default(),
            ids: Ids::default(),
            jar: CookieJar::default(),
            replies: RateLimit::default(),
            hints: RateLimit::default(),
            stopping: false,
        }
    }

    /// Replaces the configuration, for example with a renewed certificate. What is established lives on; what is made
    /// from now on uses it. But whoever is revoked by it is let go.
    pub fn set_config(&mut self, now: Now, config: Config) {
        self.config = Arc::new(config);
        #[cfg(feature = "crl")]
        self.recheck_certificates(now);
        #[cfg(not(feature = "crl"))]
        let _ = now;
    }

    /// Replaces the set of peers. New ones are called at once, vanished ones are told goodbye, changed traffic selectors
    /// are negotiated in a new IKE SA before the old one is deleted; what did not change is not touched.
    pub fn set_peers(&mut self, now: Now, peers: Vec<Peer>) {
        let wanted: BTreeMap<PeerId, Peer> = peers.into_iter().map(|peer| (peer.id, peer)).collect();
        for id in self.directory.ids() {
            let name = |peer: &Peer| peer.name.clone();
            let before = self.directory.get(id).map(|entry| name(&entry.config));
            if wanted.get(&id).map(name) != before {
                self.remove_peer(now, id);
            }
        }
        for (id, peer) in wanted {
            match self.directory.get_mut(id) {
                Some(entry) if *entry.config == peer => {}
                Some(entry) => {
                    let moved = entry.config.remotes != peer.remotes;
                    if moved {
                        entry.candidate = 0;
                        entry.retry_at = None;
                    }
                    let pace = entry.config.metered != peer.metered;
                    entry.config = Arc::new(peer);
                    if pace {
                        self.with_current(now, id, |_, _| ());
                    }
                    if moved {
                        // A call to an address that the peer no longer has leads nowhere.
                        self.abandon_call(now, id, |sa, peer| !peer.remotes.contains(&sa.path.remote));
                    }
                }
                None => self.directory.insert(peer),
            }
            self.reconcile(now, id);
        }
    }

    /// A datagram came to our port 500 or 4500, which is `local`'s; without non-ESP marker.
    pub fn handle_datagram(&mut self, now: Now, local: SocketAddr, remote: SocketAddr, datagram: &[u8]) {
        self.dispatch(now, local, remote, datagram);
    }

    /// The time [`Endpoint::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Now) {
        // Whatever is rescheduled for this very instant waits for the next call, so that this one ends.
        let mut due = BTreeSet::new();
        while let Some(alarm) = self.timetable.pop(now.mono) {
            due.insert(alarm);
        }
        for alarm in due {
            match alarm {
                Alarm::Sa(key) => {
                    self.with_sa(now, key, IkeSa::handle_timeout);
                }
                Alarm::Peer(id) => {
                    self.dedup_due(now, id);
                    self.reconcile(now, id);
                }
            }
        }
    }

    /// The system now uses `local` towards this peer. If that is new for the current IKE SA, another one is made beside
    /// it, which then replaces it. Without this a call cannot rule out a NAT, and ESP travels in UDP; so it is best
    /// told right after [`Endpoint::set_peers`], before datagrams are polled.
    pub fn handle_local_address(&mut self, now: Now, peer: PeerId, local: IpAddr) {
        let Some(entry) = self.directory.get_mut(peer) else { return };
        if entry.local != Some(local) {
            entry.local = Some(local);
            entry.retry_at = None;
            // A call from the old address leads nowhere.
            self.abandon_call(now, peer, |sa, _| sa.path.local != Some(local));
        }
        self.reconcile(now, peer);
    }

    /// Authenticated ESP of this peer came from another address: IKE goes there too, and the CHILD_SA is rekeyed.
    pub fn handle_peer_moved(&mut self, now: Now, peer: PeerId, remote: SocketAddr) {
        self.with_current(now, peer, |sa, ctx| {
            if sa.path.remote != remote {
                sa.moved(ctx, remote);
                sa.advance(ctx);
            }
        });
    }

    /// Authenticated ESP of this peer came in: no need to ask whether it lives.
    pub fn handle_inbound(&mut self, now: Now, peer: PeerId) {
        self.with_current(now, peer, |sa, _| sa.last_inbound = now.mono);
    }

    /// Something unauthenticated says that the peer has lost its state: a new IKE SA is made beside the current one,
    /// which stays until the new one is authenticated. Rate-limited by [`crate::Timers::suspicion`].
    pub fn handle_suspicion(&mut self, now: Now, peer: PeerId) {
        let pause = self.config.timers.suspicion;
        let Some(entry) = self.directory.get_mut(peer) else { return };
        let recent = entry.suspected_at.is_some_and(|at| now.mono < at.saturating_add(pause));
        if entry.current.is_some() && entry.connecting.is_none() && !recent {
            entry.suspected = true;
            entry.suspected_at = Some(now.mono);
            entry.retry_at = None;
            self.reconcile(now, peer);
        }
    }

    /// Rekeys the peer's CHILD_SA now.
    pub fn rekey_child(&mut self, now: Now, peer: PeerId) {
        self.with_current(now, peer, |sa, ctx| {
            sa.rekey_children(ctx);
            sa.advance(ctx);
        });
    }

    /// Rekeys the peer's IKE SA now.
    pub fn rekey_ike(&mut self, now: Now, peer: PeerId) {
        self.with_current(now, peer, |sa, ctx| {
            sa.rekey_at = sa.rekey_at.min(now.mono);
            sa.advance(ctx);
        });
    }

    /// Calls a peer at `remote` once, though it is for the peer to call: a restarted responder gets its tunnels back
    /// without waiting for the callers to notice.
    pub fn initiate(&mut self, now: Now, peer: PeerId, remote: SocketAddr) {
        let Some(entry) = self.directory.get_mut(peer) else { return };
        if entry.current.is_none() && entry.connecting.is_none() {
            entry.called = Some(remote);
            entry.retry_at = None;
            self.reconcile(now, peer);
        }
    }

    /// Deletes all IKE SAs and makes no more. The farewells are sent again for some seconds if they are not answered.
    pub fn shutdown(&mut self, now: Now) {
        self.stopping = true;
        for id in self.directory.ids() {
            self.close_peer(now, id, &Failure::ShutDown);
            self.timetable.set(Alarm::Peer(id), None);
        }
        let rest: Vec<u64> = self.sas.keys().copied().collect();
        for key in rest {
            self.with_sa(now, key, IkeSa::close);
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// The monotonic time at which [`Endpoint::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timetable.earliest()
    }

    /// How things stand with each peer.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        self.directory.iter().map(|entry| PeerStatus {
            id: entry.config.id,
            name: entry.config.name.clone(),
            metered: entry.config.metered,
            state: self.state(entry),
            last_error: entry.last_error.clone(),
        })
    }

    /// IKE SAs in any phase, half-open and ending ones included.
    pub fn ike_sas(&self) -> usize {
        self.sas.len()
    }

    fn state(&self, entry: &PeerEntry) -> PeerState {
        let current = entry.current.and_then(|key| self.sas.get(&key));
        if let Some((sa, established, keys)) = current.and_then(|sa| Some((sa, sa.established?, sa.keys.as_ref()?))) {
            return PeerState::Established(Established {
                since: established.at,
                remote: sa.path.remote,
                local: sa.path.local,
                nat_local: sa.path.nat_local,
                nat_remote: sa.path.nat_remote,
                suite: keys.suite,
                role: sa.role,
                ike_spis: sa.spis(),
                next_rekey: sa.rekey_at,
            });
        }
        if entry.connecting.is_some() || entry.retry_at.is_some() {
            PeerState::Connecting { attempt: entry.attempt.max(1), since: entry.since }
        } else {
            PeerState::Idle
        }
    }

    pub(crate) fn ctx<'a>(&'a mut self, now: Now, signals: &'a mut Vec<Signal>) -> Ctx<'a> {
        Ctx {
            now,
            crypto: &*self.crypto,
            config: &self.config,
            directory: &self.directory,
            out: &mut self.out,
            signals,
            ids: &mut self.ids,
        }
    }

    /// Lets one IKE SA do something, then reacts to its signals.
    pub(crate) fn with_sa<R>(
        &mut self,
        now: Now,
        key: u64,
        act: impl FnOnce(&mut IkeSa, &mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let mut sa = self.sas.remove(&key)?;
        let mut signals = Vec::new();
        let result = act(&mut sa, &mut self.ctx(now, &mut signals));
        self.sas.insert(key, sa);
        for signal in signals {
            self.on_signal(now, key, signal);
        }
        self.settle(now, key);
        Some(result)
    }

    pub(crate) fn with_current(&mut self, now: Now, peer: PeerId, act: impl FnOnce(&mut IkeSa, &mut Ctx<'_>)) {
        if let Some(key) = self.directory.get(peer).and_then(|entry| entry.current) {
            self.with_sa(now, key, act);
        }
    }

    /// Brings the tables in line with an IKE SA.
    fn settle(&mut self, now: Now, key: u64) {
        let Some(sa) = self.sas.get(&key) else { return };
        if !matches!(sa.phase, Phase::HalfOpen(_)) {
            // Only responders are in the table; the entry is the caller's address at its first message.
            if let Some(caller) = sa.caller {
                self.half_open.remove(&(caller, sa.remote_spi));
            }
        }
        if !matches!(sa.phase, Phase::Gone) {
            let entry = sa.peer_id().and_then(|id| self.directory.get(id));
            let at = sa.next_timeout(self.config.timers_for(entry));
            return self.timetable.set(Alarm::Sa(key), at);
        }
        let peer = sa.peer_id();
        self.sas.remove(&key);
        self.timetable.set(Alarm::Sa(key), None);
        if let Some(entry) = peer.and_then(|id| self.directory.get_mut(id)) {
            entry.sas.retain(|other| *other != key);
            if entry.connecting == Some(key) {
                entry.connecting = None;
            }
            let id = entry.config.id;
            self.reconcile(now, id);
        }
    }
}
