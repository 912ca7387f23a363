//! When what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One time per key, and the earliest of them at once.
#[derive(Debug)]
pub(crate) struct Timetable<K> {
    by_key: BTreeMap<K, Duration>,
    by_time: BTreeSet<(Duration, K)>,
}

impl<K> Default for Timetable<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Timetable<K> {
    /// Replaces the time of a key; `None` removes it.
    pub(crate) fn set(&mut self, key: K, at: Option<Duration>) {
        let before = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if before != at {
            if let Some(before) = before {
                self.by_time.remove(&(before, key));
            }
            self.by_time.extend(at.map(|at| (at, key)));
        }
    }

    pub(crate) fn earliest(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out one key that is due.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_due_in_the_order_of_their_latest_times() {
        let at = Duration::from_secs;
        let mut table = Timetable::default();
        table.set('a', Some(at(3)));
        table.set('b', Some(at(2)));
        table.set('c', Some(at(1)));
        table.set('c', None);
        table.set('a', Some(at(1)));
        assert_eq!((table.earliest(), table.pop(at(0))), (Some(at(1)), None));
        assert_eq!((table.pop(at(5)), table.pop(at(5)), table.pop(at(5))), (Some('a'), Some('b'), None));
        assert_eq!(table.earliest(), None);
    }
}
