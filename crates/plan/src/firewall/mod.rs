//! What the firewall should do, in words that both renderers translate rule by rule.
//!
//! A rule is there once, whichever backend writes it. Its family is that of its addresses; without any it is for both.

mod build;
#[cfg(feature = "services")]
mod serving;
#[cfg(feature = "services")]
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::facts::Family;

pub(crate) use build::ruleset;
#[cfg(feature = "services")]
pub use serving::{Backend, Called, Flow, Frontend, Group, Serving, Target, Way, Why};
#[cfg(feature = "services")]
pub(crate) use slots::{owners, turns};

/// All that a node's firewall should do for us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Whether there is anything to do for IPv6.
    pub ipv6: bool,
    /// Networks of each set and family; never an empty one, and none inside another.
    pub sets: BTreeMap<(Set, Family), BTreeSet<IpNet>>,
    /// Rules of each chain, in order.
    pub chains: BTreeMap<Chain, Vec<Rule>>,
    /// Pod networks this node speaks for, where there are no sets.
    #[cfg(feature = "services")]
    pub pods: BTreeSet<IpNet>,
    /// Services, if this node serves them.
    #[cfg(feature = "services")]
    pub serving: Option<Serving>,
    /// Calls of Services without an answer, and answers that refuse them, are reported to [`REPORTS`].
    #[cfg(feature = "services")]
    pub watch: bool,
}

/// The group of `NFLOG` to which rules report.
#[cfg(feature = "services")]
pub const REPORTS: u16 = 24_095;

/// A named set of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// Pod networks this node speaks for.
    Local,
    /// Nodes this node speaks for.
    LocalNodes,
    /// Networks behind this node that are no pods.
    Offered,
    /// Prefixes of all peers.
    Remote,
    /// Node addresses of tunnel peers.
    RemoteNodes,
    /// Prefixes of tunnel peers.
    Tunnel,
}

/// Where rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// Every arriving packet, before connection tracking.
    Arrival,
    /// Every packet of this host, before connection tracking.
    #[cfg(feature = "dns")]
    Departure,
    /// TCP options of forwarded packets.
    Clamp,
    /// Packets for this host.
    Input,
    /// Packets passing through.
    Forward,
    /// Source addresses of new connections.
    Source,
}

/// Some conditions, all of which must hold, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The one family it is for; `None`: both.
    pub family: Option<Family>,
    /// Conditions.
    pub matches: Vec<Match>,
    /// What happens.
    pub verdict: Verdict,
}

/// A condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Source within a network.
    Source(IpNet),
    /// Destination within a network.
    Destination(IpNet),
    /// Source within a set.
    SourceIn(Set),
    /// Destination within a set.
    DestinationIn(Set),
    /// Source is an address of this host.
    SourceLocal,
    /// Arrived by this link.
    From(&'static str),
    /// Arrived by any link but this.
    NotFrom(&'static str),
    /// Leaves by any link but this.
    NotTo(&'static str),
    /// ESP (IP protocol 50).
    Esp,
    /// UDP to this port.
    UdpPort(u16),
    /// UDP from this port.
    #[cfg(feature = "dns")]
    FromUdpPort(u16),
    /// First packet of a TCP connection, in either direction.
    TcpSyn,
    /// Of a known connection.
    Established,
    /// Of a connection whose destination was translated.
    Translated,
    /// Source and destination are the same endpoint on this node.
    #[cfg(feature = "services")]
    Itself,
    /// Of a call from outside that was translated here.
    #[cfg(feature = "services")]
    Called,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Accept,
    /// Its connection is not tracked.
    #[cfg(feature = "dns")]
    Untracked,
    /// It is counted and dropped.
    Drop,
    /// Others decide.
    Return,
    /// It keeps its source, and nobody's later rule changes it.
    Keep,
    /// It takes this source.
    TakeSource(IpAddr),
    /// It takes the source of the link by which it leaves.
    Masquerade,
    /// Its maximum segment size is lowered to the path MTU.
    Clamp,
}

impl Ruleset {
    /// The same without sets, for systems that have none: a rule is there once for every network, or pair of networks,
    /// of the sets it named. Right for the few networks of an edge; long for a connector.
    pub fn spelt(&self) -> Ruleset {
        let spelt = |rules: &Vec<Rule>| rules.iter().flat_map(|rule| self.spell(rule)).collect();
        Ruleset {
            ipv6: self.ipv6,
            sets: BTreeMap::new(),
            chains: self.chains.iter().map(|(chain, rules)| (*chain, spelt(rules))).collect(),
            #[cfg(feature = "services")]
            pods: self.pods.clone(),
            #[cfg(feature = "services")]
            serving: self.serving.clone(),
            #[cfg(feature = "services")]
            watch: self.watch,
        }
    }

    fn spell(&self, rule: &Rule) -> Vec<Rule> {
        let mut spelt = vec![Rule { matches: Vec::new(), ..rule.clone() }];
        for condition in &rule.matches {
            let networks =
                |set: &Set| rule.family.and_then(|f| self.sets.get(&(*set, f))).into_iter().flatten().copied();
            let choices: Vec<Match> = match condition {
                Match::SourceIn(set) => networks(set).map(Match::Source).collect(),
                Match::DestinationIn(set) => networks(set).map(Match::Destination).collect(),
                other => vec![other.clone()],
            };
            let with = |rule: &Rule, choice: &Match| {
                let mut rule = rule.clone();
                match choice {
                    // Everything is no condition, and no tool would show it as one.
                    Match::Source(net) | Match::Destination(net) if net.prefix_len() == 0 => {}
                    // Addresses come first, as they do where the rule is read back.
                    Match::Source(_) => rule.matches.insert(0, choice.clone()),
                    Match::Destination(_) => {
                        let at = usize::from(matches!(rule.matches.first(), Some(Match::Source(_))));
                        rule.matches.insert(at, choice.clone());
                    }
                    _ => rule.matches.push(choice.clone()),
                }
                rule
            };
            spelt = spelt.iter().flat_map(|rule| choices.iter().map(move |choice| with(rule, choice))).collect();
        }
        spelt
    }
}

impl Set {
    /// Name without prefix and family.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Set::Local => "local",
            Set::LocalNodes => "local-node",
            Set::Offered => "offered",
            Set::Remote => "remote",
            Set::RemoteNodes => "remote-node",
            Set::Tunnel => "tunnel",
        }
    }
}

impl Rule {
    pub(crate) fn applies(&self, family: Family) -> bool {
        self.family.is_none_or(|own| own == family)
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every release.
#[cfg(feature = "services")]
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    hash_on(FNV_START, bytes)
}

/// Where FNV-1a begins.
pub(crate) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what was hashed before and `bytes` behind it.
pub(crate) fn hash_on(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
