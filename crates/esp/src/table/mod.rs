//! Which peer and which Security Association a packet belongs to, and what happened to it.

mod event;
mod pair;

pub use event::Event;
pub use pair::{Install, InstallError, PairStatus, Traffic};

use crate::{DropReason, Drops, PrefixTable, inner};
use event::Events;
use ipnet::IpNet;
use pair::Pair;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// A peer and the prefixes behind it: traffic to them is sent to it, and it may send from them only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPrefixes {
    /// The caller's number of the peer.
    pub id: u32,
    /// Pod and node prefixes.
    pub prefixes: Vec<IpNet>,
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The caller's number of the peer.
    pub id: u32,
    /// Inbound SPI of the pair it is sent on.
    pub outbound: Option<u32>,
    /// Inner packets received from it, over all its pairs so far.
    pub received: Traffic,
    /// Inner packets sent to it.
    pub sent: Traffic,
    /// Its packets that were dropped.
    pub drops: Drops,
}

/// Where an outbound packet goes, found once for all segments of one large packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The peer.
    pub peer: u32,
    /// Inbound SPI of the pair whose outbound half seals it.
    pub spi_in: u32,
    /// Address to send from.
    pub local: SocketAddr,
    /// Address to send to.
    pub remote: SocketAddr,
}

/// An inner packet that may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who sent it.
    pub peer: u32,
    /// Where in the opened buffer it lies.
    pub inner: Range<usize>,
}

struct Peer {
    sources: PrefixTable,
    status: PeerStatus,
}

/// The Security Associations of all peers, in pairs named by their inbound SPI.
///
/// `now` is the time since any fixed moment; it only spaces events and tells ages.
#[derive(Default)]
pub struct SaTable {
    peers: BTreeMap<u32, Peer>,
    routes: PrefixTable,
    pairs: BTreeMap<u32, Pair>,
    drops: Drops,
    events: Events,
}

impl SaTable {
    /// Replaces the set of peers; pairs of peers that vanish go with them, all else stays.
    ///
    /// Of peers with an equal prefix the first in the list is sent the traffic, and each of them may send from it: so
    /// the list's order moves traffic between a direct and a relayed path without a gap.
    pub fn set_peers(&mut self, peers: &[PeerPrefixes]) {
        let routes = peers.iter().flat_map(|peer| peer.prefixes.iter().map(|prefix| (*prefix, peer.id)));
        self.routes = PrefixTable::new(routes);
        let mut old = std::mem::take(&mut self.peers);
        for peer in peers {
            let sources = PrefixTable::new(peer.prefixes.iter().map(|prefix| (*prefix, peer.id)));
            let status = match old.remove(&peer.id) {
                Some(known) => known.status,
                None => PeerStatus {
                    id: peer.id,
                    outbound: None,
                    received: Traffic::default(),
                    sent: Traffic::default(),
                    drops: Drops::default(),
                },
            };
            self.peers.insert(peer.id, Peer { sources, status });
        }
        self.pairs.retain(|_, pair| self.peers.contains_key(&pair.peer));
    }

    /// Adds a pair of Security Associations; with `send` the peer's traffic goes out on it from now on.
    ///
    /// An SPI in use is refused: to key the same pair twice would repeat its nonces. The caller must never install
    /// keys again that it has installed before.
    pub fn install(&mut self, now: Duration, install: &Install<'_>) -> Result<(), InstallError> {
        let peer = self.peers.get_mut(&install.peer).ok_or(InstallError::UnknownPeer(install.peer))?;
        if self.pairs.contains_key(&install.spi_in) {
            return Err(InstallError::SpiInUse(install.spi_in));
        }
        self.pairs.insert(install.spi_in, Pair::new(now, install).map_err(InstallError::Sa)?);
        if install.send {
            peer.status.outbound = Some(install.spi_in);
        }
        Ok(())
    }

    /// Sends the peer's traffic on the pair of `spi_in` from now on; false if there is no such pair of that peer.
    pub fn use_outbound(&mut self, peer: u32, spi_in: u32) -> bool {
        let known = self.pairs.get(&spi_in).is_some_and(|pair| pair.peer == peer && pair.outbound.is_some());
        match self.peers.get_mut(&peer) {
            Some(peer) if known => {
                peer.status.outbound = Some(spi_in);
                true
            }
            _ => false,
        }
    }

    /// Stops receiving on `spi_in`; false if it is not known. Late packets on it raise no event for a while.
    pub fn remove_inbound(&mut self, now: Duration, spi_in: u32) -> bool {
        let removed = self.pairs.get_mut(&spi_in).and_then(|pair| pair.inbound.take()).is_some();
        if removed {
            self.events.retired(now, spi_in);
            self.forget_if_empty(spi_in);
        }
        removed
    }

    /// Stops sending on the pair of `spi_in`; false if it is not known. The peer's traffic is dropped until
    /// [`use_outbound`](Self::use_outbound) or [`install`](Self::install) names another pair.
    pub fn remove_outbound(&mut self, spi_in: u32) -> bool {
        let Some(pair) = self.pairs.get_mut(&spi_in) else { return false };
        let removed = pair.outbound.take().is_some();
        if let Some(peer) = self.peers.get_mut(&pair.peer) {
            peer.status.outbound.take_if(|outbound| *outbound == spi_in);
        }
        self.forget_if_empty(spi_in);
        removed
    }

    fn forget_if_empty(&mut self, spi_in: u32) {
        if self.pairs.get(&spi_in).is_some_and(|pair| pair.inbound.is_none() && pair.outbound.is_none()) {
            self.pairs.remove(&spi_in);
        }
    }

    /// Finds the way of an outbound inner packet; one that has none is counted as dropped.
    pub fn route(&mut self, packet: &[u8]) -> Result<Route, DropReason> {
        let Some(destination) = inner::destination(packet) else { return self.drop(None, DropReason::NotIp) };
        let Some(peer) = self.routes.get(destination) else { return self.drop(None, DropReason::NoRoute) };
        let spi_in = self.peers.get(&peer).and_then(|peer| peer.status.outbound);
        match spi_in.and_then(|spi_in| Some((spi_in, self.pairs.get(&spi_in)?))) {
            Some((spi_in, pair)) => Ok(Route { peer, spi_in, local: pair.local, remote: pair.remote }),
            None => self.drop(Some(peer), DropReason::NoSa),
        }
    }

    /// Seals the inner packet `frame[HEADROOM..HEADROOM + len]` in place; the ESP packet is `frame[..returned]`.
    pub fn seal(&mut self, now: Duration, route: &Route, frame: &mut [u8], len: usize) -> Result<usize, DropReason> {
        let Some(pair) = self.pairs.get_mut(&route.spi_in) else {
            return self.drop(Some(route.peer), DropReason::NoSa);
        };
        match pair.seal(now, frame, len) {
            Ok((sealed, soft_limit)) => {
                if soft_limit {
                    self.events.push(Event::SoftLimit { peer: route.peer, spi_in: route.spi_in });
                }
                if let Some(peer) = self.peers.get_mut(&route.peer) {
                    peer.status.sent.count(len);
                }
                Ok(sealed)
            }
            Err(reason) => self.drop(Some(route.peer), reason),
        }
    }

    /// Opens an ESP packet that came from `remote` in place.
    pub fn open(&mut self, now: Duration, remote: SocketAddr, packet: &mut [u8]) -> Result<Opened, DropReason> {
        let Some(spi) = packet.first_chunk().map(|spi| u32::from_be_bytes(*spi)) else {
            return self.drop(None, DropReason::Short);
        };
        let Some(pair) = self.pairs.get_mut(&spi).filter(|pair| pair.inbound.is_some()) else {
            self.events.unknown_spi(now, spi, remote);
            return self.drop(None, DropReason::UnknownSpi);
        };
        let peer_id = pair.peer;
        let (inner, advanced) = match pair.open(packet) {
            Ok(opened) => opened,
            Err(error) => return self.drop(Some(peer_id), error.into()),
        };
        if advanced && pair.moved(now, remote) {
            self.events.push(Event::Moved { peer: peer_id, spi_in: spi, remote });
        }
        let Some(peer) = self.peers.get_mut(&peer_id) else { return self.drop(None, DropReason::UnknownSpi) };
        let source = inner::source(&packet[inner.clone()]);
        if source.and_then(|source| peer.sources.get(source)).is_none() {
            return self.drop(Some(peer_id), DropReason::ForeignSource);
        }
        pair.received.count(inner.len());
        peer.status.received.count(inner.len());
        Ok(Opened { peer: peer_id, inner })
    }

    /// Counts packets the caller itself had to drop.
    pub fn count_drops(&mut self, reason: DropReason, packets: usize) {
        self.drops.add(reason, packets);
    }

    fn drop<T>(&mut self, peer: Option<u32>, reason: DropReason) -> Result<T, DropReason> {
        match peer.and_then(|peer| self.peers.get_mut(&peer)) {
            Some(peer) => peer.status.drops.count(reason),
            None => self.drops.count(reason),
        }
        Err(reason)
    }

    /// What the caller should hear of; rate-limited and bounded.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// Every pair, ordered by inbound SPI.
    pub fn pairs(&self, now: Duration) -> impl Iterator<Item = PairStatus> + '_ {
        self.pairs.iter().map(move |(spi_in, pair)| {
            let sending = self.peers.get(&pair.peer).is_some_and(|peer| peer.status.outbound == Some(*spi_in));
            pair.status(now, *spi_in, sending)
        })
    }

    /// When something was last sent to each remote address.
    pub fn last_sent(&self) -> impl Iterator<Item = (SocketAddr, Duration)> + '_ {
        self.pairs.values().filter_map(|pair| Some((pair.remote, pair.last_sent?)))
    }

    /// Every peer, ordered by number.
    pub fn peers(&self) -> impl Iterator<Item = &PeerStatus> + '_ {
        self.peers.values().map(|peer| &peer.status)
    }

    /// The drops that belong to no peer.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }
}

#[cfg(test)]
mod tests;
