//! Kernel settings.

use crate::facts::Family;
use crate::node::Node;
use crate::plan::DEVICE;

/// A setting to be made; the order of a list of them matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Path below `/proc/sys`: with slashes, as link names may hold dots.
    pub path: String,
    /// Value to write.
    pub value: u8,
}

pub(crate) fn sysctls(node: &Node<'_>) -> Vec<Sysctl> {
    let mut sysctls = Vec::new();
    let mut set = |path: String, value| sysctls.push(Sysctl { path, value });
    set("net/ipv4/ip_forward".into(), 1);
    if node.ends_tunnels() {
        // The source of what leaves a tunnel has been checked against the tunnel's own selectors: filtering it again by
        // routes would only lose packets while routes change. The kernel takes the maximum of this and `all`, which is
        // not ours to set; even a strict 1 there passes, as every accepted source is routed back to this device.
        set(format!("net/ipv4/conf/{DEVICE}/rp_filter"), 0);
    }
    let ipv6 = node.pods(Family::V6).next().is_some();
    if ipv6 {
        // With forwarding on, the kernel drops the default routes it learnt from router advertisements and ignores
        // further ones, unless this is 2; so it comes first.
        for (link, _) in node.facts.accept_ra.iter().filter(|(_, value)| **value != 0) {
            set(format!("net/ipv6/conf/{link}/accept_ra"), 2);
        }
        set("net/ipv6/conf/all/forwarding".into(), 1);
    }
    if node.serves() && node.facts.bridge_netfilter {
        // A pod's answer to a pod on the same bridge must pass conntrack to get the cluster IP back as its source.
        set("net/bridge/bridge-nf-call-iptables".into(), 1);
        if ipv6 {
            set("net/bridge/bridge-nf-call-ip6tables".into(), 1);
        }
    }
    sysctls
}

/// What an administrator should know about Services here.
pub(crate) fn notes(node: &Node<'_>, notes: &mut Vec<String>) {
    if node.serves() && !node.facts.bridge_netfilter {
        notes.push(
            "br_netfilter is not there: a pod called through a Service by a pod of the same node sees the node's address"
                .into(),
        );
    }
}
