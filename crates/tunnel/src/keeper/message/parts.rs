//! Lists that do not fit into one message.

use super::{Keepalive, PART, Report, Request};
use selvedge_esp::{Drops, PairStatus, PeerPrefixes, PeerStatus};

/// Prefixes of one message, whoever's they are.
const PREFIXES: usize = 2000;

impl Request {
    /// The peers in as many messages as they need.
    pub fn set_peers(peers: &[PeerPrefixes]) -> Vec<Request> {
        let mut parts: Vec<Vec<PeerPrefixes>> = vec![Vec::new()];
        let mut room = PREFIXES;
        for peer in peers {
            let mut rest = &peer.prefixes[..];
            loop {
                let full = parts.last().is_none_or(|part| room == 0 || part.len() == PART);
                if full {
                    parts.push(Vec::new());
                    room = PREFIXES;
                }
                let (now, later) = rest.split_at(rest.len().min(room));
                room -= now.len();
                rest = later;
                if let Some(part) = parts.last_mut() {
                    part.push(PeerPrefixes { id: peer.id, prefixes: now.to_vec() });
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
        let last = parts.len() - 1;
        parts.into_iter().enumerate().map(|(i, peers)| Request::SetPeers { peers, more: i < last }).collect()
    }

    /// The keepalives in as many messages as they need.
    pub fn set_keepalives(keepalives: &[Keepalive]) -> Vec<Request> {
        in_parts(keepalives, |keepalives, more| Request::SetKeepalives { keepalives, more })
    }
}

impl Report {
    /// The pairs in as many messages as they need.
    pub fn sa_list(pairs: &[PairStatus]) -> Vec<Report> {
        in_parts(pairs, |pairs, more| Report::SaList { pairs, more })
    }

    /// The counters in as many messages as they need; the drops of no peer are in the first.
    pub fn counters(drops: &Drops, peers: &[PeerStatus]) -> Vec<Report> {
        let mut drops = drops.clone();
        in_parts(peers, |peers, more| Report::Counters { drops: std::mem::take(&mut drops), peers, more })
    }
}

/// At least one part, the last with `more` unset.
fn in_parts<T: Clone, M>(items: &[T], mut message: impl FnMut(Vec<T>, bool) -> M) -> Vec<M> {
    let mut parts = Vec::new();
    let mut rest = items;
    loop {
        let (now, later) = rest.split_at(rest.len().min(PART));
        parts.push(message(now.to_vec(), !later.is_empty()));
        rest = later;
        if rest.is_empty() {
            return parts;
        }
    }
}
