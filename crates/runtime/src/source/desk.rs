//! Where the threads of a source lay what they read, and the loop takes it from.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use selvedge_edgeapi::View;
use selvedge_model::{IpNet, NodeConfig, Service};
use tokio::sync::Notify;

use super::target::{self, Target};
use super::{Loaded, Pem};
use crate::options::Source;
use crate::{Error, Options, Result};

/// Shared by the loop and all threads of a source.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    papers: Mutex<Papers>,
    news: Notify,
    view: Mutex<View>,
    view_changed: AtomicBool,
    /// Whom to ask; nobody before the first question.
    target: Mutex<Option<Target>>,
    /// It did not answer.
    suspect: AtomicBool,
    /// Whether Services are read here.
    wanted: Mutex<bool>,
    wanting: Condvar,
    /// They were wanted once.
    reading: AtomicBool,
    metered: AtomicBool,
}

/// What lies there.
#[derive(Default)]
struct Papers {
    config: Option<(String, &'static str)>,
    pem: Option<Pem>,
    awaited: String,
    health: Health,
    unread: bool,
}

/// How the source is.
#[derive(Clone, Default)]
pub(crate) struct Health {
    /// `kubeedge`, …
    pub(crate) kind: &'static str,
    /// Its URL.
    pub(crate) server: String,
    pub(crate) reach: Reach,
    /// When it answered last.
    pub(crate) read: Option<Instant>,
    /// What is wrong with what it delivers (`ConfigMap`, `Secret`, …).
    pub(crate) errors: BTreeMap<&'static str, String>,
}

/// Whether what is read comes from the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nobody can tell.
    #[default]
    Unknown,
    /// It does.
    Online,
    /// It is what was stored here before.
    Offline,
}

impl From<Option<bool>> for Reach {
    fn from(online: Option<bool>) -> Self {
        match online {
            None => Reach::Unknown,
            Some(true) => Reach::Online,
            Some(false) => Reach::Offline,
        }
    }
}

impl Desk {
    /// With Services as an earlier run kept them.
    pub(super) fn new(view: View) -> Desk {
        Desk(Arc::new(Shared { view: Mutex::new(view), ..Shared::default() }))
    }

    /// Waits until something new lies here.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Whether there is something that was not taken yet.
    pub(crate) fn take_news(&self) -> bool {
        std::mem::take(&mut self.papers().unread)
    }

    /// A configuration as it was delivered; it is judged by whoever takes it.
    pub(crate) fn put_config(&self, text: String, source: &'static str) {
        let mut papers = self.papers();
        if papers.config.as_ref().is_none_or(|(old, from)| *old != text || *from != source) {
            papers.config = Some((text, source));
            self.tell(papers);
        }
    }

    /// Certificate, key and authorities.
    pub(crate) fn put_credentials(&self, pem: Pem) {
        let mut papers = self.papers();
        if papers.pem.as_ref() != Some(&pem) {
            papers.pem = Some(pem);
            self.tell(papers);
        }
    }

    /// `what` was read, or whatever there was to say about it was heard.
    pub(crate) fn well(&self, what: &'static str, reach: Reach) {
        let mut papers = self.papers();
        papers.health.read = Some(Instant::now());
        if std::mem::replace(&mut papers.health.reach, reach) != reach {
            self.0.news.notify_one();
        }
        if papers.health.errors.remove(what).is_some() {
            log::info!("{what}: read again");
            self.tell(papers);
        }
    }

    /// It said something, if only that nothing changed.
    pub(super) fn heard(&self) {
        self.papers().health.read = Some(Instant::now());
    }

    /// `what` cannot be read; what was read before stays.
    pub(crate) fn failed(&self, what: &'static str, error: String) {
        let mut papers = self.papers();
        if papers.health.errors.get(what) != Some(&error) {
            log::warn!("{what}: {error}");
            papers.health.errors.insert(what, error);
            self.tell(papers);
        }
    }

    /// Which ConfigMap and Secret, or what else, is to be delivered.
    pub(super) fn awaits(&self, what: String) {
        self.papers().awaited = what;
    }

    /// What has not been delivered yet; until then there is nothing to be refused.
    pub(crate) fn awaited(&self) -> Option<String> {
        let papers = self.papers();
        papers.config.is_none().then(|| papers.awaited.clone())
    }

    /// Who is asked from now on.
    pub(crate) fn asks(&self, kind: &'static str, server: &str) {
        let mut papers = self.papers();
        papers.health.kind = kind;
        papers.health.server = server.to_owned();
    }

    /// Whom to ask; looked for if nobody is known, or if who is does not answer.
    pub(super) fn target(&self, source: &Source) -> Result<Target> {
        let mut known = lock(&self.0.target);
        let suspect = self.0.suspect.swap(false, Ordering::Relaxed);
        let target = match (&*known, suspect) {
            (Some(target), false) => return Ok(target.clone()),
            (Some(target), true) => target::choose(source, &target::Here).unwrap_or_else(|_| target.clone()),
            (None, _) => target::choose(source, &target::Here)?,
        };
        if known.as_ref() != Some(&target) {
            log::info!("asking {} at {}", target.flavour.name(), target.server.url);
            self.asks(target.flavour.name(), &target.server.url);
            *known = Some(target.clone());
        }
        Ok(target)
    }

    /// It does not answer: perhaps another one is there by now.
    pub(super) fn mistrust(&self, target: &Target) {
        let suspect = lock(&self.0.target).as_ref() == Some(target);
        self.0.suspect.fetch_or(suspect, Ordering::Relaxed);
    }

    /// Whether Services are to be read; those who do are started when they are wanted first.
    pub(crate) fn want_services(&self, wanted: bool, options: &Options) -> Result<()> {
        *lock(&self.0.wanted) = wanted;
        self.0.wanting.notify_all();
        if wanted && !self.0.reading.swap(true, Ordering::Relaxed) {
            super::services::start(self, &Arc::new(options.clone()))?;
        }
        Ok(())
    }

    pub(super) fn is_wanted(&self) -> bool {
        *lock(&self.0.wanted)
    }

    pub(super) fn wait_until_wanted(&self) {
        let wanted = lock(&self.0.wanted);
        drop(self.0.wanting.wait_while(wanted, |wanted| !*wanted));
    }

    /// Whether every byte costs money.
    pub(crate) fn set_metered(&self, metered: bool) {
        self.0.metered.store(metered, Ordering::Relaxed);
    }

    pub(super) fn is_metered(&self) -> bool {
        self.0.metered.load(Ordering::Relaxed)
    }

    /// Looks at Services and EndpointSlices, or changes them.
    pub(crate) fn view<R>(&self, look: impl FnOnce(&mut View) -> R) -> R {
        look(&mut lock(&self.0.view))
    }

    /// Wakes the loop if they changed.
    pub(super) fn tell_of_view(&self) {
        if self.view(|view| view.is_known() && view.take_changed()) {
            self.0.view_changed.store(true, Ordering::Relaxed);
            self.0.news.notify_one();
        }
    }

    /// Whether they changed since the last time.
    pub(crate) fn take_view_news(&self) -> bool {
        self.0.view_changed.swap(false, Ordering::Relaxed)
    }

    /// The Services with addresses in `networks`; `None` before they are known.
    pub(crate) fn services(&self, networks: &[IpNet]) -> Option<Vec<Service>> {
        self.view(|view| view.is_known().then(|| view.list(networks)))
    }

    pub(crate) fn health(&self) -> Health {
        self.papers().health.clone()
    }

    /// What was delivered last, put together.
    pub(crate) fn delivered(&self) -> Result<Loaded> {
        let (config, pem) = {
            let papers = self.papers();
            (papers.config.clone(), papers.pem.clone())
        };
        let Some((text, source)) = config else {
            return Err(Error::new(format!("no configuration was delivered yet{}", self.excuse("ConfigMap"))));
        };
        let config = NodeConfig::parse(&text).map_err(|error| Error::new(format!("{source}: {error}")))?;
        if super::needs_credentials(&config) && pem.is_none() {
            return Err(Error::new(format!("no certificate was delivered yet{}", self.excuse("Secret"))));
        }
        Loaded::new(config, text, pem, source)
    }

    fn excuse(&self, what: &str) -> String {
        let papers = self.papers();
        let errors = &papers.health.errors;
        errors.get(what).or_else(|| errors.values().next()).map(|error| format!(": {error}")).unwrap_or_default()
    }

    fn papers(&self) -> MutexGuard<'_, Papers> {
        lock(&self.0.papers)
    }

    fn tell(&self, mut papers: MutexGuard<'_, Papers>) {
        papers.unread = true;
        drop(papers);
        self.0.news.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
