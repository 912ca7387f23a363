//! Which firewall tools work on this machine, found out by trying what we need of them.

use std::fmt;

use super::{Ipset, Iptables, Nft};
use crate::Family;
use crate::error::{Error, Result};

/// Changes nothing, because it is only checked. One of everything that our table is made of.
const NFT: &str = "\
table inet selvedge-probe {
    set s { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }
    set known { type ipv4_addr; size 1; flags dynamic,timeout; }
    set own { type ipv4_addr . ipv4_addr; }
    chain kept { update @known { ip saddr timeout 1s }; meta l4proto tcp dnat ip to 192.0.2.1:1; }
    chain hashed { jhash ip saddr mod 2 seed 0x1 vmap { 0 : goto to, 1 : goto kept }; }
    map p { type inet_proto . inet_service : verdict; elements = { tcp . 1 : goto to }; }
    chain to { meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 192.0.2.1 . 1, 1 : 192.0.2.2 . 1 }; }
    map m { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 192.0.2.1 . tcp . 1 : goto to }; }
    chain services { type nat hook prerouting priority -101; ip daddr . meta l4proto . th dport vmap @m;
        ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @p; meta mark set meta mark | 0x1; }
    chain arriving { type filter hook prerouting priority -301; iifname \"lo\" return; ip saddr @s counter drop; }
    chain clamped {
        type filter hook forward priority -151;
        tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu;
    }
    chain forwarded {
        type filter hook forward priority -1;
        ct state established,related accept;
        meta l4proto tcp reject with tcp reset;
    }
    chain source {
        type nat hook postrouting priority 99;
        ip saddr @s snat ip to ip saddr; ip saddr . ip daddr @own masquerade; meta mark & 0x1 != 0 masquerade;
        fib saddr type local ct status dnat masquerade;
    }
}
";

/// Takes back in the same transaction what it makes.
const IPTABLES: &str = "\
*nat
:SELVEDGE-PROBE - [0:0]
-A SELVEDGE-PROBE -p tcp -m comment --comment probe -j MASQUERADE
-F SELVEDGE-PROBE
-X SELVEDGE-PROBE
COMMIT
";

const IPSET: &str = "\
create SELVEDGE-PROBE hash:net family inet
destroy SELVEDGE-PROBE
";

/// Why a firewall cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// This program is not installed.
    Tool(&'static str),
    /// The program says that the kernel cannot do it, or failed otherwise.
    Kernel(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Tool(name) => write!(f, "{name} is not installed"),
            Missing::Kernel(why) => f.write_str(why),
        }
    }
}

/// `nft` with all that our rules need, if it works in the network namespace of the current thread.
pub fn probe_nft() -> Result<Nft, Missing> {
    let nft = Nft::find().map_err(|_| Missing::Tool("nft"))?;
    nft.check(NFT).map_err(refused)?;
    Ok(nft)
}

/// `iptables` or `ip6tables` with NAT, in the first flavour that works in the network namespace of the current thread.
///
/// The nft flavour leaves an empty table `nat` behind, as it does whenever it is asked about one.
pub fn probe_iptables(family: Family) -> Result<Iptables, Missing> {
    let mut reasons = Vec::new();
    for tool in Iptables::candidates(family) {
        match tool.restore(IPTABLES).and_then(|()| tool.save("nat")) {
            Ok(_) => return Ok(tool),
            Err(e) => reasons.push(e.to_string()),
        }
    }
    if reasons.is_empty() {
        return Err(Missing::Tool(match family {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        }));
    }
    Err(Missing::Kernel(reasons.join("; ")))
}

/// Whether a rule of `table` can be made; it is in a chain of its own that is gone afterwards.
pub fn probe_rule(tool: &Iptables, table: &str, rule: &str) -> Result<(), Missing> {
    const CHAIN: &str = "SELVEDGE-PROBE";
    let made = tool.restore(&format!("*{table}\n:{CHAIN} - [0:0]\n-A {CHAIN} {rule}\nCOMMIT\n"));
    // In a transaction of its own: the kernel is not shown what is gone before the end of one.
    made.and_then(|()| tool.restore(&format!("*{table}\n-F {CHAIN}\n-X {CHAIN}\nCOMMIT\n"))).map_err(refused)
}

/// `ipset` with sets of networks, if they work in the network namespace of the current thread.
pub fn probe_ipset() -> Result<Ipset, Missing> {
    let ipset = Ipset::find().map_err(|_| Missing::Tool("ipset"))?;
    ipset.restore(IPSET).map_err(refused)?;
    Ok(ipset)
}

fn refused(error: Error) -> Missing {
    Missing::Kernel(error.to_string())
}
