//! What went through the tunnels, and what was dropped.

use std::collections::BTreeMap;

use selvedge_esp::{DropReason, Drops, PeerStatus as UserCounters};
use selvedge_ike::{Now, PeerId};

use crate::error::{Context as _, Result};
use crate::keeper::message::Request;
use crate::pair::Traffic;
use crate::tunnels::Tunnels;

/// The user-space datapath's counters, as last reported.
#[derive(Default)]
pub(crate) struct Counters {
    peers: BTreeMap<PeerId, UserCounters>,
    /// The parts of the next report that have come.
    growing: Option<BTreeMap<PeerId, UserCounters>>,
    drops: Drops,
    /// Reports that have come whole.
    pub(crate) reports: u32,
}

impl Counters {
    /// A part of the counters came.
    pub(crate) fn take(&mut self, drops: Drops, peers: Vec<UserCounters>, more: bool) {
        let first = self.growing.is_none();
        let growing = self.growing.get_or_insert_with(BTreeMap::new);
        growing.extend(peers.into_iter().map(|p| (PeerId(p.id), p)));
        if first {
            self.drops = drops;
        }
        if !more {
            self.peers = self.growing.take().unwrap_or_default();
            self.reports = self.reports.wrapping_add(1);
        }
    }
}

impl Tunnels {
    /// Makes the user-space datapath's counters those of now.
    pub(crate) fn refresh_counters(&mut self, now: Now) -> Result<()> {
        if self.kernel.is_none() {
            let before = self.counters.reports;
            self.keeper.send(&Request::Counters).context(|| "ask the keeper for its counters".to_owned())?;
            while self.counters.reports == before {
                let report = self.await_report()?;
                self.take(now, report);
            }
            // What else came meanwhile makes nobody's descriptor readable again.
            self.drain(now);
        }
        Ok(())
    }

    /// Traffic and refused packets of every peer; in user mode as of the last report.
    pub(crate) fn traffic(&mut self) -> Result<BTreeMap<PeerId, (Traffic, u64)>> {
        if let Some(kernel) = &mut self.kernel {
            return kernel.traffic().context(|| "read the kernel's SAs".to_owned());
        }
        Ok(self.counters.peers.iter().map(|(id, p)| (*id, (user_traffic(p), received_drops(&p.drops)))).collect())
    }

    pub(crate) fn dropped_sent(&self, id: PeerId) -> u64 {
        self.counters.peers.get(&id).map_or(0, |p| sent_drops(&p.drops))
    }

    pub(crate) fn unclaimed_drops(&self) -> &Drops {
        &self.counters.drops
    }
}

fn user_traffic(peer: &UserCounters) -> Traffic {
    Traffic {
        bytes_in: peer.received.bytes,
        packets_in: peer.received.packets,
        bytes_out: peer.sent.bytes,
        packets_out: peer.sent.packets,
    }
}

const SENT: [DropReason; 5] =
    [DropReason::NotIp, DropReason::NoSa, DropReason::Exhausted, DropReason::TooLong, DropReason::NotSent];

fn sent_drops(drops: &Drops) -> u64 {
    SENT.iter().map(|reason| drops.get(*reason)).sum()
}

fn received_drops(drops: &Drops) -> u64 {
    DropReason::ALL.iter().filter(|reason| !SENT.contains(reason)).map(|reason| drops.get(*reason)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u32, packets: u64) -> UserCounters {
        let received = selvedge_esp::Traffic { packets, bytes: packets };
        UserCounters { id, outbound: None, received, sent: received, drops: Drops::default() }
    }

    #[test]
    fn a_report_in_parts_counts_when_it_is_whole() {
        let mut counters = Counters::default();
        counters.take(Drops::default(), vec![peer(1, 5)], true);
        assert!(counters.peers.is_empty() && counters.reports == 0);
        counters.take(Drops::default(), vec![peer(2, 7)], false);
        assert_eq!((counters.peers.len(), counters.reports), (2, 1));
        counters.take(Drops::default(), vec![peer(2, 8)], false);
        assert_eq!((counters.peers.len(), counters.reports), (1, 2), "a peer that is gone is not counted on");
    }
}
