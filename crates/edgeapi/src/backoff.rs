use std::time::Duration;

/// How long to wait after something failed: longer each time, and never as long as everybody else.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed, or ended at once with nothing. `random` is any number.
    pub fn next(&mut self, random: u32) -> Duration {
        let pause = Self::FIRST.saturating_mul(1 << self.failures.min(6)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        Self::spread(pause, random)
    }

    /// Between three and five quarters of `pause`: nodes that were cut off together do not come back together.
    pub fn spread(pause: Duration, random: u32) -> Duration {
        let millis = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
        let part = (u64::from(millis / 2) * u64::from(random)) >> 32;
        Duration::from_millis(u64::from(millis - millis / 4) + part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::default();
        let half = u32::MAX / 2 + 1;
        let pauses: Vec<u64> = (0..8).map(|_| backoff.next(half).as_millis() as u64).collect();
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        backoff.reset();
        assert_eq!(backoff.next(half).as_millis(), 1000);
    }

    #[test]
    fn no_two_wait_alike() {
        let ten = Duration::from_secs(10);
        assert_eq!(Backoff::spread(ten, 0), Duration::from_millis(7500));
        assert_eq!(Backoff::spread(ten, u32::MAX), Duration::from_millis(12_499));
        assert!(Backoff::spread(Duration::from_secs(1 << 40), u32::MAX) > Duration::ZERO);
    }
}
