//! How the tunnels are, for people.

use std::time::Duration;

use selvedge_esp::DropReason;
use selvedge_ike::{Now, PeerState};

use crate::error::{Context as _, Result};
use crate::pair::{Traffic, TunnelPath};
use crate::tunnels::{Refusal, Tunnels};

/// Everything `status` says of tunnels.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every tunnel peer, ordered by name.
    pub peers: Vec<PeerReport>,
    /// Callers turned away, newest last.
    pub refused: Vec<Refusal>,
    /// Packets dropped that belong to no peer: reason and number.
    pub drops: Vec<(String, u64)>,
    /// What the datapath could not do.
    pub problems: Vec<String>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Fabric name.
    pub name: String,
    /// `up`, `connecting`, `refused` or `down`.
    pub state: &'static str,
    /// Its tunnel keeps quiet.
    pub metered: bool,
    /// Where its tunnel runs.
    pub path: Option<TunnelPath>,
    /// Age of the pair in use.
    pub sa_age: Option<Duration>,
    /// Cipher of the pair in use.
    pub cipher: Option<&'static str>,
    /// What went through since this configuration.
    pub traffic: Traffic,
    /// Packets dropped.
    pub dropped: Drops,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// Packets of one peer that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// From it.
    pub received: u64,
    /// To it.
    pub sent: u64,
}

impl Tunnels {
    /// How everything is now.
    pub fn report(&mut self, now: Now) -> Result<Report> {
        self.refresh_counters(now)?;
        let traffic = self.traffic()?;
        let mut peers: Vec<PeerReport> = Vec::new();
        for status in self.endpoint().peers() {
            let (traffic, received) = traffic.get(&status.id).copied().unwrap_or_default();
            let pair = self.pair_in_use(status.id);
            let last_error = status.last_error.map(|e| e.reason);
            let state = match status.state {
                _ if pair.is_some() => "up",
                PeerState::Connecting { .. } if last_error.as_ref().is_some_and(|e| e.contains("refused")) => "refused",
                PeerState::Connecting { .. } | PeerState::Established(_) => "connecting",
                PeerState::Idle => "down",
            };
            peers.push(PeerReport {
                name: status.name,
                state,
                metered: status.metered,
                path: pair.map(|pair| self.path(status.id, pair)),
                sa_age: pair.map(|pair| now.mono.saturating_sub(pair.since)),
                cipher: pair.map(|pair| pair.cipher),
                traffic,
                dropped: Drops { received, sent: self.dropped_sent(status.id) },
                last_error,
            });
        }
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Report {
            peers,
            refused: self.refused().cloned().collect(),
            drops: self.drops()?,
            problems: self.problems(now).map(str::to_owned).collect(),
        })
    }

    /// What the kernel or the keeper dropped and can lay to no peer.
    fn drops(&self) -> Result<Vec<(String, u64)>> {
        if self.is_kernel() {
            let stats = selvedge_linux::xfrm::stats().context(|| "read the kernel's IPsec counters".to_owned())?;
            let drop = |(name, count): (String, u64)| Some((kernel_words(&name)?.to_owned(), count));
            return Ok(stats.into_iter().filter_map(drop).filter(|(_, count)| *count > 0).collect());
        }
        let drops = self.unclaimed_drops();
        let count = |reason: &DropReason| (reason.text().to_owned(), drops.get(*reason));
        Ok(DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect())
    }
}

/// Counters of `/proc/net/xfrm_stat` (Documentation/networking/xfrm_proc.rst) that mean a dropped packet.
fn kernel_words(name: &str) -> Option<&'static str> {
    Some(match name {
        "XfrmInNoPols" | "XfrmInTmplMismatch" => "source outside the peer's prefixes",
        "XfrmInPolBlock" => "in clear though from a peer's prefixes, or its tunnel is down",
        "XfrmInNoStates" => "unknown SPI",
        "XfrmInStateSeqError" => "replayed",
        "XfrmInStateProtoError" => "not authentic",
        "XfrmOutPolBlock" | "XfrmOutNoStates" => "no security association",
        _ => return None,
    })
}
