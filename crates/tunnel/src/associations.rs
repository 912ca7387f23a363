//! Security associations as they come, change their use and go.

use std::collections::BTreeMap;

use selvedge_ike::{Child, Now, PeerId};

use crate::convert::{cipher, install};
use crate::error::{Context as _, Result};
use crate::keeper::message::{Report, Request};
use crate::pair::{LINGER, Pair, Use};
use crate::tunnels::Tunnels;

impl Tunnels {
    /// What an earlier run left is used until new pairs are keyed; what belongs to no peer ends.
    pub(crate) fn take_over(&mut self, now: Now) -> Result<()> {
        let left_over = match &mut self.kernel {
            Some(kernel) => kernel.left_over(now.mono).context(|| "read the kernel's SAs".to_owned())?,
            None => self.keeper_pairs(now)?,
        };
        for (id, pairs) in left_over {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.pairs = pairs;
                if let Some(remote) = peer.sending().map(|pair| pair.remote) {
                    self.endpoint.initiate(now, id, remote);
                }
            } else {
                for pair in pairs {
                    self.remove_outbound(now, id, &pair);
                    self.remove_inbound(now, id, &pair);
                }
            }
        }
        Ok(())
    }

    fn keeper_pairs(&mut self, now: Now) -> Result<BTreeMap<PeerId, Vec<Pair>>> {
        let mut found: BTreeMap<PeerId, Vec<Pair>> = BTreeMap::new();
        self.keeper.send(&Request::List).context(|| "ask the keeper for its SAs".to_owned())?;
        loop {
            let report = self.await_report()?;
            let Report::SaList { pairs, more } = report else {
                self.take(now, report);
                continue;
            };
            for pair in pairs {
                found.entry(PeerId(pair.peer)).or_default().push(Pair {
                    spi_in: pair.spi_in,
                    spi_out: pair.spi_out,
                    local: pair.local,
                    remote: pair.remote,
                    encap: true,
                    cipher: "",
                    since: now.mono.saturating_sub(pair.age),
                    use_: if pair.sending { Use::Sending } else { Use::Receiving },
                });
            }
            if !more {
                return Ok(found);
            }
        }
    }

    /// A new pair: installed, and sent on if it says so.
    pub(crate) fn child_up(&mut self, now: Now, id: PeerId, child: Child) {
        let installed = match &mut self.kernel {
            Some(kernel) => kernel.install(id, &child, child.send).map_err(|e| e.to_string()),
            None => self.keeper.send(&Request::Install(install(id, &child))).map_err(|e| e.to_string()),
        };
        if let Err(error) = installed {
            self.problem(now, format!("{}: {error}", self.name(id)));
            return;
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.pairs.push(Pair {
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            local: child.local,
            remote: child.remote,
            encap: child.encap,
            cipher: cipher(child.suite),
            since: now.mono,
            use_: Use::Receiving,
        });
        if child.send {
            self.sending(now, id, child.spi_in);
        } else {
            peer.waiting = Some(child);
        }
    }

    /// The peer has the pair too: it is sent on.
    pub(crate) fn send_on(&mut self, now: Now, id: PeerId, spi_in: u32) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.pairs.iter().any(|pair| pair.spi_in == spi_in && !matches!(pair.use_, Use::Retired(_))) {
            return;
        }
        let waiting = peer.waiting.take_if(|child| child.spi_in == spi_in);
        let done = match (&mut self.kernel, waiting) {
            (Some(kernel), Some(child)) => kernel.install_outbound(id, &child).map_err(|e| e.to_string()),
            (None, _) => self.keeper.send(&Request::UseOutbound { peer: id.0, spi_in }).map_err(|e| e.to_string()),
            // The kernel sends on the youngest outbound SA that is left.
            (Some(_), None) => Ok(()),
        };
        match done {
            Ok(()) => self.sending(now, id, spi_in),
            Err(error) => self.problem(now, format!("{}: {error}", self.name(id))),
        }
    }

    /// The pair is sent on from now. The others keep their outbound halves until they are retired, as the key exchange
    /// may come back to one of them; pairs of a run before are unknown to it and end here.
    fn sending(&mut self, now: Now, id: PeerId, spi_in: u32) {
        self.retire(now, id, |pair| pair.spi_in != spi_in && pair.is_left_over());
        let pairs = self.peers.get_mut(&id).map(|peer| peer.pairs.iter_mut()).into_iter().flatten();
        for pair in pairs.filter(|pair| !matches!(pair.use_, Use::Retired(_))) {
            pair.use_ = if pair.spi_in == spi_in { Use::Sending } else { Use::Receiving };
        }
        // Routes lead to the device in any case; only the kernel's policies name addresses.
        self.paths_changed |= self.is_kernel();
    }

    /// What these pairs are still good for is late packets.
    pub(crate) fn retire(&mut self, now: Now, id: PeerId, which: impl Fn(&Pair) -> bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut ended = Vec::new();
        for pair in peer.pairs.iter_mut().filter(|pair| which(pair) && !matches!(pair.use_, Use::Retired(_))) {
            pair.use_ = Use::Retired(now.mono + LINGER);
            ended.push(pair.clone());
        }
        for pair in ended {
            self.remove_outbound(now, id, &pair);
            self.paths_changed |= self.is_kernel();
        }
    }

    /// Removes what has been retired long enough.
    pub(crate) fn end_retired(&mut self, now: Now) {
        let mut ended = Vec::new();
        for (id, peer) in &mut self.peers {
            peer.pairs.retain(|pair| {
                let over = matches!(pair.use_, Use::Retired(until) if until <= now.mono);
                if over {
                    ended.push((*id, pair.clone()));
                }
                !over
            });
        }
        for (id, pair) in ended {
            self.remove_inbound(now, id, &pair);
        }
    }

    pub(crate) fn remove_outbound(&mut self, now: Now, id: PeerId, pair: &Pair) {
        let removed = match &mut self.kernel {
            Some(kernel) => kernel.remove_outbound(id, pair).map_err(|e| e.to_string()),
            None => self.keeper.send(&Request::RemoveOutbound { spi_in: pair.spi_in }).map_err(|e| e.to_string()),
        };
        if let Err(error) = removed {
            self.problem(now, error);
        }
    }

    pub(crate) fn remove_inbound(&mut self, now: Now, id: PeerId, pair: &Pair) {
        let removed = match &mut self.kernel {
            Some(kernel) => kernel.remove_inbound(id, pair).map_err(|e| e.to_string()),
            None => self.keeper.send(&Request::RemoveInbound { spi_in: pair.spi_in }).map_err(|e| e.to_string()),
        };
        if let Err(error) = removed {
            self.problem(now, error);
        }
    }
}
