//! One IKE SA: its phases, its keys and its messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Proof;
use crate::child::{ChildSa, ChildState};
use crate::child_rekey::ChildRequest;
use crate::config::{Peer, PeerId, Timers};
use crate::ctx::{Ctx, Signal};
use crate::error::Failure;
use crate::event::{Event, Role};
use crate::exchange;
use crate::ike_auth::Authenticating;
use crate::ike_rekey::IkeRequest;
use crate::keymat::IkeKeys;
use crate::messages::Datagram;
use crate::path::Path;
use crate::sa_init::{HalfOpen, Initiating};
use crate::wire::{self, Chain, Exchange, Header};

/// How long deleting an IKE SA or a response to its end is kept up.
const FAREWELL: Duration = Duration::from_secs(10);

/// Where an IKE SA is in its life.
pub(crate) enum Phase {
    /// We wait for the response to IKE_SA_INIT.
    Init(Box<Initiating>),
    /// We wait for the response to IKE_AUTH.
    Auth(Box<Authenticating>),
    /// We answered IKE_SA_INIT and wait for IKE_AUTH.
    HalfOpen(Box<HalfOpen>),
    Live,
    /// It is of no more use, and the peer is to delete it until then. The successor that took its CHILD_SAs, by our
    /// SPI, is sure to be known to the peer once it has done so.
    Rekeyed {
        until: Duration,
        heir: Option<u64>,
    },
    /// We delete it.
    Closing {
        until: Duration,
    },
    /// It has ended; only a retransmitted request is still answered.
    Lingering {
        until: Duration,
    },
    Gone,
}

/// A request of ours that waits for its response, after the handshake.
pub(crate) enum Request {
    Handshake,
    Child(Box<ChildRequest>),
    Ike(Box<IkeRequest>),
    DeleteChild { spi_in: u32 },
    DeleteIke,
    Liveness,
}

/// The moment both ends were authenticated: in the endpoint's count of events, and monotonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Milestone {
    pub(crate) serial: u64,
    pub(crate) at: Duration,
}

pub(crate) struct IkeSa {
    /// Names the IKE SA within the endpoint.
    pub(crate) local_spi: u64,
    pub(crate) remote_spi: u64,
    pub(crate) role: Role,
    /// The configuration it was made with; unknown until a caller identifies itself.
    pub(crate) peer: Option<Arc<Peer>>,
    pub(crate) path: Path,
    /// Where a caller's first message came from.
    pub(crate) caller: Option<SocketAddr>,
    pub(crate) phase: Phase,
    pub(crate) keys: Option<IkeKeys>,
    /// The next initialization vector.
    pub(crate) iv: u64,
    pub(crate) exchange: exchange::Exchange<Request>,
    pub(crate) children: Vec<ChildSa>,
    /// When its first message was sent or seen, in the endpoint's count of events. A successor inherits it.
    pub(crate) born: u64,
    pub(crate) established: Option<Milestone>,
    /// It is for us to ask first whether the other end lives. A successor inherits it.
    pub(crate) asks: bool,
    pub(crate) last_inbound: Duration,
    pub(crate) last_outbound: Duration,
    /// That was a keepalive, and so the mapping is not new.
    pub(crate) kept_alive: bool,
    /// The next rekey, or the next try of one.
    pub(crate) rekey_at: Duration,
    /// When a lost CHILD_SA is made anew.
    pub(crate) new_child_at: Duration,
    /// The peer has told us that it does not know our CHILD_SA: it is for us to make it anew.
    pub(crate) lost_child: bool,
    /// The peer may not know this IKE SA yet: no requests before.
    pub(crate) hold_until: Option<Duration>,
    /// Made by a rekey, and has not inherited the CHILD_SAs: with two rekeys at once it may never do.
    pub(crate) provisional: bool,
    /// The peer is sure to have it: nothing that made it can still be lost on the way.
    pub(crate) confirmed: bool,
    /// IKE SAs that the peer has lost, by our SPI: their pairs are used until the peer is sure to have this one's.
    pub(crate) supersedes: Vec<u64>,
    /// The end of the certificate by which the peer is authenticated, in seconds since 1970.
    pub(crate) until: u64,
    /// That certificate.
    #[cfg(feature = "crl")]
    pub(crate) certificate: Option<crate::crl::Which>,
}

impl IkeSa {
    pub(crate) fn new(
        ctx: &mut Ctx<'_>,
        role: Role,
        local_spi: u64,
        remote_spi: u64,
        path: Path,
        phase: Phase,
    ) -> Self {
        let now = ctx.now.mono;
        Self {
            local_spi,
            remote_spi,
            role,
            peer: None,
            caller: None,
            path,
            phase,
            keys: None,
            iv: 0,
            exchange: match role {
                Role::Initiator => exchange::Exchange::new(0, 0),
                // The first request, IKE_SA_INIT, has been answered.
                Role::Responder => exchange::Exchange::new(0, 1),
            },
            children: Vec::new(),
            born: ctx.serial(),
            established: None,
            asks: role == Role::Initiator,
            last_inbound: now,
            last_outbound: now,
            kept_alive: false,
            rekey_at: Duration::MAX,
            new_child_at: Duration::ZERO,
            lost_child: false,
            hold_until: None,
            provisional: false,
            confirmed: role == Role::Initiator,
            supersedes: Vec::new(),
            until: 0,
            #[cfg(feature = "crl")]
            certificate: None,
        }
    }

    /// The IKE SA that a rekey of this one made.
    pub(crate) fn successor(
        &self,
        ctx: &mut Ctx<'_>,
        role: Role,
        local_spi: u64,
        remote_spi: u64,
        keys: IkeKeys,
    ) -> Self {
        let mut heir = Self::new(ctx, role, local_spi, remote_spi, self.path.clone(), Phase::Live);
        heir.exchange = exchange::Exchange::new(0, 0);
        heir.peer.clone_from(&self.peer);
        heir.keys = Some(keys);
        heir.born = self.born;
        heir.established = self.established;
        heir.until = self.until;
        #[cfg(feature = "crl")]
        heir.certificate.clone_from(&self.certificate);
        heir.provisional = true;
        heir.confirmed = self.confirmed;
        heir.asks = self.asks;
        heir.rekey_at = lifetime(ctx, self.timers(ctx).ike_rekey);
        heir
    }

    /// Both ends are authenticated.
    pub(crate) fn go_live(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        self.phase = Phase::Live;
        self.established = Some(Milestone { serial: ctx.serial(), at: now });
        self.last_inbound = now;
        self.rekey_at = lifetime(ctx, self.timers(ctx).ike_rekey);
    }

    /// The peer is who it says.
    pub(crate) fn take_proof(&mut self, proof: Proof) {
        self.until = proof.until;
        #[cfg(feature = "crl")]
        {
            self.certificate = proof.certificate;
        }
    }

    pub(crate) fn peer_id(&self) -> Option<PeerId> {
        self.peer.as_ref().map(|peer| peer.id)
    }

    /// The peer's name, or its address.
    pub(crate) fn peer_name(&self) -> String {
        self.peer.as_ref().map_or_else(|| self.path.remote.to_string(), |peer| peer.name.clone())
    }

    /// In use or ready for it.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live) && !self.provisional
    }

    pub(crate) fn spis(&self) -> (u64, u64) {
        match self.role {
            Role::Initiator => (self.local_spi, self.remote_spi),
            Role::Responder => (self.remote_spi, self.local_spi),
        }
    }

    pub(crate) fn header(&self, exchange: Exchange, response: bool, message_id: u32) -> Header {
        let (spi_i, spi_r) = self.spis();
        Header { spi_i, spi_r, exchange, from_initiator: self.role == Role::Initiator, response, message_id }
    }

    pub(crate) fn transmit(&mut self, ctx: &mut Ctx<'_>, message: Vec<u8>) {
        self.spoke(ctx.now.mono, false);
        ctx.out.transmits.push_back(self.path.transmit(self.peer_id(), message));
    }

    /// Sends an encrypted request and waits for its response.
    pub(crate) fn send_request(&mut self, ctx: &mut Ctx<'_>, exchange: Exchange, chain: &Chain, request: Request) {
        let timing = &self.timers(ctx).retransmit;
        let budget = match request {
            Request::DeleteIke => timing.budget.min(FAREWELL),
            // It has answered IKE_SA_INIT: if there is no more from it, it has forgotten that, or one of us has moved.
            Request::Handshake => timing.budget.min(self.timers(ctx).unanswered),
            _ => timing.budget,
        };
        let id = self.exchange.next_id();
        match self.seal(ctx, self.header(exchange, false, id), chain) {
            Some(message) => {
                self.exchange.sent(ctx.now.mono, timing, budget, message.clone(), request);
                self.transmit(ctx, message);
            }
            None => self.end(ctx, Failure::Crypto(crate::crypto::CryptoError)),
        }
    }

    /// Answers the expected request, whose tag is `tag`, to where it came from.
    pub(crate) fn send_response(&mut self, ctx: &mut Ctx<'_>, request: &Datagram<'_>, tag: [u8; 16], chain: &Chain) {
        let header = self.header(request.header.exchange, true, request.header.message_id);
        let Some(message) = self.seal(ctx, header, chain) else { return };
        self.exchange.answer(tag, message.clone());
        self.resend(ctx, request, message);
    }

    /// Goes on between other addresses, with a request that waits for its response too.
    pub(crate) fn divert(&mut self, ctx: &mut Ctx<'_>, path: Path) {
        if self.path != path {
            self.path = path;
            if let Some(message) = self.exchange.pending().map(|pending| pending.message.clone()) {
                self.transmit(ctx, message);
            }
        }
    }

    /// Sends a response to where the request, or its repetition, came from.
    /// Sends a response between the addresses of the request or its repetition (RFC 7296 section 2.11): ours may have
    /// changed since.
    pub(crate) fn resend(&mut self, ctx: &mut Ctx<'_>, request: &Datagram<'_>, message: Vec<u8>) {
        self.spoke(ctx.now.mono, false);
        let path = Path::answering(request.local, request.remote);
        ctx.out.transmits.push_back(path.transmit(self.peer_id(), message));
    }

    pub(crate) fn spoke(&mut self, now: Duration, kept_alive: bool) {
        (self.last_outbound, self.kept_alive) = (now, kept_alive);
    }

    fn seal(&mut self, ctx: &Ctx<'_>, header: Header, chain: &Chain) -> Option<Vec<u8>> {
        let keys = self.keys.as_ref()?;
        let key = if self.role == Role::Initiator { &keys.sk_ei } else { &keys.sk_er };
        let iv = self.iv;
        self.iv = iv.checked_add(1)?;
        wire::seal(ctx.crypto, keys.suite.aead, key, iv, header, chain)
    }

    pub(crate) fn open(&self, ctx: &Ctx<'_>, sealed: wire::Sealed, message: &[u8]) -> Option<wire::Opened> {
        let keys = self.keys.as_ref()?;
        let key = if self.role == Role::Initiator { &keys.sk_er } else { &keys.sk_ei };
        wire::open(ctx.crypto, keys.suite.aead, key, sealed, message).ok()
    }

    /// It has ended without farewell: our call failed, or the peer is dead.
    pub(crate) fn end(&mut self, ctx: &mut Ctx<'_>, failure: Failure) {
        let signal = match self.phase {
            Phase::Init(_) | Phase::Auth(_) => Some(Signal::Failed(failure)),
            Phase::Live if !self.provisional => Some(Signal::Down(failure)),
            _ => None,
        };
        ctx.signals.extend(signal);
        self.phase = Phase::Gone;
    }

    /// Deletes it, with a farewell to the peer. Its CHILD_SAs are the caller's concern.
    pub(crate) fn close(&mut self, ctx: &mut Ctx<'_>) {
        match self.phase {
            Phase::Live | Phase::Rekeyed { .. } => self.closing(ctx),
            Phase::Closing { .. } | Phase::Lingering { .. } => {}
            Phase::Init(_) | Phase::Auth(_) | Phase::HalfOpen(_) | Phase::Gone => self.phase = Phase::Gone,
        }
        self.advance(ctx);
    }

    /// From now on there is nothing but the farewell.
    pub(crate) fn closing(&mut self, ctx: &Ctx<'_>) {
        self.phase = Phase::Closing { until: ctx.now.mono + FAREWELL };
    }

    /// It has ended for both; repetitions of the last request are still answered.
    pub(crate) fn linger(&mut self, ctx: &Ctx<'_>) {
        self.phase = Phase::Lingering { until: ctx.now.mono + FAREWELL };
    }

    /// It is of no more use, and the peer deletes it.
    pub(crate) fn rekeyed(&mut self, ctx: &Ctx<'_>, heir: Option<u64>) {
        self.phase = Phase::Rekeyed { until: peer_grace(ctx), heir };
    }

    /// Sends on the newest pair that still waits for it.
    pub(crate) fn switch_now(&mut self, ctx: &mut Ctx<'_>) {
        let Some(peer) = self.peer_id() else { return };
        let waiting = |child: &&mut ChildSa| child.state == ChildState::Live && child.switch_at.is_some();
        if let Some(child) = self.children.iter_mut().rev().find(waiting) {
            child.switch_at = None;
            ctx.out.events.push_back(Event::ChildSend { peer, spi_in: child.spi_in, spi_out: child.spi_out });
            self.supersede(ctx);
        }
    }

    /// Another pair is sent on now: those that the peer has lost are of no more use.
    pub(crate) fn supersede(&mut self, ctx: &mut Ctx<'_>) {
        let lost = std::mem::take(&mut self.supersedes);
        ctx.signals.extend(lost.into_iter().map(Signal::Superseded));
    }

    pub(crate) fn child_mut(&mut self, spi_in: u32) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|child| child.spi_in == spi_in)
    }

    /// The pair in use, or the one that takes over.
    pub(crate) fn live_child(&self) -> Option<&ChildSa> {
        self.children.iter().rev().find(|child| child.state == ChildState::Live)
    }

    /// Tells the user that a pair is no longer to be used, once.
    pub(crate) fn retire(&mut self, ctx: &mut Ctx<'_>, spi_in: u32) {
        let Some(peer) = self.peer_id() else { return };
        if let Some(child) = self.child_mut(spi_in).filter(|child| child.announced) {
            child.announced = false;
            child.switch_at = None;
            let spi_out = child.spi_out;
            ctx.out.events.push_back(Event::ChildRetired { peer, spi_in, spi_out });
        }
    }

    /// The same for all, when the IKE SA ends.
    pub(crate) fn retire_all(&mut self, ctx: &mut Ctx<'_>) {
        let spis: Vec<u32> = self.children.iter().map(|child| child.spi_in).collect();
        for spi_in in spis {
            self.retire(ctx, spi_in);
        }
        self.children.clear();
    }

    /// When the next rekey of a CHILD_SA made now is due.
    pub(crate) fn child_rekey_at(&self, ctx: &Ctx<'_>) -> Duration {
        lifetime(ctx, self.timers(ctx).child_rekey)
    }

    pub(crate) fn timers<'a>(&self, ctx: &Ctx<'a>) -> &'a Timers {
        ctx.config.timers_for(self.peer_id().and_then(|id| ctx.directory.get(id)))
    }
}

/// When something made now that lives for `most` is to be renewed: up to a tenth earlier, so that the two ends, and many
/// peers, rarely coincide.
fn lifetime(ctx: &Ctx<'_>, most: Duration) -> Duration {
    ctx.now.mono.saturating_add(most.saturating_sub(ctx.jitter(most / 10)))
}

/// Until when the peer may delete what it replaced: as long as it may repeat the request that did.
pub(crate) fn peer_grace(ctx: &Ctx<'_>) -> Duration {
    ctx.now.mono.saturating_add(ctx.config.timers.retransmit.budget).saturating_add(Duration::from_secs(5))
}

/// How long to wait before trying again what the peer could not do just now.
pub(crate) fn retry_pause(ctx: &Ctx<'_>) -> Duration {
    Duration::from_secs(1) + ctx.jitter(Duration::from_secs(3))
}
