//! The objects of one kind as a watch tells of them.

use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// A new list begins; all stays as it is until it is complete.
    Listing,
    /// An item of the list.
    Listed(Key, T),
    /// The list is complete: what it lacks is gone.
    Complete,
    Applied(Key, T),
    Deleted(Key),
    /// The API server does not know the kind.
    Absent,
}

/// All objects of one kind, each with what matters of it.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    objects: BTreeMap<Key, T>,
    /// Seen in the list that is under way.
    seen: BTreeSet<Key>,
    complete: bool,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Listing { objects: BTreeMap::new(), seen: BTreeSet::new(), complete: false }
    }
}

impl<T> Listing<T> {
    /// Whether all objects were listed at least once.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&T> {
        self.objects.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut T> {
        self.objects.get_mut(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.objects.iter()
    }

    /// `merge` puts what is new into what is there and tells whether that matters.
    pub(crate) fn apply(&mut self, change: Change<T>, merge: impl FnOnce(&mut T, T) -> bool) -> bool {
        match change {
            Change::Listing => {
                self.seen.clear();
                false
            }
            Change::Listed(key, new) => {
                self.seen.insert(key.clone());
                self.put(key, new, merge)
            }
            Change::Complete => {
                let before = self.objects.len();
                let seen = std::mem::take(&mut self.seen);
                self.objects.retain(|key, _| seen.contains(key));
                let first = !std::mem::replace(&mut self.complete, true);
                first || self.objects.len() != before
            }
            Change::Applied(key, new) => self.put(key, new, merge),
            Change::Deleted(key) => self.objects.remove(&key).is_some(),
            Change::Absent => !std::mem::replace(&mut self.complete, true),
        }
    }

    /// Replaces one object, as its answer to a write says.
    pub(crate) fn insert(&mut self, key: Key, new: T) {
        self.objects.insert(key, new);
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    fn put(&mut self, key: Key, new: T, merge: impl FnOnce(&mut T, T) -> bool) -> bool {
        match self.objects.get_mut(&key) {
            Some(old) => merge(old, new),
            None => {
                self.objects.insert(key, new);
                true
            }
        }
    }
}
