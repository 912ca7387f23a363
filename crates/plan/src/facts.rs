//! What the plan must know about the node besides its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
#[cfg(feature = "services")]
use selvedge_model::Protocol;
use selvedge_model::{NodeConfig, Via};

use crate::node::first_host;

/// The state of the node that a plan depends on, read by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How ESP is done here, after probing.
    pub datapath: Datapath,
    /// Whose rules are written here, after probing.
    pub firewall: Backend,
    /// Every address of every link: link name, address with its prefix length.
    pub local_addresses: Vec<(String, IpNet)>,
    /// The kernel's answers (`RTM_GETROUTE`) to the addresses that [`probes`] asks about; no answer, no entry.
    pub routes: BTreeMap<IpAddr, NextHop>,
    /// By peer name: the peers whose SA pair is up, and between which addresses.
    pub paths: BTreeMap<String, Path>,
    /// By link name: `net/ipv6/conf/<link>/accept_ra` of the links that have a default route learnt from router
    /// advertisements.
    pub accept_ra: BTreeMap<String, u8>,
    /// `/proc/sys/net/bridge/bridge-nf-call-iptables` exists: packets between ports of one bridge can be made to pass
    /// the firewall.
    pub bridge_netfilter: bool,
    /// The policy of the `FORWARD` chain of iptables is `DROP`.
    pub forward_drop: bool,
    /// The kernel cannot do IPv6, or is told not to: nothing of it is planned.
    pub ipv6_off: bool,
    /// Endpoints that do not answer: they take no new connections where there are others.
    #[cfg(feature = "services")]
    pub out: BTreeSet<(IpAddr, Protocol, u16)>,
    /// Rules can report packets to [`crate::firewall::REPORTS`], and somebody listens.
    #[cfg(feature = "services")]
    pub reports: bool,
}

/// How ESP is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datapath {
    /// By kernel xfrm policies.
    Kernel,
    /// In user space, behind a TUN device.
    #[default]
    User,
}

/// Whose rules are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// A table of nftables, [`crate::nft`].
    #[default]
    Nftables,
    /// Chains of iptables and ip6tables, and ipset, [`crate::iptables`].
    Iptables,
}

/// Where the kernel sends packets for an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The next router; absent where the address is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Name of the outgoing link.
    pub device: String,
}

/// The two ends of a peer's SA pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// `reqid` of both SAs; the same for as long as the peer is known.
    pub reqid: u32,
    /// Outer address of this node.
    pub local: IpAddr,
    /// Outer address of the peer.
    pub remote: IpAddr,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in order.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl From<IpNet> for Family {
    fn from(net: IpNet) -> Self {
        Family::from(net.addr())
    }
}

/// The addresses to whose routes the plan needs the answer, for [`Facts::routes`].
pub fn probes(config: &NodeConfig) -> BTreeSet<IpAddr> {
    let lan = config.peers.iter().filter(|p| p.via == Via::Lan);
    let wanted: BTreeSet<IpAddr> =
        lan.flat_map(|p| p.overlay.iter().map(|net| first_host(*net)).chain(p.addresses.iter().copied())).collect();
    let defaults: Vec<IpAddr> = wanted.iter().map(|a| elsewhere((*a).into())).collect();
    wanted.into_iter().chain(defaults).collect()
}

/// An address that only a default route leads to (documentation networks, RFC 5737, RFC 3849).
pub(crate) fn elsewhere(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}
