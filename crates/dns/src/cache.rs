//! Answers that were given, for as long as they are good, and longer if nobody can be asked (RFC 8767).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::{Asked, Rcode, Reply, flag};
use crate::name::Name;

/// What all entries together may hold, in octets.
const MAX_OCTETS: usize = 256 << 10;

/// What an entry takes beside its records and its key.
const OVERHEAD: usize = 120;

/// No answer is good for longer than this.
const MAX_TTL: u32 = 86_400;

/// Nothing is kept for longer than this that says that there is nothing.
const MAX_NEGATIVE: u32 = 900;

/// How long an answer is kept beyond its time.
const MAX_STALE: u32 = 3 * 86_400;

/// A question that answers are kept by: name in lower case, type, and what changes the answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Box<[u8]>);

impl Key {
    pub(crate) fn new(name: &Name, asked: &Asked) -> Key {
        let name = name.lower();
        let dnssec = u8::from(asked.dnssec());
        let unchecked = u8::from(asked.flags & flag::CHECKING_DISABLED != 0);
        let tail = asked.kind.to_be_bytes();
        Key([name.wire(), &tail, &[dnssec, unchecked]].concat().into())
    }

    /// The question: name, type, and the two flags.
    pub(crate) fn parts(&self) -> Option<(Name, u16, bool, bool)> {
        let (name, end) = Name::read(&self.0, 0)?;
        let kind = crate::message::u16_at(&self.0, end)?;
        Some((name, kind, self.0.get(end + 2)? == &1, self.0.get(end + 3)? == &1))
    }
}

/// What was found.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) reply: &'a Reply,
    /// Seconds since it was received.
    pub(crate) age: u32,
    pub(crate) fresh: bool,
}

#[derive(Debug)]
struct Entry {
    reply: Reply,
    /// Seconds on the clock.
    received: u32,
    used: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: BTreeMap<Key, Entry>,
    octets: usize,
}

impl Cache {
    pub(crate) fn get(&mut self, now: Duration, key: &Key) -> Option<Found<'_>> {
        let now = seconds(now);
        let entry = self.entries.get_mut(key)?;
        entry.used = now;
        let age = now.saturating_sub(entry.received);
        if age > entry.reply.ttl.saturating_add(MAX_STALE) {
            return None;
        }
        Some(Found { reply: &entry.reply, age, fresh: age < entry.reply.ttl })
    }

    /// Keeps an answer. One that says nothing about how long it is good is not kept.
    pub(crate) fn put(&mut self, now: Duration, key: Key, mut reply: Reply) {
        let positive = reply.rcode == Rcode::NoError && reply.answers > 0;
        let negative = matches!(reply.rcode, Rcode::NoError | Rcode::NxDomain) && !positive;
        reply.ttl = reply.ttl.min(if positive { MAX_TTL } else { MAX_NEGATIVE });
        let size = size(&key, &reply);
        if !(positive || negative && reply.ttl > 0) || size > MAX_OCTETS / 4 {
            return;
        }
        self.remove(&key);
        while self.octets + size > MAX_OCTETS {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        let now = seconds(now);
        self.octets += size;
        self.entries.insert(key, Entry { reply, received: now, used: now });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.octets -= size(key, &entry.reply);
        }
    }
}

fn size(key: &Key, reply: &Reply) -> usize {
    key.0.len() + reply.records.len() + OVERHEAD
}

/// Enough for a century.
fn seconds(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u32) -> Key {
        Key(i.to_be_bytes().into())
    }

    fn reply(ttl: u32, octets: usize) -> Reply {
        Reply {
            rcode: Rcode::NoError,
            authentic: false,
            truncated: false,
            records: vec![0; octets].into(),
            answers: 1,
            ttl,
        }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_ages_and_goes_stale() {
        let mut cache = Cache::default();
        cache.put(at(100), key(1), reply(60, 10));
        let found = cache.get(at(130), &key(1)).unwrap();
        assert_eq!((found.age, found.fresh), (30, true));
        assert!(!cache.get(at(160), &key(1)).unwrap().fresh);
        assert!(cache.get(at(160 + u64::from(MAX_STALE)), &key(1)).is_some());
        assert!(cache.get(at(161 + u64::from(MAX_STALE)), &key(1)).is_none());
    }

    #[test]
    fn what_says_nothing_of_its_time_is_not_kept() {
        let mut cache = Cache::default();
        let negative = |ttl, rcode| Reply { answers: 0, rcode, ..reply(ttl, 10) };
        cache.put(at(0), key(1), negative(0, Rcode::NxDomain));
        cache.put(at(0), key(2), negative(9, Rcode::ServFail));
        assert_eq!(cache.len(), 0);
        cache.put(at(0), key(3), negative(10_000, Rcode::NxDomain));
        assert!(!cache.get(at(901), &key(3)).unwrap().fresh, "long enough");
    }

    #[test]
    fn memory_is_bounded_and_the_least_used_goes_first() {
        let mut cache = Cache::default();
        for i in 0..2000 {
            cache.put(at(u64::from(i)), key(i), reply(86_400, 400));
            assert!(cache.get(at(u64::from(i)), &key(0)).is_some(), "in use");
            assert!(cache.octets <= MAX_OCTETS);
        }
        assert_eq!(cache.octets, cache.entries.iter().map(|(key, entry)| size(key, &entry.reply)).sum::<usize>());
        assert!(cache.get(at(2000), &key(1)).is_none());
        cache.put(at(2000), key(9), reply(86_400, MAX_OCTETS));
        assert!(cache.get(at(2000), &key(9)).is_none(), "one alone may not push out all others");
    }
}
