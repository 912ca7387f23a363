//! Signs that one of the two ends has lost its state, without an IKE SA to say so.

use std::net::SocketAddr;

use crate::config::{Now, PeerId};
use crate::endpoint::Endpoint;
use crate::informational;
use crate::path::Path;
use crate::wire::{Chain, Exchange, Header, notify};

impl Endpoint {
    /// ESP with an SPI nobody here knows came from `remote`: an unprotected INVALID_SPI tells the sender
    /// (RFC 7296 section 1.5), rate-limited. It proves nothing there and only makes it look sooner.
    pub fn handle_unknown_spi(&mut self, now: Now, remote: SocketAddr, spi: u32) {
        if !self.stopping && self.replies.allow(now.mono) {
            let header = Header {
                spi_i: 0,
                spi_r: 0,
                exchange: Exchange::Informational,
                from_initiator: true,
                response: false,
                message_id: 0,
            };
            let mut chain = Chain::new();
            chain.notify(notify::INVALID_SPI, &spi.to_be_bytes());
            self.out.transmits.push_back(Path::calling(None, remote).transmit(None, chain.message(header)));
        }
    }

    /// Asks the peer now whether it lives, rather than after [`crate::Timers::dpd`]: packets are sent to it and none
    /// come back. A peer that lost the IKE SA says so, and a new one is made.
    pub fn check_liveness(&mut self, now: Now, peer: PeerId) {
        self.with_current(now, peer, |sa, ctx| {
            // A request that waits for its response asks the same.
            let free = sa.exchange.pending().is_none() && sa.hold_until.is_none_or(|at| at <= now.mono);
            if free && sa.is_live() {
                informational::liveness(sa, ctx);
            }
        });
    }
}
