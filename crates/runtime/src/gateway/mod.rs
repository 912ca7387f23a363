//! The edge gateway: a thread of its own, which the node's loop never waits for. It is started by the first configuration
//! that has one.

mod door;
mod engine;
mod forward;
mod http1;
mod http2;
mod pipe;
mod pool;
pub(crate) mod report;
pub(crate) mod services;
mod shared;
mod tls;
pub(crate) mod told;
mod udp;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use selvedge_gateway::Endpoints;
use selvedge_model::gateway::{Backend, Gateway as Section, ListenerProtocol};
use selvedge_model::{NodeConfig, Protocol};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::Result;
use crate::error::Context as _;
use engine::Inbox;
use report::Report;

/// What the thread is to do.
struct Wanted {
    /// Section and `gateway.pem`, if they changed.
    gateway: Option<(Section, Zeroizing<Vec<u8>>)>,
    endpoints: Arc<Endpoints>,
}

/// The thread as the node's loop sees it.
#[derive(Default)]
pub(crate) struct Gateway {
    inbox: Option<Arc<Inbox>>,
    section: Section,
    pem: Zeroizing<Vec<u8>>,
    endpoints: Arc<Endpoints>,
}

impl Gateway {
    /// Brings the gateway to a configuration and to the endpoints that are `out`; `serves`: Services go through it, too.
    /// Does nothing where nothing changed.
    pub(crate) fn set(
        &mut self,
        config: &NodeConfig,
        out: &BTreeSet<(IpAddr, Protocol, u16)>,
        pem: &[u8],
        serves: bool,
    ) -> Result<()> {
        let mut section = config.gateway.clone().unwrap_or_default();
        if serves {
            section.listeners.extend(services::listeners(&config.services));
        }
        let section = &section;
        if self.inbox.is_none() && section.listeners.is_empty() {
            return Ok(());
        }
        let changed = self.inbox.is_none() || self.section != *section || *self.pem != pem;
        let endpoints = Endpoints::new(&config.services, &config.node, out, backends(section));
        if !changed && *self.endpoints == endpoints {
            return Ok(());
        }
        self.endpoints = Arc::new(endpoints);
        let inbox = match &self.inbox {
            Some(inbox) => inbox.clone(),
            None => start()?,
        };
        let mut wanted = inbox.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let gateway = changed.then(|| (section.clone(), Zeroizing::new(pem.to_vec())));
        // What was not looked at yet is still to be done.
        let gateway = gateway.or_else(|| wanted.take().and_then(|before| before.gateway));
        *wanted = Some(Wanted { gateway, endpoints: self.endpoints.clone() });
        drop(wanted);
        inbox.notify.notify_one();
        self.inbox = Some(inbox);
        if changed {
            self.section = section.clone();
            self.pem = Zeroizing::new(pem.to_vec());
        }
        Ok(())
    }

    /// The listeners of the configuration in force.
    pub(crate) fn section(&self) -> &Section {
        &self.section
    }

    /// What the thread tells. `None`: it was never needed.
    pub(crate) fn report(&self) -> Option<MutexGuard<'_, Report>> {
        Some(self.inbox.as_ref()?.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn start() -> Result<Arc<Inbox>> {
    let inbox = Arc::new(Inbox { wanted: Mutex::default(), notify: Notify::new(), report: Arc::default() });
    let theirs = inbox.clone();
    let run = move || {
        if let Err(error) = engine::run(&theirs) {
            log::error!("gateway: {error}");
            theirs.report.lock().unwrap_or_else(PoisonError::into_inner).problems = vec![error.to_string()];
        }
    };
    std::thread::Builder::new()
        .name("gateway".to_owned())
        .spawn(run)
        .map(|_| inbox)
        .context(|| "start the gateway's thread".to_owned())
}

/// Every port of a Service that anything is sent to.
fn backends(section: &Section) -> impl Iterator<Item = (&Backend, Protocol)> {
    section.listeners.iter().flat_map(|listener| {
        let protocol = if listener.protocol == ListenerProtocol::Udp { Protocol::Udp } else { Protocol::Tcp };
        let rules = listener.sites.iter().flat_map(|site| &site.rules);
        let all = rules.flat_map(|rule| rule.backends.iter().chain(rule.mirrors.iter().map(|mirror| &mirror.backend)));
        all.map(move |backend| (backend, protocol))
    })
}
