//! IKE_AUTH, both ends (RFC 7296 section 1.2).

use std::sync::Arc;

use crate::auth::{self, Proof};
use crate::child::{self, Agreement, ChildSa, ChildSecrets, ChildState};
use crate::config::Peer;
use crate::crypto::CryptoError;
use crate::ctx::{Ctx, Signal};
use crate::error::{CertificateFailure, Failure};
use crate::event::Child;
use crate::informational;
use crate::messages::{Datagram, unreadable};
use crate::proposal;
use crate::sa::{IkeSa, Phase, Request};
use crate::sa_init::HalfOpen;
use crate::wire::{Chain, Exchange, Id, Opened, Payloads, WireError, notify, payload};

/// The initiator's state until the response.
pub(crate) struct Authenticating {
    init_response: Vec<u8>,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    spi_in: u32,
    initial_contact: bool,
}

/// The initiator proves who it is and asks for the first CHILD_SA.
pub(crate) fn request(
    sa: &mut IkeSa,
    ctx: &mut Ctx<'_>,
    init_request: &[u8],
    init_response: &[u8],
    nonce_i: Vec<u8>,
    nonce_r: &[u8],
) -> Result<(), Failure> {
    let (Some(keys), Some(peer)) = (&sa.keys, sa.peer.clone()) else { return Ok(()) };
    let credentials = &ctx.config.credentials;
    let id = Id::Fqdn(&ctx.config.name);
    let octets = auth::signed_octets(ctx.crypto, keys.suite.prf, init_request, nonce_r, &keys.sk_pi, &id);
    let mut chain = Chain::new();
    chain.push(payload::ID_I, |out| out.extend_from_slice(&id.body()));
    auth::emit_certs(credentials, &mut chain);
    // RFC 7296 section 2.4: only if this is our only IKE SA with the peer.
    let initial_contact = ctx.directory.get(peer.id).is_none_or(|entry| entry.current.is_none());
    if initial_contact {
        chain.notify(notify::INITIAL_CONTACT, &[]);
    }
    auth::emit_certreq(ctx.crypto, credentials, &mut chain);
    auth::emit_auth(ctx.crypto, credentials, &octets, &mut chain)?;
    let spi_in = ctx.esp_spi()?;
    chain.sa(&proposal::offer_esp(&ctx.config.esp(), spi_in, false));
    chain.ts(&peer.local_ts, &peer.remote_ts);
    sa.phase = Phase::Auth(Box::new(Authenticating {
        init_response: init_response.to_vec(),
        nonce_i,
        nonce_r: nonce_r.to_vec(),
        spi_in,
        initial_contact,
    }));
    sa.send_request(ctx, Exchange::IkeAuth, &chain, Request::Handshake);
    Ok(())
}

/// The responder's end.
pub(crate) fn answer(sa: &mut IkeSa, ctx: &mut Ctx<'_>, datagram: Datagram<'_>, opened: &Opened, tag: [u8; 16]) {
    // The message is authentic: the caller is where it came from, perhaps moved to port 4500.
    sa.path.local = Some(datagram.local.ip());
    sa.path.local_port = datagram.local.port();
    sa.path.remote = datagram.remote;
    let Phase::HalfOpen(half_open) = std::mem::replace(&mut sa.phase, Phase::Live) else { return };
    let payloads = match opened.payloads() {
        Ok(payloads) => payloads,
        Err(error) => {
            let failure = Failure::Malformed { peer: datagram.remote.to_string(), error };
            let chain = unreadable(error);
            sa.send_response(ctx, &datagram, tag, &chain);
            return refuse(sa, ctx, None, failure);
        }
    };
    match identify(sa, ctx, &half_open, &payloads) {
        Ok((peer, proof)) => {
            ctx.learn(proof.wall);
            sa.take_proof(proof);
            sa.peer = Some(peer);
            let chain = welcome(sa, ctx, &half_open, &payloads);
            sa.send_response(ctx, &datagram, tag, &chain);
        }
        Err((claimed, failure)) => {
            let mut chain = Chain::new();
            chain.notify(notify::AUTHENTICATION_FAILED, &[]);
            sa.send_response(ctx, &datagram, tag, &chain);
            refuse(sa, ctx, claimed, failure);
        }
    }
}

fn refuse(sa: &mut IkeSa, ctx: &mut Ctx<'_>, claimed: Option<String>, failure: Failure) {
    sa.linger(ctx);
    ctx.signals.push(Signal::Refused { claimed, failure });
}

/// Finds out who calls, and has it proved.
fn identify(
    sa: &IkeSa,
    ctx: &Ctx<'_>,
    half_open: &HalfOpen,
    payloads: &Payloads<'_>,
) -> Result<(Arc<Peer>, Proof), (Option<String>, Failure)> {
    let address = || sa.path.remote.to_string();
    let Some(id) = payloads.id_i() else {
        return Err((None, Failure::Incomplete { peer: address(), what: "identity" }));
    };
    let certs = auth::certs(payloads);
    let claimed = auth::describe(id, &certs);
    let fail = |failure| (Some(claimed.clone()), failure);
    let names = auth::claimed_names(id, &certs);
    let entry = names.iter().find_map(|name| ctx.directory.by_name(name));
    let peer = &entry.ok_or_else(|| fail(Failure::UnknownPeer { claimed: claimed.clone() }))?.config;
    let proof =
        payloads.auth().ok_or_else(|| fail(Failure::Incomplete { peer: claimed.clone(), what: "signature" }))?;
    let keys = sa.keys.as_ref().ok_or_else(|| fail(CryptoError.into()))?;
    let octets =
        auth::signed_octets(ctx.crypto, keys.suite.prf, &half_open.request, &half_open.nonce_r, &keys.sk_pi, id);
    let proof = auth::verify(ctx.crypto, &ctx.config.credentials, ctx.now.wall, &peer.name, &certs, proof, &octets)
        .map_err(|failure| fail(failure.into()))?;
    Ok((Arc::clone(peer), proof))
}

/// The caller is who it says: prove ourselves and settle the first CHILD_SA.
fn welcome(sa: &mut IkeSa, ctx: &mut Ctx<'_>, half_open: &HalfOpen, payloads: &Payloads<'_>) -> Chain {
    let mut chain = Chain::new();
    let Some(octets) = own_octets(sa, ctx, half_open) else {
        sa.linger(ctx);
        return chain;
    };
    let id = Id::Fqdn(&ctx.config.name);
    chain.push(payload::ID_R, |out| out.extend_from_slice(&id.body()));
    auth::emit_certs(&ctx.config.credentials, &mut chain);
    if auth::emit_auth(ctx.crypto, &ctx.config.credentials, &octets, &mut chain).is_err() {
        sa.linger(ctx);
        return chain;
    }
    sa.go_live(ctx);
    match first_child(sa, ctx, half_open, payloads, &mut chain) {
        Ok(child) => {
            let initial_contact = payloads.notify(notify::INITIAL_CONTACT).is_some();
            ctx.signals.push(Signal::Established { child: Box::new(child), initial_contact });
        }
        Err(disagreement) => {
            // The IKE SA is of no use to us without a pair; the peer, which knows why, deletes it.
            chain.notify(disagreement.kind, &[]);
            sa.rekeyed(ctx, None);
            let claimed = Some(sa.peer_name());
            ctx.signals.push(Signal::Refused { claimed, failure: disagreement.failure });
        }
    }
    chain
}

fn own_octets(sa: &IkeSa, ctx: &Ctx<'_>, half_open: &HalfOpen) -> Option<Vec<u8>> {
    let keys = sa.keys.as_ref()?;
    let id = Id::Fqdn(&ctx.config.name);
    Some(auth::signed_octets(ctx.crypto, keys.suite.prf, &half_open.response, &half_open.nonce_i, &keys.sk_pr, &id))
}

fn first_child(
    sa: &mut IkeSa,
    ctx: &mut Ctx<'_>,
    half_open: &HalfOpen,
    payloads: &Payloads<'_>,
    chain: &mut Chain,
) -> Result<Child, child::Disagreement> {
    let broken = |failure| child::Disagreement { kind: notify::NO_PROPOSAL_CHOSEN, failure };
    let Some(peer) = sa.peer.clone() else { return Err(broken(CryptoError.into())) };
    let agreement = child::respond(payloads, &peer, &ctx.config.esp(), false)?;
    let spi_in = ctx.esp_spi().map_err(|error| broken(error.into()))?;
    chain.sa(&proposal::answer_esp(&agreement.chosen, spi_in));
    chain.ts(&agreement.remote_ts, &agreement.local_ts);
    install(sa, ctx, agreement, spi_in, &half_open.nonce_i, &half_open.nonce_r, false)
        .ok_or_else(|| broken(CryptoError.into()))
}

/// Keeps the first CHILD_SA and makes its keys.
fn install(
    sa: &mut IkeSa,
    ctx: &mut Ctx<'_>,
    agreement: Agreement,
    spi_in: u32,
    nonce_i: &[u8],
    nonce_r: &[u8],
    initiator: bool,
) -> Option<Child> {
    let secrets = ChildSecrets { shared: &[], nonce_i, nonce_r };
    let child = agreement.into_child(ctx.crypto, sa.keys.as_ref()?, secrets, &sa.path, spi_in, initiator);
    sa.children.push(ChildSa {
        spi_in,
        spi_out: child.spi_out,
        state: ChildState::Live,
        rekey_at: sa.child_rekey_at(ctx),
        switch_at: None,
        announced: true,
    });
    Some(child)
}

/// The initiator reads the response.
pub(crate) fn on_response(sa: &mut IkeSa, ctx: &mut Ctx<'_>, payloads: Result<Payloads<'_>, WireError>) {
    let Phase::Auth(state) = std::mem::replace(&mut sa.phase, Phase::Live) else { return };
    let Some(peer) = sa.peer.clone() else { return };
    let payloads = match payloads {
        Ok(payloads) => payloads,
        Err(error) => return give_up(sa, ctx, Failure::Malformed { peer: peer.name.clone(), error }),
    };
    // Without an AUTH payload an error is about the IKE SA, which then does not exist at the responder.
    if let Some(error) = payloads.error().filter(|_| payloads.auth().is_none()) {
        let failure = match error.kind {
            notify::AUTHENTICATION_FAILED => Failure::RefusedUs { peer: peer.name.clone() },
            kind => Failure::Answered { peer: peer.name.clone(), kind },
        };
        ctx.signals.push(Signal::Failed(failure));
        sa.phase = Phase::Gone;
        return;
    }
    match authenticate(sa, ctx, &peer, &state, &payloads) {
        Ok(proof) => {
            ctx.learn(proof.wall);
            sa.take_proof(proof);
        }
        Err(failure) => {
            // RFC 7296 section 2.21.2: the responder, which takes the IKE SA for established, is told.
            let mut chain = Chain::new();
            chain.notify(notify::AUTHENTICATION_FAILED, &[]);
            sa.closing(ctx);
            sa.send_request(ctx, Exchange::Informational, &chain, Request::DeleteIke);
            ctx.signals.push(Signal::Failed(failure));
            return;
        }
    }
    if let Some(error) = payloads.error().filter(|_| payloads.proposals().is_none()) {
        return give_up(sa, ctx, Failure::Answered { peer: peer.name.clone(), kind: error.kind });
    }
    match child::conclude(&payloads, &peer, &ctx.config.esp(), false) {
        Ok(agreement) => {
            sa.go_live(ctx);
            if let Some(child) = install(sa, ctx, agreement, state.spi_in, &state.nonce_i, &state.nonce_r, true) {
                ctx.signals.push(Signal::Established { child: Box::new(child), initial_contact: false });
                if state.initial_contact {
                    // The peer may hold a pair that outlives the program here, and sends on it until it hears that we
                    // have the new one.
                    informational::liveness(sa, ctx);
                }
            }
        }
        Err(failure) => give_up(sa, ctx, failure),
    }
}

/// Deletes an IKE SA that is of no use, which the responder holds for good.
fn give_up(sa: &mut IkeSa, ctx: &mut Ctx<'_>, failure: Failure) {
    sa.close(ctx);
    ctx.signals.push(Signal::Failed(failure));
}

fn authenticate(
    sa: &IkeSa,
    ctx: &Ctx<'_>,
    peer: &Peer,
    state: &Authenticating,
    payloads: &Payloads<'_>,
) -> Result<Proof, Failure> {
    let incomplete = |what| Failure::Incomplete { peer: peer.name.clone(), what };
    let id = payloads.id_r().ok_or_else(|| incomplete("identity"))?;
    let proof = payloads.auth().ok_or_else(|| incomplete("signature"))?;
    let keys = sa.keys.as_ref().ok_or(CryptoError)?;
    let certs = auth::certs(payloads);
    if certs.is_empty() {
        return Err(CertificateFailure::Missing { of: peer.name.clone() }.into());
    }
    if !auth::claimed_names(id, &certs).contains(&peer.name) {
        let presented = auth::describe(id, &certs);
        return Err(Failure::OtherIdentity { expected: peer.name.clone(), presented });
    }
    let octets = auth::signed_octets(ctx.crypto, keys.suite.prf, &state.init_response, &state.nonce_i, &keys.sk_pr, id);
    Ok(auth::verify(ctx.crypto, &ctx.config.credentials, ctx.now.wall, &peer.name, &certs, proof, &octets)?)
}
