//! The rules of each role.

use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::Role;

#[cfg(feature = "services")]
use super::Serving;
use super::{Chain, Match, Rule, Ruleset, Set, Verdict};
#[cfg(feature = "dns")]
use crate::facts::Backend;
use crate::facts::{Datapath, Family};
use crate::node::Node;
use crate::plan::DEVICE;

pub(crate) fn ruleset(node: &Node<'_>) -> Ruleset {
    let mut builder = Builder { node, out: Ruleset { ipv6: speaks_ipv6(node), ..Ruleset::default() } };
    builder.sets();
    #[cfg(feature = "services")]
    if node.serves() {
        builder.out.pods = node.pods.iter().copied().collect();
        builder.out.serving = Some(Serving::new(node, builder.out.ipv6));
        builder.out.watch = node.facts.reports;
    }
    builder.arrival();
    builder.clamp();
    builder.input();
    #[cfg(feature = "dns")]
    builder.names();
    builder.forward();
    for family in Family::BOTH {
        builder.source(family);
    }
    builder.out
}

/// Whether IPv6 is configured anywhere, or peers may call this node by it.
fn speaks_ipv6(node: &Node<'_>) -> bool {
    let config = node.config;
    let peers = config.peers.iter().flat_map(|p| p.networks().chain(p.addresses.iter().map(|a| IpNet::from(*a))));
    let configured = config.local.networks().chain(config.pod_cidrs.iter().copied()).chain(peers);
    let here = node.facts.local_addresses.iter().map(|(_, net)| *net).filter(|_| node.ends_tunnels());
    configured.chain(here).any(|net| match net.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    })
}

struct Builder<'a> {
    node: &'a Node<'a>,
    out: Ruleset,
}

impl Builder<'_> {
    fn sets(&mut self) {
        let node = self.node;
        let hosts = |addresses: &[IpAddr]| addresses.iter().map(|a| IpNet::from(*a)).collect::<Vec<_>>();
        self.set(Set::Local, node.pods.clone());
        if node.config.role == Role::Edge {
            let other = |net: &&IpNet| !node.pods.iter().any(|pods| pods.contains(*net));
            self.set(Set::Offered, node.config.local.prefixes.iter().filter(other).copied().collect());
        }
        self.set(Set::Remote, node.config.peers.iter().flat_map(|p| p.prefixes.clone()).collect());
        self.set(Set::RemoteNodes, node.tunnels().flat_map(|p| hosts(&p.node_addresses)).collect());
        if node.config.role == Role::Connector {
            self.set(Set::LocalNodes, hosts(&node.config.local.node_addresses));
        }
        if node.ends_tunnels() {
            self.set(Set::Tunnel, node.tunnels().flat_map(|p| p.prefixes.clone()).collect());
        }
    }

    fn set(&mut self, set: Set, nets: Vec<IpNet>) {
        for net in IpNet::aggregate(&nets) {
            self.out.sets.entry((set, net.into())).or_default().insert(net);
        }
    }

    /// In the kernel datapath policies drop what pretends to come from a peer; in user space nothing else would.
    fn arrival(&mut self) {
        if self.node.facts.datapath == Datapath::User && self.node.ends_tunnels() {
            // What this host sends to itself, for one a reset in the name of a cluster IP.
            self.rule(Chain::Arrival, [Match::From("lo")], Verdict::Return);
            self.rule(Chain::Arrival, [Match::SourceIn(Set::Tunnel), Match::NotFrom(DEVICE)], Verdict::Drop);
        }
    }

    /// Paths through the tunnel are narrower than what either end sees at its own link. Few packets begin a connection: the
    /// others are not looked up.
    fn clamp(&mut self) {
        if self.node.ends_tunnels() {
            for set in [Set::Remote, Set::RemoteNodes] {
                self.rule(Chain::Clamp, [Match::TcpSyn, Match::DestinationIn(set)], Verdict::Clamp);
                self.rule(Chain::Clamp, [Match::TcpSyn, Match::SourceIn(set)], Verdict::Clamp);
            }
        }
    }

    fn input(&mut self) {
        if self.node.ends_tunnels() {
            for condition in [Match::UdpPort(500), Match::UdpPort(4500), Match::Esp] {
                self.rule(Chain::Input, [condition], Verdict::Accept);
            }
        }
    }

    /// This node's pods and programs ask for names here, and nobody else does: an open resolver is a weapon.
    #[cfg(feature = "dns")]
    fn names(&mut self) {
        for address in self.node.dns_addresses() {
            let at = || Match::Destination(address.into());
            for (matches, verdict) in [
                // What this host sends to itself.
                (vec![at(), Match::From("lo")], Verdict::Accept),
                (vec![at(), Match::SourceIn(Set::Local)], Verdict::Accept),
                (vec![at()], Verdict::Drop),
            ] {
                self.rule_for(address.into(), Chain::Input, &matches, verdict);
            }
            // A question and its answer are no connection worth an entry in a gateway's table. Kernels for iptables often
            // cannot leave it out.
            if self.node.facts.firewall == Backend::Nftables {
                let asked = [at(), Match::UdpPort(53)];
                let answered = [Match::Source(address.into()), Match::FromUdpPort(53)];
                for (chain, matches) in
                    [(Chain::Arrival, &asked), (Chain::Departure, &asked), (Chain::Departure, &answered)]
                {
                    self.rule_for(address.into(), chain, matches, Verdict::Untracked);
                }
            }
        }
    }

    /// Between the networks of this node and those of its peers, and what this node translated itself. Nobody else is
    /// let in: who else may reach them is for the owner of the host to say.
    fn forward(&mut self) {
        use Match::{DestinationIn, Established, SourceIn, Translated};
        use Set::{Local, LocalNodes, Offered, Remote, RemoteNodes, Tunnel};
        let ways: &[(Set, Set)] = match self.node.config.role {
            Role::Edge => &[
                (Remote, Local),
                (RemoteNodes, Local),
                (Offered, Local),
                // What else the hosts of a gateway's network may do is its owner's business.
                (Offered, Remote),
                (Remote, Offered),
            ],
            Role::Connector => &[
                (Remote, Local),
                (RemoteNodes, Local),
                (LocalNodes, Local),
                (LocalNodes, Remote),
                (Remote, Remote),
                (Remote, LocalNodes),
            ],
            Role::Cloud => {
                self.rule(Chain::Forward, [SourceIn(Remote)], Verdict::Accept);
                self.rule(Chain::Forward, [DestinationIn(Remote)], Verdict::Accept);
                return;
            }
        };
        // No tunnel takes a peer's packets to the host of another, as a Service may want: they would go on in clear.
        self.rule(Chain::Forward, [SourceIn(Tunnel), DestinationIn(RemoteNodes)], Verdict::Drop);
        self.rule(Chain::Forward, [SourceIn(Local)], Verdict::Accept);
        for (from, to) in ways {
            self.rule(Chain::Forward, [SourceIn(*from), DestinationIn(*to)], Verdict::Accept);
        }
        for end in [DestinationIn(Local), DestinationIn(Remote), SourceIn(Tunnel)] {
            for condition in [Established, Translated] {
                self.rule(Chain::Forward, [end.clone(), condition], Verdict::Accept);
            }
        }
        // A peer is no user of this node's other ways.
        self.rule(Chain::Forward, [SourceIn(Tunnel)], Verdict::Drop);
    }

    /// Whose source address changes. Everything that goes to a peer's prefix is decided here, by its destination and
    /// not by its link: in the kernel datapath a packet on its way into a tunnel already shows the outer link, where
    /// a gateway's own masquerading rule waits for it. Hence "keep" and not "return", on edges too.
    fn source(&mut self, family: Family) {
        #[cfg(feature = "services")]
        use Match::NotTo;
        use Match::{DestinationIn, SourceIn, SourceLocal, Translated};
        use Set::{Local, LocalNodes, Remote, RemoteNodes};
        let config = self.node.config;
        let mut rules: Vec<(Vec<Match>, Verdict)> = Vec::new();
        #[cfg(feature = "services")]
        if self.node.serves() {
            rules.extend(self.hairpin(family));
        }
        if config.role == Role::Edge {
            rules.push((vec![SourceIn(Local), DestinationIn(Local)], Verdict::Keep));
        }
        rules.push((vec![SourceIn(Local), DestinationIn(Remote)], Verdict::Keep));
        rules.push((vec![SourceIn(Local), DestinationIn(RemoteNodes)], Verdict::Keep));
        match config.role {
            Role::Edge => rules.push((vec![SourceIn(Remote), DestinationIn(Local)], Verdict::Keep)),
            Role::Connector => {
                rules.push((vec![SourceIn(Remote), DestinationIn(Local)], Verdict::Keep));
                // Other cloud nodes have no way back to edges' pods from their node network, and none to edges' nodes.
                rules.push((vec![SourceIn(Remote), DestinationIn(LocalNodes)], Verdict::Masquerade));
                rules.push((vec![SourceIn(RemoteNodes), DestinationIn(Local)], Verdict::Masquerade));
            }
            Role::Cloud => {
                // Translated here, so the answer must come back here: whoever translated it sees to that.
                rules.push((vec![SourceIn(Remote), Translated], Verdict::Return));
                rules.push((vec![SourceIn(Remote)], Verdict::Keep));
            }
        }
        // A peer accepts and answers only sources this node speaks for. The host's own packets have the right one from
        // the route, except where a Service's address was routed first; a translated stranger (NodePort) never has.
        match self.node.source(family) {
            Some(own) => {
                rules.push((vec![DestinationIn(Remote), SourceLocal], Verdict::TakeSource(own)));
                rules.push((vec![DestinationIn(Remote), Translated], Verdict::TakeSource(own)));
            }
            None => rules.push((vec![DestinationIn(Remote), Translated], Verdict::Masquerade)),
        }
        rules.push((vec![DestinationIn(Remote)], Verdict::Keep));
        #[cfg(feature = "services")]
        if self.node.serves() {
            // The host chose its source by the route to the cluster IP; the endpoint may be behind another link.
            rules.push((vec![NotTo("lo"), SourceLocal, Translated], Verdict::Masquerade));
            // A pod of this node sees who called. Any other endpoint would answer strangers past this node.
            rules.push((vec![Match::Called, DestinationIn(Local)], Verdict::Keep));
            rules.push((vec![Match::Called], Verdict::Masquerade));
        }
        if config.role == Role::Edge {
            rules.push((vec![SourceIn(Local)], Verdict::Masquerade));
        }
        for (matches, verdict) in rules {
            self.rule_for(family, Chain::Source, &matches, verdict);
        }
    }

    /// A pod that calls itself by a Service must see somebody else as its client, or it would answer itself directly.
    /// Without the bridge's packets in the firewall that is so for every pod of this node.
    #[cfg(feature = "services")]
    fn hairpin(&self, family: Family) -> Vec<(Vec<Match>, Verdict)> {
        let own = self.node.config.pod_cidrs.iter().copied().filter(|net| Family::from(*net) == family);
        if self.node.facts.bridge_netfilter {
            return own.take(1).map(|_| (vec![Match::Itself], Verdict::Masquerade)).collect();
        }
        let translated = |net| vec![Match::Source(net), Match::Destination(net), Match::Translated];
        own.map(|net| (translated(net), Verdict::Masquerade)).collect()
    }

    fn rule<const N: usize>(&mut self, chain: Chain, matches: [Match; N], verdict: Verdict) {
        let addressed = matches.iter().any(|m| matches!(m, Match::SourceIn(_) | Match::DestinationIn(_)));
        if addressed {
            for family in Family::BOTH {
                self.rule_for(family, chain, &matches, verdict);
            }
        } else {
            let rule = Rule { family: None, matches: matches.into(), verdict };
            self.out.chains.entry(chain).or_default().push(rule);
        }
    }

    /// A rule for one family, unless it names an empty set.
    fn rule_for(&mut self, family: Family, chain: Chain, matches: &[Match], verdict: Verdict) {
        let empty = matches.iter().any(|m| match m {
            Match::SourceIn(set) | Match::DestinationIn(set) => !self.out.sets.contains_key(&(*set, family)),
            _ => false,
        });
        if !empty && (family == Family::V4 || self.out.ipv6) {
            let rule = Rule { family: Some(family), matches: matches.into(), verdict };
            self.out.chains.entry(chain).or_default().push(rule);
        }
    }
}
