//! NAT keepalives (RFC 3948 section 2.3).

use super::message::Keepalive;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The first keepalive after something else follows at least so soon. The NAT of Linux forgets a mapping after 30 s if all
/// its packets came within 2 s, as those of a handshake do, and only then after 2 minutes.
const SETTLE: Duration = Duration::from_secs(20);

/// When each keepalive is due.
#[derive(Default)]
pub(super) struct Keepalives {
    entries: Vec<(Keepalive, Duration)>,
}

impl Keepalives {
    /// Replaces the list. What stays in it keeps its time.
    pub(super) fn set(&mut self, now: Duration, keepalives: Vec<Keepalive>) {
        let due: BTreeMap<SocketAddr, Duration> =
            self.entries.iter().map(|(keepalive, due)| (keepalive.remote, *due)).collect();
        let first_due = |keepalive: &Keepalive| match due.get(&keepalive.remote) {
            Some(due) => (*due).min(now + interval(keepalive)),
            None => now + first(keepalive),
        };
        self.entries = keepalives.into_iter().map(|keepalive| (keepalive, first_due(&keepalive))).collect();
    }

    /// Something else went to this address: its mapping is fresh, and may be new.
    pub(super) fn sent(&mut self, now: Duration, remote: SocketAddr) {
        for (keepalive, due) in self.entries.iter_mut().filter(|(keepalive, _)| keepalive.remote == remote) {
            *due = now + first(keepalive);
        }
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.entries.iter().map(|(_, due)| *due).min()
    }

    /// Once one is due, calls `send` for each that is, or will be in a moment, and was silent for long enough: many tunnels
    /// wake the machine once.
    pub(super) fn run(
        &mut self,
        now: Duration,
        last_sent: impl Iterator<Item = (SocketAddr, Duration)>,
        mut send: impl FnMut(&Keepalive),
    ) {
        if self.next_due().is_none_or(|due| due > now) {
            return;
        }
        let mut latest: BTreeMap<SocketAddr, Duration> = BTreeMap::new();
        for (remote, at) in last_sent {
            latest.entry(remote).and_modify(|latest| *latest = at.max(*latest)).or_insert(at);
        }
        for (keepalive, due) in &mut self.entries {
            let horizon = now + first(keepalive) / 4;
            if *due > horizon {
                continue;
            }
            let quiet_until = latest.get(&keepalive.remote).map(|at| *at + first(keepalive));
            match quiet_until.filter(|until| *until > horizon) {
                Some(until) => *due = until,
                None => {
                    send(keepalive);
                    *due = now + interval(keepalive);
                }
            }
        }
    }
}

/// At least a second, so that no list makes the loop spin.
fn interval(keepalive: &Keepalive) -> Duration {
    Duration::from_secs(keepalive.interval_s.max(1).into())
}

fn first(keepalive: &Keepalive) -> Duration {
    interval(keepalive).min(SETTLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn keepalive(remote: &str, interval_s: u16) -> Keepalive {
        Keepalive { remote: remote.parse().unwrap(), local: None, interval_s }
    }

    fn run(keepalives: &mut Keepalives, now: u64, last_sent: &[(&str, u64)]) -> Vec<String> {
        let mut sent = Vec::new();
        let last_sent = last_sent.iter().map(|(remote, seconds)| (remote.parse().unwrap(), at(*seconds)));
        keepalives.run(at(now), last_sent, |keepalive| sent.push(keepalive.remote.to_string()));
        sent
    }

    const A: &str = "192.0.2.1:4500";
    const B: &str = "[2001:db8::1]:4500";

    #[test]
    fn each_is_sent_once_an_interval_of_silence() {
        let mut keepalives = Keepalives::default();
        assert_eq!(keepalives.next_due(), None);
        keepalives.set(at(100), vec![keepalive(A, 20), keepalive(B, 30)]);
        assert_eq!(keepalives.next_due(), Some(at(120)));
        assert!(run(&mut keepalives, 119, &[]).is_empty());
        assert_eq!(run(&mut keepalives, 120, &[]), [A, B]);
        assert!(run(&mut keepalives, 120, &[]).is_empty());
        assert_eq!(run(&mut keepalives, 145, &[]), [A, B]);
    }

    #[test]
    fn traffic_puts_it_off_by_one_interval_from_the_last_packet() {
        let mut keepalives = Keepalives::default();
        keepalives.set(at(100), vec![keepalive(A, 20)]);
        assert!(run(&mut keepalives, 120, &[(A, 103), (A, 110), (A, 101), (B, 120)]).is_empty());
        assert_eq!(keepalives.next_due(), Some(at(130)));
        assert_eq!(run(&mut keepalives, 130, &[(A, 110)]), [A]);
    }

    #[test]
    fn many_wake_the_machine_once() {
        let mut keepalives = Keepalives::default();
        keepalives.set(at(100), vec![keepalive(A, 20)]);
        keepalives.set(at(104), vec![keepalive(A, 20), keepalive(B, 20)]);
        assert_eq!(run(&mut keepalives, 120, &[]), [A, B]);
        assert_eq!(run(&mut keepalives, 140, &[]), [A, B]);
        // One that carried packets a moment ago waits until it has to be kept.
        assert_eq!(run(&mut keepalives, 160, &[(B, 158)]), [A]);
        assert_eq!(keepalives.next_due(), Some(at(178)));
    }

    #[test]
    fn ike_keeps_a_mapping_too() {
        let mut keepalives = Keepalives::default();
        keepalives.set(at(100), vec![keepalive(A, 20), keepalive(B, 20)]);
        keepalives.sent(at(119), A.parse().unwrap());
        assert_eq!(run(&mut keepalives, 120, &[]), [B]);
        assert_eq!(keepalives.next_due(), Some(at(139)));
    }

    #[test]
    fn a_mapping_that_may_be_new_is_settled_before_the_long_pauses() {
        let mut keepalives = Keepalives::default();
        keepalives.set(at(100), vec![keepalive(A, 110), keepalive(B, 110)]);
        assert_eq!(run(&mut keepalives, 120, &[]), [A, B]);
        assert_eq!(keepalives.next_due(), Some(at(230)));
        keepalives.sent(at(229), A.parse().unwrap());
        assert_eq!(run(&mut keepalives, 230, &[]), [B], "too soon after the other packet to settle anything");
        assert_eq!(run(&mut keepalives, 249, &[]), [A]);
        assert_eq!(keepalives.next_due(), Some(at(340)));
        assert_eq!(run(&mut keepalives, 340, &[(B, 330)]), [""; 0]);
        assert_eq!(run(&mut keepalives, 350, &[(B, 330)]), [B]);
    }

    #[test]
    fn a_new_list_keeps_the_time_of_what_stays_and_never_spins() {
        let mut keepalives = Keepalives::default();
        keepalives.set(at(100), vec![keepalive(A, 20)]);
        keepalives.set(at(110), vec![keepalive(B, 0), keepalive(A, 20)]);
        assert_eq!(run(&mut keepalives, 120, &[]), [B, A]);
        keepalives.set(at(121), vec![keepalive(A, 5)]);
        assert_eq!(keepalives.next_due(), Some(at(126)), "a shorter interval counts at once");
        keepalives.set(at(121), vec![]);
        assert_eq!(keepalives.next_due(), None);
    }
}
