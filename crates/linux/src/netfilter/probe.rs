//! Which firewall tools work on this machine, found out by trying what we need of them.

use super::{Ipset, Iptables, Nft};
use crate::Family;
use crate::error::{Error, Result};

/// Changes nothing, because it is only checked.
const NFT: &str = "\
table ip selvedge-probe {
    set s { type ipv4_addr; flags interval; }
    chain postrouting { type nat hook postrouting priority 100; ip saddr @s masquerade; }
    chain prerouting { type nat hook prerouting priority -100; tcp dport 1 dnat to 192.0.2.1:1; }
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

/// `nft` with NAT and sets, if they work in the network namespace of the current thread.
pub fn probe_nft() -> Result<Nft, String> {
    let nft = || -> Result<Nft> {
        let nft = Nft::find()?;
        nft.check(NFT)?;
        Ok(nft)
    };
    nft().map_err(text)
}

/// `iptables` or `ip6tables` with NAT, in the first flavour that works in the network namespace of the current thread.
///
/// The nft flavour leaves an empty table `nat` behind, as it does whenever it is asked about one.
pub fn probe_iptables(family: Family) -> Result<Iptables, String> {
    let mut reasons = Vec::new();
    for tool in Iptables::candidates(family) {
        match tool.restore(IPTABLES).and_then(|()| tool.save("nat")) {
            Ok(_) => return Ok(tool),
            Err(e) => reasons.push(e.to_string()),
        }
    }
    Err(if reasons.is_empty() { format!("no {family} iptables-restore is installed") } else { reasons.join("; ") })
}

/// `ipset` with sets of networks, if they work in the network namespace of the current thread.
pub fn probe_ipset() -> Result<Ipset, String> {
    let ipset = || -> Result<Ipset> {
        let ipset = Ipset::find()?;
        ipset.restore(IPSET)?;
        Ok(ipset)
    };
    ipset().map_err(text)
}

fn text(error: Error) -> String {
    error.to_string()
}
