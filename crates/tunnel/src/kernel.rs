//! The kernel's ESP as a datapath.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use selvedge_ike::{Child, EspSuite, PeerId};
use selvedge_linux::netlink::{Monitor, Protocol, Socket};
use selvedge_linux::xfrm::{self, Aead, Algorithm, Encap, Limits, Sa, SaInfo};
use selvedge_linux::{Error, Result};

use crate::ids;
use crate::pair::{Pair, Traffic, Use};

/// Late packets of reordering links, and of several queues on fast ones.
const REPLAY_WINDOW: u32 = 1024;

/// 32-bit sequence numbers end at 2^32: a new pair is asked for at half of that.
const SOFT_PACKETS: u64 = 1 << 31;
const HARD_PACKETS: u64 = u32::MAX as u64 - 1;

pub(crate) struct Kernel {
    socket: Socket,
    pub(crate) events: Monitor<xfrm::Event>,
    /// Traffic of SAs that are gone.
    past: BTreeMap<PeerId, Traffic>,
    /// SPIs of our SAs at the last look.
    present: BTreeSet<u32>,
}

impl Kernel {
    pub(crate) fn open() -> Result<Self> {
        Ok(Kernel {
            socket: Socket::open(Protocol::Xfrm)?,
            events: xfrm::monitor()?,
            past: BTreeMap::new(),
            present: BTreeSet::new(),
        })
    }

    /// Adds the inbound SA, and the outbound one if it is to be used at once.
    pub(crate) fn install(&mut self, peer: PeerId, child: &Child, send: bool) -> Result<()> {
        let inbound = Sa {
            src: child.remote.ip(),
            dst: child.local.ip(),
            spi: child.spi_in,
            reqid: ids::reqid(peer),
            aead: Aead { algorithm: algorithm(child.suite), key: child.key_in.clone() },
            encap: child.encap.then(|| Encap { sport: child.remote.port(), dport: child.local.port() }),
            replay_window: REPLAY_WINDOW,
            limits: Limits::default(),
        };
        xfrm::add_sa(&mut self.socket, &inbound)?;
        if send { self.install_outbound(peer, child) } else { Ok(()) }
    }

    /// Adds the outbound SA; the kernel prefers the youngest of a peer.
    pub(crate) fn install_outbound(&mut self, peer: PeerId, child: &Child) -> Result<()> {
        let outbound = Sa {
            src: child.local.ip(),
            dst: child.remote.ip(),
            spi: child.spi_out,
            reqid: ids::reqid(peer),
            aead: Aead { algorithm: algorithm(child.suite), key: child.key_out.clone() },
            encap: child.encap.then(|| Encap { sport: child.local.port(), dport: child.remote.port() }),
            replay_window: 0,
            limits: Limits { soft_packets: Some(SOFT_PACKETS), hard_packets: Some(HARD_PACKETS), ..Limits::default() },
        };
        xfrm::add_sa(&mut self.socket, &outbound)
    }

    pub(crate) fn remove_inbound(&mut self, peer: PeerId, pair: &Pair) -> Result<()> {
        let traffic = self.remove(pair.local.ip(), pair.spi_in)?;
        self.past.entry(peer).or_default().add(Traffic {
            bytes_in: traffic.0,
            packets_in: traffic.1,
            ..Traffic::default()
        });
        Ok(())
    }

    pub(crate) fn remove_outbound(&mut self, peer: PeerId, pair: &Pair) -> Result<()> {
        let traffic = self.remove(pair.remote.ip(), pair.spi_out)?;
        self.past.entry(peer).or_default().add(Traffic {
            bytes_out: traffic.0,
            packets_out: traffic.1,
            ..Traffic::default()
        });
        Ok(())
    }

    /// Traffic of every peer, SAs that are gone included, and packets each refused (replayed or forged).
    pub(crate) fn traffic(&mut self) -> Result<BTreeMap<PeerId, (Traffic, u64)>> {
        let mut sum: BTreeMap<PeerId, (Traffic, u64)> = self.past.iter().map(|(id, t)| (*id, (*t, 0))).collect();
        self.present.clear();
        for sa in xfrm::list_sas(&mut self.socket)? {
            let Some(peer) = ids::peer_of(sa.reqid) else { continue };
            self.present.insert(sa.spi);
            let (traffic, refused) = sum.entry(peer).or_default();
            if inbound(&sa) {
                traffic.add(Traffic { bytes_in: sa.bytes, packets_in: sa.packets, ..Traffic::default() });
                let e = sa.errors;
                *refused += u64::from(e.too_late) + u64::from(e.replayed) + u64::from(e.forged);
            } else {
                traffic.add(Traffic { bytes_out: sa.bytes, packets_out: sa.packets, ..Traffic::default() });
            }
        }
        Ok(sum)
    }

    /// Whether both SAs of a pair were there when [`Kernel::traffic`] looked last.
    pub(crate) fn has(&self, pair: &Pair) -> bool {
        [pair.spi_in, pair.spi_out].iter().all(|spi| self.present.contains(spi))
    }

    /// The pairs an earlier run left. Both halves of a pair were added together, so the order of age joins them; the
    /// youngest is the one in use.
    pub(crate) fn left_over(&mut self, now: Duration) -> Result<BTreeMap<PeerId, Vec<Pair>>> {
        let mut halves: BTreeMap<PeerId, (Vec<SaInfo>, Vec<SaInfo>)> = BTreeMap::new();
        for sa in xfrm::list_sas(&mut self.socket)? {
            let Some(peer) = ids::peer_of(sa.reqid) else { continue };
            let (ins, outs) = halves.entry(peer).or_default();
            if inbound(&sa) { ins.push(sa) } else { outs.push(sa) }
        }
        let mut pairs = BTreeMap::new();
        for (peer, (mut ins, mut outs)) in halves {
            ins.sort_by_key(|sa| sa.added);
            outs.sort_by_key(|sa| sa.added);
            let mut found: Vec<Pair> = Vec::new();
            while let (Some(out), inbound) = (outs.pop(), ins.pop()) {
                let ports = out.encap.unwrap_or(Encap { sport: 500, dport: 500 });
                found.push(Pair {
                    spi_in: inbound.map_or(0, |sa| sa.spi),
                    spi_out: out.spi,
                    local: SocketAddr::new(out.src, ports.sport),
                    remote: SocketAddr::new(out.dst, ports.dport),
                    encap: out.encap.is_some(),
                    cipher: "",
                    since: now,
                    use_: if found.is_empty() { Use::Sending } else { Use::Receiving },
                });
            }
            for sa in ins {
                log::debug!("removing half a pair left over: SA {:#010x}", sa.spi);
                self.remove(sa.dst, sa.spi)?;
            }
            pairs.insert(peer, found);
        }
        Ok(pairs)
    }

    /// Removes every SA that is ours.
    pub(crate) fn flush(&mut self) -> Result<usize> {
        xfrm::flush_sas(&mut self.socket, ids::REQIDS)
    }

    /// Removes an SA; its bytes and packets.
    fn remove(&mut self, dst: IpAddr, spi: u32) -> Result<(u64, u64)> {
        let last = xfrm::get_sa(&mut self.socket, dst, spi)?;
        xfrm::delete_sa(&mut self.socket, dst, spi)?;
        Ok(last.map_or((0, 0), |sa| (sa.bytes, sa.packets)))
    }
}

/// Only inbound SAs have a replay window.
fn inbound(sa: &SaInfo) -> bool {
    sa.replay_window > 0
}

fn algorithm(suite: EspSuite) -> Algorithm {
    match suite {
        EspSuite::Aes128Gcm | EspSuite::Aes256Gcm => Algorithm::AesGcm,
        EspSuite::ChaCha20Poly1305 => Algorithm::ChaCha20Poly1305,
    }
}

/// Removes the SAs of this program without anything else running.
pub fn flush_kernel_sas() -> std::result::Result<usize, Error> {
    Kernel::open()?.flush()
}
