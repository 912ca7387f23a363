//! The ruleset as text for `iptables-restore --noflush` and `ip6tables-restore --noflush`.
//!
//! Rules are written as `iptables-save` prints them, so that [`update`] can tell from saved text that nothing is to be
//! done. Chains whose name begins with [`PREFIX`] are ours, and so is every rule elsewhere that jumps to one. Our jump
//! comes first in its base chain, since a `DROP` or `REJECT` of others before it would win; [`update`] puts it back
//! there when somebody inserted a rule above it.
//!
//! [`crate::ipset`] text comes before this (rules name sets), its cleanup after. Where there is no ipset, write
//! [`Ruleset::spelt`] instead.

mod save;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::{Balance, Protocol};

use crate::facts::Family;
use crate::firewall::{Chain, Frontend, Match, Rule, Ruleset, Service, Verdict, hash};
use crate::ipset;

pub use save::{TABLES, remove, update};

/// Begins the name of every chain of ours.
pub const PREFIX: &str = "SELVEDGE-";

const SERVICES: &str = "SELVEDGE-SERVICES";
const REJECT: &str = "SELVEDGE-REJECT";

/// Our part of all tables of one family, by table name.
pub type Tables = BTreeMap<&'static str, Table>;

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Own chains: name, and the rules as they follow `-A <chain> `.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Base chain and the own chain that it must jump to first.
    pub jumps: BTreeMap<&'static str, String>,
}

/// What one family's tables should hold.
pub fn tables(ruleset: &Ruleset, family: Family) -> Tables {
    let mut tables = Tables::new();
    if family == Family::V6 && !ruleset.ipv6 {
        return tables;
    }
    for (chain, rules) in &ruleset.chains {
        let rules: Vec<String> = rules.iter().filter(|r| r.applies(family)).map(|r| line(r, family)).collect();
        if !rules.is_empty() {
            let (table, base) = place(*chain);
            add(&mut tables, table, &format!("{PREFIX}{base}"), rules, &[base]);
        }
    }
    if cfg!(feature = "services") {
        services(&mut tables, ruleset, family);
    }
    tables
}

/// Adds what translates and refuses calls of Services.
fn services(tables: &mut Tables, ruleset: &Ruleset, family: Family) {
    let services: Vec<(&Frontend, &Service)> = ruleset.services.iter().filter(|(f, _)| f.family() == family).collect();
    let (served, refused): (Vec<_>, Vec<_>) = services.into_iter().partition(|(_, s)| !s.endpoints.is_empty());
    if !served.is_empty() {
        let jumps = served.iter().map(|(f, s)| format!("{} -j {}", called(f, s), service_chain(f))).collect();
        add(tables, "nat", SERVICES, jumps, &["PREROUTING", "OUTPUT"]);
        for (frontend, service) in served {
            let rules = endpoint_rules(frontend, service, ruleset.balance);
            add(tables, "nat", &service_chain(frontend), rules, &[]);
        }
    }
    if !refused.is_empty() {
        // A cluster IP is never an address of this host, so nothing of this arrives in INPUT.
        let rules = refused.iter().map(|(f, s)| format!("{} -j REJECT --reject-with {}", called(f, s), refusal(f)));
        add(tables, "filter", REJECT, rules.collect(), &["OUTPUT"]);
        let forward = format!("{PREFIX}FORWARD");
        let filter = tables.entry("filter").or_default();
        filter.chains.entry(forward.clone()).or_default().insert(0, format!("-j {REJECT}"));
        filter.jumps.insert("FORWARD", forward);
    }
}

fn add(tables: &mut Tables, table: &'static str, chain: &str, rules: Vec<String>, bases: &[&'static str]) {
    let table = tables.entry(table).or_default();
    table.chains.insert(chain.to_owned(), rules);
    for base in bases {
        table.jumps.insert(base, chain.to_owned());
    }
}

/// Table and base chain.
fn place(chain: Chain) -> (&'static str, &'static str) {
    match chain {
        Chain::Arrival => ("raw", "PREROUTING"),
        #[cfg(feature = "dns")]
        Chain::Departure => ("raw", "OUTPUT"),
        Chain::Clamp => ("mangle", "FORWARD"),
        Chain::Input => ("filter", "INPUT"),
        Chain::Forward => ("filter", "FORWARD"),
        Chain::Source => ("nat", "POSTROUTING"),
    }
}

/// A rule as `iptables-save` prints it: addresses, links and protocol first, then matches in the order of loading.
fn line(rule: &Rule, family: Family) -> String {
    let (mut head, mut tail) = (String::new(), String::new());
    for condition in &rule.matches {
        let _ = match condition {
            Match::Source(net) => write!(head, "-s {net} "),
            Match::Destination(net) => write!(head, "-d {net} "),
            Match::From(link) => write!(head, "-i {link} "),
            Match::NotFrom(link) => write!(head, "! -i {link} "),
            Match::NotTo(link) => write!(head, "! -o {link} "),
            Match::Esp => write!(head, "-p esp "),
            Match::UdpPort(port) => write!(head, "-p udp -m udp --dport {port} "),
            #[cfg(feature = "dns")]
            Match::FromUdpPort(port) => write!(head, "-p udp -m udp --sport {port} "),
            Match::TcpSyn => write!(head, "-p tcp ").and(write!(tail, "-m tcp --tcp-flags SYN,RST SYN ")),
            Match::SourceIn(set) => write!(tail, "-m set --match-set {} src ", ipset::name(*set, family)),
            Match::DestinationIn(set) => write!(tail, "-m set --match-set {} dst ", ipset::name(*set, family)),
            Match::SourceLocal => write!(tail, "-m addrtype --src-type LOCAL "),
            Match::Established => write!(tail, "-m conntrack --ctstate RELATED,ESTABLISHED "),
            Match::Translated => write!(tail, "-m conntrack --ctstate DNAT "),
        };
    }
    let target = match rule.verdict {
        Verdict::Accept | Verdict::Keep => "ACCEPT".to_owned(),
        #[cfg(feature = "dns")]
        Verdict::Untracked => "CT --notrack".into(),
        Verdict::Drop => "DROP".to_owned(),
        Verdict::Return => "RETURN".to_owned(),
        Verdict::TakeSource(address) => format!("SNAT --to-source {address}"),
        Verdict::Masquerade => "MASQUERADE".to_owned(),
        Verdict::Clamp => "TCPMSS --clamp-mss-to-pmtu".to_owned(),
    };
    format!("{head}{tail}-j {target}")
}

/// Matches what clients of a Service send.
fn called(frontend: &Frontend, service: &Service) -> String {
    let (net, protocol) = (IpNet::from(frontend.address), frontend.protocol_name());
    format!("-d {net} -p {protocol} -m {protocol} --dport {} -m comment --comment \"{}\"", frontend.port, service.name)
}

/// Of at most 28 characters, which is all a chain's name may have.
fn service_chain(frontend: &Frontend) -> String {
    let Frontend { address, protocol, port } = frontend;
    let key = format!("{address} {protocol:?} {port}");
    format!("{PREFIX}SVC-{:015x}", hash(key.as_bytes()) >> 4)
}

/// One rule for each endpoint; of those left at each rule, one in as many is taken.
fn endpoint_rules(frontend: &Frontend, service: &Service, balance: Balance) -> Vec<String> {
    let left = (1..=service.endpoints.len()).rev();
    let rules = service.endpoints.iter().zip(left).map(|(endpoint, left)| {
        let share = match (left, balance) {
            (1, _) => String::new(),
            (n, Balance::Random | Balance::SourceHash) => {
                format!(" -m statistic --mode random --probability {}", one_in(n as u64))
            }
            (n, Balance::RoundRobin) => format!(" -m statistic --mode nth --every {n} --packet 0"),
        };
        format!("-p {}{share} -j DNAT --to-destination {endpoint}", frontend.protocol_name())
    });
    rules.collect()
}

/// The probability of one in `n`, of at least two, to the 11 digits that `iptables-save` prints.
fn one_in(n: u64) -> String {
    format!("0.{:011}", (100_000_000_000 + n / 2) / n)
}

fn refusal(frontend: &Frontend) -> &'static str {
    match (frontend.protocol, frontend.address) {
        (Protocol::Tcp, _) => "tcp-reset",
        (Protocol::Udp | Protocol::Sctp, IpAddr::V4(_)) => "icmp-port-unreachable",
        (Protocol::Udp | Protocol::Sctp, IpAddr::V6(_)) => "icmp6-port-unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_floating_point() {
        for n in 2..2000 {
            assert_eq!(one_in(n), format!("{:.11}", 1.0 / n as f64), "{n}");
        }
    }
}
