//! The node's state and what changes it; no waiting here.

mod converge;
#[cfg(feature = "api")]
mod services;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "services")]
use selvedge_health::{Answer, Probe};
use selvedge_linux::{Family, file};
use selvedge_model::{DatapathMode, FirewallBackend, NodeConfig, Peer, Role, Via};
#[cfg(not(feature = "services"))]
use selvedge_plan::firewall::Ruleset;
use selvedge_tunnel::keeper::{self, Mode};
use selvedge_tunnel::{Abilities, Credentials, Now, Tunnels};

use crate::clock::Calendar;
#[cfg(feature = "dns")]
use crate::dns::Names;
use crate::doctor;
use crate::error::Context as _;
use crate::firewall::{Firewall, Tools};
#[cfg(feature = "services")]
use crate::health::Watch;
use crate::kernel::Kernel;
#[cfg(feature = "services")]
use crate::rules::Rules;
use crate::source::{self, Loaded};
use crate::{Error, Options, Result};
#[cfg(feature = "api")]
use crate::{options::SourceKind, source::desk::Desk};
#[cfg(feature = "api")]
use services::Timing;

/// Pause after a step failed; it doubles up to the cap.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(30);

/// How often others' changes to the firewall are looked for; nobody tells of them.
const REASSERT: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) options: Options,
    #[cfg(feature = "api")]
    pub(crate) desk: Desk,
    #[cfg(feature = "gateway")]
    pub(crate) gateway: crate::gateway::Gateway,
    program: PathBuf,
    /// What this program may still do, in words.
    pub(crate) confinement: String,
    kernel: Kernel,
    #[cfg(feature = "dns")]
    pub(crate) names: Names,
    /// Found out when tunnels were started first, and again as long as they cannot be.
    abilities: Option<doctor::Kernel>,
    firewall: Option<(FirewallBackend, Firewall)>,
    tools: Tools,
    /// Why there is none; tried again when it is time to.
    no_firewall: Option<(FirewallBackend, String)>,
    forward_drop: bool,
    /// What the firewall was brought to last; looked at again only when it is time to.
    #[cfg(feature = "services")]
    pub(crate) rules: Rules,
    #[cfg(not(feature = "services"))]
    written: Option<Ruleset>,
    loaded: Option<Loaded>,
    /// When the certificate that was loaded last begins.
    issued: Option<u64>,
    calendar: Calendar,
    pub(crate) config_error: Option<String>,
    pub(crate) tunnels: Option<Tunnels>,
    /// Counts the `tunnels` there have been.
    pub(crate) epoch: u32,
    pub(crate) datapath: Option<(Mode, String)>,
    problems: Vec<String>,
    /// Why there are no tunnels.
    tunnel_problem: Option<String>,
    /// Ports that others have.
    port_notes: Vec<String>,
    /// When the tunnels were started last.
    started_at: Option<Duration>,
    notes: Vec<String>,
    /// Why a boot would not find this configuration.
    not_kept: Option<String>,
    /// Which endpoints answer.
    #[cfg(feature = "services")]
    pub(crate) watch: Watch,
    /// Why the firewall reports nothing.
    #[cfg(feature = "services")]
    no_reports: Option<String>,
    /// Why SOCKS5 is not served where it should be.
    #[cfg(feature = "socks")]
    pub(crate) no_socks: Option<String>,
    dirty: bool,
    retry: Duration,
    apply_at: Option<Duration>,
    #[cfg(feature = "api")]
    view: Timing,
}

impl Node {
    pub(crate) fn new(options: Options, program: PathBuf, confinement: String) -> Result<Self> {
        Ok(Node {
            #[cfg(feature = "api")]
            desk: source::start(&options)?,
            #[cfg(feature = "gateway")]
            gateway: crate::gateway::Gateway::default(),
            options,
            program,
            confinement,
            #[cfg(feature = "dns")]
            names: Names::default(),
            kernel: Kernel::open().context(|| "open the kernel's network configuration".to_owned())?,
            abilities: None,
            firewall: None,
            tools: Tools::default(),
            no_firewall: None,
            forward_drop: false,
            #[cfg(feature = "services")]
            rules: Rules::default(),
            #[cfg(not(feature = "services"))]
            written: None,
            loaded: None,
            issued: None,
            calendar: Calendar::default(),
            config_error: None,
            tunnels: None,
            epoch: 0,
            datapath: None,
            problems: Vec::new(),
            tunnel_problem: None,
            port_notes: Vec::new(),
            started_at: None,
            notes: Vec::new(),
            not_kept: None,
            #[cfg(feature = "services")]
            watch: Watch::new(seed()),
            #[cfg(feature = "services")]
            no_reports: None,
            #[cfg(feature = "socks")]
            no_socks: None,
            dirty: false,
            retry: RETRY_FIRST,
            apply_at: None,
            #[cfg(feature = "api")]
            view: Timing::default(),
        })
    }

    pub(crate) fn config(&self) -> Option<&NodeConfig> {
        self.loaded.as_ref().map(|l| &l.config)
    }

    pub(crate) fn certificate_not_after(&self) -> Option<u64> {
        self.loaded.as_ref()?.credentials.as_ref()?.not_after()
    }

    /// A time that has come, although the clock said less: a certificate was issued then.
    pub(crate) fn poll_later(&mut self) -> Option<u64> {
        let issued = self.issued.take();
        issued.or_else(|| self.tunnels.as_mut().and_then(Tunnels::poll_later))
    }

    pub(crate) fn config_source(&self) -> &'static str {
        self.loaded.as_ref().map_or("nowhere", |l| l.source)
    }

    pub(crate) fn firewall_name(&self) -> &'static str {
        self.firewall.as_ref().map_or("", |(_, f)| f.name())
    }

    /// What does not work.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &String> {
        let problems = self.tunnel_problem.iter().chain(&self.port_notes).chain(&self.problems).chain(&self.not_kept);
        #[cfg(feature = "socks")]
        let problems = problems.chain(&self.no_socks);
        problems
    }

    pub(crate) fn has_tunnel_problem(&self) -> bool {
        self.tunnel_problem.is_some()
    }

    /// Own addresses in own pod networks: what comes from there finds its way into the tunnels.
    #[cfg(feature = "socks")]
    pub(crate) fn pod_addresses(&self) -> Vec<IpAddr> {
        let Some(config) = self.config() else { return Vec::new() };
        let own = self.kernel.addresses().into_iter().map(|(_, net)| net.addr());
        own.filter(|address| config.pod_cidrs.iter().any(|net| net.contains(address))).collect()
    }

    /// What could be better.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the kernel lacks, a line each.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let wanted = self.config().map(|config| config.datapath).unwrap_or_default();
        doctor::lacks(self.abilities.as_ref(), wanted, &self.tools)
    }

    /// Reads configuration and credentials. What cannot be used is refused and changes nothing.
    pub(crate) fn load(&mut self, now: Now) {
        #[cfg(not(feature = "api"))]
        let delivered = source::delivered(&self.options);
        #[cfg(feature = "api")]
        let delivered = match self.options.source.kind {
            SourceKind::File => source::delivered(&self.options),
            _ => self.desk.delivered(),
        };
        match delivered {
            Ok(loaded) => self.take(now, loaded),
            Err(error) => {
                let text = error.to_string();
                #[cfg(feature = "api")]
                let awaited = self.desk.awaited().filter(|_| self.options.source.kind != SourceKind::File);
                #[cfg(not(feature = "api"))]
                let awaited: Option<String> = None;
                match awaited {
                    _ if self.config_error.as_ref() == Some(&text) => {}
                    Some(what) => log::info!("waiting for {what}"),
                    None => log::error!("configuration refused, the last good one stays in force: {text}"),
                }
                self.config_error = Some(text);
                if self.loaded.is_none() {
                    match source::last_good(&self.options) {
                        Ok(loaded) => self.put_in_force(now, loaded),
                        Err(error) => log::debug!("no last good configuration: {error}"),
                    }
                }
            }
        }
    }

    /// A message from the keeper. If it is gone, a new one is started.
    pub(crate) fn handle_keeper(&mut self, now: Now) {
        let Some(tunnels) = &mut self.tunnels else { return };
        if let Err(error) = tunnels.handle_keeper(now) {
            log::warn!("{error}; starting it again");
            self.tunnels = None;
            if self.started_at.is_some_and(|at| at + RETRY_CAP <= now.mono) {
                self.start_tunnels(now);
            } else {
                // One that ends again and again is not started without a pause.
                self.tunnel_problem = Some(error.to_string());
                self.dirty = true;
            }
        }
    }

    /// The kernel told about SAs.
    pub(crate) fn handle_kernel(&mut self, now: Now) {
        if let Some(Err(error)) = self.tunnels.as_mut().map(|t| t.handle_kernel(now)) {
            log::warn!("{error}");
        }
    }

    /// Links, addresses or routes changed.
    pub(crate) fn handle_network(&mut self, now: Now) {
        #[cfg(feature = "services")]
        if let Some(loaded) = &self.loaded {
            self.watch.handle_links(now.mono, &loaded.config);
        }
        if let Some(tunnels) = &mut self.tunnels {
            let kernel = &mut self.kernel;
            tunnels.handle_routes(now, &mut |to: IpAddr| kernel.source_for(to));
        }
        self.dirty = true;
    }

    /// The firewall reports endpoints that do not do their duty.
    #[cfg(feature = "services")]
    pub(crate) fn handle_reports(&mut self, now: Now) {
        if let Some(loaded) = &self.loaded {
            self.watch.handle_reports(now.mono, &loaded.config);
        }
    }

    /// An endpoint has answered, or not.
    #[cfg(feature = "services")]
    pub(crate) fn handle_answer(&mut self, now: Now, probe: &Probe, answer: Answer) {
        self.watch.handle_answer(now.mono, probe, answer, self.loaded.as_ref().map(|loaded| &loaded.config));
    }

    /// A question to ask an endpoint now.
    #[cfg(feature = "services")]
    pub(crate) fn poll_probe(&mut self, now: Now) -> Option<Probe> {
        self.watch.health().poll_probe(now.mono)
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        #[cfg(feature = "services")]
        self.watch.health().handle_timeout(now.mono);
        #[cfg(feature = "api")]
        self.handle_view_timeout(now);
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.handle_timeout(now);
        }
        if self.apply_at.is_some_and(|at| at <= now.mono) {
            self.apply_at = None;
            self.retry = (self.retry * 2).min(RETRY_CAP);
            if self.tunnels.is_none() {
                self.abilities = None;
                self.start_tunnels(now);
            }
            self.no_firewall = None;
            self.doubt_rules();
            self.dirty = true;
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let due = self.tunnels.as_ref().and_then(Tunnels::poll_timeout).into_iter().chain(self.apply_at);
        #[cfg(feature = "api")]
        let due = due.chain(self.view.poll_timeout());
        #[cfg(feature = "services")]
        let due = due.chain(self.watch.poll_timeout());
        due.min()
    }

    /// Looks whether certificates have ended.
    pub(crate) fn handle_clock(&mut self, now: Now) {
        if let Some(tunnels) = self.tunnels.as_mut().filter(|_| self.calendar.is_due(now)) {
            tunnels.handle_clock(now);
        }
    }

    /// Applies what changed since the last time.
    pub(crate) fn apply(&mut self, now: Now) {
        if self.tunnels.as_mut().is_some_and(Tunnels::poll_paths_changed) {
            self.dirty = true;
        }
        #[cfg(feature = "services")]
        {
            self.dirty |= self.watch.health().poll_changed();
        }
        if std::mem::take(&mut self.dirty) {
            self.apply_all(now);
        }
        #[cfg(feature = "api")]
        self.view_applied(now);
    }

    fn apply_all(&mut self, now: Now) {
        let Some(loaded) = self.loaded.take() else { return };
        let mut problems = Vec::new();
        self.converge(&loaded.config, &mut problems);
        #[cfg(feature = "gateway")]
        if let Err(error) = self.serve_gateway(&loaded) {
            problems.push(error.to_string());
        }
        self.loaded = Some(loaded);
        // Many steps fail for one reason.
        problems.dedup();
        for problem in problems.iter().filter(|p| !self.problems.contains(p)) {
            log::error!("{problem}");
        }
        let good = problems.is_empty() && self.tunnel_problem.is_none();
        if good {
            self.retry = RETRY_FIRST;
        }
        let pause = if good { REASSERT } else { self.retry };
        // What happens in between does not put off the next attempt.
        self.apply_at = Some(self.apply_at.unwrap_or(Duration::MAX).min(now.mono + pause));
        self.problems = problems;
    }

    /// Brings the edge gateway to the configuration. Who delivers no certificates leaves them to a file.
    #[cfg(feature = "gateway")]
    fn serve_gateway(&mut self, loaded: &Loaded) -> Result<()> {
        let local = match loaded.gateway.is_empty() && loaded.config.gateway.is_some() {
            true => source::read_gateway(&self.options.credentials)?,
            false => Default::default(),
        };
        let pem = if loaded.gateway.is_empty() { &local } else { &loaded.gateway };
        let serves = self.gateway_serves(&loaded.config);
        #[cfg(feature = "services")]
        let out = self.watch.health().out();
        #[cfg(not(feature = "services"))]
        let out = &Default::default();
        self.gateway.set(&loaded.config, out, pem, serves)
    }

    /// Whether Services can go through the edge gateway: this node has the address for it.
    #[cfg(feature = "gateway")]
    fn gateway_serves(&self, config: &NodeConfig) -> bool {
        let here = |(_, net): &(String, ipnet::IpNet)| net.addr() == crate::gateway::services::ADDRESS;
        config.services.mode != selvedge_model::ServiceMode::Off && self.kernel.addresses().iter().any(here)
    }

    /// Whether the Services of the configuration in force are those of the cluster.
    #[cfg(feature = "dns")]
    fn knows_services(&self, config: &NodeConfig) -> bool {
        #[cfg(feature = "api")]
        let known = !services::wants(config) || self.desk.view(|view| view.is_known());
        // Without an API they are in the configuration.
        #[cfg(not(feature = "api"))]
        let known = config.services.source == selvedge_model::ServiceSource::Config;
        known
    }

    /// Ends the tunnels in good order, so that the peers know.
    pub(crate) fn shutdown(&mut self, now: Now) {
        if let Some(tunnels) = self.tunnels.take() {
            tunnels.shutdown(now);
        }
    }

    fn take(&mut self, now: Now, loaded: Loaded) {
        if self.config_error.take().is_some() {
            log::info!("the configuration is good again");
        }
        #[cfg(feature = "api")]
        if let Some(old) = self.loaded.as_mut().filter(|old| old.same_as(&loaded)) {
            old.source = loaded.source;
        }
        if self.loaded.as_ref().is_some_and(|l| l.same_as(&loaded) && l.source == loaded.source) {
            return;
        }
        let not_kept =
            loaded.keep(&self.options).err().map(|e| format!("{e}; a boot without the cloud finds an older one"));
        if let Some(problem) = not_kept.as_ref().filter(|_| self.not_kept != not_kept) {
            log::warn!("{problem}");
        }
        self.not_kept = not_kept;
        self.put_in_force(now, loaded);
    }

    fn put_in_force(&mut self, now: Now, mut loaded: Loaded) {
        loaded.config.metered |= self.options.metered;
        #[cfg(feature = "api")]
        {
            let wanted = services::wants(&loaded.config);
            let services = &mut loaded.config.services;
            self.desk.set_metered(loaded.config.metered);
            if let Err(error) = self.desk.want_services(wanted, &self.options) {
                log::error!("Services are not read: {error}");
            }
            if wanted {
                services.list = self.desk.services(&services.cidrs).unwrap_or_default();
            }
        }
        let config = &loaded.config;
        log::info!(
            "configuration generation {} in force: {} with {} peers",
            config.generation,
            config.name,
            config.peers.len()
        );
        let network = |config: &NodeConfig| config.cni.as_ref().map(|cni| cni.network.clone());
        let before = self.config().and_then(network);
        if before != network(config) {
            self.remove_cni(before);
        }
        self.issued = loaded.credentials.as_ref().and_then(Credentials::not_before);
        #[cfg(feature = "services")]
        self.watch.handle_services(now.mono, &loaded.config);
        self.loaded = Some(loaded);
        #[cfg(feature = "dns")]
        self.names.services_changed();
        self.start_tunnels(now);
        self.dirty = true;
    }

    fn remove_cni(&self, network: Option<String>) {
        if let (Some(dir), Some(network)) = (&self.options.cni_dir, network) {
            if let Err(error) = file::remove(dir.join(format!("{network}.conflist"))) {
                log::warn!("{error}");
            }
        }
    }

    /// Starts the tunnels of the configuration in force, or tells those that run about it.
    fn start_tunnels(&mut self, now: Now) {
        let Some(loaded) = &self.loaded else { return };
        let config = loaded.config.clone();
        let Some(credentials) = loaded.credentials.clone().filter(|_| config.role != Role::Cloud) else {
            self.shutdown(now);
            self.datapath = None;
            self.tunnel_problem = None;
            return;
        };
        let done = self.choose_datapath(&config).and_then(|mode| match &mut self.tunnels {
            Some(tunnels) if tunnels.mode() == mode => {
                tunnels.set_config(now, &config, credentials).context(|| "change the tunnels".to_owned())
            }
            _ => {
                self.shutdown(now);
                let options = keeper::Options::new(&self.options.run_dir, mode);
                if mode == Mode::User {
                    self.kernel.remove_dummy().context(|| "make room for the TUN device".to_owned())?;
                }
                let client = keeper::Client::spawn(&self.program, "keeper", &options)
                    .context(|| "start the keeper".to_owned())?;
                if let Some(problem) = &client.welcome().tun_problem {
                    let problem = Error::new(format!("make the TUN device: {problem}"));
                    drop(client);
                    keeper::stop(&self.options.run_dir).context(|| "stop the keeper".to_owned())?;
                    return Err(problem);
                }
                let closed = client.welcome().ports.iter().filter(|p| !p.bound);
                if let Some(port) = closed.clone().find(|p| p.port == options.encap_port && !p.v6) {
                    // Nothing works without it; this keeper would not ask for it again.
                    let problem = Error::new(taken(port));
                    drop(client);
                    keeper::stop(&self.options.run_dir).context(|| "stop the keeper".to_owned())?;
                    self.port_notes.clear();
                    return Err(problem);
                }
                let notes: Vec<String> = closed.map(taken).collect();
                for note in notes.iter().filter(|note| !self.port_notes.contains(note)) {
                    log::warn!("{note}");
                }
                self.port_notes = notes;
                let abilities = match (mode, &self.abilities) {
                    (Mode::Kernel, Some(kernel)) => Abilities::kernel(&kernel.ipsec),
                    _ => Abilities::user(),
                };
                let tunnels = Tunnels::open(now, &config, credentials, client, abilities)
                    .context(|| "start the tunnels".to_owned())?;
                self.tunnels = Some(tunnels);
                self.epoch += 1;
                self.started_at = Some(now.mono);
                Ok(())
            }
        });
        match done {
            Ok(()) => {
                self.tunnel_problem = None;
                self.handle_network(now);
            }
            Err(error) => {
                let text = error.to_string();
                if self.tunnel_problem.as_ref() != Some(&text) {
                    log::error!("{text}");
                }
                self.tunnel_problem = Some(text);
                self.dirty = true;
            }
        }
    }

    fn choose_datapath(&mut self, config: &NodeConfig) -> Result<Mode> {
        let kernel = self.abilities.get_or_insert_with(doctor::Kernel::probe);
        let only_ipv6 = |p: &Peer| !p.addresses.is_empty() && p.addresses.iter().all(IpAddr::is_ipv6);
        let outer_ipv6 = config.peers.iter().any(|p| p.via == Via::Tunnel && only_ipv6(p));
        let (mode, why) = match config.datapath {
            DatapathMode::User => (Mode::User, "as configured".to_owned()),
            DatapathMode::Kernel => {
                kernel.possible().map_err(|why| Error::new(format!("datapath \"kernel\" cannot be used: {why}")))?;
                (Mode::Kernel, "as configured".to_owned())
            }
            DatapathMode::Auto => match kernel.suitable(outer_ipv6) {
                Ok(()) => (Mode::Kernel, "this kernel has ESP".to_owned()),
                Err(why) if kernel.tun.is_err() && kernel.possible().is_ok() => {
                    (Mode::Kernel, format!("there are no TUN devices, though {why}"))
                }
                Err(why) => (Mode::User, why),
            },
        };
        self.datapath = Some((mode, why));
        Ok(mode)
    }
}

/// A number that no other node has.
#[cfg(feature = "services")]
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A port that is not ours, in words.
fn taken(port: &keeper::message::PortState) -> String {
    let family = if port.v6 { Family::V6 } else { Family::V4 };
    let why = port.problem.as_deref().unwrap_or("unknown");
    // Seeing into other processes is more than this program keeps the right to.
    format!("UDP port {} ({family}) is not ours: {why}; `doctor`, run by root, says whose it is", port.port)
}
