//! Whom to ask for other names: the servers of the configuration, or those of this host as they change.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use selvedge_dns::{Server, Settings, State, nameservers};
use selvedge_model::NameServer;

/// Whom this host asks.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How often it is looked at, as long as somebody asks.
const PAUSE: Duration = Duration::from_secs(5);

/// Nobody needs more of it.
const MAX_OCTETS: u64 = 64 << 10;

#[derive(Default)]
pub(super) struct Resolver {
    settings: Option<Settings>,
    own: Vec<IpAddr>,
    /// What the file was like when it was read.
    seen: Option<(SystemTime, u64)>,
    looked: Option<Instant>,
    /// Servers that are this one.
    itself: Vec<NameServer>,
    error: Option<String>,
}

impl Resolver {
    /// What the configuration says, and where this server answers.
    pub(super) fn set(&mut self, settings: Settings, own: &[IpAddr]) {
        *self = Resolver { settings: Some(settings), own: own.to_vec(), ..Resolver::default() };
    }

    /// Gives the server its settings if they are others now.
    pub(super) fn look<C: Clone>(&mut self, server: &mut Server<C>) {
        let Some(settings) = &self.settings else { return };
        if self.looked.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        let upstreams = if settings.upstreams.is_empty() {
            let first = self.looked.replace(Instant::now()).is_none();
            match self.read() {
                Some(upstreams) => upstreams,
                // Who was known stays, whatever else is new.
                None if first => server.settings().upstreams.clone(),
                None => return,
            }
        } else if self.looked.is_none() {
            self.looked = Some(Instant::now());
            settings.upstreams.clone()
        } else {
            return;
        };
        let own = |server: &NameServer| server.address.port() == super::PORT && self.own.contains(&server.address.ip());
        let (itself, upstreams) = upstreams.into_iter().partition(own);
        self.itself = itself;
        let Some(settings) = &self.settings else { return };
        server.set(Settings { upstreams, ..settings.clone() });
    }

    /// What does not work, in words.
    pub(super) fn notes<C: Clone>(&self, server: &Server<C>) -> Vec<String> {
        let mut notes: Vec<String> = self.error.iter().cloned().collect();
        notes.extend(
            self.itself.iter().map(|server| format!("{} is this server itself: it is not asked", server.address.ip())),
        );
        let loops = server.upstreams().iter().filter(|upstream| upstream.state == State::Loop);
        notes.extend(loops.map(|u| format!("loop: {} asks this server what it is asked; it is left out", u.server)));
        if server.settings().upstreams.is_empty() {
            notes.push("nobody is there to ask for names outside the cluster".to_owned());
        }
        notes
    }

    /// The servers of the file; `None` if it is as it was.
    fn read(&mut self) -> Option<Vec<NameServer>> {
        let look = || -> std::io::Result<_> {
            let about = fs::metadata(RESOLV_CONF)?;
            Ok((about.modified()?, about.len()))
        };
        let there = look();
        if there.as_ref().is_ok_and(|there| self.seen == Some(*there)) {
            return None;
        }
        let text = there.and_then(|there| {
            self.seen = Some(there);
            if there.1 > MAX_OCTETS {
                Err(std::io::ErrorKind::FileTooLarge.into())
            } else {
                fs::read_to_string(RESOLV_CONF)
            }
        });
        match text {
            Ok(text) => {
                self.error = None;
                let at = |address| NameServer::from(SocketAddr::new(address, super::PORT));
                Some(nameservers(&text).into_iter().map(at).collect())
            }
            Err(error) => {
                self.error = Some(format!("{RESOLV_CONF}: {error}"));
                None
            }
        }
    }
}
