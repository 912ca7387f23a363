//! IKE_SA_INIT, both ends (RFC 7296 sections 1.2, 2.6 and 2.7).

use std::sync::Arc;
use std::time::Duration;

use crate::auth;
use crate::config::Peer;
use crate::cookie::CookieJar;
use crate::crypto::{Group, PrivateValue};
use crate::ctx::Ctx;
use crate::error::Failure;
use crate::event::Role;
use crate::ike_auth;
use crate::keymat::{Contribution, IkeKeys};
use crate::messages::Datagram;
use crate::natd;
use crate::path::Path;
use crate::proposal::{self, GROUPS};
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{Chain, Exchange, Header, Ke, Payloads, notify};

/// Cookies and other groups asked for in one call, before it is given up.
const MAX_BOUNCES: u8 = 5;

/// The initiator's state until the response.
pub(crate) struct Initiating {
    private: Option<Box<dyn PrivateValue>>,
    group: Group,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    bounces: u8,
    deadline: Duration,
}

/// The responder's state until IKE_AUTH.
pub(crate) struct HalfOpen {
    /// The request and its response: each end's signature covers its own.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    pub(crate) until: Duration,
}

/// Calls a peer. `budget` is the time for a response to IKE_SA_INIT.
pub(crate) fn call(ctx: &mut Ctx<'_>, peer: Arc<Peer>, mut path: Path, budget: Duration) -> Result<IkeSa, Failure> {
    let group = GROUPS[0];
    let initiating = Initiating {
        private: Some(ctx.crypto.generate(group)?),
        group,
        nonce: ctx.nonce()?,
        cookie: None,
        bounces: 0,
        deadline: ctx.now.mono.saturating_add(budget),
    };
    // A source address that is not known cannot be vouched for, so the responder will see a NAT.
    path.forced = ctx.config.force_encap || path.local.is_none();
    let spi = ctx.ike_spi()?;
    let mut sa = IkeSa::new(ctx, Role::Initiator, spi, 0, path, Phase::Init(Box::new(initiating)));
    sa.peer = Some(peer);
    send_request(&mut sa, ctx);
    Ok(sa)
}

fn send_request(sa: &mut IkeSa, ctx: &mut Ctx<'_>) {
    let header = sa.header(Exchange::IkeSaInit, false, 0);
    let Phase::Init(initiating) = &sa.phase else { return };
    let Some(private) = &initiating.private else { return };
    let mut chain = Chain::new();
    if let Some(cookie) = &initiating.cookie {
        chain.notify(notify::COOKIE, cookie);
    }
    chain.sa(&proposal::offer_ike(ctx.config.prefer_chacha, &[]));
    chain.ke(Ke { group: initiating.group.number(), data: private.public() });
    chain.nonce(&initiating.nonce);
    let source = sa.path.source().filter(|_| !sa.path.forced);
    natd::emit(ctx.crypto, header.spi_i, 0, source, sa.path.remote, &mut chain);
    chain.notify(notify::SIGNATURE_HASH_ALGORITHMS, &auth::HASH_SHA2_256);
    let message = chain.message(header);
    let budget = initiating.deadline.saturating_sub(ctx.now.mono);
    sa.exchange.sent(ctx.now.mono, &sa.timers(ctx).retransmit, budget, message.clone(), Request::Handshake);
    sa.transmit(ctx, message);
}

/// The initiator reads the response. It is not protected: what does not fit is ignored, for the true one may follow.
pub(crate) fn on_response(sa: &mut IkeSa, ctx: &mut Ctx<'_>, datagram: Datagram<'_>) {
    if datagram.remote != sa.path.remote {
        return;
    }
    let Ok(payloads) = datagram.payloads() else { return };
    if let Some(error) = payloads.error() {
        return on_error(sa, ctx, error.kind, error.data);
    }
    if let Some(cookie) = payloads.notify(notify::COOKIE) {
        if payloads.proposals().is_none() && (1..=64).contains(&cookie.data.len()) {
            bounce(sa, ctx, |initiating| initiating.cookie = Some(cookie.data.to_vec()));
        }
        return;
    }
    if let Err(failure) = proceed(sa, ctx, datagram, &payloads) {
        sa.end(ctx, failure);
    }
}

fn on_error(sa: &mut IkeSa, ctx: &mut Ctx<'_>, kind: u16, data: &[u8]) {
    if kind != notify::INVALID_KE_PAYLOAD {
        let peer = sa.peer_name();
        return sa.end(ctx, Failure::Answered { peer, kind });
    }
    let wanted = data.try_into().ok().map(u16::from_be_bytes).and_then(Group::from_number);
    let Some(group) = wanted else { return };
    let Ok(private) = ctx.crypto.generate(group) else { return };
    bounce(sa, ctx, |initiating| {
        initiating.group = group;
        initiating.private = Some(private);
    });
}

/// Asks again as the responder wants it.
fn bounce(sa: &mut IkeSa, ctx: &mut Ctx<'_>, change: impl FnOnce(&mut Initiating)) {
    let Phase::Init(initiating) = &mut sa.phase else { return };
    if initiating.bounces < MAX_BOUNCES {
        initiating.bounces += 1;
        change(initiating);
        send_request(sa, ctx);
    }
}

fn proceed(sa: &mut IkeSa, ctx: &mut Ctx<'_>, datagram: Datagram<'_>, payloads: &Payloads<'_>) -> Result<(), Failure> {
    let Phase::Init(initiating) = &mut sa.phase else { return Ok(()) };
    let (Some(answer), Some(ke), Some(nonce_r)) = (payloads.proposals(), payloads.ke(), payloads.nonce()) else {
        return Ok(());
    };
    let spi_r = datagram.header.spi_r;
    let Some(chosen) = proposal::chosen_ike(answer, 0) else { return Ok(()) };
    if spi_r == 0 || chosen.suite.group != initiating.group || ke.group != initiating.group.number() {
        return Ok(());
    }
    let Some(private) = initiating.private.take() else { return Ok(()) };
    let secret = private.agree(ke.data)?;
    let nonce_i = std::mem::take(&mut initiating.nonce);
    let with = Contribution { nonce_i: &nonce_i, nonce_r, spi_i: sa.local_spi, spi_r };
    sa.keys = Some(IkeKeys::initial(ctx.crypto, chosen.suite, &secret, with));
    sa.remote_spi = spi_r;

    sa.path.local = Some(datagram.local.ip());
    (sa.path.nat_local, sa.path.nat_remote) =
        natd::detect(ctx.crypto, sa.local_spi, spi_r, payloads, datagram.local, datagram.remote);
    if sa.path.encap() {
        sa.path.float();
    }
    let hashes = payloads.notify(notify::SIGNATURE_HASH_ALGORITHMS).map_or(&[][..], |hashes| hashes.data);
    if !hashes.chunks_exact(2).any(|hash| hash == auth::HASH_SHA2_256) {
        return Err(Failure::NoSignatureAuth { peer: sa.peer_name() });
    }
    let init_request = sa.exchange.pending().map(|pending| pending.message.clone()).unwrap_or_default();
    sa.exchange.complete();
    ike_auth::request(sa, ctx, &init_request, datagram.message, nonce_i, nonce_r)
}

/// What the endpoint allows a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// A cookie must be shown first.
    pub(crate) demand_cookie: bool,
}

/// The responder's end: a new IKE SA, or nothing but perhaps an answer that leaves no trace with us.
pub(crate) fn answer(
    ctx: &mut Ctx<'_>,
    jar: &mut CookieJar,
    admission: Admission,
    datagram: Datagram<'_>,
) -> Option<IkeSa> {
    let Datagram { local, remote, header, .. } = datagram;
    let stateless = |ctx: &mut Ctx<'_>, kind: u16, data: &[u8]| {
        let header = Header { response: true, from_initiator: false, ..header };
        let mut chain = Chain::new();
        chain.notify(kind, data);
        ctx.out.transmits.push_back(Path::answering(local, remote).transmit(None, chain.message(header)));
    };
    let payloads = match datagram.payloads() {
        Ok(payloads) => payloads,
        Err(crate::wire::WireError::UnknownCritical(kind)) => {
            stateless(ctx, notify::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind]);
            return None;
        }
        Err(_) => return None,
    };
    let (offer, ke, nonce_i) = (payloads.proposals()?, payloads.ke()?, payloads.nonce()?);
    if admission.demand_cookie {
        let shown = payloads.notify(notify::COOKIE).map_or(&[][..], |cookie| cookie.data);
        if !jar.check(ctx.crypto, ctx.now.mono, remote, header.spi_i, nonce_i, shown) {
            let cookie = jar.make(ctx.crypto, ctx.now.mono, remote, header.spi_i, nonce_i)?;
            stateless(ctx, notify::COOKIE, &cookie);
            return None;
        }
    }
    let Some(chosen) = proposal::choose_ike(offer, ctx.config.prefer_chacha, 0, Some(ke.group)) else {
        stateless(ctx, notify::NO_PROPOSAL_CHOSEN, &[]);
        return None;
    };
    let group = chosen.suite.group;
    if ke.group != group.number() {
        stateless(ctx, notify::INVALID_KE_PAYLOAD, &group.number().to_be_bytes());
        return None;
    }
    let private = ctx.crypto.generate(group).ok()?;
    let public = private.public().to_vec();
    let secret = private.agree(ke.data).ok()?;
    let nonce_r = ctx.nonce().ok()?;
    let spi_r = ctx.ike_spi().ok()?;

    let mut path = Path::answering(local, remote);
    path.forced = ctx.config.force_encap;
    // RFC 7296 section 2.23: the initiator's hashes cover a responder SPI of zero.
    (path.nat_local, path.nat_remote) = natd::detect(ctx.crypto, header.spi_i, 0, &payloads, local, remote);
    let source = Some(local).filter(|_| !path.forced);
    let mut chain = Chain::new();
    chain.sa(&proposal::answer_ike(&chosen, &[]));
    chain.ke(Ke { group: group.number(), data: &public });
    chain.nonce(&nonce_r);
    natd::emit(ctx.crypto, header.spi_i, spi_r, source, remote, &mut chain);
    auth::emit_certreq(ctx.crypto, &ctx.config.credentials, &mut chain);
    chain.notify(notify::SIGNATURE_HASH_ALGORITHMS, &auth::HASH_SHA2_256);
    let response = chain.message(Header { spi_r, from_initiator: false, response: true, ..header });

    let with = Contribution { nonce_i, nonce_r: &nonce_r, spi_i: header.spi_i, spi_r };
    let keys = IkeKeys::initial(ctx.crypto, chosen.suite, &secret, with);
    let half_open = HalfOpen {
        request: datagram.message.to_vec(),
        response: response.clone(),
        nonce_i: nonce_i.to_vec(),
        nonce_r,
        until: ctx.now.mono.saturating_add(ctx.config.timers.half_open),
    };
    let phase = Phase::HalfOpen(Box::new(half_open));
    let mut sa = IkeSa::new(ctx, Role::Responder, spi_r, header.spi_i, path, phase);
    sa.keys = Some(keys);
    sa.caller = Some(remote);
    sa.transmit(ctx, response);
    Some(sa)
}

/// Answers the retransmission of a request that has made a half-open IKE SA.
pub(crate) fn repeat(sa: &mut IkeSa, ctx: &mut Ctx<'_>, datagram: &Datagram<'_>) {
    let Phase::HalfOpen(half_open) = &sa.phase else { return };
    if half_open.request == datagram.message {
        let response = half_open.response.clone();
        sa.resend(ctx, datagram, response);
    }
}
