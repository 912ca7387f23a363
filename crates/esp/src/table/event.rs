//! What the key exchange should hear of, bounded in rate and number.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Something that happened to a packet and concerns the key exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The newest authentic packet of a pair came from another address than it is sent to; the pair is not changed.
    Moved {
        /// The peer.
        peer: u32,
        /// Inbound SPI of the pair.
        spi_in: u32,
        /// Where the packet came from.
        remote: SocketAddr,
    },
    /// A packet carried an SPI nobody has; it is not authenticated, so this is a hint only.
    UnknownSpi {
        /// The SPI.
        spi: u32,
        /// Where the packet came from.
        remote: SocketAddr,
    },
    /// Most sequence numbers of an outbound Security Association are used.
    SoftLimit {
        /// The peer.
        peer: u32,
        /// Inbound SPI of the pair.
        spi_in: u32,
    },
}

const MAX_EVENTS: usize = 64;
/// Unknown SPIs told per second.
const MAX_UNKNOWN: u32 = 10;
const MAX_RETIRED: usize = 64;
/// Packets on a removed Security Association may be under way this long.
const LATE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    unknown_since: Duration,
    unknown: u32,
    retired: VecDeque<(u32, Duration)>,
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        if self.queue.len() < MAX_EVENTS {
            self.queue.push_back(event);
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(super) fn retired(&mut self, now: Duration, spi_in: u32) {
        if self.retired.len() == MAX_RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back((spi_in, now));
    }

    pub(super) fn unknown_spi(&mut self, now: Duration, spi: u32, remote: SocketAddr) {
        if self.retired.iter().any(|&(old, at)| old == spi && now.saturating_sub(at) < LATE) {
            return;
        }
        if now.saturating_sub(self.unknown_since) >= Duration::from_secs(1) {
            (self.unknown_since, self.unknown) = (now, 0);
        }
        if self.unknown < MAX_UNKNOWN {
            self.unknown += 1;
            self.push(Event::UnknownSpi { spi, remote });
        }
    }
}
