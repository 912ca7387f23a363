use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::object::{Key, Meta, Object};
use crate::one::is_online;
use crate::{Event, Flavour, ListHead};

/// All objects of a kind, as well as they are known.
///
/// It is fed with lists, watches and single objects in any order, from caches that forget, repeat and make up. Of each
/// object the highest version stays, and only a list that shows the state of the cloud removes what it lacks.
#[derive(Debug)]
pub struct Store<T> {
    entries: BTreeMap<Key, Entry>,
    /// What was listed by name and version, and is not known in that version.
    expected: BTreeMap<Key, u64>,
    /// What existed up to this version is in `entries`; 0 before the first list that was believed.
    mark: u64,
    /// Version of the last list that was older than `mark`.
    older: u64,
    round: u32,
    known: bool,
    changed: bool,
    kind: PhantomData<fn(T)>,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    /// The list it was in last.
    round: u32,
    /// A list that is not judged yet brought back what an earlier one lacked.
    doubtful: bool,
    /// As [`Object::keep`] writes it: a tenth of what the object takes, of which there are thousands.
    kept: Box<str>,
}

/// A list that is being read.
#[derive(Debug)]
pub struct Listing {
    round: u32,
    names_only: bool,
    missing: Vec<Meta>,
    /// What could not be read of it.
    pub problem: Option<String>,
}

/// What a list was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believed {
    /// It shows all there is.
    Yes,
    /// It shows what was stored on this node.
    Local,
    /// Its server does not know.
    Unknown,
    /// It shows what was once.
    Older,
    /// It shows a part.
    Partial,
}

impl<T: Object> Default for Store<T> {
    fn default() -> Self {
        Store {
            entries: BTreeMap::new(),
            expected: BTreeMap::new(),
            mark: 0,
            older: 0,
            round: 0,
            known: false,
            changed: false,
            kind: PhantomData,
        }
    }
}

impl<T: Object> Store<T> {
    /// Begins to read a list. `names_only`: what it says of its objects besides name and version is not true.
    pub fn begin(&mut self, names_only: bool) -> Listing {
        self.round = self.round.wrapping_add(1);
        Listing { round: self.round, names_only, missing: Vec::new(), problem: None }
    }

    /// Takes one item of the list.
    pub fn item(&mut self, listing: &mut Listing, text: &str) {
        let (meta, object) = match T::read(text) {
            Ok((meta, _)) if listing.names_only => (meta, None),
            Ok((meta, None)) => return self.remove(&meta),
            Ok((meta, object)) => (meta, object),
            Err((meta, problem)) => {
                listing.problem = Some(problem);
                if meta.key.1.is_empty() {
                    return;
                }
                (meta, None)
            }
        };
        let ghost = self.is_ghost(&meta);
        if let Some(entry) = self.entries.get_mut(&meta.key) {
            entry.round = listing.round;
            if listing.names_only && (meta.version == 0 || meta.version != entry.version) {
                listing.missing.push(meta);
                return;
            }
        } else if listing.names_only {
            listing.missing.push(meta);
            return;
        }
        if let Some(object) = object {
            self.put(meta, Entry::new(listing.round, ghost, &object));
        }
    }

    /// Judges the list that was read: what it was worth.
    pub fn end(&mut self, listing: Listing, flavour: Flavour, head: &ListHead) -> Believed {
        let Listing { round, missing, .. } = listing;
        let believed = self.judge(flavour, head);
        if believed == Believed::Yes {
            // A cluster that was restored from a backup counts from there.
            let anew = head.version < self.mark;
            let before = self.entries.len();
            self.entries.retain(|_, entry| entry.round == round || (entry.version > head.version && !anew));
            self.changed |= self.entries.len() != before;
            for entry in self.entries.values_mut() {
                self.changed |= std::mem::take(&mut entry.doubtful);
                if anew {
                    // Whatever comes next is newer.
                    entry.version = 0;
                }
            }
            self.mark = head.version;
            self.older = 0;
            self.expected = missing.into_iter().map(|meta| (meta.key, meta.version)).collect();
            self.known |= self.expected.is_empty();
        } else {
            self.entries.retain(|_, entry| !entry.doubtful);
            for meta in missing {
                if !self.is_ghost(&meta) {
                    self.expected.insert(meta.key, meta.version);
                }
            }
            self.known |= !self.entries.is_empty() && self.expected.is_empty();
        }
        believed
    }

    /// What was listed by name only and is still to be asked for, one by one.
    pub fn missing(&self) -> Vec<Meta> {
        self.expected.iter().map(|(key, version)| Meta { key: key.clone(), version: *version }).collect()
    }

    /// Takes an object that was asked for by name after it was listed.
    pub fn got(&mut self, meta: Meta, object: Option<T>) {
        match object {
            None => self.remove(&meta),
            Some(object) => self.put(meta, Entry::new(self.round, false, &object)),
        }
    }

    /// What was listed and could be asked for was.
    pub fn complete(&mut self) {
        self.changed |= !self.known;
        self.known = true;
    }

    /// Takes an event of a watch; true if the watch goes on.
    pub fn event(&mut self, event: Event<T>) -> bool {
        match event {
            Event::Put(meta, Some(object)) => {
                // MetaServer begins each watch with all that it stored, and never learns what was deleted meanwhile.
                if !self.is_ghost(&meta) {
                    self.put(meta, Entry::new(self.round, false, &object));
                }
            }
            Event::Put(meta, None) => self.remove(&meta),
            Event::Deleted(meta) => {
                self.remove(&meta);
                if self.mark != 0 {
                    self.mark = self.mark.max(meta.version);
                }
            }
            Event::Bookmark(_) | Event::Unreadable(_) => {}
            Event::Expired | Event::Failed(_) => return false,
        }
        true
    }

    /// Takes what an earlier run kept.
    pub fn restore(&mut self, meta: Meta, object: &T) {
        self.mark = self.mark.max(meta.version);
        self.put(meta, Entry::new(self.round, false, object));
        self.known = true;
    }

    /// Whether enough was read to act by it.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether anything differs since the last time.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// In the order of their names: name, version and text for [`Object::restore`].
    pub fn iter(&self) -> impl Iterator<Item = (&Key, u64, &str)> {
        let sure = self.entries.iter().filter(|(_, entry)| !entry.doubtful);
        sure.map(|(key, entry)| (key, entry.version, &*entry.kept))
    }

    fn judge(&mut self, flavour: Flavour, head: &ListHead) -> Believed {
        if is_online(flavour, head, T::LIST) == Some(false) {
            return if head.version == 0 { Believed::Unknown } else { Believed::Local };
        }
        if head.version == 0 {
            return Believed::Unknown;
        }
        if head.partial {
            return Believed::Partial;
        }
        if head.version < self.mark {
            // A cache that is cut off stands still; older lists that grow are the history of a restored cluster.
            let grows = self.older != 0 && head.version > self.older;
            self.older = head.version;
            if !grows {
                return Believed::Older;
            }
        }
        Believed::Yes
    }

    /// A list that was believed lacked it, or it was deleted since.
    fn is_ghost(&self, meta: &Meta) -> bool {
        let known = self.entries.contains_key(&meta.key) || self.expected.contains_key(&meta.key);
        meta.version != 0 && meta.version <= self.mark && !known
    }

    fn put(&mut self, meta: Meta, mut entry: Entry) {
        entry.version = meta.version;
        if self.expected.get(&meta.key).is_some_and(|version| meta.version >= *version) {
            self.expected.remove(&meta.key);
        }
        match self.entries.get_mut(&meta.key) {
            Some(old) if meta.version != 0 && meta.version <= old.version => {
                old.round = entry.round;
                old.doubtful &= entry.doubtful;
            }
            Some(old) => {
                self.changed |= old.kept != entry.kept;
                *old = entry;
            }
            None => {
                self.changed |= !entry.doubtful;
                self.entries.insert(meta.key, entry);
            }
        }
    }

    fn remove(&mut self, meta: &Meta) {
        let old = self.entries.get(&meta.key);
        if old.is_some_and(|old| meta.version == 0 || meta.version >= old.version) {
            self.entries.remove(&meta.key);
            self.changed = true;
        }
        self.expected.remove(&meta.key);
    }
}

impl Entry {
    fn new(round: u32, doubtful: bool, object: &impl Object) -> Entry {
        Entry { version: 0, round, doubtful, kept: object.keep().into() }
    }
}

#[cfg(test)]
mod tests;
