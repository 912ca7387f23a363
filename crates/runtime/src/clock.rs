use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use selvedge_tunnel::Now;

/// The two times. The calendar never says less than a moment that is known to have been: gateways without a clock
/// battery boot in 1970, and certificates must not be "not yet valid" then.
pub(crate) struct Clock {
    origin: Instant,
    floor: u64,
}

impl Clock {
    /// A clock that knows it is later than `floor`, seconds since 1970.
    pub(crate) fn new(floor: u64) -> Self {
        Clock { origin: Instant::now(), floor }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mono = self.origin.elapsed();
        // From the floor on, time at least passes.
        Now { mono, wall: wall.max(self.floor + mono.as_secs()) }
    }

    pub(crate) fn instant(&self, mono: Duration) -> Instant {
        self.origin + mono
    }
}
