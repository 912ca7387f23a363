//! What time it is, on machines that may not know: gateways without a clock battery boot in 1970, or on the day their
//! firmware was built.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use selvedge_linux::{clock, file};
use selvedge_tunnel::{Now, Wall};

use crate::{Error, Result};

/// The steady clock, and the calendar as well as it is known.
#[cfg_attr(feature = "api", derive(Debug))]
pub(crate) struct Clock {
    origin: Instant,
    known: Known,
    file: PathBuf,
}

impl Clock {
    /// Begins with what an earlier run kept in `state_dir`.
    pub(crate) fn new(state_dir: &Path) -> Self {
        let file = state_dir.join("clock");
        let kept = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        Clock { origin: Instant::now(), known: Known::new(kept.unwrap_or(0)), file }
    }

    pub(crate) fn now(&self) -> Now {
        let mono = self.origin.elapsed();
        Now { mono, wall: self.known.wall(mono, system_time(), clock::is_set()) }
    }

    /// It is `wall` or later.
    pub(crate) fn learn(&mut self, wall: u64) {
        self.known.learn(self.origin.elapsed(), wall);
    }

    /// Writes down how late it is, at most once a day. `not_after`: the end of the node's own certificate.
    pub(crate) fn keep(&mut self, now: Now, not_after: Option<u64>) -> Result<()> {
        let Some(wall) = self.known.worth_keeping(now, not_after) else { return Ok(()) };
        file::write(&self.file, format!("{wall}\n").as_bytes(), 0o600)
            .map(drop)
            .map_err(|error| Error::new(format!("keep the time: {error}")))
    }
}

/// When to look at certificates again: every hour, and when the calendar jumps.
#[derive(Default)]
pub(crate) struct Calendar {
    looked: Option<Now>,
}

impl Calendar {
    pub(crate) fn is_due(&mut self, now: Now) -> bool {
        /// Daemons that discipline the clock move it by less.
        const JUMP: u64 = 60;
        const PERIOD: Duration = Duration::from_secs(60 * 60);
        let due = self.looked.is_none_or(|before| {
            let passed = now.mono.saturating_sub(before.mono);
            let expected = before.wall.seconds() + passed.as_secs();
            passed >= PERIOD || expected.abs_diff(now.wall.seconds()) > JUMP
        });
        if due {
            self.looked = Some(now);
        }
        due
    }
}

/// The system's own idea of the time, right or wrong, in seconds since 1970.
pub(crate) fn system_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A clock that says so much more than what is certain is not believed: batteries that die leave any time behind.
const BELIEVED: u64 = 20 * 365 * DAY;

const DAY: u64 = 24 * 60 * 60;

/// This program was built at that time or later.
const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(seconds) => seconds,
        Err(_) => RELEASED,
    },
    None => RELEASED,
};

/// 2026-11-01, for builds that do not say when they are made.
const RELEASED: u64 = 1_793_491_200;

/// How late it must be.
#[cfg_attr(feature = "api", derive(Debug))]
struct Known {
    /// Seconds since 1970 that had passed when the steady clock was zero.
    floor: u64,
    /// Written down, or not worth it.
    kept: u64,
}

impl Known {
    fn new(kept: u64) -> Self {
        let kept = if kept <= BUILT + BELIEVED { kept.max(BUILT) } else { BUILT };
        Known { floor: kept, kept }
    }

    fn wall(&self, mono: Duration, system: u64, set: bool) -> Wall {
        let floor = self.floor + mono.as_secs();
        if !(floor..=floor + BELIEVED).contains(&system) {
            Wall::AtLeast(floor)
        } else if set {
            Wall::Is(system)
        } else {
            Wall::AtLeast(system)
        }
    }

    fn learn(&mut self, mono: Duration, wall: u64) {
        self.floor = self.floor.max(wall.saturating_sub(mono.as_secs()));
    }

    /// The time to be written down, if that is due.
    fn worth_keeping(&mut self, now: Now, not_after: Option<u64>) -> Option<u64> {
        // A clock that was set wrong must not lock the node out for longer than its certificate lives.
        if let (Wall::Is(wall), Some(end)) = (now.wall, not_after) {
            if wall >= self.kept + DAY && wall <= end {
                self.learn(now.mono, wall);
            }
        }
        let floor = self.floor + now.mono.as_secs();
        if floor < self.kept + DAY {
            return None;
        }
        self.kept = floor;
        Some(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn certificates_are_looked_at_every_hour_and_when_the_calendar_jumps() {
        let mut calendar = Calendar::default();
        let mut is_due = |minutes: u32, wall| calendar.is_due(Now { mono: MINUTE * minutes, wall: Wall::Is(wall) });
        assert!(is_due(0, BUILT));
        assert!(!is_due(1, BUILT + 60));
        assert!(!is_due(59, BUILT + 59 * 60 + 50));
        assert!(is_due(60, BUILT + 3600));
        assert!(!is_due(61, BUILT + 3660));
        assert!(is_due(62, BUILT + DAY));
        assert!(is_due(63, BUILT));
    }

    #[test]
    fn an_unset_clock_is_at_least_at_the_build_date() {
        let known = Known::new(0);
        assert_eq!(known.wall(MINUTE, 100, false), Wall::AtLeast(BUILT + 60));
        // An NTP daemon that vouches for 1970 is wrong too.
        assert_eq!(known.wall(MINUTE, 100, true), Wall::AtLeast(BUILT + 60));
    }

    #[test]
    fn a_clock_that_may_be_right_counts() {
        let known = Known::new(0);
        assert_eq!(known.wall(MINUTE, BUILT + DAY, true), Wall::Is(BUILT + DAY));
        assert_eq!(known.wall(MINUTE, BUILT + DAY, false), Wall::AtLeast(BUILT + DAY));
    }

    #[test]
    fn a_clock_far_in_the_future_is_not_believed() {
        let known = Known::new(0);
        for set in [false, true] {
            assert_eq!(known.wall(MINUTE, BUILT + BELIEVED + DAY, set), Wall::AtLeast(BUILT + 60));
        }
        assert_eq!(Known::new(u64::MAX).floor, BUILT);
    }

    #[test]
    fn time_does_not_run_backwards_past_what_is_known() {
        let mut known = Known::new(BUILT + 10 * DAY);
        assert_eq!(known.wall(MINUTE, BUILT + DAY, true), Wall::AtLeast(BUILT + 10 * DAY + 60));
        known.learn(MINUTE, BUILT + 20 * DAY);
        assert_eq!(known.wall(2 * MINUTE, BUILT + DAY, true), Wall::AtLeast(BUILT + 20 * DAY + 60));
        known.learn(2 * MINUTE, BUILT + 5 * DAY);
        assert_eq!(known.wall(2 * MINUTE, BUILT + DAY, true), Wall::AtLeast(BUILT + 20 * DAY + 60));
    }

    fn now(wall: Wall) -> Now {
        Now { mono: MINUTE, wall }
    }

    #[test]
    fn what_is_learnt_is_kept_once_a_day() {
        let mut known = Known::new(0);
        let end = Some(BUILT + 30 * DAY);
        assert_eq!(known.worth_keeping(now(Wall::Is(BUILT + DAY - 1)), end), None);
        assert_eq!(known.worth_keeping(now(Wall::Is(BUILT + DAY)), end), Some(BUILT + DAY));
        assert_eq!(known.worth_keeping(now(Wall::Is(BUILT + 2 * DAY - 1)), end), None);
        known.learn(MINUTE, BUILT + 2 * DAY);
        assert_eq!(known.worth_keeping(now(Wall::AtLeast(BUILT + DAY)), None), Some(BUILT + 2 * DAY));
        assert_eq!(known.worth_keeping(now(Wall::AtLeast(BUILT + DAY)), None), None);
    }

    #[test]
    fn a_clock_that_nobody_vouches_for_or_past_the_own_certificate_is_not_kept() {
        let mut known = Known::new(0);
        let later = BUILT + 100 * DAY;
        assert_eq!(known.worth_keeping(now(Wall::AtLeast(later)), Some(later + DAY)), None);
        assert_eq!(known.worth_keeping(now(Wall::Is(later)), Some(later - DAY)), None);
        assert_eq!(known.worth_keeping(now(Wall::Is(later)), None), None);
        assert_eq!(known.wall(MINUTE, BUILT + DAY, false), Wall::AtLeast(BUILT + DAY));
    }
}
