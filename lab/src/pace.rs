//! Time limits in a machine that is slower than those they are meant for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static SLOWER: AtomicU32 = AtomicU32::new(1);

/// Multiplies all limits from now on.
pub fn set(slower: u32) {
    SLOWER.store(slower.max(1), Ordering::Relaxed);
}

/// What a limit, or a pause between two packets, is here.
pub fn limit(limit: Duration) -> Duration {
    limit * SLOWER.load(Ordering::Relaxed)
}

/// The limit in words, as every result that was held against it has to show it.
pub fn words(limit: Duration) -> String {
    match SLOWER.load(Ordering::Relaxed) {
        1 => format!("{:.0} s", limit.as_secs_f64()),
        slower => format!("{:.0} s x {slower} for the emulator", limit.as_secs_f64()),
    }
}

/// Whether limits are multiplied.
pub fn is_slower() -> bool {
    SLOWER.load(Ordering::Relaxed) > 1
}
