//! Brings the firewall to a ruleset with the tools of this system.

use selvedge_linux::netfilter::{Ipset, Iptables, Nft, probe_ipset, probe_iptables, probe_nft};
use selvedge_linux::{Error, Result};
use selvedge_model::FirewallBackend;
use selvedge_plan::firewall::Ruleset;
use selvedge_plan::{Backend, Family, ipset, iptables, nft};

/// The tools that work here.
pub(crate) enum Firewall {
    Nftables(Nft),
    Iptables { v4: Iptables, v6: std::result::Result<Iptables, String>, ipset: Ipset },
}

impl Firewall {
    /// Chooses by what works; a forced choice that does not is an error that says why.
    pub(crate) fn choose(wanted: FirewallBackend) -> Result<Self> {
        let with_iptables = || -> std::result::Result<Self, String> {
            Ok(Firewall::Iptables {
                v4: probe_iptables(selvedge_linux::Family::V4)?,
                v6: probe_iptables(selvedge_linux::Family::V6),
                ipset: probe_ipset()?,
            })
        };
        match wanted {
            FirewallBackend::Nftables => {
                probe_nft().map(Firewall::Nftables).map_err(|e| Error::new(format!("nftables: {e}")))
            }
            FirewallBackend::Iptables => with_iptables().map_err(|e| Error::new(format!("iptables: {e}"))),
            FirewallBackend::Auto => match probe_nft() {
                Ok(nft) => Ok(Firewall::Nftables(nft)),
                Err(no_nft) => with_iptables()
                    .map_err(|e| Error::new(format!("no firewall works here: nftables: {no_nft}; iptables: {e}"))),
            },
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Firewall::Nftables(_) => Backend::Nftables,
            Firewall::Iptables { .. } => Backend::Iptables,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Firewall::Nftables(_) => "nftables",
            Firewall::Iptables { .. } => "iptables",
        }
    }

    /// True if the `FORWARD` policy of iptables drops what no rule accepts.
    pub(crate) fn forward_drop() -> bool {
        let drops = |tool: &Iptables| tool.save_all().is_ok_and(|text| text.contains(":FORWARD DROP"));
        Iptables::candidates(selvedge_linux::Family::V4).iter().any(drops)
    }

    /// Brings the firewall to `ruleset`. Returns whether anything had to be changed.
    pub(crate) fn apply(&self, ruleset: &Ruleset) -> Result<bool> {
        match self {
            Firewall::Nftables(tool) => apply_nft(tool, ruleset),
            Firewall::Iptables { v4, v6, ipset } => {
                let saved = sets(ipset)?;
                let mut changed = false;
                if let Some(text) = ipset::update(&saved, ruleset) {
                    ipset.restore(&text)?;
                    changed = true;
                }
                changed |= apply_iptables(v4, ruleset, Family::V4)?;
                match v6 {
                    Ok(tool) => changed |= apply_iptables(tool, ruleset, Family::V6)?,
                    Err(why) if ruleset.ipv6 => return Err(Error::new(format!("ip6tables: {why}"))),
                    Err(_) => {}
                }
                if let Some(text) = ipset::cleanup(&saved, ruleset) {
                    ipset.restore(&text)?;
                    changed = true;
                }
                Ok(changed)
            }
        }
    }

    /// Removes what a run with the other backend left.
    pub(crate) fn remove_others(&self) -> Result<()> {
        match self {
            Firewall::Nftables(_) => remove_iptables(),
            Firewall::Iptables { .. } => remove_nft(),
        }
    }
}

/// Removes everything that is ours, whichever backend made it.
pub(crate) fn remove_all() -> Result<()> {
    remove_nft().and(remove_iptables())
}

fn apply_nft(tool: &Nft, ruleset: &Ruleset) -> Result<bool> {
    let current = tool.list_table("inet", "selvedge")?;
    if current.is_some_and(|list| nft::is_current(&list, ruleset)) {
        return Ok(false);
    }
    tool.apply(&nft::replace(ruleset))?;
    Ok(true)
}

fn apply_iptables(tool: &Iptables, ruleset: &Ruleset, family: Family) -> Result<bool> {
    let wanted = iptables::tables(ruleset, family);
    let Some(text) = iptables::update(&tool.save_all()?, &wanted) else { return Ok(false) };
    tool.restore(&text)?;
    Ok(true)
}

fn remove_nft() -> Result<()> {
    let Ok(tool) = Nft::find() else { return Ok(()) };
    match tool.list_table("inet", "selvedge") {
        Ok(Some(_)) => tool.apply(nft::remove()),
        // A kernel without nftables has no table of ours.
        Ok(None) | Err(_) => Ok(()),
    }
}

fn remove_iptables() -> Result<()> {
    for family in [selvedge_linux::Family::V4, selvedge_linux::Family::V6] {
        for tool in Iptables::candidates(family) {
            // A flavour that this kernel does not know has no rules of ours.
            let Ok(saved) = tool.save_all() else { continue };
            if let Some(text) = iptables::remove(&saved) {
                tool.restore(&text)?;
            }
        }
    }
    let Ok(tool) = Ipset::find() else { return Ok(()) };
    match sets(&tool).ok().and_then(|saved| ipset::remove(&saved)) {
        Some(text) => tool.restore(&text),
        None => Ok(()),
    }
}

/// Our sets in the form of `ipset save`.
fn sets(tool: &Ipset) -> Result<String> {
    let names = tool.names()?;
    let ours = |name: &&String| name.starts_with(ipset::PREFIX);
    // One program instead of one for each set; but others' sets may be lists of a hundred thousand.
    if !names.is_empty() && names.iter().all(|name| ours(&name)) {
        return tool.save_all();
    }
    let mut text = String::new();
    for name in names.iter().filter(ours) {
        text.extend(tool.save(name)?);
    }
    Ok(text)
}
