//! A server that is asked: how fast it is, and whether it is there.

use std::time::Duration;

use selvedge_model::NameServer;

/// How long another one is waited for before a second is asked as well.
const HEDGE_MOST: Duration = Duration::from_millis(200);
const HEDGE_LEAST: Duration = Duration::from_millis(20);

/// Silent so often in a row, it is taken for gone.
const PATIENCE: u32 = 3;

/// Pause before one that is gone is tried again; it doubles up to the cap.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(8);

/// How often one whose questions come back to us is looked at again.
const LOOP_AGAIN: Duration = Duration::from_secs(60);

/// What is known of a server.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it is, and how it is asked.
    pub server: NameServer,
    /// How long it takes to answer; `None` before it did.
    pub rtt: Option<Duration>,
    /// How it does.
    pub state: State,
    /// Questions sent to it.
    pub asked: u32,
    /// Answers it gave.
    pub answered: u32,
    /// Mean deviation of its round trips.
    deviation: Duration,
    /// It chokes on EDNS.
    pub(crate) plain: bool,
    silent: u32,
    retry: Duration,
    retry_at: Duration,
}

/// How a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody knows yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// What it is asked, it asks us.
    Loop,
}

impl Upstream {
    pub(crate) fn new(server: NameServer) -> Upstream {
        Upstream {
            server,
            rtt: None,
            state: State::Unknown,
            asked: 0,
            answered: 0,
            deviation: Duration::ZERO,
            plain: false,
            silent: 0,
            retry: RETRY_FIRST,
            retry_at: Duration::ZERO,
        }
    }

    /// It answered. True if that is news.
    pub(crate) fn heard(&mut self, took: Duration) -> bool {
        self.answered = self.answered.saturating_add(1);
        self.silent = 0;
        self.retry = RETRY_FIRST;
        // As TCP does (RFC 6298).
        match self.rtt {
            None => (self.rtt, self.deviation) = (Some(took), took / 2),
            Some(rtt) => {
                self.deviation = (self.deviation * 3 + rtt.abs_diff(took)) / 4;
                self.rtt = Some((rtt * 7 + took) / 8);
            }
        }
        if matches!(self.state, State::Unknown | State::Down) {
            self.state = State::Up;
            return true;
        }
        false
    }

    /// It did not answer.
    pub(crate) fn missed(&mut self, now: Duration) {
        self.silent = self.silent.saturating_add(1);
        if self.silent >= PATIENCE && self.state != State::Loop {
            self.state = State::Down;
            self.retry_at = now + self.retry;
            self.retry = (self.retry * 2).min(RETRY_CAP);
        }
    }

    /// What it was asked came to us.
    pub(crate) fn looped(&mut self, now: Duration) {
        self.state = State::Loop;
        self.retry_at = now + LOOP_AGAIN;
    }

    /// It may be that what it was asked does not come to us any more; time to look.
    pub(crate) fn look_again(&mut self, now: Duration) -> bool {
        if self.state != State::Loop || self.retry_at > now {
            return false;
        }
        self.retry_at = now + LOOP_AGAIN;
        true
    }

    /// No question of ours came back for a while.
    pub(crate) fn unlooped(&mut self) {
        if self.state == State::Loop {
            self.state = State::Unknown;
        }
    }

    /// It is gone, but it is time to see whether it still is. Told once.
    pub(crate) fn trial(&mut self, now: Duration) -> bool {
        if self.state != State::Down || self.retry_at > now {
            return false;
        }
        self.retry_at = now + self.retry;
        true
    }

    /// When the next one is asked, too.
    pub(crate) fn patience(&self) -> Duration {
        let usual = self.rtt.map_or(HEDGE_MOST, |rtt| rtt + self.deviation * 4);
        usual.clamp(HEDGE_LEAST, HEDGE_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn three_silences_make_it_gone_and_one_answer_brings_it_back() {
        let mut upstream = Upstream::new("192.0.2.1:53".parse().unwrap());
        assert!(upstream.heard(ms(10)));
        assert!(!upstream.heard(ms(12)));
        for _ in 0..3 {
            assert_eq!(upstream.state, State::Up);
            upstream.missed(ms(1000));
        }
        assert_eq!(upstream.state, State::Down);
        assert!(!upstream.trial(ms(1900)));
        assert!(upstream.trial(ms(2000)) && !upstream.trial(ms(2000)));
        assert!(upstream.heard(ms(10)));
        assert_eq!(upstream.state, State::Up);
    }

    #[test]
    fn patience_follows_the_round_trips() {
        let mut upstream = Upstream::new("192.0.2.1:53".parse().unwrap());
        assert_eq!(upstream.patience(), HEDGE_MOST);
        for _ in 0..50 {
            upstream.heard(ms(30));
        }
        assert!((ms(30)..ms(35)).contains(&upstream.patience()), "{:?}", upstream.patience());
        for _ in 0..50 {
            upstream.heard(ms(900));
        }
        assert_eq!(upstream.patience(), HEDGE_MOST);
    }
}
