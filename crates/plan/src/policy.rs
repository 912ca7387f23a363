//! xfrm policies of the kernel datapath (RFC 4301 §4.4.1, linux/xfrm.h).
//!
//! Every network behind a tunnel peer has a policy in each direction, whether the peer is up or not: protected by the
//! peer's SAs while it is up, blocked while it is not. Out: its traffic never leaves in clear. In and forward: nobody
//! outside the tunnel can speak for it, and no other peer inside its own, since the template names the `reqid`.
//!
//! A kernel has at most one policy for each direction and selector, so going up or down is one replacement, without a
//! gap. Only a Service network that this node serves itself is never blocked outwards, see `served_here`.
//!
//! Policies for a peer's node addresses name own pod networks on the other side: that node's IKE and ESP packets come
//! from the same address, but are for a node address here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::facts::{Datapath, Family, Path};
use crate::node::Node;

/// Priority of policies that protect; lower wins.
pub const PROTECT_PRIORITY: u32 = 0x5e00;
/// Priority of policies that block.
pub const BLOCK_PRIORITY: u32 = 0x5e80;

/// One xfrm policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    /// Which packets it sees.
    pub direction: Direction,
    /// Selector: source network.
    pub source: IpNet,
    /// Selector: destination network.
    pub destination: IpNet,
    /// [`PROTECT_PRIORITY`] or [`BLOCK_PRIORITY`]; these numbers also tell our policies from others'.
    pub priority: u32,
    /// What happens to matching packets.
    pub action: Action,
}

/// Which packets a policy sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// `XFRM_POLICY_OUT`: about to leave.
    Out,
    /// `XFRM_POLICY_IN`: for this host.
    In,
    /// `XFRM_POLICY_FWD`: to be forwarded.
    Forward,
}

/// What happens to packets that match a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `XFRM_POLICY_BLOCK`.
    Block,
    /// `XFRM_POLICY_ALLOW` by ESP in tunnel mode.
    Protect(Template),
}

/// The SA that must be used, or must have been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Template {
    /// Outer source address; unspecified: any. Its family is the template's.
    pub source: IpAddr,
    /// Outer destination address; unspecified: any.
    pub destination: IpAddr,
    /// `reqid` of the SA.
    pub reqid: u32,
}

/// The policies for all tunnel peers, none in the user-space datapath.
pub(crate) fn policies(node: &Node<'_>) -> Vec<Policy> {
    let mut policies = Vec::new();
    if node.facts.datapath == Datapath::Kernel {
        for peer in node.tunnels() {
            let path = node.facts.paths.get(&peer.name);
            for prefix in &peer.prefixes {
                let unblocked = served_here(node, prefix);
                let wanted = |p: &Policy| !(unblocked && p.direction == Direction::Out && p.action == Action::Block);
                policies.extend(between(everything(Family::from(*prefix)), *prefix, path).into_iter().filter(wanted));
            }
            for address in &peer.node_addresses {
                for pods in node.pods(Family::from(*address)) {
                    policies.extend(between(pods, (*address).into(), path));
                }
            }
        }
    }
    policies.sort();
    policies
}

/// Whether cluster IPs within are translated on this node. A connecting socket of the host asks for policies before the
/// translation and would be refused though the endpoint is near; what is not translated ends in the dummy device.
fn served_here(node: &Node<'_>, prefix: &IpNet) -> bool {
    node.serves() && node.config.services.cidrs.iter().any(|net| net.contains(prefix))
}

fn between(near: IpNet, far: IpNet, path: Option<&Path>) -> [Policy; 3] {
    let priority = if path.is_some() { PROTECT_PRIORITY } else { BLOCK_PRIORITY };
    let action = |template: fn(&Path) -> Template| path.map_or(Action::Block, |p| Action::Protect(template(p)));
    let inward = |direction| Policy { direction, source: far, destination: near, priority, action: action(inbound) };
    let out = Policy { direction: Direction::Out, source: near, destination: far, priority, action: action(outbound) };
    [out, inward(Direction::In), inward(Direction::Forward)]
}

fn outbound(path: &Path) -> Template {
    Template { source: path.local, destination: path.remote, reqid: path.reqid }
}

/// Any outer address: an arrived packet proves its peer by the SA, hence by the `reqid`. With addresses here, packets
/// would be lost between the update of a moved peer's SA and the update of these policies.
fn inbound(path: &Path) -> Template {
    let any = match path.remote {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Template { source: any, destination: any, reqid: path.reqid }
}

fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}
