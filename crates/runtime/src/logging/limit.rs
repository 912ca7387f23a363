//! How many lines of a kind may be written.

use std::collections::BTreeMap;
use std::time::Duration;

/// The place in the program that says it.
pub(super) type Kind = (Option<&'static str>, Option<u32>);

/// Lines of a kind that may come in a row, as at a start or a change.
const BURST: u32 = 10;

/// The pause after which there may be one more.
const PAUSE: Duration = Duration::from_secs(60);

/// A token bucket for each kind.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<Kind, Bucket>);

#[derive(Debug, Default)]
struct Bucket {
    /// When the bucket will be full again.
    full_at: Duration,
    left_out: u32,
}

/// Whether a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Write {
        /// Lines of the kind that were not, since the last one that was.
        left_out: u32,
    },
    LeaveOut,
}

impl Limiter {
    /// Judges one line at `now`, the time since any fixed moment.
    pub(super) fn judge(&mut self, now: Duration, kind: Kind) -> Verdict {
        let bucket = self.0.entry(kind).or_default();
        let full_at = bucket.full_at.max(now) + PAUSE;
        if full_at > now + PAUSE * BURST {
            bucket.left_out = bucket.left_out.saturating_add(1);
            return Verdict::LeaveOut;
        }
        bucket.full_at = full_at;
        Verdict::Write { left_out: std::mem::take(&mut bucket.left_out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Kind = (Some("a"), Some(1));
    const B: Kind = (Some("a"), Some(2));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_then_one_a_minute_and_the_number_of_those_left_out() {
        let mut limiter = Limiter::default();
        let written =
            |limiter: &mut Limiter, now| (0..1000).filter(|_| limiter.judge(at(now), A) != Verdict::LeaveOut).count();
        assert_eq!(written(&mut limiter, 5), 10);
        assert_eq!(written(&mut limiter, 64), 0);
        assert_eq!(limiter.judge(at(65), A), Verdict::Write { left_out: 1990 });
        assert_eq!(limiter.judge(at(65), A), Verdict::LeaveOut);
        assert_eq!(limiter.judge(at(65), B), Verdict::Write { left_out: 0 }, "another kind has its own bucket");
        // An hour of noise.
        let hour = (66..66 + 3600).filter(|now| limiter.judge(at(*now), A) != Verdict::LeaveOut).count();
        assert_eq!(hour, 60);
        assert_eq!(written(&mut limiter, 100_000), 10, "after a quiet time all is as at first");
    }
}
