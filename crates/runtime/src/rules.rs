//! The rules that were loaded: what is to be done to them, and whether anybody else did something.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use selvedge_linux::conntrack::Conntrack;
use selvedge_linux::netfilter::{Generation, Missing, probe_rule};
use selvedge_linux::{Family, Result};
use selvedge_model::Protocol;
use selvedge_plan::firewall::{Flow, Ruleset, Serving};
use selvedge_plan::iptables;

use crate::firewall::Firewall;

/// With their IP protocol numbers.
const FORGOTTEN: [(Protocol, u8); 2] = [(Protocol::Tcp, 6), (Protocol::Udp, 17)];

/// Rules as this program loaded them.
#[derive(Default)]
pub(crate) struct Rules {
    /// `None`: nothing is known of what there is.
    ruleset: Option<Ruleset>,
    /// State of the firewall since nobody else touched it.
    generation: Option<Generation>,
    /// Tables of iptables that are looked after.
    tables: Vec<&'static str>,
    /// Matches that were tried.
    tried: BTreeMap<&'static str, std::result::Result<(), Missing>>,
    /// Why connections cannot be forgotten.
    no_conntrack: Option<String>,
}

impl Rules {
    /// What is loaded.
    pub(crate) fn ruleset(&self) -> Option<&Ruleset> {
        self.ruleset.as_ref()
    }

    /// What this system cannot do for Services.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let lost = |what: &str| match what {
            "sctp" => "SCTP ports of Services are not served",
            "cluster" => "balance sourceHash remembers clients instead",
            _ => "session affinity is not kept",
        };
        let tried = self.tried.iter().filter_map(|(what, result)| Some((what, result.as_ref().err()?)));
        let lacks = tried.map(move |(what, why)| format!("iptables has no match {what}: {} ({why})", lost(what)));
        let stale = self.no_conntrack.iter().map(|why| {
            format!(
                "connections to endpoints that are gone are not forgotten: {why}; the module is nf_conntrack_netlink"
            )
        });
        lacks.chain(stale)
    }

    /// Brings the firewall to `ruleset`, and has connections forgotten that lead nowhere by it. `local`: the
    /// addresses of this node.
    pub(crate) fn bring(
        &mut self,
        firewall: &Firewall,
        mut ruleset: Ruleset,
        local: &BTreeSet<IpAddr>,
    ) -> Result<bool> {
        self.adapt(firewall, &mut ruleset);
        if self.ruleset.as_ref() == Some(&ruleset) {
            return Ok(false);
        }
        let before = self.ruleset.take();
        if let (Firewall::Iptables { .. }, true) = (firewall, self.tables.is_empty()) {
            let families = [selvedge_plan::Family::V4, selvedge_plan::Family::V6];
            let tables = families.iter().flat_map(|family| iptables::tables(&ruleset, *family).into_keys());
            self.tables = BTreeSet::from_iter(tables).into_iter().collect();
        }
        let start = self.read_generation(firewall);
        let changed = firewall.apply(before.as_ref(), &ruleset)?;
        let end = self.read_generation(firewall);
        // Whoever else may have been at it meanwhile may have undone it: then it is looked at again.
        self.generation = start.zip(end).and_then(|(start, end)| (start == end || end.follows(&start)).then_some(end));
        self.forget(before.as_ref(), &ruleset, local);
        self.ruleset = Some(ruleset);
        Ok(changed)
    }

    /// Looks whether anybody else touched the firewall; if so, all of it is looked at the next time.
    pub(crate) fn doubt(&mut self, firewall: &Firewall) {
        let now = self.read_generation(firewall);
        if now.is_none() || now != self.generation {
            self.ruleset = None;
        }
    }

    /// Leaves out what this system has no match for.
    fn adapt(&mut self, firewall: &Firewall, ruleset: &mut Ruleset) {
        let Firewall::Iptables { v4, .. } = firewall else { return };
        for (what, rule) in iptables::needs(ruleset) {
            let tried = self.tried.entry(what).or_insert_with(|| {
                probe_rule(v4, "nat", rule).inspect_err(|why| log::warn!("iptables has no match {what}: {why}"))
            });
            if let (Err(_), Some(serving)) = (tried, &mut ruleset.serving) {
                serving.go_without(what);
            }
        }
    }

    fn read_generation(&self, firewall: &Firewall) -> Option<Generation> {
        let legacy = match firewall {
            Firewall::Nftables(_) => Vec::new(),
            Firewall::Iptables { v4, v6, .. } => {
                let v4 = v4.is_legacy().then_some(Family::V4);
                let v6 = v6.as_ref().is_ok_and(|tool| tool.is_legacy()).then_some(Family::V6);
                v4.into_iter().chain(v6).collect()
            }
        };
        Generation::read(&legacy, &self.tables).inspect_err(|error| log::debug!("{error}")).ok()
    }

    fn forget(&mut self, before: Option<&Ruleset>, after: &Ruleset, local: &BTreeSet<IpAddr>) {
        let nothing = Serving::default();
        let old = before.and_then(|before| before.serving.as_ref()).unwrap_or(&nothing);
        let new = after.serving.as_ref().unwrap_or(&nothing);
        let differing: Vec<_> = FORGOTTEN.into_iter().filter(|(protocol, _)| new.differs(old, *protocol)).collect();
        if differing.is_empty() {
            return;
        }
        let families = [Some(Family::V4), after.ipv6.then_some(Family::V6)].into_iter().flatten();
        let mut kinds = families.flat_map(|family| differing.iter().map(move |kind| (family, *kind)));
        let done = kinds.try_for_each(|(family, kind)| forget_stale(family, kind, old, new, local));
        self.no_conntrack = done.err().map(|error| error.to_string());
    }
}

/// Connections over TCP tell their ends by themselves, once there are two: only those that nobody answers wait.
fn forget_stale(
    family: Family,
    (protocol, number): (Protocol, u8),
    old: &Serving,
    new: &Serving,
    local: &BTreeSet<IpAddr>,
) -> Result<()> {
    let mut conntrack = Conntrack::open()?;
    let stale = conntrack.find(family, number, |connection| {
        let flow = Flow { protocol, called: connection.called, answers: connection.answers };
        !(connection.answered && protocol == Protocol::Tcp) && new.is_stale(old, &flow, local)
    })?;
    log::debug!("{} connections over {} are stale", stale.len(), protocol.name());
    stale.iter().try_for_each(|connection| conntrack.forget(connection))
}

#[cfg(test)]
mod tests;
