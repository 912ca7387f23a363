//! Peers by number: stable over restarts, so that SAs found in the kernel can be told apart.

use std::collections::BTreeMap;

use selvedge_ike::PeerId;

/// Request ids of our SAs and policies: this in the upper byte, the peer's number below.
const REQID_BASE: u32 = 0x5e00_0000;

/// Every request id of ours.
pub const REQIDS: std::ops::RangeInclusive<u32> = REQID_BASE..=REQID_BASE | (NUMBERS - 1);

const NUMBERS: u32 = 1 << 24;

/// Names and numbers of the peers.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    by_name: BTreeMap<String, PeerId>,
    by_id: BTreeMap<PeerId, String>,
}

impl Ids {
    /// The number of `name`: from a hash of the name, the next free one if that is taken. It stays the same while
    /// the program runs, and in the next run too unless two names collide.
    pub(crate) fn id(&mut self, name: &str) -> PeerId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let mut id = PeerId(fnv(name) % NUMBERS);
        while self.by_id.contains_key(&id) {
            id = PeerId((id.0 + 1) % NUMBERS);
        }
        self.by_name.insert(name.to_owned(), id);
        self.by_id.insert(id, name.to_owned());
        id
    }

    pub(crate) fn name(&self, id: PeerId) -> Option<&str> {
        self.by_id.get(&id).map(String::as_str)
    }

    /// Forgets the names for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.by_name.retain(|name, _| keep(name));
        self.by_id.retain(|_, name| keep(name));
    }
}

/// Request id of a peer's SAs and policies.
pub(crate) fn reqid(id: PeerId) -> u32 {
    REQID_BASE | id.0
}

/// The peer of a request id, if it is one of ours.
pub(crate) fn peer_of(reqid: u32) -> Option<PeerId> {
    (reqid & !(NUMBERS - 1) == REQID_BASE).then_some(PeerId(reqid & (NUMBERS - 1)))
}

/// FNV-1a, 32 bit.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_distinct() {
        let (mut one, mut two) = (Ids::default(), Ids::default());
        let a = one.id("beijing.edge-1");
        let b = one.id("beijing.edge-2");
        assert_eq!((two.id("beijing.edge-2"), two.id("beijing.edge-1")), (b, a));
        assert_ne!(a, b);
        assert_eq!(peer_of(reqid(a)), Some(a));
        assert_eq!(peer_of(7), None);
        one.retain(|name| name == "beijing.edge-2");
        assert_eq!((one.name(a), one.name(b)), (None, Some("beijing.edge-2")));
    }
}
