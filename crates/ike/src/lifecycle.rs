//! What the signals of IKE SAs mean for their peer: tunnels come up, are replaced and go down.
//!
//! # Several IKE SAs with one peer
//!
//! Two ends may call each other at once, and an end that has lost its state calls again while the other still holds the
//! old IKE SA. Exactly one IKE SA remains by these rules:
//!
//! 1. While our call waits for the response to IKE_SA_INIT and the peer's call gets established, ours is dropped.
//! 2. A call that the peer made after an IKE SA was established, and that carries INITIAL_CONTACT, proves that the peer
//!    has lost that one: it is dropped without DELETE. The peer's pair may have outlived its IKE SA, so ours is sent on
//!    until the peer makes its first request on the new IKE SA, and thus has the new pair.
//! 3. A call of ours that was made after an IKE SA was established was made to replace it: the old one is deleted.
//! 4. Of what is left, the end whose name is the lower in byte order keeps the IKE SA whose first message it sent or saw
//!    last, and deletes the others after a moment. The other end waits for that, and does the same only after a longer
//!    time, for the case that the peer knows no such rule.
//!
//! Rules 3 and 4 never contradict each other: what was called for later is also seen later at the other end. Until the
//! DELETE both ends hold the CHILD_SAs of all of them, so nothing is lost.

use std::time::Duration;

use crate::config::{Now, PeerId};
use crate::ctx::Signal;
use crate::endpoint::Endpoint;
use crate::error::Failure;
use crate::event::{Child, Event, Role};
use crate::sa::{IkeSa, Phase};

/// The deciding end lets the last response arrive before it deletes.
const DECIDER_PAUSE: Duration = Duration::from_secs(2);
/// How long the other end waits for the deciding one.
const OTHER_PAUSE: Duration = Duration::from_secs(15);

impl Endpoint {
    pub(crate) fn on_signal(&mut self, now: Now, key: u64, signal: Signal) {
        let peer = self.sas.get(&key).and_then(IkeSa::peer_id);
        match signal {
            Signal::Established { child, initial_contact } => self.on_established(now, key, *child, initial_contact),
            Signal::Failed(failure) => {
                if let Some(id) = peer.filter(|id| self.directory.get(*id).is_some_and(|e| e.connecting == Some(key))) {
                    self.call_failed(now, id, &failure);
                }
            }
            Signal::Refused { claimed, failure } => {
                let id = claimed.as_ref().and_then(|name| self.directory.id(name));
                self.note(now, id, &failure);
                if let Some(sa) = self.sas.get(&key) {
                    let remote = sa.path.remote;
                    self.out.events.push_back(Event::Refused { remote, claimed, reason: failure.to_string() });
                }
            }
            Signal::Down(failure) => self.on_down(now, key, &failure),
            Signal::Suspicion => {
                if let Some(id) = peer.filter(|id| self.directory.get(*id).is_some_and(|e| e.current == Some(key))) {
                    self.handle_suspicion(now, id);
                }
            }
            Signal::Forgotten => {
                if let Some(id) = peer {
                    self.call_again(now, id, key);
                }
            }
            Signal::WornOut(failure) => {
                self.note(now, peer, &failure);
                if let Some(entry) = peer.and_then(|id| self.directory.get_mut(id)) {
                    entry.worn_out = true;
                    let id = entry.config.id;
                    self.reconcile(now, id);
                }
            }
            Signal::Successor(heir) => self.on_successor(now, *heir),
            Signal::Inherit(heir) => self.inherit(now, key, heir),
            Signal::Confirmed(heir) => {
                self.with_sa(now, heir, |sa, ctx| {
                    sa.hold_until = None;
                    sa.advance(ctx);
                });
            }
            Signal::Redundant(key) => {
                self.with_sa(now, key, |sa, ctx| sa.rekeyed(ctx, None));
            }
            Signal::Superseded(key) => {
                self.with_sa(now, key, |sa, ctx| {
                    sa.retire_all(ctx);
                    sa.phase = Phase::Gone;
                });
            }
        }
    }

    fn on_established(&mut self, now: Now, key: u64, mut child: Child, initial_contact: bool) {
        let Some(sa) = self.sas.get(&key) else { return };
        let (role, born, path) = (sa.role, sa.born, sa.path.clone());
        let Some(entry) = sa.peer_id().and_then(|id| self.directory.get_mut(id)) else {
            // The peer vanished while it was authenticated.
            self.with_sa(now, key, |sa, ctx| {
                sa.children.clear();
                sa.close(ctx);
            });
            return;
        };
        let id = entry.config.id;
        if !entry.sas.contains(&key) {
            entry.sas.push(key);
        }
        let calling = entry.connecting.filter(|calling| *calling != key);
        if entry.connecting == Some(key) {
            entry.connecting = None;
        }
        entry.reached();
        let others = entry.sas.clone();
        let was_current = entry.current;

        // Rules 2 and 3.
        let (mut replaced, mut beside) = (Vec::new(), Vec::new());
        for other in others.into_iter().filter(|other| *other != key) {
            let Some(sa) = self.sas.get(&other) else { continue };
            let Some(established) = sa.established else { continue };
            let earlier = established.serial < born;
            if earlier && (role == Role::Initiator || initial_contact) {
                replaced.push(other);
            } else if sa.is_live() {
                beside.push(other);
            }
        }
        let current = was_current.and_then(|key| self.sas.get(&key));
        child.replaces = current.and_then(IkeSa::live_child).map(|child| child.spi_in);
        child.send = role == Role::Initiator || (beside.is_empty() && child.replaces.is_none());
        let pause = if beside.is_empty() { DECIDER_PAUSE } else { self.config.timers.switch_delay };
        let switch_at = (!child.send).then(|| now.mono.saturating_add(pause));
        let spi_in = child.spi_in;
        let superseded = if child.send { Vec::new() } else { std::mem::take(&mut replaced) };
        for lost in &superseded {
            if let Some(lost) = self.sas.get_mut(lost) {
                // If it still waited to be sent on, it waits in vain.
                lost.children.iter_mut().for_each(|child| child.switch_at = None);
                lost.supersedes.clear();
            }
        }
        if let Some(sa) = self.sas.get_mut(&key) {
            sa.supersedes = superseded;
            if let Some(child) = sa.child_mut(spi_in) {
                child.switch_at = switch_at;
            }
        }
        self.out.events.push_back(Event::ChildUp { peer: id, child });
        if was_current.is_none() {
            self.out.events.push_back(Event::PeerUp { peer: id, remote: path.remote });
        }
        let pause = if self.decides(id) { DECIDER_PAUSE } else { OTHER_PAUSE };
        if let Some(entry) = self.directory.get_mut(id) {
            entry.current = Some(key);
            entry.dedup_at = (!beside.is_empty()).then_some(now.mono + pause);
        }
        for other in replaced {
            self.with_sa(now, other, |sa, ctx| {
                sa.retire_all(ctx);
                match role {
                    Role::Initiator => {
                        // The old path may be no more, and the peer sends on it until it hears of the end.
                        sa.divert(ctx, path.clone());
                        sa.close(ctx);
                    }
                    Role::Responder => sa.phase = Phase::Gone,
                }
            });
        }
        // Rule 1.
        let waiting = |key: &u64| self.sas.get(key).is_some_and(|sa| matches!(sa.phase, Phase::Init(_)));
        if let Some(calling) = calling.filter(waiting) {
            self.abandon(now, calling);
        }
        self.reconcile(now, id);
    }

    /// Rule 4: whether we are the end that deletes what is superfluous.
    fn decides(&self, id: PeerId) -> bool {
        self.directory.get(id).is_some_and(|entry| self.config.name < entry.config.name)
    }

    /// Rule 4, once its time has come.
    pub(crate) fn dedup_due(&mut self, now: Now, id: PeerId) {
        let Some(entry) = self.directory.get_mut(id) else { return };
        if entry.dedup_at.is_none_or(|at| at > now.mono) {
            return;
        }
        entry.dedup_at = None;
        let sas = entry.sas.clone();
        let Some(kept) = self.latest(&sas) else { return };
        if !self.sas.get(&kept).is_some_and(|sa| sa.confirmed) && self.live(&sas) > 1 {
            // The response that made it may be lost as yet, and the peer have nothing but the others.
            if let Some(entry) = self.directory.get_mut(id) {
                entry.dedup_at = Some(now.mono + DECIDER_PAUSE);
            }
            return;
        }
        let live = |key: &u64| self.sas.get(key).is_some_and(IkeSa::is_live);
        let others: Vec<u64> = sas.into_iter().filter(|key| *key != kept && live(key)).collect();
        if !others.is_empty() {
            self.prefer(now, id, kept);
        }
        for other in others {
            self.with_sa(now, other, |sa, ctx| {
                sa.retire_all(ctx);
                sa.close(ctx);
            });
        }
    }

    fn live(&self, keys: &[u64]) -> usize {
        keys.iter().filter_map(|key| self.sas.get(key)).filter(|sa| sa.is_live()).count()
    }

    /// The live IKE SA that was called for last.
    fn latest(&self, keys: &[u64]) -> Option<u64> {
        let live = keys.iter().filter_map(|key| self.sas.get(key)).filter(|sa| sa.is_live());
        live.max_by_key(|sa| sa.born).map(|sa| sa.local_spi)
    }

    /// Makes an IKE SA the current one and sends on its pair.
    fn prefer(&mut self, now: Now, id: PeerId, key: u64) {
        if let Some(entry) = self.directory.get_mut(id) {
            entry.current = Some(key);
        }
        self.with_sa(now, key, |sa, ctx| {
            let Some(child) = sa.live_child() else { return };
            let (spi_in, spi_out) = (child.spi_in, child.spi_out);
            if let Some(child) = sa.child_mut(spi_in) {
                child.switch_at = None;
            }
            ctx.out.events.push_back(Event::ChildSend { peer: id, spi_in, spi_out });
            sa.supersede(ctx);
        });
    }

    pub(crate) fn on_down(&mut self, now: Now, key: u64, failure: &Failure) {
        let Some(id) = self.sas.get(&key).and_then(IkeSa::peer_id) else { return };
        if !matches!(failure, Failure::Deleted { .. }) {
            self.note(now, Some(id), failure);
        }
        let Some(entry) = self.directory.get_mut(id) else { return };
        entry.sas.retain(|other| *other != key);
        let was_current = entry.current == Some(key);
        let rest = entry.sas.clone();
        let current = entry.current;
        // What takes over is named before what goes is retired: the latest pair named may have been one of these.
        let heir = if was_current { self.latest(&rest) } else { current };
        if let Some(heir) = heir {
            self.prefer(now, id, heir);
        }
        self.with_sa(now, key, IkeSa::retire_all);
        let Some(entry) = self.directory.get_mut(id).filter(|_| was_current && heir.is_none()) else { return };
        entry.current = None;
        entry.since = now.mono;
        // A peer that says goodbye is given a moment; one that is dead is looked for at once.
        let pause = match failure {
            Failure::NoAnswer { .. } => Duration::ZERO,
            _ => self.config.timers.backoff_first,
        };
        entry.retry_at = entry.config.initiate.then_some(now.mono.saturating_add(pause));
        self.out.events.push_back(Event::PeerDown { peer: id, reason: failure.to_string() });
        self.reconcile(now, id);
    }

    fn on_successor(&mut self, now: Now, heir: IkeSa) {
        let key = heir.local_spi;
        if let Some(entry) = heir.peer_id().and_then(|id| self.directory.get_mut(id)) {
            entry.sas.push(key);
        }
        self.sas.insert(key, heir);
        self.with_sa(now, key, IkeSa::advance);
    }

    /// Moves the CHILD_SAs of a rekeyed IKE SA to its successor.
    fn inherit(&mut self, now: Now, from: u64, to: u64) {
        if self.sas.get(&to).is_none_or(|heir| !matches!(heir.phase, Phase::Live)) {
            return self.on_down(now, from, &Failure::Replaced);
        }
        let Some(old) = self.sas.get_mut(&from) else { return };
        let (children, id) = (std::mem::take(&mut old.children), old.peer_id());
        if let Some(entry) = id.and_then(|id| self.directory.get_mut(id)).filter(|entry| entry.current == Some(from)) {
            entry.current = Some(to);
        }
        if let Some(heir) = self.sas.get_mut(&to) {
            heir.children.extend(children);
            heir.provisional = false;
        }
        self.with_sa(now, to, IkeSa::advance);
    }
}
