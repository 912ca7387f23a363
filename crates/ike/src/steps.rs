//! What an IKE SA does when its time comes: the next request, retransmission, switching, keepalives.

use std::time::Duration;

use crate::child::ChildState;
use crate::config::Timers;
use crate::ctx::{Ctx, Signal};
use crate::error::Failure;
use crate::event::{Event, Role};
use crate::exchange::Due;
use crate::sa::{IkeSa, Phase};
use crate::{child_rekey, ike_rekey, informational};

/// The first keepalive after something else follows at least so soon: the NAT of Linux forgets a mapping after 30 s if
/// all its packets came within 2 s, as those of a handshake do, and only then after 2 minutes.
const SETTLE: Duration = Duration::from_secs(20);

/// What to ask for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    DeleteIke,
    DeleteChild(u32),
    RekeyIke,
    RekeyChild(u32),
    NewChild,
    Liveness,
}

impl IkeSa {
    /// Makes the next request if one is due.
    pub(crate) fn advance(&mut self, ctx: &mut Ctx<'_>) {
        let Some((at, step)) = self.next_step(self.timers(ctx)) else { return };
        if at > ctx.now.mono {
            return;
        }
        if self.exchange.exhausted() {
            return self.end(ctx, Failure::Replaced);
        }
        match step {
            Step::DeleteIke => informational::delete_ike(self, ctx),
            Step::DeleteChild(spi_in) => informational::delete_child(self, ctx, spi_in),
            Step::RekeyIke => ike_rekey::request(self, ctx, None),
            Step::RekeyChild(spi_in) => child_rekey::request(self, ctx, Some(spi_in), None),
            Step::NewChild => child_rekey::request(self, ctx, None, None),
            Step::Liveness => informational::liveness(self, ctx),
        }
    }

    /// The next request and its time; `None` while one is under way or there is nothing to ask for.
    fn next_step(&self, timers: &Timers) -> Option<(Duration, Step)> {
        if self.exchange.pending().is_some() {
            return None;
        }
        match self.phase {
            Phase::Closing { .. } => Some((Duration::ZERO, Step::DeleteIke)),
            Phase::Live => {
                // Until the peer deletes what it replaced, it may not know the successor.
                let unconfirmed = self.children.iter().any(|child| matches!(child.state, ChildState::Replaced(_)));
                let children = self.children.iter().filter_map(|child| match child.state {
                    ChildState::Live => (!unconfirmed).then_some((child.rekey_at, Step::RekeyChild(child.spi_in))),
                    ChildState::Replaced(until) => Some((until, Step::DeleteChild(child.spi_in))),
                    ChildState::Closing => Some((Duration::ZERO, Step::DeleteChild(child.spi_in))),
                });
                let settled = !self.provisional;
                // One end makes a lost CHILD_SA anew, not both at once.
                let ours = self.role == Role::Initiator || self.lost_child;
                let childless = settled && self.children.is_empty() && ours;
                let new_child = childless.then_some((self.new_child_at, Step::NewChild));
                let rekey = settled.then_some((self.rekey_at, Step::RekeyIke));
                let dpd = self.liveness_at(timers.dpd).map(|at| (at, Step::Liveness));
                let (at, step) = children.chain(new_child).chain(rekey).chain(dpd).min()?;
                Some((at.max(self.hold_until.unwrap_or_default()), step))
            }
            _ => None,
        }
    }

    /// When the peer is asked whether it lives.
    fn liveness_at(&self, dpd: Duration) -> Option<Duration> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let patience = if self.asks { dpd } else { dpd.saturating_add(dpd / 2) };
        let (at, together) = (millis(self.last_inbound.saturating_add(patience)), millis(dpd / 6));
        Some(Duration::from_millis(at.checked_div(together)?.saturating_add(1).saturating_mul(together)))
    }

    pub(crate) fn next_timeout(&self, timers: &Timers) -> Option<Duration> {
        let until = match &self.phase {
            Phase::HalfOpen(half_open) => Some(half_open.until),
            Phase::Rekeyed { until, .. } | Phase::Closing { until } | Phase::Lingering { until } => Some(*until),
            Phase::Init(_) | Phase::Auth(_) | Phase::Live | Phase::Gone => None,
        };
        let switch = self.children.iter().filter_map(|child| child.switch_at).min();
        let step = self.next_step(timers).map(|(at, _)| at);
        [until, switch, step, self.exchange.timeout(), self.keepalive_at(timers)].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        let over = match &self.phase {
            Phase::HalfOpen(half_open) => half_open.until <= now,
            Phase::Rekeyed { until, .. } | Phase::Closing { until } | Phase::Lingering { until } => *until <= now,
            Phase::Init(_) | Phase::Auth(_) | Phase::Live | Phase::Gone => false,
        };
        if over {
            self.phase = Phase::Gone;
            return;
        }
        let timers = self.timers(ctx);
        match self.exchange.due(now, &timers.retransmit) {
            Due::Nothing => {}
            Due::Retransmit => {
                if let Some(pending) = self.exchange.pending() {
                    let (message, started) = (pending.message.clone(), pending.started);
                    self.transmit(ctx, message);
                    // A peer that has lost its state need not say so.
                    let calls = self.peer.as_ref().is_some_and(|peer| peer.initiate);
                    let long = now >= started.saturating_add(timers.unanswered);
                    if calls && long && self.is_live() {
                        ctx.signals.push(Signal::Suspicion);
                    }
                }
            }
            Due::GiveUp(after) => return self.end(ctx, Failure::NoAnswer { remote: self.path.remote, after }),
        }
        self.switch_due(ctx);
        if self.keepalive_at(timers).is_some_and(|at| at <= now) {
            self.spoke(now, true);
            let mut keepalive = self.path.transmit(self.peer_id(), vec![0xff]);
            keepalive.non_esp_marker = false;
            ctx.out.transmits.push_back(keepalive);
        }
        self.advance(ctx);
    }

    /// RFC 3948 section 2.3: only the end behind the NAT.
    fn keepalive_at(&self, timers: &Timers) -> Option<Duration> {
        let wanted = self.is_live() && self.path.nat_local && !timers.nat_keepalive.is_zero();
        let pause = if self.kept_alive { timers.nat_keepalive } else { timers.nat_keepalive.min(SETTLE) };
        wanted.then(|| self.last_outbound.saturating_add(pause))
    }

    fn switch_due(&mut self, ctx: &mut Ctx<'_>) {
        let Some(peer) = self.peer_id() else { return };
        let mut switched = false;
        for child in &mut self.children {
            if child.switch_at.is_some_and(|at| at <= ctx.now.mono) {
                child.switch_at = None;
                switched = true;
                ctx.out.events.push_back(Event::ChildSend { peer, spi_in: child.spi_in, spi_out: child.spi_out });
            }
        }
        if switched {
            self.supersede(ctx);
        }
    }
}
