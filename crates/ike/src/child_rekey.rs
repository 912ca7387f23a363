//! New and rekeyed CHILD_SAs by CREATE_CHILD_SA, both ends, and two ends rekeying at once
//! (RFC 7296 sections 1.3.1, 1.3.3, 2.8 and 2.25.1).
//!
//! A new CHILD_SA is asked for only when the last one is lost, and only by the original initiator.

use std::time::Duration;

use crate::child::{self, ChildSa, ChildSecrets, ChildState};
use crate::create_child::refusal;
use crate::crypto::{CryptoError, Group, PrivateValue};
use crate::ctx::{Ctx, Signal};
use crate::error::Failure;
use crate::event::{Child, Event};
use crate::proposal::{self, GROUPS};
use crate::sa::{IkeSa, Phase, Request, peer_grace, retry_pause};
use crate::wire::{Chain, Exchange, Ke, Notify, Payloads, Protocol, notify};

/// Before a CHILD_SA that cannot be rekeyed is tried again, in case re-establishment fails as well.
const WORN_OUT_RETRY: Duration = Duration::from_secs(60);

/// What we asked for.
pub(crate) struct ChildRequest {
    /// `spi_in` of the CHILD_SA to replace.
    rekeys: Option<u32>,
    private: Box<dyn PrivateValue>,
    group: Group,
    nonce: Vec<u8>,
    spi_in: u32,
    /// The peer asked to rekey the same CHILD_SA meanwhile, and we answered.
    collision: Option<Collision>,
    /// The responder has already asked for another group.
    bounced: bool,
}

/// What the peer's request made.
struct Collision {
    spi_in: u32,
    /// The lower of its two nonces.
    nonce: Vec<u8>,
}

/// Asks for a CHILD_SA in place of `rekeys`, or for a new one.
pub(crate) fn request(sa: &mut IkeSa, ctx: &mut Ctx<'_>, rekeys: Option<u32>, group: Option<Group>) {
    if let Err(error) = try_request(sa, ctx, rekeys, group) {
        sa.end(ctx, error.into());
    }
}

fn try_request(
    sa: &mut IkeSa,
    ctx: &mut Ctx<'_>,
    rekeys: Option<u32>,
    group: Option<Group>,
) -> Result<(), CryptoError> {
    let Some(peer) = sa.peer.clone() else { return Ok(()) };
    let bounced = group.is_some();
    let group = group.or(sa.keys.as_ref().map(|keys| keys.suite.group)).unwrap_or(GROUPS[0]);
    let private = ctx.crypto.generate(group)?;
    let nonce = ctx.nonce()?;
    let spi_in = ctx.esp_spi()?;
    let mut chain = Chain::new();
    if let Some(old) = rekeys {
        let spi = &old.to_be_bytes();
        chain.notification(Notify { protocol: Some(Protocol::Esp), spi, ..Notify::new(notify::REKEY_SA) });
    }
    chain.sa(&proposal::offer_esp(&ctx.config.esp(), spi_in, true));
    chain.nonce(&nonce);
    chain.ke(Ke { group: group.number(), data: private.public() });
    chain.ts(&peer.local_ts, &peer.remote_ts);
    let request = ChildRequest { rekeys, private, group, nonce, spi_in, collision: None, bounced };
    sa.send_request(ctx, Exchange::CreateChildSa, &chain, Request::Child(Box::new(request)));
    Ok(())
}

/// Answers the peer's request. `rekeys` is the SPI in its REKEY_SA, if there is one; `Err` is the refusal.
pub(crate) fn answer(
    sa: &mut IkeSa,
    ctx: &mut Ctx<'_>,
    payloads: &Payloads<'_>,
    rekeys: Option<Option<u32>>,
) -> Result<Chain, Chain> {
    let Some(peer) = sa.peer.clone() else { return Err(refusal(notify::TEMPORARY_FAILURE, &[])) };
    let old = match rekeys {
        Some(spi_out) => Some(rekeyable(sa, spi_out)?),
        // One CHILD_SA per peer.
        None if !sa.children.is_empty() => return Err(refusal(notify::NO_ADDITIONAL_SAS, &[])),
        None => None,
    };
    let agreement = child::respond(payloads, &peer, &ctx.config.esp(), true)
        .map_err(|disagreement| refusal(disagreement.kind, &[]))?;
    let group = agreement.chosen.suite.group.unwrap_or(GROUPS[0]);
    let (Some(ke), Some(nonce_i)) = (payloads.ke(), payloads.nonce()) else {
        return Err(refusal(notify::INVALID_SYNTAX, &[]));
    };
    if ke.group != group.number() {
        return Err(refusal(notify::INVALID_KE_PAYLOAD, &group.number().to_be_bytes()));
    }
    let failed = |_: CryptoError| refusal(notify::TEMPORARY_FAILURE, &[]);
    let private = ctx.crypto.generate(group).map_err(failed)?;
    let nonce_r = ctx.nonce().map_err(failed)?;
    let spi_in = ctx.esp_spi().map_err(failed)?;
    let mut chain = Chain::new();
    chain.sa(&proposal::answer_esp(&agreement.chosen, spi_in));
    chain.nonce(&nonce_r);
    chain.ke(Ke { group: group.number(), data: private.public() });
    chain.ts(&agreement.remote_ts, &agreement.local_ts);
    let shared = private.agree(ke.data).map_err(|_| refusal(notify::INVALID_SYNTAX, &[]))?;
    let Some(keys) = &sa.keys else { return Err(failed(CryptoError)) };
    let secrets = ChildSecrets { shared: &shared, nonce_i, nonce_r: &nonce_r };
    let mut child = agreement.into_child(ctx.crypto, keys, secrets, &sa.path, spi_in, false);
    child.replaces = old;
    // Without an old pair there is nothing to lose by sending at once.
    child.send = old.is_none();
    let switch_at = old.map(|_| ctx.now.mono.saturating_add(ctx.config.timers.switch_delay));
    announce(sa, ctx, child, switch_at);
    if let Some(old) = old {
        match sa.exchange.pending_mut().map(|pending| &mut pending.request) {
            Some(Request::Child(ours)) if ours.rekeys == Some(old) => {
                let nonce = nonce_i.min(&nonce_r).to_vec();
                ours.collision = Some(Collision { spi_in, nonce });
            }
            _ => replaced(sa, ctx, old),
        }
    }
    Ok(chain)
}

/// `spi_in` of the CHILD_SA the peer means, if it can be rekeyed now.
fn rekeyable(sa: &IkeSa, spi_out: Option<u32>) -> Result<u32, Chain> {
    let Some(child) = sa.children.iter().find(|child| Some(child.spi_out) == spi_out) else {
        let mut chain = Chain::new();
        let spi = spi_out.unwrap_or_default().to_be_bytes();
        let not_found = Notify::new(notify::CHILD_SA_NOT_FOUND);
        chain.notification(Notify { protocol: Some(Protocol::Esp), spi: &spi, ..not_found });
        return Err(chain);
    };
    let colliding = sa.exchange.pending().is_some_and(
        |pending| matches!(&pending.request, Request::Child(ours) if ours.rekeys == Some(child.spi_in) && ours.collision.is_some()),
    );
    match child.state {
        ChildState::Live if !colliding => Ok(child.spi_in),
        // It has a successor already, or is being deleted.
        _ => Err(refusal(notify::TEMPORARY_FAILURE, &[])),
    }
}

/// Keeps a new pair and tells the user.
fn announce(sa: &mut IkeSa, ctx: &mut Ctx<'_>, child: Child, switch_at: Option<Duration>) {
    let Some(peer) = sa.peer_id() else { return };
    sa.lost_child = false;
    let rekey_at = sa.child_rekey_at(ctx);
    sa.children.push(ChildSa {
        spi_in: child.spi_in,
        spi_out: child.spi_out,
        state: ChildState::Live,
        rekey_at,
        switch_at,
        announced: true,
    });
    ctx.out.events.push_back(Event::ChildUp { peer, child });
}

/// The peer is to delete this one.
fn replaced(sa: &mut IkeSa, ctx: &Ctx<'_>, spi_in: u32) {
    let until = peer_grace(ctx);
    if let Some(child) = sa.child_mut(spi_in) {
        child.state = ChildState::Replaced(until);
    }
}

/// We delete this one.
fn close(sa: &mut IkeSa, ctx: &mut Ctx<'_>, spi_in: u32) {
    sa.retire(ctx, spi_in);
    if let Some(child) = sa.child_mut(spi_in) {
        child.state = ChildState::Closing;
    }
}

/// The response to our request.
pub(crate) fn on_response(sa: &mut IkeSa, ctx: &mut Ctx<'_>, request: ChildRequest, payloads: &Payloads<'_>) {
    if !matches!(sa.phase, Phase::Live) {
        // What the response made ends with the IKE SA.
        return;
    }
    if let Some(error) = payloads.error() {
        return on_refusal(sa, ctx, request, error.kind, error.data);
    }
    let ChildRequest { rekeys, private, group, nonce, spi_in, collision, .. } = request;
    let made = (|| {
        let peer = sa.peer.clone().ok_or(CryptoError)?;
        let incomplete = |what| Failure::Incomplete { peer: peer.name.clone(), what };
        let agreement = child::conclude(payloads, &peer, &ctx.config.esp(), true)?;
        let ke = payloads.ke().filter(|ke| ke.group == group.number());
        let ke = ke.filter(|_| agreement.chosen.suite.group == Some(group));
        let ke = ke.ok_or_else(|| incomplete("public value of the group we used"))?;
        let nonce_r = payloads.nonce().ok_or_else(|| incomplete("nonce"))?;
        let shared = private.agree(ke.data)?;
        let keys = sa.keys.as_ref().ok_or(CryptoError)?;
        let secrets = ChildSecrets { shared: &shared, nonce_i: &nonce, nonce_r };
        let child = agreement.into_child(ctx.crypto, keys, secrets, &sa.path, spi_in, true);
        Ok::<_, Failure>((child, nonce.as_slice().min(nonce_r).to_vec()))
    })();
    let (mut child, our_nonce) = match made {
        Ok(made) => made,
        Err(failure) => return worn_out(sa, ctx, rekeys, failure),
    };
    // RFC 7296 section 2.8.1: of two new pairs, the one made with the lowest of the four nonces is deleted by its
    // initiator; the initiator of the other deletes the old pair.
    if let Some(collision) = &collision {
        let theirs_is_there = sa.child_mut(collision.spi_in).is_some();
        if theirs_is_there && our_nonce < collision.nonce {
            sa.children.push(ChildSa {
                spi_in,
                spi_out: child.spi_out,
                state: ChildState::Closing,
                rekey_at: Duration::MAX,
                switch_at: None,
                announced: false,
            });
            if let Some(old) = rekeys {
                replaced(sa, ctx, old);
            }
            return;
        }
        replaced(sa, ctx, collision.spi_in);
        if let Some(theirs) = sa.child_mut(collision.spi_in) {
            theirs.switch_at = None;
        }
    }
    child.replaces = rekeys.filter(|old| sa.child_mut(*old).is_some());
    announce(sa, ctx, child, None);
    if let Some(old) = rekeys {
        close(sa, ctx, old);
    }
}

fn on_refusal(sa: &mut IkeSa, ctx: &mut Ctx<'_>, request: ChildRequest, kind: u16, data: &[u8]) {
    if let (Some(old), Some(_)) = (request.rekeys, &request.collision) {
        // The peer rekeyed it first and did not notice our attempt: what it made is the successor.
        return replaced(sa, ctx, old);
    }
    match kind {
        notify::INVALID_KE_PAYLOAD if !request.bounced => {
            let wanted = data.try_into().ok().map(u16::from_be_bytes).and_then(Group::from_number);
            if let Some(group) = wanted {
                return self::request(sa, ctx, request.rekeys, Some(group));
            }
            retry(sa, ctx, request.rekeys, WORN_OUT_RETRY);
        }
        notify::TEMPORARY_FAILURE => {
            let pause = retry_pause(ctx);
            retry(sa, ctx, request.rekeys, pause);
        }
        // The peer has lost it: make a new one.
        notify::CHILD_SA_NOT_FOUND => {
            if let Some(old) = request.rekeys {
                sa.switch_now(ctx);
                sa.retire(ctx, old);
                sa.children.retain(|child| child.spi_in != old);
                sa.new_child_at = ctx.now.mono;
                sa.lost_child = true;
            }
        }
        kind => {
            let failure = Failure::Answered { peer: sa.peer_name(), kind };
            worn_out(sa, ctx, request.rekeys, failure);
        }
    }
}

fn worn_out(sa: &mut IkeSa, ctx: &mut Ctx<'_>, rekeys: Option<u32>, failure: Failure) {
    retry(sa, ctx, rekeys, WORN_OUT_RETRY);
    ctx.signals.push(Signal::WornOut(failure));
}

fn retry(sa: &mut IkeSa, ctx: &Ctx<'_>, rekeys: Option<u32>, pause: Duration) {
    let at = ctx.now.mono + pause;
    match rekeys.and_then(|old| sa.child_mut(old)) {
        Some(child) => child.rekey_at = at,
        None => sa.new_child_at = at,
    }
}
