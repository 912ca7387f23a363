//! What an IKE SA may use while it handles something, and what it reports to the endpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Now};
use crate::crypto::{Crypto, CryptoError};
use crate::error::Failure;
use crate::event::{Child, Event, Transmit};
use crate::peer::Directory;
use crate::sa::IkeSa;

/// Octets of the nonces we make; at least half the key size of the PRF (RFC 7296 section 2.10).
pub(crate) const NONCE_LEN: usize = 32;

/// Datagrams and events until they are polled.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
}

/// Numbers that must not repeat within one endpoint.
#[derive(Default)]
pub(crate) struct Ids {
    serial: u64,
    esp_spi: Option<u32>,
}

/// What an IKE SA tells the endpoint, which knows the peer and its other IKE SAs.
pub(crate) enum Signal {
    /// Both ends are authenticated and this is the first pair.
    Established { child: Box<Child>, initial_contact: bool },
    /// Our call failed.
    Failed(Failure),
    /// A caller is turned away.
    Refused { claimed: Option<String>, failure: Failure },
    /// An established IKE SA has ended.
    Down(Failure),
    /// The peer may have lost this IKE SA.
    Suspicion,
    /// The peer may have lost our call, which it has answered once.
    Forgotten,
    /// It can no longer be rekeyed and must be made anew.
    WornOut(Failure),
    /// A rekey made this IKE SA.
    Successor(Box<IkeSa>),
    /// The CHILD_SAs go to the IKE SA with this SPI of ours.
    Inherit(u64),
    /// The peer has deleted the predecessor of the IKE SA with this SPI of ours, so it knows the successor.
    Confirmed(u64),
    /// The IKE SA with this SPI of ours lost a collision; the peer is to delete it.
    Redundant(u64),
    /// The peer has lost the IKE SA with this SPI of ours, and its pairs are no longer needed.
    Superseded(u64),
}

pub(crate) struct Ctx<'a> {
    pub(crate) now: Now,
    pub(crate) crypto: &'a dyn Crypto,
    pub(crate) config: &'a Arc<Config>,
    pub(crate) directory: &'a Directory,
    pub(crate) out: &'a mut Output,
    pub(crate) signals: &'a mut Vec<Signal>,
    pub(crate) ids: &'a mut Ids,
}

impl Ctx<'_> {
    pub(crate) fn nonce(&self) -> Result<Vec<u8>, CryptoError> {
        let mut nonce = vec![0; NONCE_LEN];
        self.crypto.random(&mut nonce)?;
        Ok(nonce)
    }

    /// An SPI for an IKE SA, unique by its size.
    pub(crate) fn ike_spi(&self) -> Result<u64, CryptoError> {
        let mut spi = [0; 8];
        self.crypto.random(&mut spi)?;
        Ok(u64::from_be_bytes(spi).max(1))
    }

    /// An inbound SPI that no other CHILD_SA of this endpoint has: they count up from a random start.
    pub(crate) fn esp_spi(&mut self) -> Result<u32, CryptoError> {
        let spi = match self.ids.esp_spi {
            Some(last) => last.wrapping_add(1),
            None => {
                let mut start = [0; 4];
                self.crypto.random(&mut start)?;
                u32::from_be_bytes(start)
            }
        }
        .max(256);
        self.ids.esp_spi = Some(spi);
        Ok(spi)
    }

    /// An authenticated peer's certificate says that this time has come.
    pub(crate) fn learn(&mut self, wall: u64) {
        if wall > self.now.wall.seconds() {
            self.out.events.push_back(Event::Later { wall });
        }
    }

    /// Counts what happens, for "before" and "after" within one instant.
    pub(crate) fn serial(&mut self) -> u64 {
        self.ids.serial += 1;
        self.ids.serial
    }

    /// Something between nothing and `most`.
    pub(crate) fn jitter(&self, most: Duration) -> Duration {
        jitter(self.crypto, most)
    }
}

/// Something between nothing and `most`; nothing without randomness.
pub(crate) fn jitter(crypto: &dyn Crypto, most: Duration) -> Duration {
    let mut random = [0; 2];
    match crypto.random(&mut random) {
        Ok(()) => (most / u32::from(u16::MAX)).saturating_mul(u16::from_be_bytes(random).into()),
        Err(_) => Duration::ZERO,
    }
}
