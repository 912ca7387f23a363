//! Shares of new connections, as tables of slots.

use super::{Backend, hash};

/// The most slots of a table that is gone through in turn or at random.
const MOST: usize = 256;

/// Whose each turn is: of endpoints with weights 2 and 1, `[0, 1, 0]`. Weights that do not fit are rounded, but none
/// to nothing.
pub(crate) fn turns(endpoints: &[Backend]) -> Vec<usize> {
    let total: usize = endpoints.iter().map(|e| usize::from(e.weight)).sum();
    let share = |weight: u16| match usize::from(weight) {
        weight if total <= MOST.max(endpoints.len()) => weight,
        weight => (weight * MOST / total).max(1),
    };
    let mut left: Vec<usize> = endpoints.iter().map(|e| share(e.weight)).collect();
    let mut turns = Vec::new();
    while left.iter().any(|left| *left > 0) {
        for (i, left) in left.iter_mut().enumerate().filter(|(_, left)| **left > 0) {
            *left -= 1;
            turns.push(i);
        }
    }
    turns
}

/// Whose clients fall into each of `count` slots, by rendezvous: each endpoint bids for each slot, and an endpoint that
/// comes or goes moves no slots but its own.
pub(crate) fn owners(endpoints: &[Backend], count: u16) -> Vec<usize> {
    let bid = |slot: u16, endpoint: &Backend, ticket: u16| {
        let address = endpoint.address.to_string();
        // Neighbouring numbers differ in few bits; FNV alone would leave them close together.
        let mixed = hash(format!("{address} {slot} {ticket}").as_bytes()).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    };
    let best = |slot| {
        let bids = endpoints.iter().enumerate().map(|(i, endpoint)| {
            let highest = (0..endpoint.weight).map(|ticket| bid(slot, endpoint, ticket)).max();
            (highest.unwrap_or(0), i)
        });
        bids.max().map_or(0, |(_, i)| i)
    };
    (0..count).map(best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[u16]) -> Vec<Backend> {
        let address = |i: usize| format!("10.0.{}.{}:80", i / 200, i % 200 + 1).parse().unwrap();
        weights.iter().enumerate().map(|(i, weight)| Backend { address: address(i), weight: *weight }).collect()
    }

    #[test]
    fn turns_follow_the_weights() {
        assert_eq!(turns(&endpoints(&[1, 1, 1])), [0, 1, 2]);
        assert_eq!(turns(&endpoints(&[2, 1])), [0, 1, 0]);
        let many = turns(&endpoints(&[100, 100, 99, 1]));
        assert!(many.len() <= MOST && many.contains(&3), "{}", many.len());
        assert_eq!(turns(&endpoints(&[1; 300])).len(), 300);
    }

    #[test]
    fn whoever_leaves_moves_only_its_own_clients() {
        let all = endpoints(&[1, 1, 1, 1, 1]);
        let before = owners(&all, 64);
        for owner in 0..5 {
            let count = before.iter().filter(|o| **o == owner).count();
            assert!((5..=22).contains(&count), "{owner} has {count}");
        }
        let mut fewer = all.clone();
        fewer.remove(2);
        let after = owners(&fewer, 64);
        for (slot, owner) in before.iter().enumerate().filter(|(_, owner)| **owner != 2) {
            assert_eq!(fewer[after[slot]].address, all[*owner].address, "{slot}");
        }
    }

    #[test]
    fn heavy_ones_have_more_slots() {
        let owners = owners(&endpoints(&[3, 1]), 64);
        let first = owners.iter().filter(|owner| **owner == 0).count();
        assert!((38..=58).contains(&first), "{first}");
    }
}
