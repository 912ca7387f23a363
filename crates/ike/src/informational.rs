//! INFORMATIONAL exchanges, both ends: deletion, liveness, errors (RFC 7296 sections 1.4, 2.4 and 2.21).

use std::time::Duration;

use crate::child::ChildState;
use crate::ctx::{Ctx, Signal};
use crate::error::Failure;
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{Chain, Delete, Exchange, Payload, Payloads, notify};

/// Before a CHILD_SA that the peer deleted is made anew: its IKE SA often follows.
const NEW_CHILD_PAUSE: Duration = Duration::from_secs(1);

/// Asks whether the peer lives.
pub(crate) fn liveness(sa: &mut IkeSa, ctx: &mut Ctx<'_>) {
    sa.send_request(ctx, Exchange::Informational, &Chain::new(), Request::Liveness);
}

/// Says that the IKE SA is gone.
pub(crate) fn delete_ike(sa: &mut IkeSa, ctx: &mut Ctx<'_>) {
    let mut chain = Chain::new();
    chain.delete(&Delete::Ike);
    sa.send_request(ctx, Exchange::Informational, &chain, Request::DeleteIke);
}

/// Says that a CHILD_SA is gone.
pub(crate) fn delete_child(sa: &mut IkeSa, ctx: &mut Ctx<'_>, spi_in: u32) {
    sa.switch_now(ctx);
    sa.retire(ctx, spi_in);
    if let Some(child) = sa.child_mut(spi_in) {
        child.state = ChildState::Closing;
    }
    let mut chain = Chain::new();
    chain.delete(&Delete::Esp(vec![spi_in]));
    sa.send_request(ctx, Exchange::Informational, &chain, Request::DeleteChild { spi_in });
}

/// Answers whatever the peer says.
pub(crate) fn answer(sa: &mut IkeSa, ctx: &mut Ctx<'_>, payloads: &Payloads<'_>) -> Chain {
    let mut chain = Chain::new();
    let mut deleted = Vec::new();
    for payload in payloads.iter() {
        match payload {
            Payload::Delete(Delete::Ike) => {
                let peer = sa.peer_name();
                over(sa, ctx, Failure::Deleted { peer });
                return Chain::new();
            }
            Payload::Delete(Delete::Esp(spis)) => {
                deleted.extend(spis.iter().filter_map(|spi_out| forget_child(sa, ctx, *spi_out)));
            }
            Payload::Notify(notify) if notify.kind == notify::AUTHENTICATION_FAILED => {
                let peer = sa.peer_name();
                over(sa, ctx, Failure::RefusedUs { peer });
                return Chain::new();
            }
            _ => {}
        }
    }
    if !deleted.is_empty() {
        chain.delete(&Delete::Esp(deleted));
    }
    chain
}

/// The peer has ended the IKE SA.
fn over(sa: &mut IkeSa, ctx: &mut Ctx<'_>, failure: Failure) {
    // RFC 7296 section 2.25.2: our own rekey is forgotten, but what the peer's made is the successor.
    let collision = match sa.exchange.pending().map(|pending| &pending.request) {
        Some(Request::Ike(request)) => request.collision.as_ref(),
        _ => None,
    };
    let signal = match (&sa.phase, collision) {
        (Phase::Rekeyed { heir, .. }, _) => heir.map(Signal::Confirmed),
        (Phase::Live, Some(collision)) => Some(Signal::Inherit(collision.spi)),
        (Phase::Live, None) if !sa.provisional => Some(Signal::Down(failure)),
        _ => None,
    };
    ctx.signals.extend(signal);
    sa.linger(ctx);
}

/// The peer has deleted a pair: the SPI to confirm, unless we are deleting it too (RFC 7296 section 1.4.1).
fn forget_child(sa: &mut IkeSa, ctx: &mut Ctx<'_>, spi_out: u32) -> Option<u32> {
    let child = sa.children.iter().find(|child| child.spi_out == spi_out)?;
    let (spi_in, ours) = (child.spi_in, child.state == ChildState::Closing);
    // What takes over is named before the old one is retired.
    if child.announced {
        if let Some(old) = sa.child_mut(spi_in) {
            old.switch_at = None;
        }
        sa.switch_now(ctx);
    }
    sa.retire(ctx, spi_in);
    sa.children.retain(|child| child.spi_in != spi_in);
    if sa.children.is_empty() {
        sa.new_child_at = ctx.now.mono + NEW_CHILD_PAUSE + ctx.jitter(NEW_CHILD_PAUSE);
    }
    (!ours).then_some(spi_in)
}
