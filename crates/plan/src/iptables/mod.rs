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
#[cfg(feature = "services")]
mod services;
#[cfg(feature = "services")]
mod watch;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::facts::Family;
use crate::firewall::{Chain, Match, Rule, Ruleset, Verdict};
use crate::ipset;

pub use save::{TABLES, remove, update};
#[cfg(feature = "services")]
pub use services::{change, needs};

/// Begins the name of every chain of ours.
pub const PREFIX: &str = "SELVEDGE-";

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
    #[cfg(feature = "services")]
    if let Some(serving) = &ruleset.serving {
        services::add(&mut tables, serving, family, ruleset);
        if ruleset.watch {
            watch::add(&mut tables, family);
        }
    }
    tables
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
            #[cfg(feature = "services")]
            Match::Itself => return format!("-j {}", services::OWN),
            #[cfg(feature = "services")]
            Match::Called => write!(tail, "-m mark --mark {0:#x}/{0:#x} ", services::CALLED_MARK),
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
