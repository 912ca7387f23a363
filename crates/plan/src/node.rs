//! What routes, policies and firewall all derive from a configuration and its facts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use selvedge_model::{Cni, NodeConfig, Peer, Role, ServiceMode, Via};

use crate::facts::{Facts, Family, NextHop, elsewhere};
use crate::plan::DEVICE;

pub(crate) struct Node<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) facts: &'a Facts,
    /// The pod networks this node speaks for: its own; on a connector those of the whole cloud.
    pub(crate) pods: Vec<IpNet>,
}

/// This node's address inside one of its own pod networks.
#[derive(Clone, Copy)]
pub(crate) struct PodAddress {
    pub(crate) address: IpAddr,
    /// Whether the tunnel device carries it; else some other link already does.
    pub(crate) on_device: bool,
}

impl<'a> Node<'a> {
    pub(crate) fn new(config: &'a NodeConfig, facts: &'a Facts) -> Self {
        let pods = match config.role {
            Role::Edge | Role::Cloud => config.pod_cidrs.clone(),
            Role::Connector => {
                let services = &config.services.cidrs;
                config.local.prefixes.iter().filter(|net| !services.iter().any(|s| s.contains(*net))).copied().collect()
            }
        };
        // Joined networks: a connector has one policy and one rule per network, not per cloud node.
        let mut pods = IpNet::aggregate(&pods);
        pods.sort();
        Node { config, facts, pods }
    }

    pub(crate) fn pods(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        self.pods.iter().copied().filter(move |net| Family::from(*net) == family)
    }

    pub(crate) fn tunnels(&self) -> impl Iterator<Item = &'a Peer> + use<'a> {
        self.config.peers.iter().filter(|p| p.via == Via::Tunnel)
    }

    pub(crate) fn ends_tunnels(&self) -> bool {
        self.config.role != Role::Cloud
    }

    /// Whether this node translates cluster IPs.
    pub(crate) fn serves(&self) -> bool {
        cfg!(feature = "services") && self.config.services.mode == ServiceMode::Kernel
    }

    /// The CNI network that is this node's to write.
    pub(crate) fn cni(&self) -> Option<&'a Cni> {
        self.config.cni.as_ref().filter(|_| cfg!(feature = "cni") && self.config.role == Role::Edge)
    }

    /// Where this node answers DNS; by IPv6 only if its pods speak it.
    #[cfg(feature = "dns")]
    pub(crate) fn dns_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let dns = self.config.dns.as_ref().filter(|_| self.ends_tunnels());
        let spoken = |address: &IpAddr| address.is_ipv4() || self.config.pod_cidrs.iter().any(|n| n.addr().is_ipv6());
        dns.into_iter().flat_map(|dns| &dns.addresses).copied().filter(spoken)
    }

    /// One address for each own pod network. Where this node's CNI network is ours, the bridge will carry the first
    /// address as well, but only once there is a pod; elsewhere an address that is already there (`flannel.1`, `cni0`)
    /// is one that the other nodes can answer.
    pub(crate) fn pod_addresses(&self) -> impl Iterator<Item = PodAddress> + '_ {
        self.config.pod_cidrs.iter().filter_map(|cidr| {
            let present =
                self.facts.local_addresses.iter().filter(|(link, _)| link != DEVICE).map(|(_, net)| net.addr());
            let existing = present.filter(|address| self.config.cni.is_none() && cidr.contains(address)).min();
            match existing {
                Some(address) => Some(PodAddress { address, on_device: false }),
                None if self.ends_tunnels() => Some(PodAddress { address: first_host(*cidr), on_device: true }),
                None => None,
            }
        })
    }

    /// The source address of what this host itself sends to the peers: one that they accept.
    pub(crate) fn source(&self, family: Family) -> Option<IpAddr> {
        let offered = |address: &IpAddr| self.config.local.prefixes.iter().any(|net| net.contains(address));
        let here = self.facts.local_addresses.iter().map(|(_, net)| net.addr()).filter(offered);
        self.pod_addresses().map(|own| own.address).chain(here).find(|address| Family::from(*address) == family)
    }

    /// The way to a `lan` peer: the kernel's route to its pods, if a more specific one than the default route, else
    /// the peer's own address if it is on a link of ours.
    pub(crate) fn next_hop(&self, peer: &Peer, family: Family) -> Option<NextHop> {
        let route = |address: IpAddr| {
            (Family::from(address) == family)
                .then(|| self.facts.routes.get(&address))
                .flatten()
                .filter(|h| h.device != DEVICE)
        };
        let default = self.facts.routes.get(&elsewhere(family));
        let overlay = peer.overlay.iter().filter_map(|net| route(first_host(*net))).find(|hop| Some(*hop) != default);
        overlay.cloned().or_else(|| {
            peer.addresses.iter().find_map(|address| {
                let hop = route(*address).filter(|hop| hop.gateway.is_none())?;
                Some(NextHop { gateway: Some(*address), device: hop.device.clone() })
            })
        })
    }
}

/// The first host address of a network: the one after the network address, unless there is none.
pub(crate) fn first_host(net: IpNet) -> IpAddr {
    let room = net.max_prefix_len() - net.prefix_len() >= 2;
    match net.network() {
        IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) + u32::from(room)).into(),
        IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) + u128::from(room)).into(),
    }
}
