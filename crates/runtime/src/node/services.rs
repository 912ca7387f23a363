//! Services as the API at hand tells of them: when they are applied, and when they are kept.

use std::path::Path;
use std::time::{Duration, Instant};

use selvedge_linux::{file, process};
use selvedge_model::{NodeConfig, ServiceMode, ServiceSource};
use selvedge_tunnel::Now;

use super::Node;
use crate::source;

/// Changes of Services come together: those of one kind after those of the other.
const SETTLE: Duration = Duration::from_millis(10);

/// Applying takes no more than a tenth of the time; a half, where even that would be a long wait.
const PAUSE: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_millis(500);
const SHARE: u32 = 9;

/// How often they are kept where a boot finds them.
const KEEP_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What is due.
#[derive(Default)]
pub(super) struct Timing {
    /// When to look at Services again, and not before which time.
    view_at: Option<Duration>,
    not_before: Duration,
    /// Since when what was looked at is being applied.
    applying: Option<Instant>,
    /// When to keep them, and when they were kept last.
    keep_at: Option<Duration>,
    kept_at: Option<Duration>,
}

impl Timing {
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.view_at.into_iter().chain(self.keep_at).min()
    }
}

/// Whether the configuration leaves it to this node to read Services.
pub(super) fn wants(config: &NodeConfig) -> bool {
    #[cfg(feature = "dns")]
    let names = config.dns.is_some();
    #[cfg(not(feature = "dns"))]
    let names = false;
    #[cfg(feature = "gateway")]
    let gateway = config.gateway.is_some();
    #[cfg(not(feature = "gateway"))]
    let gateway = false;
    config.services.source == ServiceSource::Api && (config.services.mode != ServiceMode::Off || names || gateway)
}

impl Node {
    /// Something lies on the desk. However much changes, other work goes on.
    pub(crate) fn handle_desk(&mut self, now: Now) {
        if self.desk.take_view_news() && self.view.view_at.is_none() {
            self.view.view_at = Some((now.mono + SETTLE).max(self.view.not_before));
        }
    }

    pub(super) fn handle_view_timeout(&mut self, now: Now) {
        if self.view.view_at.take_if(|at| *at <= now.mono).is_some() {
            self.view.applying = Some(Instant::now());
            self.take_services(now);
        }
        if self.view.keep_at.is_some_and(|at| at <= now.mono) {
            self.keep_services(now);
        }
    }

    /// What was looked at is applied: the kernel comes first.
    pub(super) fn view_applied(&mut self, now: Now) {
        let Some(since) = self.view.applying.take() else { return };
        let took = since.elapsed();
        log::debug!("Services applied in {} ms", took.as_millis());
        self.view.not_before = now.mono + took + (took * SHARE).clamp(PAUSE, LONG.max(took));
        if self.reads_services() && self.keep_services_in(&self.options.run_dir) {
            let next = self.view.kept_at.map_or(now.mono, |at| at + KEEP_PAUSE).max(now.mono);
            self.view.keep_at = self.view.keep_at.or(Some(next));
        }
        process::give_memory_back();
    }

    pub(crate) fn reads_services(&self) -> bool {
        self.config().is_some_and(wants)
    }

    /// What is to be written before the program ends.
    pub(crate) fn put_away(&mut self, now: Now) {
        if self.view.keep_at.is_some() {
            self.keep_services(now);
        }
    }

    /// Brings the Services of the configuration in force to what the API says.
    fn take_services(&mut self, now: Now) {
        let Some(loaded) = self.loaded.as_mut().filter(|loaded| wants(&loaded.config)) else { return };
        let services = &mut loaded.config.services;
        let Some(list) = self.desk.services(&services.cidrs) else { return };
        if services.list != list {
            log::debug!("{} Services", list.len());
            services.list = list;
            #[cfg(feature = "services")]
            self.watch.handle_services(now.mono, &loaded.config);
            #[cfg(not(feature = "services"))]
            let _ = now;
            self.dirty = true;
            #[cfg(feature = "dns")]
            self.names.services_changed();
        }
    }

    /// Keeps the Services for a boot without the cloud. They change more often than flash should be written.
    fn keep_services(&mut self, now: Now) {
        self.view.keep_at = None;
        self.view.kept_at = Some(now.mono);
        self.keep_services_in(&self.options.state_dir);
    }

    /// False if they are there as they are. The folder that is lost at boot has them at once: whoever is killed must not
    /// come back with older ones than the kernel has.
    fn keep_services_in(&self, folder: &Path) -> bool {
        let (path, text) = (folder.join(source::SERVICES), self.desk.view(|view| view.keep()));
        if std::fs::read(&path).is_ok_and(|there| there == text) {
            return false;
        }
        if let Err(error) = file::write(path, &text, 0o600) {
            log::warn!("keep the Services: {error}");
        }
        true
    }
}
