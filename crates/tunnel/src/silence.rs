//! Peers that are sent to and send nothing back.

use std::time::Duration;

use selvedge_ike::Now;

use crate::keeper::message::Request;
use crate::pair::Pair;
use crate::tunnels::Tunnels;

/// How often a peer that is sent to and does not answer is looked for.
const SILENCE_CHECK: Duration = Duration::from_secs(2);

/// The same while nothing is sent: each look wakes the machine.
const IDLE_CHECK: Duration = Duration::from_secs(5);

/// The longest pause between questions to a peer that lives and has nothing to say.
const LONGEST_DOUBT: Duration = Duration::from_secs(64);

/// The search for peers that do not answer.
#[derive(Default)]
pub(crate) struct Silence {
    /// The next look is arranged.
    awaited: bool,
    /// When, with the kernel's datapath.
    pub(crate) at: Option<Duration>,
    /// Packets went through at the last look.
    busy: bool,
}

/// Questions to one peer that was silent since it was last heard.
#[derive(Default)]
pub(crate) struct Doubt {
    next: Duration,
    pause: Duration,
}

impl Doubt {
    /// Whether to ask now. Each question costs bytes, and what goes one way only, such as telemetry, is no reason to ask
    /// again and again.
    fn asks(&mut self, now: Duration) -> bool {
        let asks = now >= self.next;
        if asks {
            self.pause = (self.pause * 2).clamp(SILENCE_CHECK, LONGEST_DOUBT);
            self.next = now + self.pause;
        }
        asks
    }
}

impl Tunnels {
    /// A peer that is sent to and sends nothing back may have lost its state: its key exchange will tell.
    pub(crate) fn look_for_silence(&mut self, now: Now) {
        self.silence = Silence::default();
        let traffic = match self.traffic() {
            Ok(traffic) => traffic,
            Err(error) => {
                log::debug!("read the tunnels' counters: {error}");
                return;
            }
        };
        for (id, peer) in &mut self.peers {
            // Somebody deleted SAs, or they ran into a hard limit.
            let has = |pair: &Pair| self.kernel.as_ref().is_none_or(|kernel| kernel.has(pair));
            if peer.sending().is_some_and(|pair| !has(pair)) {
                log::warn!(
                    "{}: its security associations are gone from the kernel",
                    self.ids.name(*id).unwrap_or_default()
                );
                self.endpoint.rekey_child(now, *id);
            }
            let Some((present, _)) = traffic.get(id) else { continue };
            let before = std::mem::replace(&mut peer.seen, *present);
            self.silence.busy |= before != *present;
            if present.packets_in > before.packets_in {
                peer.doubt = Doubt::default();
                self.endpoint.handle_inbound(now, *id);
            } else if present.packets_out > before.packets_out && peer.doubt.asks(now.mono) {
                self.endpoint.check_liveness(now, *id);
            }
        }
    }

    /// Has the next look at silence come. The keeper tells when there was traffic; the kernel has to be looked at.
    pub(crate) fn await_traffic(&mut self, now: Now) {
        if self.silence.awaited || self.peers.values().all(|p| p.sending().is_none()) {
            return;
        }
        self.silence.awaited = true;
        if self.is_kernel() {
            let pause = if self.silence.busy { SILENCE_CHECK } else { IDLE_CHECK };
            self.silence.at = Some(now.mono + pause);
        } else if let Err(error) = self.keeper.send(&Request::CountersAfterTraffic) {
            log::debug!("ask the keeper for its counters: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_silence_is_asked_about_at_once_and_one_way_traffic_ever_more_rarely() {
        let mut doubt = Doubt::default();
        let asked: Vec<u64> = (100..400).filter(|now| doubt.asks(Duration::from_secs(*now))).collect();
        assert_eq!(asked, [100, 102, 106, 114, 130, 162, 226, 290, 354]);
    }
}
