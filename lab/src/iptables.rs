//! The iptables that the laboratory's own rules (home routers, flannel) are written with.

use std::process::Command;

use anyhow::{Context, Result};

use crate::exec;
use crate::netns::{self, Netns};

/// The flavour that can translate addresses on this kernel.
#[derive(Clone, Copy, Debug)]
pub struct Iptables {
    v4: &'static str,
    v6: &'static str,
}

const NFT: Iptables = Iptables { v4: "iptables", v6: "ip6tables" };
const LEGACY: Iptables = Iptables { v4: "iptables-legacy", v6: "ip6tables-legacy" };

impl Iptables {
    /// Tries a translation rule: a kernel without nftables NAT still lists an empty table.
    pub fn find(scratch: &Netns) -> Result<Self> {
        let attempt = |flavour: Self| -> Result<Self> {
            for verb in ["-A", "-D"] {
                scratch.run(&format!("{} -w -t nat {verb} POSTROUTING -s 192.0.2.1/32 -j MASQUERADE", flavour.v4))?;
            }
            Ok(flavour)
        };
        attempt(NFT).or_else(|error| attempt(LEGACY).with_context(|| format!("neither flavour works: {error:#}")))
    }

    /// Adds rules, as `iptables-restore --noflush` reads them.
    pub fn load(self, ns: &Netns, rules: &str) -> Result<()> {
        ns.feed(&format!("{}-restore -w --noflush", self.v4), rules).map(drop)
    }

    /// As [`Iptables::load`], in a namespace of this name.
    pub fn load_named(self, name: &str, rules: &str) -> Result<()> {
        let mut command = Command::new(format!("{}-restore", self.v4));
        command.args(["-w", "--noflush"]);
        netns::enter(name, || exec::feed(&mut command, rules)).map(drop)
    }

    /// Adds IPv6 rules.
    pub fn load6(self, ns: &Netns, rules: &str) -> Result<()> {
        ns.feed(&format!("{}-restore -w --noflush", self.v6), rules).map(drop)
    }
}
