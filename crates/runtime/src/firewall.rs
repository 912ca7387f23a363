//! Brings the firewall to a ruleset with the tools of this system.

use selvedge_linux::netfilter::{Ipset, Iptables, Missing, Nft, legacy_tables, probe_ipset, probe_iptables, probe_nft};
#[cfg(feature = "services")]
use selvedge_linux::netfilter::{has_chain, probe_rule};
use selvedge_linux::{Error, Result};
use selvedge_model::FirewallBackend;
use selvedge_plan::firewall::Ruleset;
#[cfg(feature = "services")]
use selvedge_plan::firewall::Serving;
use selvedge_plan::{Backend, Family, ipset, iptables, nft};

use crate::kernel::ipv6_off;

/// The tools that work here.
pub(crate) enum Firewall {
    Nftables(Nft),
    Iptables { v4: Iptables, v6: std::result::Result<Iptables, Missing>, ipset: Option<Ipset> },
}

/// What was found when a firewall was chosen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    pub(crate) chosen: Option<&'static str>,
    /// Why not, of those that were tried in vain.
    pub(crate) nft: Option<Missing>,
    pub(crate) iptables: Option<Missing>,
    pub(crate) ip6tables: Option<Missing>,
    pub(crate) ipset: Option<Missing>,
}

impl Tools {
    /// Chooses by what works.
    pub(crate) fn choose(&mut self, wanted: FirewallBackend) -> Option<Firewall> {
        *self = Tools::default();
        let mut chosen = None;
        if wanted != FirewallBackend::Iptables {
            chosen = keep(probe_nft(), &mut self.nft).map(Firewall::Nftables);
        }
        if chosen.is_none() && wanted != FirewallBackend::Nftables {
            chosen = keep(probe_iptables(selvedge_linux::Family::V4), &mut self.iptables).map(|v4| {
                let v6 = match ipv6_off() {
                    Some(why) => Err(Missing::Kernel(why.to_owned())),
                    None => {
                        probe_iptables(selvedge_linux::Family::V6).inspect_err(|e| self.ip6tables = Some(e.clone()))
                    }
                };
                Firewall::Iptables { v4, v6, ipset: keep(probe_ipset(), &mut self.ipset) }
            });
        }
        self.chosen = chosen.as_ref().map(Firewall::name);
        chosen
    }

    /// Whether a choice was made or attempted.
    pub(crate) fn was_tried(&self) -> bool {
        self.chosen.is_some() || self.nft.is_some() || self.iptables.is_some()
    }

    /// Why none could be chosen.
    fn why(&self) -> String {
        let tried = [("nftables", &self.nft), ("iptables", &self.iptables)].into_iter();
        let reasons = tried.filter_map(|(name, missing)| Some(format!("{name}: {}", missing.as_ref()?)));
        format!("no firewall works here: {}", reasons.collect::<Vec<_>>().join("; "))
    }
}

fn keep<T>(found: std::result::Result<T, Missing>, missing: &mut Option<Missing>) -> Option<T> {
    found.map_err(|why| *missing = Some(why)).ok()
}

impl Firewall {
    /// Chooses by what works; a forced choice that does not is an error that says why.
    pub(crate) fn choose(wanted: FirewallBackend, tools: &mut Tools) -> Result<Self> {
        tools.choose(wanted).ok_or_else(|| Error::new(tools.why()))
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

    /// Whether rules can report packets here, found out by trying.
    #[cfg(feature = "services")]
    pub(crate) fn can_report(&self) -> std::result::Result<(), Missing> {
        let ruleset = Ruleset { watch: true, ipv6: true, serving: Some(Serving::default()), ..Ruleset::default() };
        let (v4, v6) = match self {
            Firewall::Nftables(tool) => {
                return tool.check(&nft::replace(&ruleset)).map_err(|error| Missing::Kernel(error.to_string()));
            }
            Firewall::Iptables { v4, v6, .. } => (v4, v6),
        };
        for (tool, family) in [(Some(v4), Family::V4), (v6.as_ref().ok(), Family::V6)] {
            let tables = iptables::tables(&ruleset, family);
            let rules = tables.get("filter").into_iter().flat_map(|filter| filter.chains.values().flatten());
            for rule in rules.filter(|rule| !rule.contains(iptables::PREFIX)) {
                tool.map_or(Ok(()), |tool| probe_rule(tool, "filter", rule))?;
            }
        }
        Ok(())
    }

    /// Another who serves Services here, if nobody can say who comes first: chains of iptables cannot be put before those
    /// of nftables, only made after them.
    #[cfg(feature = "services")]
    pub(crate) fn rival(&self) -> Option<&'static str> {
        let family = Some(selvedge_linux::Family::V4);
        let there =
            matches!(self, Firewall::Iptables { .. }) && has_chain(family, "kube-proxy", "nat-prerouting").ok()?;
        there.then_some(
            "kube-proxy serves Services by nftables and this program by iptables: the last one made comes first",
        )
    }

    /// True if the `FORWARD` policy of iptables drops what no rule accepts.
    pub(crate) fn forward_drop() -> bool {
        let family = selvedge_linux::Family::V4;
        let tables = legacy_tables(family, &iptables::TABLES);
        let drops = |tool: &Iptables| tool.save_all(&tables).is_ok_and(|text| text.contains(":FORWARD DROP"));
        Iptables::candidates(family).iter().any(drops)
    }

    /// Brings the firewall to `ruleset`, from `before` if that is there for sure, else from whatever there is. Returns
    /// whether anything had to be changed.
    pub(crate) fn apply(&self, before: Option<&Ruleset>, ruleset: &Ruleset) -> Result<bool> {
        match self {
            Firewall::Nftables(tool) => apply_nft(tool, before, ruleset),
            Firewall::Iptables { v4, v6, ipset: None } => {
                apply_both(v4, v6, before.map(Ruleset::spelt).as_ref(), &ruleset.spelt())
            }
            Firewall::Iptables { v4, v6, ipset: Some(_) } if before.is_some_and(|b| b.sets == ruleset.sets) => {
                apply_both(v4, v6, before, ruleset)
            }
            Firewall::Iptables { v4, v6, ipset: Some(ipset) } => {
                let saved = sets(ipset)?;
                let mut changed = false;
                if let Some(text) = ipset::update(&saved, ruleset) {
                    ipset.restore(&text)?;
                    changed = true;
                }
                changed |= apply_both(v4, v6, before, ruleset)?;
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

#[cfg(not(feature = "services"))]
fn apply_nft(tool: &Nft, _: Option<&Ruleset>, ruleset: &Ruleset) -> Result<bool> {
    let current = tool.list_table("inet", "selvedge")?;
    if current.is_some_and(|list| list.contains(&nft::digest(ruleset))) {
        return Ok(false);
    }
    tool.apply(&nft::replace(ruleset))?;
    Ok(true)
}

#[cfg(feature = "services")]
fn apply_nft(tool: &Nft, before: Option<&Ruleset>, ruleset: &Ruleset) -> Result<bool> {
    match before.and_then(|before| nft::update(before, ruleset)) {
        // Somebody else may have been faster: then all is made anew.
        Some(text) => match tool.apply(&text) {
            Ok(()) => return Ok(true),
            Err(error) => log::warn!("change the rules of Services: {error}"),
        },
        None if before.is_none() && has_chain(None, "selvedge", &nft::digest(ruleset))? => return Ok(false),
        None => {}
    }
    tool.apply(&nft::replace(ruleset))?;
    Ok(true)
}

type Tool6 = std::result::Result<Iptables, Missing>;

fn apply_both(v4: &Iptables, v6: &Tool6, before: Option<&Ruleset>, ruleset: &Ruleset) -> Result<bool> {
    let changed = apply_iptables(v4, before, ruleset, Family::V4)?;
    match v6 {
        Ok(tool) => Ok(apply_iptables(tool, before, ruleset, Family::V6)? || changed),
        Err(why) if ruleset.ipv6 => Err(Error::new(format!("ip6tables: {why}"))),
        Err(_) => Ok(changed),
    }
}

fn apply_iptables(tool: &Iptables, before: Option<&Ruleset>, ruleset: &Ruleset, family: Family) -> Result<bool> {
    const END: &str = "COMMIT\n";
    let wanted = iptables::tables(ruleset, family);
    #[cfg(feature = "services")]
    if let Some(text) = before.and_then(|before| iptables::change(&iptables::tables(before, family), &wanted)) {
        if text.is_empty() {
            return Ok(false);
        }
        // Somebody else may have been faster: then what is there is looked at.
        match tool.restore(&text) {
            Ok(()) => return Ok(true),
            Err(error) => log::warn!("change the rules of Services: {error}"),
        }
    }
    #[cfg(not(feature = "services"))]
    let _ = before;
    let Some(text) = iptables::update(&tool.save_all(&iptables::TABLES)?, &wanted) else { return Ok(false) };
    if let Err(error) = tool.restore(&text) {
        // A kernel may lack what one table needs; the others are not to go without.
        let failures = text.split_inclusive(END).filter_map(|table| Some(tool.restore(table).err()?.to_string()));
        let failures: Vec<String> = failures.collect();
        if !failures.is_empty() {
            return Err(if text.matches(END).count() == 1 { error } else { Error::new(failures.join("; ")) });
        }
    }
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
        let tables = legacy_tables(family, &iptables::TABLES);
        for tool in Iptables::candidates(family) {
            // A flavour that this kernel does not know has no rules of ours.
            let Ok(saved) = tool.save_all(&tables) else { continue };
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
