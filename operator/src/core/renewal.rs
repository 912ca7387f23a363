//! When a certificate is replaced.

use std::time::{Duration, SystemTime};

/// How far before its making a certificate is valid: clocks of gateways are behind.
pub(crate) const BACKDATE: Duration = Duration::from_secs(DAY);

/// Seconds.
pub(crate) const DAY: u64 = 24 * 60 * 60;

/// The validity that a certificate states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// Of a certificate made now.
    pub(crate) fn from_now(now: SystemTime, days: u32) -> Self {
        Validity { not_before: now - BACKDATE, not_after: now + Duration::from_secs(u64::from(days) * DAY) }
    }

    /// Two thirds into its life.
    pub(crate) fn renewal(&self) -> SystemTime {
        let made = self.not_before + BACKDATE;
        made + self.not_after.duration_since(made).unwrap_or_default() / 3 * 2
    }

    /// Also if it is not valid yet: it was made when the clock was wrong.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        now >= self.renewal() || now < self.not_before
    }
}
