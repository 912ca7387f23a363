//! The sets that the rules of iptables name, as text for `ipset -exist restore`.
//!
//! Sets whose name begins with [`PREFIX`] are ours. [`update`] comes before the rules that name new sets, [`cleanup`]
//! after the rules that named old ones are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::facts::Family;
use crate::firewall::{Ruleset, Set};

/// Begins the name of every set of ours.
pub const PREFIX: &str = "SELVEDGE-";

/// Room for the networks of all nodes of a large cluster; an empty place costs nothing.
const MAX_ELEMENTS: u32 = 1 << 20;

/// Text that creates missing sets, adds missing elements and then deletes surplus ones; `None` if `save` (the output
/// of `ipset save`) is right already.
pub fn update(save: &str, ruleset: &Ruleset) -> Option<String> {
    let saved = parse(save);
    let (mut added, mut deleted) = (String::new(), String::new());
    for ((set, family), nets) in &ruleset.sets {
        let name = name(*set, *family);
        let wanted: BTreeSet<IpNet> = nets.iter().copied().flat_map(without_zero_prefix).collect();
        let inet = if *family == Family::V4 { "inet" } else { "inet6" };
        let nothing = BTreeSet::new();
        let found = saved.get(name.as_str()).unwrap_or_else(|| {
            let _ = writeln!(added, "create {name} hash:net family {inet} maxelem {MAX_ELEMENTS}");
            &nothing
        });
        for net in wanted.difference(found) {
            let _ = writeln!(added, "add {name} {net}");
        }
        for net in found.difference(&wanted) {
            let _ = writeln!(deleted, "del {name} {net}");
        }
    }
    let text = added + &deleted;
    (!text.is_empty()).then_some(text)
}

/// Text that destroys our sets which `ruleset` does not use; `None` if there are none.
pub fn cleanup(save: &str, ruleset: &Ruleset) -> Option<String> {
    let used: BTreeSet<String> = ruleset.sets.keys().map(|(set, family)| name(*set, *family)).collect();
    let stale = parse(save).into_keys().filter(|name| !used.contains(*name));
    let text: String = stale.map(|name| format!("destroy {name}\n")).collect();
    (!text.is_empty()).then_some(text)
}

/// Text that destroys all our sets; `None` if there are none.
pub fn remove(save: &str) -> Option<String> {
    cleanup(save, &Ruleset::default())
}

/// Of at most 31 characters, which is all a set's name may have.
pub(crate) fn name(set: Set, family: Family) -> String {
    let suffix = if family == Family::V4 { "" } else { "6" };
    format!("{PREFIX}{}{suffix}", set.name().to_ascii_uppercase())
}

/// Our sets and their elements.
fn parse(save: &str) -> BTreeMap<&str, BTreeSet<IpNet>> {
    let mut sets: BTreeMap<&str, BTreeSet<IpNet>> = BTreeMap::new();
    for line in save.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("create"), Some(name), _) if name.starts_with(PREFIX) => {
                sets.entry(name).or_default();
            }
            (Some("add"), Some(name), Some(element)) if name.starts_with(PREFIX) => {
                sets.entry(name).or_default().extend(network(element));
            }
            _ => {}
        }
    }
    sets
}

/// A host is printed without its prefix length.
fn network(element: &str) -> Option<IpNet> {
    element.parse().or_else(|_| element.parse::<IpAddr>().map(IpNet::from)).ok()
}

/// `hash:net` knows no prefix of length zero: two halves.
fn without_zero_prefix(net: IpNet) -> Vec<IpNet> {
    if net.prefix_len() > 0 {
        return vec![net];
    }
    net.subnets(1).map(Iterator::collect).unwrap_or_default()
}
