//! Brings kernel, firewall and CNI folder to what the configuration and the facts of this node ask for.

use std::collections::BTreeMap;

use selvedge_linux::{file, sysctl};
#[cfg(feature = "services")]
use selvedge_model::ServiceMode;
use selvedge_model::{FirewallBackend, NodeConfig};
use selvedge_plan::firewall::Ruleset;
use selvedge_plan::{Datapath, Facts, Path, Plan, diff, probes};
use selvedge_tunnel::Tunnels;
use selvedge_tunnel::keeper::Mode;

use super::Node;
use crate::error::Context as _;
use crate::firewall::Firewall;
#[cfg(feature = "services")]
use crate::rules::Rules;
use crate::{Error, Result, kernel};

impl Node {
    pub(super) fn converge(&mut self, config: &NodeConfig, problems: &mut Vec<String>) {
        if let Err(error) = self.choose_firewall(config.firewall) {
            problems.push(error.to_string());
        }
        if let Err(error) = self.kernel.refresh() {
            problems.push(error.to_string());
            return;
        }
        #[cfg(feature = "gateway")]
        let changed = self.through_gateway(config);
        #[cfg(feature = "gateway")]
        let config = changed.as_ref().unwrap_or(config);
        #[cfg(feature = "services")]
        self.listen_to_reports(config);
        let mut plan = Plan::new(config, &self.facts(config));
        self.notes = std::mem::take(&mut plan.notes);
        #[cfg(feature = "services")]
        self.notes.extend(self.no_reports.iter().cloned());
        #[cfg(feature = "services")]
        if let Some((_, firewall)) = &self.firewall
            && config.services.mode == ServiceMode::Kernel
        {
            self.notes.extend(firewall.rival().map(str::to_owned));
        }
        #[cfg(not(feature = "gateway"))]
        if config.gateway.is_some() {
            self.notes.push("this build has no edge gateway: nothing listens for it on this node".to_owned());
        }
        match self.kernel.ensure_device(plan.device) {
            // A new device has addresses of its own.
            Ok(()) => problems.extend(self.kernel.refresh().err().map(|e| e.to_string())),
            Err(error) => problems.push(error.to_string()),
        }
        for setting in &plan.sysctls {
            if let Err(error) = sysctl::set(&setting.path, &setting.value.to_string()) {
                problems.push(error.to_string());
            }
        }
        match self.kernel.applied() {
            Err(error) => problems.push(error.to_string()),
            Ok(applied) => {
                for step in diff(&applied, &plan) {
                    log::debug!("{step:?}");
                    if let Err(error) = self.kernel.step(&step) {
                        problems.push(error.to_string());
                    }
                }
            }
        }
        self.write_rules(plan.ruleset, problems);
        #[cfg(feature = "dns")]
        {
            let known = self.knows_services(config);
            if let Err(error) = self.names.apply(config, &plan.dns, known, &self.options.state_dir) {
                problems.push(error.to_string());
            }
        }
        if let (Some(dir), Some(cni)) = (&self.options.cni_dir, &plan.cni) {
            let written = std::fs::create_dir_all(dir).context(|| format!("create {}", dir.display())).and_then(|()| {
                file::write(dir.join(&cni.name), cni.text.as_bytes(), 0o644).context(|| cni.name.clone())
            });
            match written {
                Ok(true) => log::info!("CNI network {} written", cni.name),
                Ok(false) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
    }

    #[cfg(feature = "services")]
    fn write_rules(&mut self, ruleset: Ruleset, problems: &mut Vec<String>) {
        let Some((_, firewall)) = &self.firewall else { return };
        let local = self.kernel.addresses().into_iter().map(|(_, net)| net.addr()).collect();
        match self.rules.bring(firewall, ruleset, &local) {
            Ok(changed) if changed => log::debug!("{} rules written", firewall.name()),
            Ok(_) => {}
            Err(error) => problems.push(error.to_string()),
        }
        self.notes.extend(self.rules.notes());
    }

    #[cfg(not(feature = "services"))]
    fn write_rules(&mut self, ruleset: Ruleset, problems: &mut Vec<String>) {
        let changed = self.written.as_ref() != Some(&ruleset);
        let Some((_, firewall)) = self.firewall.as_ref().filter(|_| changed) else { return };
        match firewall.apply(None, &ruleset) {
            Ok(changed) => {
                if changed {
                    log::debug!("{} rules written", firewall.name());
                }
                self.written = Some(ruleset);
            }
            Err(error) => problems.push(error.to_string()),
        }
    }

    /// The configuration with Services that go through the edge gateway. `None`: there are none.
    #[cfg(feature = "gateway")]
    fn through_gateway(&self, config: &NodeConfig) -> Option<NodeConfig> {
        if !self.gateway_serves(config) {
            return None;
        }
        let services = crate::gateway::services::through_gateway(&config.services, &config.node)?;
        Some(NodeConfig { services, ..config.clone() })
    }

    fn choose_firewall(&mut self, wanted: FirewallBackend) -> Result<()> {
        if self.firewall.as_ref().is_some_and(|(before, _)| *before == wanted) {
            return Ok(());
        }
        if let Some((_, why)) = self.no_firewall.as_ref().filter(|(before, _)| *before == wanted) {
            return Err(Error::new(why.clone()));
        }
        let chosen = Firewall::choose(wanted, &mut self.tools).context(|| "choose a firewall".to_owned());
        let chosen = chosen.inspect_err(|error| self.no_firewall = Some((wanted, error.to_string())))?;
        chosen.remove_others().context(|| "remove the rules of the other backend".to_owned())?;
        self.forward_drop = Firewall::forward_drop();
        self.firewall = Some((wanted, chosen));
        self.forget_rules();
        Ok(())
    }

    /// Once, as soon as Services are served.
    #[cfg(feature = "services")]
    fn listen_to_reports(&mut self, config: &NodeConfig) {
        if config.services.mode != ServiceMode::Kernel || self.watch.is_listening() || self.no_reports.is_some() {
            return;
        }
        let Some((_, firewall)) = &self.firewall else { return };
        let can = firewall.can_report().map_err(|why| why.to_string());
        let listening = can.and_then(|()| self.watch.listen().map_err(|error| error.to_string()));
        self.no_reports = listening
            .err()
            .map(|why| format!("endpoints that do not answer are found only where a Service asks for it: {why}"));
    }

    #[cfg(feature = "services")]
    fn forget_rules(&mut self) {
        self.rules = Rules::default();
    }

    #[cfg(not(feature = "services"))]
    fn forget_rules(&mut self) {
        self.written = None;
    }

    /// Others tell nobody what they do to the firewall.
    #[cfg(feature = "services")]
    pub(super) fn doubt_rules(&mut self) {
        if let Some((_, firewall)) = &self.firewall {
            self.rules.doubt(firewall);
        }
    }

    #[cfg(not(feature = "services"))]
    pub(super) fn doubt_rules(&mut self) {
        self.written = None;
    }

    fn facts(&mut self, config: &NodeConfig) -> Facts {
        let mut routes = BTreeMap::new();
        for address in probes(config) {
            if let Some(hop) = self.kernel.next_hop(address) {
                routes.insert(address, hop);
            }
        }
        let paths = self.tunnels.as_ref().map(Tunnels::paths).unwrap_or_default();
        Facts {
            datapath: match self.datapath {
                Some((Mode::Kernel, _)) => Datapath::Kernel,
                _ => Datapath::User,
            },
            firewall: self.firewall.as_ref().map(|(_, f)| f.backend()).unwrap_or_default(),
            local_addresses: self.kernel.addresses(),
            routes,
            paths: paths
                .into_iter()
                .map(|p| (p.peer, Path { reqid: p.reqid, local: p.local.ip(), remote: p.remote.ip() }))
                .collect(),
            accept_ra: self.kernel.accept_ra(),
            bridge_netfilter: bridge_netfilter(),
            forward_drop: self.forward_drop,
            ipv6_off: kernel::ipv6_off().is_some(),
            #[cfg(feature = "services")]
            out: self.watch.health().out().clone(),
            #[cfg(feature = "services")]
            reports: self.watch.is_listening(),
        }
    }
}

/// Whether packets between the ports of a bridge pass the firewall, or can be made to.
fn bridge_netfilter() -> bool {
    const KEY: &str = "net/bridge/bridge-nf-call-iptables";
    sysctl::get(KEY).is_ok_and(|value| value == "1") || sysctl::is_writable(KEY)
}
