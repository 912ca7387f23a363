use std::time::Duration;

/// Questions that may be asked: so many at once after a quiet time, and one more each time a price is earned.
#[derive(Clone, Debug)]
pub(crate) struct Purse {
    /// When it will be full again.
    full_at: Duration,
}

impl Purse {
    /// One question in this time, in the long run.
    const PRICE: Duration = Duration::from_millis(50);
    /// What a full purse pays for.
    const DEPTH: u32 = 20;

    pub(crate) fn new(now: Duration) -> Self {
        Purse { full_at: now }
    }

    /// When the next question can be paid for.
    pub(crate) fn ready_at(&self) -> Duration {
        self.full_at.saturating_sub(Self::PRICE * (Self::DEPTH - 1))
    }

    pub(crate) fn pay(&mut self, now: Duration) {
        self.full_at = self.full_at.max(now) + Self::PRICE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_paid_and_then_one_at_a_time() {
        let now = Duration::from_secs(100);
        let mut purse = Purse::new(now);
        for _ in 0..Purse::DEPTH {
            assert!(purse.ready_at() <= now);
            purse.pay(now);
        }
        assert_eq!(purse.ready_at(), now + Purse::PRICE);
        purse.pay(now + Purse::PRICE);
        assert_eq!(purse.ready_at(), now + Purse::PRICE * 2);
        let later = now + Duration::from_secs(10);
        purse.pay(later);
        assert!(purse.ready_at() < later);
    }
}
