//! Services in the table, and the least text that brings those of one ruleset to those of another.
//!
//! A packet is looked up once in a map by what it calls; the chain it goes to knows only the endpoints of that
//! Service. What changes with Services are chains and elements; all else of the table stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Result, Write};
use std::net::SocketAddr;

use selvedge_model::Balance;

use super::{CALLED_MARK, address_type, block, digest, elements, protocol, set_name, suffix};
use crate::facts::Family;
use crate::firewall::{Backend, Called, Group, Ruleset, Serving, Set, Target, Way, hash, owners, turns};

/// Slots of a table by which clients stay with their endpoint.
const SLOTS: u16 = 64;

/// So that a table made anew sends nobody elsewhere.
const SEED: u32 = 0x5e1f_ed6e;

/// The most clients that are remembered for an endpoint.
const CLIENTS: u32 = 65_536;

/// Text for `nft -f -` that turns the table of `before` into that of `after`; `None` if more differs than Services.
pub fn update(before: &Ruleset, after: &Ruleset) -> Option<String> {
    let (old, new) = (before.serving.as_ref()?, after.serving.as_ref()?);
    let same = before.ipv6 == after.ipv6
        && before.sets == after.sets
        && before.chains == after.chains
        && before.watch == after.watch
        && old.node_port_addresses == new.node_port_addresses;
    if !same {
        return None;
    }
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_update(&mut text, (before, old), (after, new));
    Some(text)
}

fn write_update(text: &mut String, (before, old): (&Ruleset, &Serving), (after, new): (&Ruleset, &Serving)) -> Result {
    let (mut made, mut gone) = (Parts::default(), Parts::default());
    for (name, group) in new.groups.iter().filter(|(name, group)| old.groups.get(*name) != Some(group)) {
        made.add(name, group);
    }
    for (name, group) in old.groups.iter().filter(|(name, group)| new.groups.get(*name) != Some(group)) {
        gone.add(name, group);
    }
    let (gates, old_gates) = (gates(after, new), gates(before, old));
    made.chains.extend(gates.iter().filter(|(name, rules)| old_gates.get(*name) != Some(rules)).map(owned));
    gone.chains.extend(old_gates.iter().filter(|(name, rules)| gates.get(*name) != Some(rules)).map(owned));

    writeln!(text, "table inet selvedge {{")?;
    for (name, lines) in made.sets.iter().filter(|(name, _)| !gone.sets.contains_key(*name)) {
        block(text, "set", name, lines)?;
    }
    for name in made.chains.keys() {
        block(text, "chain", name, &[])?;
    }
    writeln!(text, "}}")?;
    for name in made.chains.keys() {
        writeln!(text, "flush chain inet selvedge {name}")?;
    }
    writeln!(text, "table inet selvedge {{")?;
    for (name, rules) in &made.chains {
        block(text, "chain", name, rules)?;
    }
    writeln!(text, "}}")?;

    let (members, old_members) = (members(new, Some(old)), members(old, Some(new)));
    for (verb, members) in [("delete", &old_members), ("add", &members)] {
        for (set, elements) in members {
            let elements = elements.iter().map(|element| if verb == "delete" { key(element) } else { element });
            let elements: Vec<&str> = elements.collect();
            writeln!(text, "{verb} element inet selvedge {set} {{ {} }}", elements.join(", "))?;
        }
    }

    let dead: Vec<&String> = gone.chains.keys().filter(|name| !made.chains.contains_key(*name)).collect();
    for name in &dead {
        writeln!(text, "flush chain inet selvedge {name}")?;
    }
    for name in dead {
        writeln!(text, "delete chain inet selvedge {name}")?;
    }
    for name in gone.sets.keys().filter(|name| !made.sets.contains_key(*name)) {
        writeln!(text, "delete set inet selvedge {name}")?;
    }
    let (digest_before, digest_after) = (digest(before), digest(after));
    if digest_before != digest_after {
        writeln!(text, "delete chain inet selvedge {digest_before}")?;
        writeln!(text, "add chain inet selvedge {digest_after}")?;
    }
    Ok(())
}

fn owned<'a>((name, rules): (&'a String, &'a Vec<String>)) -> (String, Vec<String>) {
    (name.clone(), rules.clone())
}

/// An element is deleted by its key alone, which ends before its comment or at its end.
fn key(element: &str) -> &str {
    element.split(" comment ").next().unwrap_or(element)
}

/// What the table has for Services besides base chains.
pub(super) fn body(text: &mut impl Write, ruleset: &Ruleset, serving: &Serving) -> Result {
    // One after the other: all of them together are more text than a gateway should hold.
    for (name, group) in &serving.groups {
        let mut parts = Parts::default();
        parts.add(name, group);
        parts.sets.iter().try_for_each(|(name, lines)| block(text, "set", name, lines))?;
        parts.chains.iter().try_for_each(|(name, rules)| block(text, "chain", name, rules))?;
    }
    gates(ruleset, serving).iter().try_for_each(|(name, rules)| block(text, "chain", name, rules))?;
    let members = members(serving, None);
    let (mut called, mut here, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for family in families(ruleset) {
        let (ip, kind, six) = (protocol(family), address_type(family), suffix(family));
        let mut declare = |kind_of, name: &str, kind: String| {
            let name = format!("{name}{six}");
            let elements = members.get(&name).map(|members| elements(&Vec::from_iter(members.iter().cloned())));
            block(text, kind_of, &name, &[vec![format!("type {kind}")], Vec::from_iter(elements)].concat())
        };
        declare("map", "services", format!("{kind} . inet_proto . inet_service : verdict"))?;
        declare("map", "node-ports", "inet_proto . inet_service : verdict".to_owned())?;
        declare("map", "refused", format!("{kind} . inet_proto . inet_service : verdict"))?;
        declare("map", "refused-ports", "inet_proto . inet_service : verdict".to_owned())?;
        declare("set", "own", format!("{kind} . {kind}"))?;
        let key = format!("{ip} daddr . meta l4proto . th dport");
        called.push(format!("{key} vmap @services{six}"));
        refused.push(format!("{key} vmap @refused{six}"));
        if let Some(at) = node_addresses(serving, family) {
            here.push(format!("{at} fib daddr type local meta l4proto . th dport vmap @node-ports{six}"));
            refused.push(format!("{at} fib daddr type local meta l4proto . th dport vmap @refused-ports{six}"));
        }
    }
    called.extend(here);
    block(text, "chain", "services", &called)?;
    block(text, "chain", "refused", &refused)?;
    block(text, "chain", "refuse", &["meta l4proto tcp reject with tcp reset".into(), "reject".into()])
}

/// Chains and sets of groups, with what is in them.
#[derive(Default)]
struct Parts {
    sets: BTreeMap<String, Vec<String>>,
    chains: BTreeMap<String, Vec<String>>,
}

impl Parts {
    fn add(&mut self, name: &str, group: &Group) {
        let (ip, l4, kind) = (protocol(group.family), group.protocol.name(), address_type(group.family));
        let choice = |choose: &dyn Fn(&Backend) -> String| choice(group, choose);
        let Some(seconds) = group.affinity else {
            let rule = match group.endpoints.as_slice() {
                [one] => format!("meta l4proto {l4} dnat {ip} to {}", one.address),
                _ => {
                    let to = choice(&|e| format!("{} . {}", e.address.ip(), e.address.port()));
                    format!("meta l4proto {l4} dnat {ip} addr . port to {} map {{ {} }}", to.0, to.1)
                }
            };
            self.chains.insert(chain(name), vec![rule]);
            return;
        };
        let mut rules = Vec::new();
        for Backend { address, .. } in &group.endpoints {
            let (set, to) = (client_set(name, *address), endpoint_chain(name, *address));
            rules.push(format!("{ip} saddr @{set} goto {to}"));
            let remember = format!("update @{set} {{ {ip} saddr timeout {seconds}s }}");
            self.chains.insert(to, vec![remember, format!("meta l4proto {l4} dnat {ip} to {address}")]);
            let lines = [format!("type {kind}"), format!("size {CLIENTS}"), "flags dynamic,timeout".into()];
            self.sets.insert(set, lines.into());
        }
        rules.push(match group.endpoints.as_slice() {
            [one] => format!("goto {}", endpoint_chain(name, one.address)),
            _ => {
                let to = choice(&|e| format!("goto {}", endpoint_chain(name, e.address)));
                format!("{} vmap {{ {} }}", to.0, to.1)
            }
        });
        self.chains.insert(chain(name), rules);
    }
}

/// What gives a number for a new connection, and whose each number is.
fn choice(group: &Group, choose: &dyn Fn(&Backend) -> String) -> (String, String) {
    let ip = protocol(group.family);
    let owners = match group.balance {
        Balance::SourceHash => owners(&group.endpoints, SLOTS),
        _ => turns(&group.endpoints),
    };
    let number = match group.balance {
        Balance::Random => format!("numgen random mod {}", owners.len()),
        Balance::RoundRobin => format!("numgen inc mod {}", owners.len()),
        Balance::SourceHash => format!("jhash {ip} saddr mod {SLOTS} seed {SEED:#x}"),
    };
    let slots = owners.iter().enumerate().filter_map(|(i, owner)| Some((i, group.endpoints.get(*owner)?)));
    let slots: Vec<String> = slots.map(|(i, endpoint)| format!("{i} : {}", choose(endpoint))).collect();
    (number, slots.join(", "))
}

/// Chains that calls from outside pass first, by name.
fn gates(ruleset: &Ruleset, serving: &Serving) -> BTreeMap<String, Vec<String>> {
    let mut gates = BTreeMap::new();
    for (frontend, target) in serving.frontends.iter().filter(|(_, target)| target.external) {
        let Way::To(near) = &target.near else { continue };
        let (family, gate) = (frontend.family(), format!("ext-{near}"));
        let ip = protocol(family);
        let mut rules = Vec::new();
        if target.far != target.near {
            if ruleset.sets.contains_key(&(Set::Local, family)) {
                rules.push(format!("{ip} saddr @{} goto {}", set_name(Set::Local, family), chain(near)));
            }
            rules.push(format!("fib saddr type local goto {}", chain(near)));
        }
        if let Way::To(far) = &target.far {
            rules.push(format!("meta mark set meta mark | {CALLED_MARK:#x} goto {}", chain(far)));
        }
        gates.insert(gate.clone(), rules);
        if !target.sources.is_empty() {
            let sources: Vec<String> = target.sources.iter().map(ToString::to_string).collect();
            gates.insert(format!("lb-{near}"), vec![format!("{ip} saddr {{ {} }} goto {gate}", sources.join(", "))]);
        }
    }
    gates
}

/// Elements of the maps and sets by their names, without those that `but` has, too.
fn members(serving: &Serving, but: Option<&Serving>) -> BTreeMap<String, BTreeSet<String>> {
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (frontend, target) in &serving.frontends {
        if but.is_some_and(|but| but.frontends.get(frontend) == Some(target)) {
            continue;
        }
        let (six, l4, port) = (suffix(frontend.family()), frontend.protocol.name(), frontend.port);
        let (map, refused, key) = match frontend.called {
            Called::Address(ip) => ("services", "refused", format!("{ip} . {l4} . {port}")),
            Called::Node(_) => ("node-ports", "refused-ports", format!("{l4} . {port}")),
        };
        let mut add = |map: &str, verdict: &str| {
            let element = format!("{key} comment \"{}\" : {verdict}", target.name);
            members.entry(format!("{map}{six}")).or_default().insert(element);
        };
        if let Some(to) = entrance(target) {
            add(map, &format!("goto {to}"));
        }
        match (&target.near, &target.far) {
            (Way::Refuse, _) => add(refused, "goto refuse"),
            (_, Way::Drop) => add(refused, "drop"),
            _ if !target.sources.is_empty() => add(refused, "drop"),
            _ => {}
        }
    }
    for ip in serving.own.iter().filter(|ip| but.is_none_or(|but| !but.own.contains(*ip))) {
        members.entry(format!("own{}", suffix((*ip).into()))).or_default().insert(format!("{ip} . {ip}"));
    }
    members
}

/// The chain that calls go to first.
fn entrance(target: &Target) -> Option<String> {
    let Way::To(near) = &target.near else { return None };
    Some(match (target.external, target.sources.is_empty()) {
        (false, _) => chain(near),
        (true, true) => format!("ext-{near}"),
        (true, false) => format!("lb-{near}"),
    })
}

/// The condition for the addresses of this node at which node ports are served; `None` if there are none.
fn node_addresses(serving: &Serving, family: Family) -> Option<String> {
    if serving.node_port_addresses.is_empty() {
        return Some(if family == Family::V4 { "ip daddr != 127.0.0.0/8" } else { "ip6 daddr != ::1" }.to_owned());
    }
    let own = serving.node_port_addresses.iter().filter(|net| Family::from(**net) == family);
    let own: Vec<String> = own.map(ToString::to_string).collect();
    (!own.is_empty()).then(|| format!("{} daddr {{ {} }}", protocol(family), own.join(", ")))
}

fn families(ruleset: &Ruleset) -> impl Iterator<Item = Family> {
    Family::BOTH.into_iter().filter(|family| *family == Family::V4 || ruleset.ipv6)
}

fn chain(group: &str) -> String {
    format!("svc-{group}")
}

fn endpoint_chain(group: &str, address: SocketAddr) -> String {
    format!("ep-{group}-{}", short(address))
}

fn client_set(group: &str, address: SocketAddr) -> String {
    format!("clients-{group}-{}", short(address))
}

/// Names hold no colons.
fn short(address: SocketAddr) -> String {
    format!("{:012x}", hash(address.to_string().as_bytes()) >> 16)
}
