//! Routes and the rules that lead to them.
//!
//! | table | reached by | holds |
//! |---|---|---|
//! | 220 | every packet | the peers' prefixes |
//! | 221 | packets from own pods | the peers' node addresses |
//!
//! Node addresses have a table of their own because a peer's node address may also be the outer address of its tunnel:
//! only what pods send may go there through the tunnel, never ESP itself. There is no node-to-node traffic in tunnels.

use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::Via;

use crate::facts::Family;
use crate::node::Node;
use crate::plan::DEVICE;

/// Table, and priority of the rule, for prefixes of peers.
pub const POD_TABLE: u32 = 220;
/// Table, and priority of the rules, for node addresses of peers.
pub const NODE_TABLE: u32 = 221;
/// `rtm_protocol` that marks our routes (linux/rtnetlink.h leaves 192 and above to nobody; 0x5e is unused by iproute2).
pub const PROTOCOL: u8 = 0x5e;
/// Metric of the routes in use; not 0, which IPv6 turns into another number.
pub const METRIC: u32 = 1024;
/// Metric of the unreachable routes that hold when the device of the others is gone.
pub const GUARD_METRIC: u32 = 4096;

/// One route. A kernel has at most one for each table, destination and metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Routing table.
    pub table: u32,
    /// Destination network.
    pub destination: IpNet,
    /// Lower wins among routes to the same destination.
    pub metric: u32,
    /// What happens to the packet.
    pub kind: RouteKind,
    /// `rtm_protocol`, [`PROTOCOL`] on all that is planned.
    pub protocol: u8,
}

/// What happens to a packet that takes a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// It leaves by a device.
    Unicast {
        /// Next router, if the device needs one.
        gateway: Option<IpAddr>,
        /// Whether the gateway is on the link though no address says so.
        onlink: bool,
        /// Name of the outgoing device.
        device: String,
        /// Preferred source address of what this host itself sends.
        source: Option<IpAddr>,
    },
    /// It is refused with an ICMP error.
    Unreachable,
}

/// One routing policy rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Address family of the rule.
    pub family: Family,
    /// Lower is looked at first.
    pub priority: u32,
    /// Only for packets with a source in here.
    pub from: Option<IpNet>,
    /// Table to look up.
    pub table: u32,
}

/// The routes to all peers, and a note for each prefix without a way.
pub(crate) fn routes(node: &Node<'_>, notes: &mut Vec<String>) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut add = |table, destination: IpNet, kind: Option<RouteKind>| {
        let route = |metric, kind| Route { table, destination, metric, kind, protocol: PROTOCOL };
        routes.extend(kind.map(|kind| route(METRIC, kind)));
        routes.push(route(GUARD_METRIC, RouteKind::Unreachable));
    };
    for peer in &node.config.peers {
        for prefix in &peer.prefixes {
            let family = Family::from(*prefix);
            let kind = match peer.via {
                Via::Tunnel => Some(tunnel(node, family)),
                Via::Lan => node.next_hop(peer, family).map(|hop| RouteKind::Unicast {
                    onlink: hop.gateway.is_some(),
                    gateway: hop.gateway,
                    device: hop.device,
                    source: node.source(family),
                }),
            };
            if kind.is_none() {
                notes.push(format!("{prefix} of {}: no route leads to {0}", peer.name));
            }
            add(POD_TABLE, *prefix, kind);
        }
        if peer.via == Via::Tunnel {
            for address in &peer.node_addresses {
                let family = Family::from(*address);
                if node.pods(family).next().is_some() {
                    add(NODE_TABLE, (*address).into(), Some(tunnel(node, family)));
                }
            }
        }
    }
    routes.sort();
    routes.dedup();
    routes
}

/// The rules that lead to the tables which `routes` fill.
pub(crate) fn rules(node: &Node<'_>, routes: &[Route]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let used = |table| routes.iter().any(|r| r.table == table && Family::from(r.destination) == family);
        if used(POD_TABLE) {
            rules.push(Rule { family, priority: POD_TABLE, from: None, table: POD_TABLE });
        }
        if used(NODE_TABLE) {
            let from = |net| Rule { family, priority: NODE_TABLE, from: Some(net), table: NODE_TABLE };
            rules.extend(node.pods(family).map(from));
        }
    }
    rules.sort();
    rules
}

/// By the device alone: it needs no gateway, and a packet that finds no SA ends in it.
fn tunnel(node: &Node<'_>, family: Family) -> RouteKind {
    RouteKind::Unicast { gateway: None, onlink: false, device: DEVICE.to_owned(), source: node.source(family) }
}
