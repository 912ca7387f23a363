//! Rekeying the IKE SA by CREATE_CHILD_SA, both ends, and two ends rekeying at once
//! (RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2).

use std::time::Duration;

use crate::create_child::refusal;
use crate::crypto::{CryptoError, Group, PrivateValue};
use crate::ctx::{Ctx, Signal};
use crate::error::Failure;
use crate::event::Role;
use crate::keymat::Contribution;
use crate::proposal::{self, GROUPS};
use crate::sa::{IkeSa, Phase, Request, peer_grace, retry_pause};
use crate::wire::{Chain, Exchange, Ke, Payloads, notify};

/// Before an IKE SA that cannot be rekeyed is tried again, in case re-establishment fails as well.
const WORN_OUT_RETRY: Duration = Duration::from_secs(60);

/// What we asked for.
pub(crate) struct IkeRequest {
    private: Box<dyn PrivateValue>,
    group: Group,
    nonce: Vec<u8>,
    spi: u64,
    /// The peer asked for the same meanwhile, and we answered.
    pub(crate) collision: Option<Collision>,
    /// The responder has already asked for another group.
    bounced: bool,
}

/// The IKE SA the peer's request made.
pub(crate) struct Collision {
    /// Our SPI of it.
    pub(crate) spi: u64,
    /// The lower of its two nonces.
    nonce: Vec<u8>,
}

/// Asks for an IKE SA in place of this one.
pub(crate) fn request(sa: &mut IkeSa, ctx: &mut Ctx<'_>, group: Option<Group>) {
    if let Err(error) = try_request(sa, ctx, group) {
        sa.end(ctx, error.into());
    }
}

fn try_request(sa: &mut IkeSa, ctx: &mut Ctx<'_>, group: Option<Group>) -> Result<(), CryptoError> {
    let bounced = group.is_some();
    let group = group.or(sa.keys.as_ref().map(|keys| keys.suite.group)).unwrap_or(GROUPS[0]);
    let private = ctx.crypto.generate(group)?;
    let nonce = ctx.nonce()?;
    let spi = ctx.ike_spi()?;
    let mut chain = Chain::new();
    chain.sa(&proposal::offer_ike(ctx.config.prefer_chacha, &spi.to_be_bytes()));
    chain.nonce(&nonce);
    chain.ke(Ke { group: group.number(), data: private.public() });
    let request = IkeRequest { private, group, nonce, spi, collision: None, bounced };
    sa.send_request(ctx, Exchange::CreateChildSa, &chain, Request::Ike(Box::new(request)));
    Ok(())
}

/// Answers the peer's request; `Err` is the refusal.
pub(crate) fn answer(sa: &mut IkeSa, ctx: &mut Ctx<'_>, payloads: &Payloads<'_>) -> Result<Chain, Chain> {
    let (Some(offer), Some(ke), Some(nonce_i)) = (payloads.proposals(), payloads.ke(), payloads.nonce()) else {
        return Err(refusal(notify::INVALID_SYNTAX, &[]));
    };
    let colliding = sa
        .exchange
        .pending()
        .is_some_and(|pending| matches!(&pending.request, Request::Ike(ours) if ours.collision.is_some()));
    if colliding {
        return Err(refusal(notify::TEMPORARY_FAILURE, &[]));
    }
    let chosen = proposal::choose_ike(offer, ctx.config.prefer_chacha, 8, Some(ke.group))
        .ok_or_else(|| refusal(notify::NO_PROPOSAL_CHOSEN, &[]))?;
    let group = chosen.suite.group;
    if ke.group != group.number() {
        return Err(refusal(notify::INVALID_KE_PAYLOAD, &group.number().to_be_bytes()));
    }
    let remote_spi = spi(&chosen.spi).ok_or_else(|| refusal(notify::INVALID_SYNTAX, &[]))?;
    let failed = |_: CryptoError| refusal(notify::TEMPORARY_FAILURE, &[]);
    let private = ctx.crypto.generate(group).map_err(failed)?;
    let nonce_r = ctx.nonce().map_err(failed)?;
    let local_spi = ctx.ike_spi().map_err(failed)?;
    let mut chain = Chain::new();
    chain.sa(&proposal::answer_ike(&chosen, &local_spi.to_be_bytes()));
    chain.nonce(&nonce_r);
    chain.ke(Ke { group: group.number(), data: private.public() });
    let shared = private.agree(ke.data).map_err(|_| refusal(notify::INVALID_SYNTAX, &[]))?;
    let Some(keys) = &sa.keys else { return Err(failed(CryptoError)) };
    let with = Contribution { nonce_i, nonce_r: &nonce_r, spi_i: remote_spi, spi_r: local_spi };
    let keys = keys.rekeyed(ctx.crypto, chosen.suite, &shared, with);
    let mut heir = sa.successor(ctx, Role::Responder, local_spi, remote_spi, keys);
    // The peer knows it only once it has our answer.
    heir.hold_until = Some(peer_grace(ctx));
    ctx.signals.push(Signal::Successor(Box::new(heir)));
    match sa.exchange.pending_mut().map(|pending| &mut pending.request) {
        Some(Request::Ike(ours)) => {
            let nonce = nonce_i.min(&nonce_r).to_vec();
            ours.collision = Some(Collision { spi: local_spi, nonce });
        }
        _ => {
            sa.rekeyed(ctx, Some(local_spi));
            ctx.signals.push(Signal::Inherit(local_spi));
        }
    }
    Ok(chain)
}

/// The response to our request.
pub(crate) fn on_response(sa: &mut IkeSa, ctx: &mut Ctx<'_>, request: IkeRequest, payloads: &Payloads<'_>) {
    if !matches!(sa.phase, Phase::Live | Phase::Closing { .. }) {
        return;
    }
    if let Some(error) = payloads.error() {
        return on_refusal(sa, ctx, &request, error.kind, error.data);
    }
    let IkeRequest { private, group, nonce, spi: local_spi, collision, .. } = request;
    let made = (|| {
        let incomplete = |what| Failure::Incomplete { peer: sa.peer_name(), what };
        let answer = payloads.proposals().ok_or_else(|| incomplete("choice of algorithms"))?;
        let chosen = proposal::chosen_ike(answer, 8).filter(|chosen| chosen.suite.group == group);
        let chosen = chosen.ok_or_else(|| incomplete("choice out of our algorithms"))?;
        let ke = payloads.ke().filter(|ke| ke.group == group.number());
        let ke = ke.ok_or_else(|| incomplete("public value of the group we used"))?;
        let nonce_r = payloads.nonce().ok_or_else(|| incomplete("nonce"))?;
        let remote_spi = spi(&chosen.spi).ok_or_else(|| incomplete("SPI"))?;
        let shared = private.agree(ke.data)?;
        let with = Contribution { nonce_i: &nonce, nonce_r, spi_i: local_spi, spi_r: remote_spi };
        let keys = sa.keys.as_ref().ok_or(CryptoError)?.rekeyed(ctx.crypto, chosen.suite, &shared, with);
        Ok::<_, Failure>((remote_spi, keys, nonce.as_slice().min(nonce_r).to_vec()))
    })();
    let (remote_spi, keys, our_nonce) = match made {
        Ok(made) => made,
        Err(failure) => return worn_out(sa, ctx, failure),
    };
    let mut heir = sa.successor(ctx, Role::Initiator, local_spi, remote_spi, keys);
    // RFC 7296 section 2.8.2: of two new IKE SAs, the one made with the lowest of the four nonces is deleted by its
    // initiator; the initiator of the other deletes the old one.
    match collision {
        _ if matches!(sa.phase, Phase::Closing { .. }) => {
            // Nobody wants it any more, but the peer has it.
            heir.closing(ctx);
            ctx.signals.push(Signal::Successor(Box::new(heir)));
        }
        Some(theirs) if our_nonce < theirs.nonce => {
            heir.closing(ctx);
            ctx.signals.push(Signal::Successor(Box::new(heir)));
            ctx.signals.push(Signal::Inherit(theirs.spi));
            sa.rekeyed(ctx, Some(theirs.spi));
        }
        collision => {
            ctx.signals.push(Signal::Successor(Box::new(heir)));
            ctx.signals.push(Signal::Inherit(local_spi));
            ctx.signals.extend(collision.map(|theirs| Signal::Redundant(theirs.spi)));
            sa.closing(ctx);
        }
    }
}

fn on_refusal(sa: &mut IkeSa, ctx: &mut Ctx<'_>, request: &IkeRequest, kind: u16, data: &[u8]) {
    if !matches!(sa.phase, Phase::Live) {
        return;
    }
    if let Some(theirs) = &request.collision {
        // The peer rekeyed it first and did not notice our attempt.
        ctx.signals.push(Signal::Inherit(theirs.spi));
        return sa.rekeyed(ctx, Some(theirs.spi));
    }
    match kind {
        notify::INVALID_KE_PAYLOAD if !request.bounced => {
            let wanted = data.try_into().ok().map(u16::from_be_bytes).and_then(Group::from_number);
            match wanted {
                Some(group) => self::request(sa, ctx, Some(group)),
                None => sa.rekey_at = ctx.now.mono + WORN_OUT_RETRY,
            }
        }
        notify::TEMPORARY_FAILURE => sa.rekey_at = ctx.now.mono + retry_pause(ctx),
        kind => {
            let failure = Failure::Answered { peer: sa.peer_name(), kind };
            worn_out(sa, ctx, failure);
        }
    }
}

fn worn_out(sa: &mut IkeSa, ctx: &mut Ctx<'_>, failure: Failure) {
    if !matches!(sa.phase, Phase::Live) {
        return;
    }
    sa.rekey_at = ctx.now.mono + WORN_OUT_RETRY;
    ctx.signals.push(Signal::WornOut(failure));
}

fn spi(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes).filter(|spi| *spi != 0)
}
