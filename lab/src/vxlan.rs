//! The cloud's pod network, as flannel makes it: a VXLAN device per family with static neighbours, and its rules.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::json;

use crate::iptables::Iptables;
use crate::node::Node;

/// Pod networks of the cloud.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// IPv6 pod networks of the cloud.
pub const CLUSTER_CIDR6: &str = "fd00:244::/48";

/// What flanneld writes down about one node (its `backend-data` annotations).
struct Lease {
    index: usize,
    host: String,
    host6: String,
    mac: String,
    mac6: String,
}

/// Gives every node its pod CIDRs by its place in the list and joins them.
pub fn install(nodes: &mut [&mut Node], iptables: Iptables) -> Result<()> {
    let mut leases = Vec::new();
    for (index, node) in nodes.iter_mut().enumerate() {
        node.pod_cidrs = vec![format!("10.244.{index}.0/24"), format!("fd00:244:0:{index}::/64")];
        leases.push(lease(index, node).with_context(|| format!("VXLAN of {}", node.name))?);
    }
    for (own, node) in leases.iter().zip(nodes.iter()) {
        join(own, &leases, node)?;
        iptables.load(&node.ns, &firewall(own.index, false))?;
        iptables.load6(&node.ns, &firewall(own.index, true))?;
    }
    Ok(())
}

/// The network list that flannel's CNI plugin delegates to the bridge plugin, for one node.
pub fn network_list(node: &Node) -> String {
    let ranges: Vec<_> = node.pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr}])).collect();
    json!({
        "cniVersion": "0.3.1",
        "name": "cbr0",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "mtu": 1450, "ipMasq": false, "isGateway": true,
                "isDefaultGateway": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "ranges": ranges,
                    "routes": [{"dst": CLUSTER_CIDR}, {"dst": CLUSTER_CIDR6}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

fn lease(index: usize, node: &Node) -> Result<Lease> {
    let of = |v4: bool| {
        let address = node.addresses.iter().find(|a| a.is_ipv4() == v4);
        address.map(ToString::to_string).context("a cloud node has an address of each family")
    };
    let (host, host6) = (of(true)?, of(false)?);
    node.ns.ip(&format!(
        "link add flannel.1 mtu 1450 type vxlan id 1 local {host} dstport 8472 nolearning dev eth0
         link add flannel-v6.1 mtu 1430 type vxlan id 1 local {host6} dstport 8472 nolearning dev eth0
         link set flannel.1 up
         link set flannel-v6.1 up
         address add 10.244.{index}.0/32 dev flannel.1
         address add fd00:244:0:{index}::/128 dev flannel-v6.1"
    ))?;
    let mac = |device: &str| -> Result<String> {
        let shown = node.ns.run(&format!("ip -j link show {device}"))?;
        let links: serde_json::Value = serde_json::from_str(&shown)?;
        links[0]["address"].as_str().map(str::to_owned).with_context(|| format!("no address in {shown}"))
    };
    Ok(Lease { index, host, host6, mac: mac("flannel.1")?, mac6: mac("flannel-v6.1")? })
}

fn join(own: &Lease, leases: &[Lease], node: &Node) -> Result<()> {
    let (mut ip, mut fdb) = (String::new(), String::new());
    for Lease { index, host, host6, mac, mac6 } in leases.iter().filter(|lease| lease.index != own.index) {
        write!(
            ip,
            "neighbour replace 10.244.{index}.0 lladdr {mac} dev flannel.1 nud permanent
             route replace 10.244.{index}.0/24 via 10.244.{index}.0 dev flannel.1 onlink
             neighbour replace fd00:244:0:{index}:: lladdr {mac6} dev flannel-v6.1 nud permanent
             route replace fd00:244:0:{index}::/64 via fd00:244:0:{index}:: dev flannel-v6.1 onlink\n"
        )?;
        write!(fdb, "fdb append {mac} dev flannel.1 dst {host}\nfdb append {mac6} dev flannel-v6.1 dst {host6}\n")?;
    }
    node.ns.ip(&ip)?;
    node.ns.feed("bridge -batch -", &fdb).map(drop)
}

/// The rules that flanneld 0.22 and later keeps, with `--ip-masq`.
fn firewall(index: usize, v6: bool) -> String {
    let (cluster, own, multicast) = if v6 {
        (CLUSTER_CIDR6, format!("fd00:244:0:{index}::/64"), "ff00::/8")
    } else {
        (CLUSTER_CIDR, format!("10.244.{index}.0/24"), "224.0.0.0/4")
    };
    let masq = r#"-m comment --comment "flanneld masq""#;
    let forward = r#"-m comment --comment "flanneld forward""#;
    format!(
        "*filter
:FLANNEL-FWD - [0:0]
-A FORWARD {forward} -j FLANNEL-FWD
-A FLANNEL-FWD -s {cluster} {forward} -j ACCEPT
-A FLANNEL-FWD -d {cluster} {forward} -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING {masq} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN
-A FLANNEL-POSTRTG -s {own} -d {cluster} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {cluster} -d {own} {masq} -j RETURN
-A FLANNEL-POSTRTG ! -s {cluster} -d {own} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {cluster} ! -d {multicast} {masq} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} {masq} -j MASQUERADE --random-fully
COMMIT
"
    )
}
