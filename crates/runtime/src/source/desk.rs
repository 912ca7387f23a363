//! Where the threads of a source lay what they read, and the loop takes it from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use selvedge_model::NodeConfig;
use tokio::sync::Notify;

use super::{Loaded, Pem};
use crate::{Error, Result};

/// Shared by the loop and all threads of a source.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    papers: Mutex<Papers>,
    news: Notify,
}

/// What lies there.
#[derive(Default)]
struct Papers {
    config: Option<(String, &'static str)>,
    pem: Option<Pem>,
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

impl Desk {
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
        papers.health.reach = reach;
        if papers.health.errors.remove(what).is_some() {
            log::info!("{what}: read again");
            self.tell(papers);
        }
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

    /// Who is asked from now on.
    pub(crate) fn asks(&self, kind: &'static str, server: &str) {
        let mut papers = self.papers();
        papers.health.kind = kind;
        papers.health.server = server.to_owned();
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
        self.0.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, mut papers: MutexGuard<'_, Papers>) {
        papers.unread = true;
        drop(papers);
        self.0.news.notify_one();
    }
}
