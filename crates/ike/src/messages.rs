//! Messages that belong to an IKE SA: which are taken, and what they are for.

use std::net::SocketAddr;

use crate::child::ChildState;
use crate::ctx::{Ctx, Signal};
use crate::event::Role;
use crate::exchange::Order;
use crate::sa::{IkeSa, Phase, Request};
use crate::wire::{Chain, Exchange, Header, Payloads, Sealed, WireError, notify};
use crate::{child_rekey, create_child, ike_auth, ike_rekey, informational, sa_init};

/// A received message with its header already read.
#[derive(Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) header: Header,
    /// Type of the first payload.
    pub(crate) first: u8,
    pub(crate) message: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The payloads of a message that is not encrypted.
    pub(crate) fn payloads(&self) -> Result<Payloads<'a>, WireError> {
        Payloads::parse(self.first, self.message.get(crate::wire::HEADER_LEN..).unwrap_or_default())
    }
}

impl IkeSa {
    /// Takes a message whose SPI of ours names this IKE SA.
    pub(crate) fn handle(&mut self, ctx: &mut Ctx<'_>, datagram: Datagram<'_>) {
        let header = &datagram.header;
        let (spi_i, spi_r) = self.spis();
        let awaiting_init = matches!(self.phase, Phase::Init(_));
        if header.from_initiator == (self.role == Role::Initiator)
            || header.spi_i != spi_i
            || (header.spi_r != spi_r && !awaiting_init)
        {
            return;
        }
        if header.exchange == Exchange::IkeSaInit {
            if awaiting_init && header.response && header.message_id == 0 {
                sa_init::on_response(self, ctx, datagram);
            }
        } else if let Ok(sealed) = Sealed::find(datagram.first, datagram.message) {
            if header.response {
                self.on_response(ctx, datagram, sealed);
            } else {
                self.on_request(ctx, datagram, sealed);
            }
        } else if header.response {
            self.on_unprotected(ctx, datagram);
        }
        self.advance(ctx);
    }

    fn on_request(&mut self, ctx: &mut Ctx<'_>, datagram: Datagram<'_>, sealed: Sealed) {
        let tag = Sealed::tag(datagram.message);
        match self.exchange.order(datagram.header.message_id) {
            Order::New => {}
            Order::Last => {
                if let Some(response) = self.exchange.cached(tag).map(<[u8]>::to_vec) {
                    self.resend(ctx, &datagram, response);
                }
                return;
            }
            Order::Outside => return,
        }
        if !matches!(self.phase, Phase::HalfOpen(_) | Phase::Live | Phase::Rekeyed { .. } | Phase::Closing { .. }) {
            return;
        }
        let Some(opened) = self.open(ctx, sealed, datagram.message) else { return };
        if matches!(self.phase, Phase::HalfOpen(_)) {
            if datagram.header.exchange == Exchange::IkeAuth {
                ike_auth::answer(self, ctx, datagram, &opened, tag);
            }
            return;
        }
        self.heard(ctx, datagram.remote);
        if !self.supersedes.is_empty() {
            // Who asks the next thing has our response to the last one, and so the pair that came with it.
            self.switch_now(ctx);
        }
        let chain = match opened.payloads() {
            Err(error) => unreadable(error),
            Ok(payloads) => match datagram.header.exchange {
                Exchange::CreateChildSa => create_child::answer(self, ctx, &payloads),
                Exchange::Informational => informational::answer(self, ctx, &payloads),
                Exchange::IkeSaInit | Exchange::IkeAuth | Exchange::Other(_) => {
                    create_child::refusal(notify::INVALID_SYNTAX, &[])
                }
            },
        };
        self.send_response(ctx, &datagram, tag, &chain);
    }

    fn on_response(&mut self, ctx: &mut Ctx<'_>, datagram: Datagram<'_>, sealed: Sealed) {
        if self.exchange.pending().is_none_or(|pending| pending.id != datagram.header.message_id) {
            return;
        }
        let Some(opened) = self.open(ctx, sealed, datagram.message) else { return };
        let Some(request) = self.exchange.complete() else { return };
        self.heard(ctx, datagram.remote);
        // What cannot be read answers nothing: as good as an error without a name.
        let payloads = opened.payloads();
        match request {
            Request::Handshake => ike_auth::on_response(self, ctx, payloads),
            Request::Child(request) => child_rekey::on_response(self, ctx, *request, &payloads.unwrap_or_default()),
            Request::Ike(request) => ike_rekey::on_response(self, ctx, *request, &payloads.unwrap_or_default()),
            Request::DeleteChild { spi_in } => self.children.retain(|child| child.spi_in != spi_in),
            Request::DeleteIke => self.phase = Phase::Gone,
            Request::Liveness => {}
        }
    }

    /// Something authentic and new came from `remote`: the peer lives, and if it is behind a NAT that is where it is
    /// now (RFC 7296 section 2.23).
    fn heard(&mut self, ctx: &mut Ctx<'_>, remote: SocketAddr) {
        self.last_inbound = ctx.now.mono;
        self.hold_until = None;
        self.confirmed = true;
        if self.path.nat_remote && self.path.remote != remote {
            self.moved(ctx, remote);
        }
    }

    /// The peer is at another address: messages go there, and the CHILD_SAs are made anew for it.
    pub(crate) fn moved(&mut self, ctx: &mut Ctx<'_>, remote: SocketAddr) {
        self.path.remote = remote;
        self.rekey_children(ctx);
    }

    /// Rekeys the CHILD_SAs as soon as possible.
    pub(crate) fn rekey_children(&mut self, ctx: &mut Ctx<'_>) {
        for child in self.children.iter_mut().filter(|child| child.state == ChildState::Live) {
            child.rekey_at = child.rekey_at.min(ctx.now.mono);
        }
    }

    /// An unprotected response proves nothing; INVALID_IKE_SPI to a request of ours is worth a suspicion
    /// (RFC 7296 section 2.21.4).
    fn on_unprotected(&mut self, ctx: &mut Ctx<'_>, datagram: Datagram<'_>) {
        let answers = self.exchange.pending().is_some_and(|pending| pending.id == datagram.header.message_id);
        let lost = || datagram.payloads().is_ok_and(|payloads| payloads.notify(notify::INVALID_IKE_SPI).is_some());
        if !answers || datagram.remote.ip() != self.path.remote.ip() || !lost() {
            return;
        }
        match self.phase {
            Phase::Live => ctx.signals.push(Signal::Suspicion),
            Phase::Auth(_) => ctx.signals.push(Signal::Forgotten),
            // There is nothing left to say goodbye to.
            Phase::Closing { .. } | Phase::Rekeyed { .. } => self.phase = Phase::Gone,
            Phase::Init(_) | Phase::HalfOpen(_) | Phase::Lingering { .. } | Phase::Gone => {}
        }
    }
}

/// The answer to an authentic request that cannot be read (RFC 7296 section 2.5 and 2.21.3).
pub(crate) fn unreadable(error: WireError) -> Chain {
    match error {
        WireError::UnknownCritical(kind) => create_child::refusal(notify::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind]),
        _ => create_child::refusal(notify::INVALID_SYNTAX, &[]),
    }
}
