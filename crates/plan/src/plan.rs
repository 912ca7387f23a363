use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::{NodeConfig, Role, ServiceMode};

use crate::facts::{Backend, Datapath, Facts};
use crate::firewall::Ruleset;
use crate::node::Node;
use crate::policy::{self, Policy};
use crate::route::{self, Route, Rule};
use crate::sysctl::{self, Sysctl};
use crate::{cni, firewall};

/// Name of the device that all routes to tunnel peers lead to.
pub const DEVICE: &str = "selvedge0";

/// MTU of that device in bytes: 1500 less the outer IPv6 header, UDP, ESP, padding and integrity value, rounded down.
pub const MTU: u32 = 1400;

/// All that a node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The device behind which the tunnels are; none on a node without tunnels.
    pub device: Option<Device>,
    /// Addresses of that device, as host prefixes.
    pub addresses: Vec<IpNet>,
    /// Those of them at which the node answers DNS.
    #[cfg(feature = "dns")]
    pub dns: Vec<IpAddr>,
    /// Routes, in tables of our own.
    pub routes: Vec<Route>,
    /// Rules that lead to those tables.
    pub rules: Vec<Rule>,
    /// Kernel settings, to be made in this order, after the device is there.
    pub sysctls: Vec<Sysctl>,
    /// xfrm policies; none in the user-space datapath.
    pub policies: Vec<Policy>,
    /// What the firewall should do.
    pub ruleset: Ruleset,
    /// The CNI network list to write.
    pub cni: Option<File>,
    /// What could not be planned or will not work, in words for the person.
    pub notes: Vec<String>,
}

/// The device behind which the tunnels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A TUN device, read and written by the user-space datapath.
    Tun,
    /// A dummy link: packets never come out of it, the policies catch them before.
    Dummy,
}

/// A file of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name without a directory.
    pub name: String,
    /// Content.
    pub text: String,
}

impl Plan {
    /// What a node should have that Selvedge has left.
    pub fn nothing() -> Plan {
        Plan {
            device: None,
            addresses: Vec::new(),
            #[cfg(feature = "dns")]
            dns: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            sysctls: Vec::new(),
            policies: Vec::new(),
            ruleset: Ruleset::default(),
            cni: None,
            notes: Vec::new(),
        }
    }

    /// What a node with this configuration and these facts should have.
    pub fn new(config: &NodeConfig, facts: &Facts) -> Plan {
        let narrowed = if facts.ipv6_off { Cow::Owned(without_ipv6(config)) } else { Cow::Borrowed(config) };
        let mut notes = Vec::new();
        if narrowed.pod_cidrs != config.pod_cidrs {
            notes.push("IPv6 is off on this node: the IPv6 networks of its configuration are left out".into());
        }
        let config = narrowed.as_ref();
        let node = Node::new(config, facts);
        let routes = route::routes(&node, &mut notes);
        sysctl::notes(&node, &mut notes);
        collisions(&node, &mut notes);
        left_out(&node, &mut notes);
        if facts.firewall == Backend::Nftables && facts.forward_drop {
            notes.push(
                "the FORWARD policy of iptables is DROP, which an accept in a table of nftables does not overrule: \
                 set the firewall of this node to iptables"
                    .into(),
            );
        }
        let addresses = node.pod_addresses().filter(|own| own.on_device).map(|own| own.address.into());
        #[cfg(feature = "dns")]
        let addresses = addresses.chain(node.dns_addresses().map(IpNet::from));
        Plan {
            device: node.ends_tunnels().then_some(match facts.datapath {
                Datapath::Kernel => Device::Dummy,
                Datapath::User => Device::Tun,
            }),
            addresses: addresses.collect(),
            #[cfg(feature = "dns")]
            dns: node.dns_addresses().collect(),
            rules: route::rules(&node, &routes),
            routes,
            sysctls: sysctl::sysctls(&node),
            policies: policy::policies(&node),
            ruleset: firewall::ruleset(&node),
            cni: node.cni().map(|c| cni::conflist(c, &config.pod_cidrs)),
            notes,
        }
    }
}

/// The configuration of a node that speaks IPv4 only.
fn without_ipv6(config: &NodeConfig) -> NodeConfig {
    let mut config = config.clone();
    let nets = |nets: &mut Vec<IpNet>| nets.retain(|net| net.addr().is_ipv4());
    let addresses = |addresses: &mut Vec<IpAddr>| addresses.retain(IpAddr::is_ipv4);
    nets(&mut config.pod_cidrs);
    nets(&mut config.local.prefixes);
    addresses(&mut config.local.node_addresses);
    for peer in &mut config.peers {
        nets(&mut peer.prefixes);
        nets(&mut peer.overlay);
        addresses(&mut peer.addresses);
        addresses(&mut peer.node_addresses);
    }
    // Services of the other family are not served where it is not spoken.
    nets(&mut config.services.cidrs);
    #[cfg(feature = "dns")]
    if let Some(dns) = &mut config.dns {
        addresses(&mut dns.addresses);
    }
    config
}

/// What is configured and was left out of this build.
fn left_out(node: &Node<'_>, notes: &mut Vec<String>) {
    if !node.serves() && node.config.services.mode == ServiceMode::Kernel {
        notes.push("this build has no Services: cluster IPs are not served on this node".into());
    }
    if node.cni().is_none() && node.config.cni.is_some() && node.config.role == Role::Edge {
        notes.push("this build writes no CNI network".into());
    }
}

/// Peers' prefixes that swallow what the node needs to reach without a tunnel.
fn collisions(node: &Node<'_>, notes: &mut Vec<String>) {
    for peer in node.tunnels() {
        for prefix in &peer.prefixes {
            let outer = node.tunnels().flat_map(|p| &p.addresses).chain(node.facts.paths.values().map(|p| &p.remote));
            let mut outer: Vec<&IpAddr> = outer.filter(|address| prefix.contains(*address)).collect();
            outer.sort();
            outer.dedup();
            for address in outer {
                notes.push(format!("{prefix} of {} holds {address}, the outer address of a tunnel", peer.name));
            }
            for (link, net) in node.facts.local_addresses.iter().filter(|(link, _)| link != DEVICE) {
                if prefix.contains(&net.trunc()) || net.contains(prefix) {
                    notes.push(format!("{prefix} of {} overlaps {} on {link}", peer.name, net.trunc()));
                }
            }
        }
    }
}
