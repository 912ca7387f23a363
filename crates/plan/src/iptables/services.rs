//! Services in chains: one for all that is called, one for each group of endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;

use ipnet::IpNet;
use selvedge_model::{Balance, Protocol};

use super::{PREFIX, TABLES, Table, Tables, add as add_chain};
use crate::facts::Family;
use crate::firewall::{Backend, Called, Frontend, Group, Match, Ruleset, Serving, Set, Target, Way, hash, owners};
use crate::ipset;
pub(super) use crate::nft::CALLED_MARK;

pub(super) const OWN: &str = "SELVEDGE-OWN";
const SERVICES: &str = "SELVEDGE-SERVICES";
const NODE_PORTS: &str = "SELVEDGE-NODE-PORTS";
const REJECT: &str = "SELVEDGE-REJECT";
const REJECT_PORTS: &str = "SELVEDGE-REJECT-PORTS";

/// Chains in which no rule depends on its place among the others, and that may have thousands.
pub(super) const UNORDERED: [&str; 5] = [OWN, SERVICES, NODE_PORTS, REJECT, REJECT_PORTS];

/// The most that the match `cluster` can tell apart.
const SLOTS: u16 = 32;

/// So that rules made anew send nobody elsewhere.
const SEED: u32 = 0x5e1f_ed6e;

/// Matches that not every kernel has, of those that the Services of `ruleset` want: table, and a rule to try.
pub fn needs(ruleset: &Ruleset) -> BTreeMap<&'static str, &'static str> {
    let mut needs = BTreeMap::new();
    let Some(serving) = &ruleset.serving else { return needs };
    if serving.frontends.keys().any(|frontend| frontend.protocol == Protocol::Sctp) {
        needs.insert("sctp", "-p sctp -m sctp --dport 1 -j RETURN");
    }
    if serving.groups.values().any(|group| group.balance == Balance::SourceHash) {
        let rule = "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 1 -j RETURN";
        needs.insert("cluster", rule);
    }
    if serving.groups.values().any(|group| group.affinity.is_some()) {
        needs.insert("recent", "-m recent --rcheck --seconds 1 --reap --name SELVEDGE-PROBE -j RETURN");
    }
    needs
}

/// Text for `iptables-restore --noflush` that turns the tables of one ruleset into those of another, if they are there
/// as they were; empty if nothing differs, `None` if more differs than Services.
pub fn change(before: &Tables, after: &Tables) -> Option<String> {
    let nothing = Table::default();
    let mut text = String::new();
    for name in TABLES {
        let (old, new) = (before.get(name).unwrap_or(&nothing), after.get(name).unwrap_or(&nothing));
        if old.jumps != new.jumps {
            return None;
        }
        let (mut declared, mut filled, mut deleted) = (String::new(), String::new(), String::new());
        for (chain, rules) in &new.chains {
            match old.chains.get(chain) {
                Some(found) if found == rules => {}
                Some(found) if UNORDERED.contains(&chain.as_str()) => exchange(&mut filled, chain, found, rules),
                _ => {
                    let _ = writeln!(declared, ":{chain} - [0:0]");
                    for rule in rules {
                        let _ = writeln!(filled, "-A {chain} {rule}");
                    }
                }
            }
        }
        for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
            let _ = writeln!(declared, ":{chain} - [0:0]");
            let _ = writeln!(deleted, "-X {chain}");
        }
        if !(declared.is_empty() && filled.is_empty()) {
            let _ = writeln!(text, "*{name}\n{declared}{filled}{deleted}COMMIT");
        }
    }
    Some(text)
}

/// The last rule of such a chain may lead on to another, and stays the last.
fn exchange(text: &mut String, chain: &str, old: &[String], new: &[String]) {
    let (before, after): (BTreeSet<&String>, BTreeSet<&String>) = (old.iter().collect(), new.iter().collect());
    for rule in before.difference(&after) {
        let _ = writeln!(text, "-D {chain} {rule}");
    }
    for rule in after.difference(&before) {
        let _ = writeln!(text, "-I {chain} 1 {rule}");
    }
}

/// Adds what translates and refuses calls of Services.
pub(super) fn add(tables: &mut Tables, serving: &Serving, family: Family, ruleset: &Ruleset) {
    let ours = |frontend: &Frontend| frontend.family() == family;
    let (mut called, mut ports) = (Vec::new(), Vec::new());
    let (mut refused, mut refused_ports) = (Vec::new(), Vec::new());
    let mut gates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (frontend, target) in serving.frontends.iter().filter(|(frontend, _)| ours(frontend)) {
        let call = call(frontend, target);
        let (to, not) = match frontend.called {
            Called::Address(_) => (&mut called, &mut refused),
            Called::Node(_) => (&mut ports, &mut refused_ports),
        };
        if let Some(entrance) = entrance(target) {
            to.push(format!("{call} -j {entrance}"));
            gate(&mut gates, target, family, ruleset);
        }
        match (&target.near, &target.far) {
            (Way::Refuse, _) => not.push(format!("{call} -j REJECT --reject-with {}", refusal(frontend))),
            (_, Way::Drop) => not.push(format!("{call} -j DROP")),
            _ if !target.sources.is_empty() => not.push(format!("{call} -j DROP")),
            _ => {}
        }
    }
    for (name, group) in serving.groups.iter().filter(|(_, group)| group.family == family) {
        for (chain, rules) in group_chains(name, group) {
            add_chain(tables, "nat", &chain, rules, &[]);
        }
    }
    for (chain, rules) in gates {
        add_chain(tables, "nat", &chain, rules, &[]);
    }
    called.extend(at_node(serving, family).map(|at| format!("{at} -j {NODE_PORTS}")));
    refused_ports.sort();
    add_chain(tables, "nat", SERVICES, called, &["PREROUTING", "OUTPUT"]);
    add_chain(tables, "nat", NODE_PORTS, ports, &[]);
    let itself = |rule: &crate::firewall::Rule| rule.matches.contains(&Match::Itself) && rule.applies(family);
    if ruleset.chains.values().flatten().any(itself) {
        let own = serving.own.iter().filter(|ip| Family::from(**ip) == family).map(|ip| IpNet::from(*ip));
        add_chain(tables, "nat", OWN, own.map(|ip| format!("-s {ip} -d {ip} -j MASQUERADE")).collect(), &[]);
    }
    add_chain(tables, "filter", REJECT, refused, &["OUTPUT"]);
    add_chain(tables, "filter", REJECT_PORTS, refused_ports, &[]);
    let filter = tables.entry("filter").or_default();
    let to_ports = at_node(serving, family).map(|at| format!("{at} -m conntrack --ctstate NEW -j {REJECT_PORTS}"));
    let to_here = format!("-m conntrack --ctstate NEW -j {REJECT}");
    for (base, rules) in
        [("FORWARD", vec![to_here.clone()]), ("INPUT", Vec::from_iter([to_here].into_iter().chain(to_ports)))]
    {
        let own = format!("{PREFIX}{base}");
        filter.chains.entry(own.clone()).or_default().splice(0..0, rules);
        filter.jumps.insert(base, own);
    }
}

/// Matches what clients of a Service send.
fn call(frontend: &Frontend, target: &Target) -> String {
    let protocol = frontend.protocol.name();
    let to = match frontend.called {
        Called::Address(ip) => format!("-d {} ", IpNet::from(ip)),
        Called::Node(_) => String::new(),
    };
    format!("{to}-p {protocol} -m {protocol} --dport {} -m comment --comment \"{}\"", frontend.port, target.name)
}

/// The chain that calls go to first.
fn entrance(target: &Target) -> Option<String> {
    let Way::To(near) = &target.near else { return None };
    Some(match (target.external, target.sources.is_empty()) {
        (false, _) => chain("SVC", near),
        (true, true) => chain("EXT", near),
        (true, false) => chain("LB", near),
    })
}

/// Chains that calls from outside pass first.
fn gate(gates: &mut BTreeMap<String, Vec<String>>, target: &Target, family: Family, ruleset: &Ruleset) {
    let Way::To(near) = &target.near else { return };
    if !target.external {
        return;
    }
    let (svc, ext) = (chain("SVC", near), chain("EXT", near));
    if !target.sources.is_empty() {
        let rules = target.sources.iter().map(|net| from(*net, &ext)).collect();
        gates.insert(chain("LB", near), rules);
    }
    let mut rules = Vec::new();
    if target.far != target.near {
        let local = ruleset.pods.iter().filter(|net| Family::from(**net) == family);
        if ruleset.sets.contains_key(&(Set::Local, family)) {
            rules.push(format!("-m set --match-set {} src -j {svc}", ipset::name(Set::Local, family)));
        } else {
            rules.extend(local.map(|net| from(*net, &svc)));
        }
        rules.push(format!("-m addrtype --src-type LOCAL -j {svc}"));
    }
    if let Way::To(far) = &target.far {
        rules.push(format!("-j MARK --set-xmark {CALLED_MARK:#x}/{CALLED_MARK:#x}"));
        rules.push(format!("-j {}", chain("SVC", far)));
    }
    gates.insert(ext, rules);
}

fn from(net: IpNet, to: &str) -> String {
    if net.prefix_len() == 0 { format!("-j {to}") } else { format!("-s {net} -j {to}") }
}

/// The chain of a group, and with affinity one of each endpoint.
fn group_chains(name: &str, group: &Group) -> Vec<(String, Vec<String>)> {
    let l4 = group.protocol.name();
    let own = chain("SVC", name);
    let shares = shares(group).into_iter();
    let Some(seconds) = group.affinity else {
        let rule = |(share, to): (String, &Backend)| format!("-p {l4} {share}-j DNAT --to-destination {}", to.address);
        return vec![(own, shares.map(rule).collect())];
    };
    let mask = if group.family == Family::V4 { "255.255.255.255" } else { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" };
    let (mut chains, mut rules) = (Vec::new(), Vec::new());
    for Backend { address, .. } in &group.endpoints {
        let chain = endpoint_chain(name, *address);
        let by = format!("--name {chain} --mask {mask} --rsource");
        rules.push(format!("-m recent --rcheck --seconds {seconds} --reap {by} -j {chain}"));
        chains.push((chain, vec![format!("-p {l4} -m recent --set {by} -j DNAT --to-destination {address}")]));
    }
    rules.extend(shares.map(|(share, to)| format!("{share}-j {}", endpoint_chain(name, to.address))));
    chains.push((own, rules));
    chains
}

/// Where new connections go, and what they must match for it; each gets its share of those that are left.
fn shares(group: &Group) -> Vec<(String, &Backend)> {
    if group.balance == Balance::SourceHash && group.endpoints.len() > 1 {
        let all = format!("-m cluster --cluster-total-nodes {SLOTS} --cluster-local-node");
        let slot = |(i, owner): (usize, usize)| {
            let share = format!("{all} {} --cluster-hash-seed {SEED:#010x} ", i + 1);
            let last = i + 1 == usize::from(SLOTS);
            Some((if last { String::new() } else { share }, group.endpoints.get(owner)?))
        };
        return owners(&group.endpoints, SLOTS).into_iter().enumerate().filter_map(slot).collect();
    }
    let mut left: u64 = group.endpoints.iter().map(|e| u64::from(e.weight)).sum();
    let equal = group.endpoints.iter().all(|e| e.weight == 1);
    let mut shares = Vec::with_capacity(group.endpoints.len());
    for to in &group.endpoints {
        let (own, of) = (u64::from(to.weight), left);
        left -= own;
        let share = match group.balance {
            _ if own == of => String::new(),
            Balance::RoundRobin if equal => format!("-m statistic --mode nth --every {of} --packet 0 "),
            _ => format!("-m statistic --mode random --probability {} ", part(own, of)),
        };
        shares.push((share, to));
    }
    shares
}

/// The conditions for the addresses of this node at which node ports are served.
fn at_node(serving: &Serving, family: Family) -> impl Iterator<Item = String> {
    const LOCAL: &str = "-m addrtype --dst-type LOCAL";
    let own = serving.node_port_addresses.iter().filter(move |net| Family::from(**net) == family);
    let mut at: Vec<String> = own.map(|net| format!("-d {net} {LOCAL}")).collect();
    if serving.node_port_addresses.is_empty() {
        let loopback = if family == Family::V4 { "127.0.0.0/8" } else { "::1/128" };
        at.push(format!("! -d {loopback} {LOCAL}"));
    }
    at.into_iter()
}

/// Of at most 28 characters, which is all a chain's name may have.
fn chain(kind: &str, group: &str) -> String {
    format!("{PREFIX}{kind}-{:015x}", hash(group.as_bytes()) >> 4)
}

fn endpoint_chain(group: &str, address: SocketAddr) -> String {
    chain("EP", &format!("{group} {address}"))
}

/// The probability of `own` in `all`, of less than all, to the 11 digits that `iptables-save` prints.
fn part(own: u64, all: u64) -> String {
    format!("0.{:011}", (100_000_000_000 * own + all / 2) / all)
}

fn refusal(frontend: &Frontend) -> &'static str {
    match (frontend.protocol, frontend.family()) {
        (Protocol::Tcp, _) => "tcp-reset",
        (Protocol::Udp | Protocol::Sctp, Family::V4) => "icmp-port-unreachable",
        (Protocol::Udp | Protocol::Sctp, Family::V6) => "icmp6-port-unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_floating_point() {
        for n in 2..2000 {
            assert_eq!(part(1, n), format!("{:.11}", 1.0 / n as f64), "{n}");
        }
        assert_eq!(part(2, 3), "0.66666666667");
    }
}
