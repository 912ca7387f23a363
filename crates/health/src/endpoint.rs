//! One endpoint and what is known of it.

use std::time::Duration;

use crate::{Answer, Terms, Test};

/// Between two questions to an endpoint that is asked all the time, at most.
const PERIOD: Duration = Duration::from_secs(1);
/// Nobody is asked more often because of suspicions.
const QUIET: Duration = Duration::from_secs(1);
/// The second question follows when the first is not answered by then: one packet may always be lost.
const HEDGE: Duration = Duration::from_millis(300);
/// The second question follows a bad answer.
const AGAIN: Duration = Duration::from_millis(200);
/// Bad answers in a row that put an endpoint out, and good ones that bring it back.
const ENOUGH: u8 = 2;
/// Between questions to an endpoint that is out: at first, and at most.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(5);
const RETRY_CAP_COSTLY: Duration = Duration::from_secs(60);
/// How long an endpoint that was out before stays so at least; twice as long each time.
const HOLD: Duration = Duration::from_secs(2);
const HOLD_CAP: Duration = Duration::from_secs(120);
/// One time of having been out is forgotten after this time of being well.
const FORGIVE: Duration = Duration::from_secs(120);

/// For how long an error of ICMP speaks against an endpoint over UDP: few of them are sent, and who asks after that hears
/// nothing, as from one that is well.
const HEARD: Duration = Duration::from_secs(2);

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing speaks against it.
    Well,
    /// It is being asked a second time.
    Suspect,
    /// It does not answer: others take its connections, if there are others.
    Out,
}

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) terms: Terms,
    pub(crate) state: State,
    /// When that began.
    pub(crate) since: Duration,
    /// The last bad answer.
    pub(crate) answer: Option<Answer>,
    /// When to ask next.
    ask_at: Option<Duration>,
    /// Before those that are asked as a matter of routine.
    urgent: bool,
    /// The view of Services in which it was seen last.
    pub(crate) view: u32,
    /// Answers to questions of an earlier round come too late.
    round: u32,
    /// Questions of this round.
    asked: u8,
    /// Bad answers in this round; while it is out, good answers in a row.
    counted: u8,
    /// Bad answers since it is out.
    retries: u32,
    /// How often it has been out lately.
    strikes: u32,
    /// When the last question was asked.
    asked_at: Option<Duration>,
    /// When an error of ICMP told of it last.
    refused_at: Option<Duration>,
    /// Since when it is well, less what is forgiven already.
    well_since: Duration,
}

impl Endpoint {
    pub(crate) fn new(now: Duration, terms: Terms, view: u32) -> Self {
        Endpoint {
            terms,
            state: State::Well,
            since: now,
            answer: None,
            ask_at: None,
            urgent: false,
            view,
            round: 0,
            asked: 0,
            counted: 0,
            retries: 0,
            strikes: 0,
            asked_at: None,
            refused_at: None,
            well_since: now,
        }
    }

    /// It is asked without a reason.
    pub(crate) fn is_routine(&self) -> bool {
        self.terms.always && !self.terms.costly
    }

    /// Plans a question if none is under way; at once, or `delay` later.
    pub(crate) fn suspect(&mut self, now: Duration, delay: Duration) {
        if self.state == State::Well && self.asked == 0 {
            let at = self.asked_at.map_or(now, |at| at + QUIET).max(now + delay);
            self.ask_at = Some(self.ask_at.map_or(at, |planned| planned.min(at)));
            self.urgent |= delay.is_zero();
        }
    }

    /// An error of ICMP tells of it.
    pub(crate) fn refused(&mut self, now: Duration) {
        self.refused_at = Some(now);
    }

    /// Plans the routine question somewhere in the next period.
    pub(crate) fn begin(&mut self, now: Duration, random: u32) {
        self.ask_at = self.ask_at.or(Some(now + share(PERIOD, random)));
    }

    /// Asks: the round that the answer belongs to.
    pub(crate) fn ask(&mut self, now: Duration) -> u32 {
        self.asked_at = Some(now);
        self.asked += 1;
        self.ask_at = match self.state {
            State::Out => None,
            _ if self.asked < ENOUGH => Some(now + HEDGE),
            _ => None,
        };
        if self.asked == ENOUGH && self.state == State::Well {
            self.turn(now, State::Suspect);
        }
        self.urgent |= self.asked > 0 && self.state != State::Out;
        self.round
    }

    /// Takes an answer. Whether it goes out or comes back by it.
    pub(crate) fn answer(&mut self, now: Duration, round: u32, answer: Answer, random: u32) -> bool {
        if round != self.round {
            return false;
        }
        let refused = self.terms.test == Test::Udp && self.refused_at.is_some_and(|at| now < at + HEARD);
        let answer = if refused && answer == Answer::Well { Answer::Refused } else { answer };
        if answer != Answer::Well {
            self.answer = Some(answer);
        }
        match (self.state, answer) {
            (State::Out, _) => self.answer_out(now, answer, random),
            (_, Answer::Well) => {
                self.end_round();
                if self.state == State::Suspect {
                    self.turn(now, State::Well);
                }
                self.ask_at = self.is_routine().then(|| now + pause(PERIOD, random));
                false
            }
            _ => {
                self.counted += 1;
                if self.counted < ENOUGH {
                    if self.state == State::Well {
                        self.turn(now, State::Suspect);
                    }
                    let soon = now + AGAIN;
                    self.ask_at = (self.asked < ENOUGH).then(|| self.ask_at.map_or(soon, |at| at.min(soon)));
                    return false;
                }
                self.end_round();
                self.forgive(now);
                self.strikes = self.strikes.saturating_add(1);
                self.retries = 0;
                self.turn(now, State::Out);
                self.ask_at = Some(now + pause(RETRY, random));
                true
            }
        }
    }

    fn answer_out(&mut self, now: Duration, answer: Answer, random: u32) -> bool {
        self.round = self.round.wrapping_add(1);
        self.asked = 0;
        if answer != Answer::Well {
            self.counted = 0;
            self.retries = self.retries.saturating_add(1);
            let (doublings, cap) =
                if self.terms.costly { (self.retries, RETRY_CAP_COSTLY) } else { (self.retries / 4, RETRY_CAP) };
            self.ask_at = Some(now + pause(doubled(RETRY, doublings, cap), random));
            return false;
        }
        self.counted = self.counted.saturating_add(1);
        let held = self.since + self.hold();
        if self.counted < ENOUGH || now < held {
            let next = now + AGAIN;
            self.ask_at = Some(if self.counted < ENOUGH { next } else { next.max(held) });
            return false;
        }
        self.end_round();
        self.well_since = now;
        self.turn(now, State::Well);
        self.ask_at = self.is_routine().then(|| now + pause(PERIOD, random));
        true
    }

    /// How long it has to stay out, the first time not at all.
    fn hold(&self) -> Duration {
        match self.strikes {
            0 | 1 => Duration::ZERO,
            more => doubled(HOLD, more - 2, HOLD_CAP),
        }
    }

    fn forgive(&mut self, now: Duration) {
        while self.state != State::Out && self.strikes > 0 && now >= self.well_since + FORGIVE {
            self.strikes -= 1;
            self.well_since += FORGIVE;
        }
    }

    /// When to ask it because it is in trouble, when to ask it as a matter of routine, and when there will be nothing left
    /// to remember.
    pub(crate) fn agenda(&self) -> [Option<Duration>; 3] {
        let idle = self.state == State::Well && self.asked == 0 && self.ask_at.is_none() && !self.is_routine();
        let forgiven = if self.strikes > 0 { self.well_since + FORGIVE * self.strikes } else { Duration::ZERO };
        let forget = idle.then(|| self.asked_at.map_or(Duration::ZERO, |at| at + QUIET).max(forgiven));
        [self.ask_at.filter(|_| self.urgent), self.ask_at.filter(|_| !self.urgent), forget]
    }

    fn end_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.asked = 0;
        self.counted = 0;
        self.urgent = false;
    }

    fn turn(&mut self, now: Duration, state: State) {
        self.state = state;
        self.since = now;
    }
}

fn doubled(pause: Duration, times: u32, cap: Duration) -> Duration {
    pause.saturating_mul(1 << times.min(16)).min(cap)
}

/// Between three quarters of `longest` and all of it: nodes do not ask together.
fn pause(longest: Duration, random: u32) -> Duration {
    longest - share(longest / 4, random)
}

/// A random part of `whole`.
fn share(whole: Duration, random: u32) -> Duration {
    let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX));
    Duration::from_millis((millis * u64::from(random)) >> 32)
}
