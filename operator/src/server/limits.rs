//! How much anybody may ask for: connections at once, attempts to enrol. All tables are bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Attempts to enrol that one address has at once, and the time after which it has another one.
const ATTEMPTS: u32 = 10;
const ATTEMPT_EVERY: Duration = Duration::from_secs(6);

/// The same for all together: what the API server can be made to do by strangers.
const ALL_ATTEMPTS: u32 = 100;
const ANY_ATTEMPT_EVERY: Duration = Duration::from_millis(100);

/// Addresses whose attempts are counted; more at once are treated as one.
const ADDRESSES: usize = 4096;

/// Connections by name.
type Counts = Arc<Mutex<BTreeMap<String, u32>>>;

/// Who has how many connections.
pub(super) struct Slots {
    strangers: Arc<Semaphore>,
    nodes: Arc<Semaphore>,
    each: Counts,
}

/// Connections without a certificate, with one, and of one name: one is kept open, the next one may come before the end
/// of the last is noticed.
const STRANGERS: usize = 200;
const NODES: usize = 20_000;
const OF_ONE_NAME: u32 = 4;

/// A connection that counts until it is dropped.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    name: Option<(String, Counts)>,
}

impl Default for Slots {
    fn default() -> Self {
        Slots {
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            nodes: Arc::new(Semaphore::new(NODES)),
            each: Arc::default(),
        }
    }
}

impl Slots {
    /// For somebody who has not proved anything yet; `None` if there are too many.
    pub(super) fn stranger(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        Some(Slot { _permit: permit, name: None })
    }

    /// For a node that has proved its name.
    pub(super) fn node(&self, name: &str) -> Option<Slot> {
        let permit = Arc::clone(&self.nodes).try_acquire_owned().ok()?;
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let count = each.entry(name.to_owned()).or_default();
        if *count >= OF_ONE_NAME {
            return None;
        }
        *count += 1;
        Some(Slot { _permit: permit, name: Some((name.to_owned(), Arc::clone(&self.each))) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((name, each)) = &self.name else { return };
        let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = each.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                each.remove(name);
            }
        }
    }
}

/// Counts attempts to enrol.
#[derive(Default)]
pub(super) struct Attempts {
    addresses: BTreeMap<IpAddr, Bucket>,
    all: Option<Bucket>,
    /// When those that count no longer were looked for last.
    swept: Option<Instant>,
}

/// Tokens that come back with time.
#[derive(Clone, Copy)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Bucket {
    fn take(bucket: Option<Bucket>, now: Instant, size: u32, every: Duration) -> (Bucket, bool) {
        let mut bucket = bucket.unwrap_or(Bucket { left: size, since: now });
        let passed = now.saturating_duration_since(bucket.since).as_millis() / every.as_millis().max(1);
        let gained = u32::try_from(passed).unwrap_or(u32::MAX);
        bucket.left = bucket.left.saturating_add(gained).min(size);
        bucket.since = if bucket.left == size { now } else { bucket.since + every * gained };
        let good = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        (bucket, good)
    }

    fn is_full(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= ATTEMPT_EVERY * ATTEMPTS
    }
}

impl Attempts {
    /// Whether one more from this address is allowed.
    pub(super) fn allow(&mut self, address: IpAddr, now: Instant) -> bool {
        let mut key = network(address);
        let swept = self.swept.is_some_and(|at| now.saturating_duration_since(at) < ATTEMPT_EVERY);
        if self.addresses.len() >= ADDRESSES && !swept {
            self.swept = Some(now);
            self.addresses.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&key) {
            key = IpAddr::from([0; 4]);
        }
        let (bucket, good) = Bucket::take(self.addresses.get(&key).copied(), now, ATTEMPTS, ATTEMPT_EVERY);
        self.addresses.insert(key, bucket);
        if !good {
            return false;
        }
        let (all, good) = Bucket::take(self.all, now, ALL_ATTEMPTS, ANY_ATTEMPT_EVERY);
        self.all = Some(all);
        good
    }
}

/// Whoever has an IPv6 address has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(attempts: &mut Attempts, address: &str, now: Instant, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(attempts.allow(address.parse().unwrap(), now))).sum()
    }

    #[test]
    fn an_address_has_few_attempts_and_gets_more_with_time() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        assert_eq!(allowed(&mut attempts, "192.0.2.1", now, 50), ATTEMPTS);
        assert_eq!(allowed(&mut attempts, "192.0.2.2", now, 1), 1, "others are not concerned");
        assert_eq!(allowed(&mut attempts, "192.0.2.1", now + ATTEMPT_EVERY * 2, 50), 2);
        assert_eq!(allowed(&mut attempts, "192.0.2.1", now + ATTEMPT_EVERY * 1000, 50), ATTEMPTS);
    }

    #[test]
    fn all_addresses_of_a_network_are_one() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        assert_eq!(allowed(&mut attempts, "2001:db8::1", now, 50), ATTEMPTS);
        assert_eq!(allowed(&mut attempts, "2001:db8::ffff:1", now, 50), 0);
        assert_eq!(allowed(&mut attempts, "2001:db8:0:1::1", now, 1), 1);
        assert_eq!(allowed(&mut attempts, "::ffff:192.0.2.1", now, 50), ATTEMPTS);
        assert_eq!(allowed(&mut attempts, "192.0.2.1", now, 50), 0);
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_in_work_and_memory() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let good = (0..100_000_u32).filter(|n| attempts.allow(IpAddr::from(n.to_be_bytes()), now)).count();
        assert_eq!(good, ALL_ATTEMPTS as usize);
        assert!(attempts.addresses.len() <= ADDRESSES + 1);
        assert!(attempts.allow("192.0.2.1".parse().unwrap(), now + ATTEMPT_EVERY * ATTEMPTS));
    }

    #[test]
    fn a_name_has_a_few_connections() {
        let slots = Slots::default();
        let mut held: Vec<Slot> = (0..OF_ONE_NAME).map(|_| slots.node("c.a").unwrap()).collect();
        assert!(slots.node("c.a").is_none());
        assert!(slots.node("c.b").is_some());
        held.pop();
        assert!(slots.node("c.a").is_some());
        drop(held);
        assert!(slots.each.lock().unwrap().is_empty());
    }
}
