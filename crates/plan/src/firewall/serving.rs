//! Which endpoints stand behind what clients call on this node, and why these.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_model::{
    Balance, Distribution, Endpoint, MAX_AFFINITY, NodeConfig, Protocol, Role, Service, ServicePort, Via,
};

use crate::facts::Family;
use crate::node::Node;

/// Longest name shown; comments in nft end at 128 bytes, in iptables at 256.
const MAX_NAME: usize = 120;

/// All Services of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    /// By what clients call. Of two Services that claim the same the first has it.
    pub frontends: BTreeMap<Frontend, Target>,
    /// Endpoints that serve together, by a name of plain characters: `default/web-tcp-80`.
    pub groups: BTreeMap<Arc<str>, Group>,
    /// Endpoints on this node whose packets to themselves pass the firewall; each must see somebody else as its client.
    pub own: BTreeSet<IpAddr>,
    /// Of this node's addresses those at which node ports are served; empty: all but loopback.
    pub node_port_addresses: BTreeSet<IpNet>,
}

/// What the clients of a Service call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// Where.
    pub called: Called,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// Where a Service is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Called {
    /// At a cluster IP, an external one, or that of a load balancer.
    Address(IpAddr),
    /// At this node's own addresses.
    Node(Family),
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `namespace/name:port` for the reader of the rules, of plain characters only.
    pub name: Arc<str>,
    /// From this node and its pods.
    pub near: Way,
    /// From anywhere else.
    pub far: Way,
    /// Who may call; empty: everybody.
    pub sources: BTreeSet<IpNet>,
    /// Strangers call here: an endpoint elsewhere is to answer this node, and not them.
    pub external: bool,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// To one of this group.
    To(Arc<str>),
    /// Back: there is no endpoint.
    Refuse,
    /// Nowhere: there are endpoints, but not on this node, as the traffic policy of the Service wants it.
    Drop,
}

/// Endpoints of one family that serve together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address family.
    pub family: Family,
    /// At least one, in order.
    pub endpoints: Vec<Backend>,
    /// How one is chosen.
    pub balance: Balance,
    /// Seconds for which a silent client keeps the one it had.
    pub affinity: Option<u32>,
    /// Why these.
    pub why: Why,
}

/// One endpoint in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share.
    pub weight: u16,
}

/// Why these endpoints and not others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They are on this node, and that is near.
    Node,
    /// They are in the zone of this node, or in one of its communities.
    Zone,
    /// They are all there are.
    All,
    /// They are on this node, and the traffic policy allows no others.
    Policy,
}

/// A connection that was translated, or would be today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Transport protocol.
    pub protocol: Protocol,
    /// What the client called.
    pub called: SocketAddr,
    /// Who is to answer.
    pub answers: SocketAddr,
}

impl Serving {
    /// What this node serves.
    pub(crate) fn new(node: &Node<'_>, ipv6: bool) -> Serving {
        let config = node.config;
        let families = if ipv6 { &Family::BOTH[..] } else { &[Family::V4] };
        let mut serving = Serving {
            node_port_addresses: config.services.node_port_addresses.iter().copied().collect(),
            ..Serving::default()
        };
        let here = Here::new(config, &node.facts.out);
        for service in config.services.list.iter().filter(|service| service.is_proxied()) {
            for port in service.ports.iter().filter(|port| port.port != 0) {
                for family in families {
                    serving.add(&here, service, port, *family);
                }
            }
        }
        if node.facts.bridge_netfilter {
            let endpoints = serving.groups.values().flat_map(|g| g.endpoints.iter().map(|e| e.address.ip()));
            serving.own = endpoints.filter(|ip| config.pod_cidrs.iter().any(|net| net.contains(ip))).collect();
        }
        serving
    }

    /// The group that a client calls, if there is any.
    pub fn group(&self, way: &Way) -> Option<&Group> {
        match way {
            Way::To(name) => self.groups.get(name),
            Way::Refuse | Way::Drop => None,
        }
    }

    /// Leaves out what the firewall cannot do here: `sctp`, `cluster` (clients are remembered instead of counted out), or
    /// `recent` (they are not).
    pub fn go_without(&mut self, what: &str) {
        match what {
            "sctp" => {
                self.frontends.retain(|frontend, _| frontend.protocol != Protocol::Sctp);
                self.groups.retain(|_, group| group.protocol != Protocol::Sctp);
            }
            "cluster" => {
                for group in self.groups.values_mut().filter(|group| group.balance == Balance::SourceHash) {
                    group.balance = Balance::Random;
                    group.affinity = group.affinity.or(Some(MAX_AFFINITY));
                }
            }
            _ => self.groups.values_mut().for_each(|group| group.affinity = None),
        }
    }

    /// Whether new connections of this kind may go elsewhere than they did before.
    pub fn differs(&self, before: &Serving, protocol: Protocol) -> bool {
        let all = self.frontends.keys().chain(before.frontends.keys()).filter(|f| f.protocol == protocol);
        all.into_iter().any(|frontend| self.ends(frontend) != before.ends(frontend))
    }

    fn ends(&self, frontend: &Frontend) -> Option<[Option<&Group>; 2]> {
        self.frontends.get(frontend).map(|target| [self.group(&target.near), self.group(&target.far)])
    }

    /// Whether a connection that goes on as it is never reaches anybody: its endpoint is none any more, or it was begun
    /// before there was one. `local`: the addresses of this node.
    pub fn is_stale(&self, before: &Serving, flow: &Flow, local: &BTreeSet<IpAddr>) -> bool {
        let (ip, port, protocol) = (flow.called.ip(), flow.called.port(), flow.protocol);
        let at = |called| Frontend { called, protocol, port };
        let node = local.contains(&ip).then_some(at(Called::Node(ip.into())));
        let find = |serving: &Serving, ends: &dyn Fn([Option<&Group>; 2]) -> bool| {
            let found = serving.ends(&at(Called::Address(ip))).or_else(|| serving.ends(&node?));
            found.map(ends)
        };
        let answers = |group: &Group| group.endpoints.iter().any(|endpoint| endpoint.address == flow.answers);
        match find(self, &|ends| ends.into_iter().flatten().any(answers)) {
            None => find(before, &|_| true).is_some(),
            Some(reached) => !reached,
        }
    }

    fn add(&mut self, here: &Here<'_>, service: &Service, port: &ServicePort, family: Family) {
        let mine = |ips: &[IpAddr]| ips.iter().copied().filter(|ip| Family::from(*ip) == family).collect::<Vec<_>>();
        let (cluster_ips, external_ips) = (mine(&service.cluster_ips), mine(&service.external_ips));
        let balancers = mine(&service.load_balancer_ips);
        if cluster_ips.is_empty() && external_ips.is_empty() && balancers.is_empty() {
            return;
        }
        let label = if port.name.is_empty() { port.port.to_string() } else { port.name.clone() };
        let name: Arc<str> = plain(&format!("{}/{}:{label}", service.namespace, service.name)).into();
        let title = |suffix: &str| {
            let six = if family == Family::V6 { "-6" } else { "" };
            let title =
                format!("{}/{}-{}-{}{six}{suffix}", service.namespace, service.name, port.protocol.name(), port.port);
            title
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "-._/".contains(c) { c } else { '_' })
                .collect::<String>()
        };
        let all: Vec<&Endpoint> = port.endpoints.iter().filter(|e| Family::from(e.address) == family).collect();
        let group = |endpoints: Vec<&Endpoint>, why| Group {
            protocol: port.protocol,
            family,
            endpoints: backends(&endpoints),
            balance: service.balance.unwrap_or(here.config.services.balance),
            affinity: service.affinity,
            why,
        };
        let (chosen, why) = here.choose(&here.usable(&all, port.protocol), service.distribution);
        let near = if chosen.is_empty() {
            Way::Refuse
        } else {
            let title: Arc<str> = title("").into();
            self.groups.insert(title.clone(), group(chosen, why));
            Way::To(title)
        };
        let mut local = None;
        let mut only_here = |groups: &mut BTreeMap<Arc<str>, Group>| {
            let way = local.get_or_insert_with(|| {
                let on_node: Vec<&Endpoint> = all.iter().copied().filter(|e| here.is_node(e)).collect();
                let found = here.usable(&on_node, port.protocol);
                if found.is_empty() {
                    return if all.is_empty() { Way::Refuse } else { Way::Drop };
                }
                let title: Arc<str> = title("-local").into();
                groups.insert(title.clone(), group(found, Why::Policy));
                Way::To(title)
            });
            way.clone()
        };
        let inside = if service.internal_local { only_here(&mut self.groups) } else { near.clone() };
        let outside = if service.external_local { only_here(&mut self.groups) } else { near.clone() };
        let mut frontend = |called, port_number, target: Target| {
            let frontend = Frontend { called, protocol: port.protocol, port: port_number };
            self.frontends.entry(frontend).or_insert(target);
        };
        for ip in &cluster_ips {
            let (near, far) = (inside.clone(), inside.clone());
            let target = Target { name: name.clone(), near, far, sources: BTreeSet::new(), external: false };
            frontend(Called::Address(*ip), port.port, target);
        }
        let target = Target { name, near, far: outside, sources: BTreeSet::new(), external: true };
        for ip in &external_ips {
            frontend(Called::Address(*ip), port.port, target.clone());
        }
        let sources: BTreeSet<IpNet> =
            service.load_balancer_sources.iter().copied().filter(|net| Family::from(*net) == family).collect();
        let closed = sources.is_empty() && !service.load_balancer_sources.is_empty();
        for ip in balancers {
            let open = Target { sources: sources.clone(), ..target.clone() };
            let target = if closed { Target { near: Way::Drop, far: Way::Drop, ..open } } else { open };
            frontend(Called::Address(ip), port.port, target);
        }
        if port.node_port != 0 && !cluster_ips.is_empty() {
            frontend(Called::Node(family), port.node_port, target);
        }
    }
}

impl Frontend {
    pub(crate) fn family(&self) -> Family {
        match self.called {
            Called::Address(ip) => ip.into(),
            Called::Node(family) => family,
        }
    }
}

/// Where this node is among others.
struct Here<'a> {
    config: &'a NodeConfig,
    /// Nodes of the same communities.
    neighbours: BTreeSet<&'a str>,
    /// Endpoints that do not answer.
    out: &'a BTreeSet<(IpAddr, Protocol, u16)>,
}

impl<'a> Here<'a> {
    fn new(config: &'a NodeConfig, out: &'a BTreeSet<(IpAddr, Protocol, u16)>) -> Self {
        // An edge has tunnels to those it shares a community with, and to the connector.
        let cluster = config.name.split_once('.').map_or("", |(cluster, _)| cluster);
        let peers = config.peers.iter().filter(|peer| config.role == Role::Edge && peer.via == Via::Tunnel);
        let node = |name: &'a str| name.strip_prefix(cluster)?.strip_prefix('.').filter(|node| *node != "connector");
        Here { config, neighbours: peers.filter_map(|peer| node(&peer.name)).collect(), out }
    }

    /// Those that are not out, unless all are: perhaps it is this node that cannot see them. Of these those that are
    /// ready; without any, those that still answer while they end.
    fn usable<'e>(&self, all: &[&'e Endpoint], protocol: Protocol) -> Vec<&'e Endpoint> {
        let or_all = |some: Vec<&'e Endpoint>, all: &[&'e Endpoint]| if some.is_empty() { all.to_vec() } else { some };
        let well = |e: &&Endpoint| !self.out.contains(&(e.address, protocol, e.port));
        let well = or_all(all.iter().copied().filter(well).collect(), all);
        or_all(well.iter().copied().filter(|e| !e.terminating).collect(), &well)
    }

    fn is_node(&self, endpoint: &Endpoint) -> bool {
        !self.config.node.is_empty() && endpoint.node == self.config.node
    }

    fn is_near(&self, endpoint: &Endpoint) -> bool {
        let zone = &self.config.services.zone;
        self.is_node(endpoint)
            || (!zone.is_empty() && endpoint.zone == *zone)
            || self.neighbours.contains(endpoint.node.as_str())
    }

    fn choose<'e>(&self, all: &[&'e Endpoint], wanted: Option<Distribution>) -> (Vec<&'e Endpoint>, Why) {
        let wanted = wanted.unwrap_or(self.config.services.distribution);
        let only = |keep: &dyn Fn(&Endpoint) -> bool| -> Vec<&'e Endpoint> {
            all.iter().copied().filter(|endpoint| keep(endpoint)).collect()
        };
        if wanted == Distribution::SameNode {
            let here = only(&|endpoint| self.is_node(endpoint));
            if !here.is_empty() {
                return (here, Why::Node);
            }
        }
        if wanted != Distribution::Any {
            let near = only(&|endpoint| self.is_near(endpoint));
            if !near.is_empty() && near.len() < all.len() {
                return (near, Why::Zone);
            }
        }
        (all.to_vec(), Why::All)
    }
}

/// In an order that does not depend on the configuration's, each once; weights have no common divisor.
fn backends(endpoints: &[&Endpoint]) -> Vec<Backend> {
    let by_address: BTreeMap<SocketAddr, u16> =
        endpoints.iter().map(|e| (SocketAddr::new(e.address, e.port), e.weight.max(1))).collect();
    let divisor = by_address.values().copied().fold(0, divisor);
    by_address.into_iter().map(|(address, weight)| Backend { address, weight: weight / divisor }).collect()
}

fn divisor(a: u16, b: u16) -> u16 {
    if a == 0 { b } else { divisor(b % a, a) }
}

/// Without anything that could end a quoted string or a line in a firewall's text.
fn plain(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-._/:".contains(c) { c } else { '?' };
    name.chars().map(keep).take(MAX_NAME).collect()
}
