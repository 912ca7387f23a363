//! The anti-replay window (RFC 4303 section 3.4.3), as the ring of words of RFC 6479.

const WORDS: usize = 64;
const BITS: u32 = WORDS as u32 * 32;

/// How far behind the highest accepted sequence number a packet may come and still be taken.
///
/// One word is being filled and cannot speak for the oldest numbers.
pub const WINDOW: u32 = BITS - 32;

/// Which of the last [`WINDOW`] sequence numbers have been seen.
#[derive(Clone)]
pub struct ReplayWindow {
    highest: u32,
    seen: [u32; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        ReplayWindow { highest: 0, seen: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// Whether `sequence` is new. Zero is never sent (RFC 4303 section 3.3.3).
    pub fn is_new(&self, sequence: u32) -> bool {
        if sequence > self.highest {
            return true;
        }
        sequence != 0 && self.highest - sequence < WINDOW && self.seen[word(sequence)] & bit(sequence) == 0
    }

    /// Notes an authenticated `sequence` for which [`is_new`](Self::is_new) held; true if it is the highest so far.
    pub fn accept(&mut self, sequence: u32) -> bool {
        let advanced = sequence > self.highest;
        if advanced {
            let steps = (sequence / 32 - self.highest / 32).min(WORDS as u32);
            for step in 1..=steps {
                self.seen[(self.highest / 32 + step) as usize % WORDS] = 0;
            }
            self.highest = sequence;
        }
        self.seen[word(sequence)] |= bit(sequence);
        advanced
    }

    /// The highest sequence number accepted so far.
    pub fn highest(&self) -> u32 {
        self.highest
    }
}

fn word(sequence: u32) -> usize {
    (sequence / 32) as usize % WORDS
}

fn bit(sequence: u32) -> u32 {
    1 << (sequence % 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn after(sequences: impl IntoIterator<Item = u32>) -> ReplayWindow {
        let mut window = ReplayWindow::default();
        for sequence in sequences {
            assert!(window.is_new(sequence), "{sequence}");
            window.accept(sequence);
        }
        window
    }

    #[test]
    fn zero_is_never_new() {
        assert!(!ReplayWindow::default().is_new(0));
        assert!(!after([1]).is_new(0));
    }

    #[test]
    fn each_number_is_taken_once_in_any_order() {
        let window = after([1, 5, 3, 4, 2, 100, 99]);
        for sequence in [1, 2, 3, 4, 5, 99, 100] {
            assert!(!window.is_new(sequence));
        }
        assert!(window.is_new(6) && window.is_new(98) && window.is_new(101));
    }

    #[test]
    fn the_left_edge_is_sharp() {
        let window = after([5000]);
        assert!(window.is_new(5000 - WINDOW + 1));
        assert!(!window.is_new(5000 - WINDOW));
    }

    #[test]
    fn a_jump_of_any_width_forgets_all_that_fell_out() {
        for jump in [1, 31, 32, 33, BITS - 1, BITS, BITS + 1, 10 * BITS, u32::MAX - 2000] {
            let mut window = after(1..=2000);
            window.accept(2000 + jump);
            let lowest = (2000 + jump).saturating_sub(WINDOW - 1).max(1);
            for sequence in lowest..2000_u32.saturating_add(jump) {
                assert_eq!(window.is_new(sequence), sequence > 2000, "{jump} {sequence}");
            }
        }
    }

    #[test]
    fn the_last_number_of_all_is_taken_once() {
        let window = after([u32::MAX - 1, u32::MAX]);
        assert!(!window.is_new(u32::MAX));
        assert!(window.is_new(u32::MAX - 2));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec((any::<bool>(), 0..3000_u32), 1..300)) {
            let (mut window, mut seen, mut highest) = (ReplayWindow::default(), BTreeSet::new(), 0_u32);
            for (forward, distance) in steps {
                let sequence = if forward { highest + distance } else { highest.saturating_sub(distance) };
                let expected = sequence > highest
                    || (sequence != 0 && highest - sequence < WINDOW && !seen.contains(&sequence));
                prop_assert_eq!(window.is_new(sequence), expected);
                if expected {
                    prop_assert_eq!(window.accept(sequence), sequence > highest);
                    seen.insert(sequence);
                    highest = highest.max(sequence);
                }
            }
        }
    }
}
