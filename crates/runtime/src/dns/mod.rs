//! The node's DNS server: a thread of its own with the sockets, so that names are answered while rules are written, and
//! tunnels are keyed while names are asked. What is answered is decided in `selvedge_dns`.

mod ask;
mod exchange;
mod resolver;
mod secure;
mod serve;
mod stream;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use selvedge_dns::{Name, Server, Settings, View};
use selvedge_linux::{UdpPort, tcp};
use selvedge_model::{Dns, NameServer, NodeConfig};

use crate::error::Context as _;
use crate::status::{DnsStatus, UpstreamStatus};
use crate::{Error, Result};

use self::resolver::Resolver;
use self::secure::Trust;

pub(crate) use ask::ask;
pub(crate) use resolver::RESOLV_CONF;

/// Where DNS is asked.
const PORT: u16 = 53;

/// Connections that wait to be taken.
const BACKLOG: u16 = 64;

/// Deep enough for what a turn does.
const STACK: usize = 128 << 10;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// The socket by its number, and the other end.
    Udp(usize, SocketAddr),
    /// The connection by its number.
    Tcp(u32),
}

/// What the thread and the rest of the program share.
struct State {
    server: Server<Client>,
    resolver: Resolver,
    trust: Trust,
    /// Why servers are not asked over TLS.
    distrusted: BTreeMap<NameServer, String>,
}

/// The server as the node has it.
#[derive(Default)]
pub(crate) struct Names {
    running: Option<Running>,
    /// The Services in force are not those of the server.
    changed: bool,
}

struct Running {
    addresses: Vec<IpAddr>,
    state: Arc<Mutex<State>>,
    /// The thread ends when this does.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// The sockets of the server.
struct Sockets {
    udp: Vec<UdpPort>,
    tcp: Vec<TcpListener>,
}

impl Names {
    /// The Services of the configuration have changed.
    pub(crate) fn services_changed(&mut self) {
        self.changed = true;
    }

    /// Answers at `addresses` as the configuration has it, or not at all without any. `known`: its Services are those of
    /// the cluster, and not merely none yet.
    pub(crate) fn apply(
        &mut self,
        config: &NodeConfig,
        addresses: &[IpAddr],
        known: bool,
        state_dir: &Path,
    ) -> Result<()> {
        let Some(dns) = config.dns.as_ref().filter(|_| !addresses.is_empty()) else {
            self.running = None;
            return Ok(());
        };
        let settings = settings(config, dns)?;
        if self.running.as_ref().is_some_and(|running| running.addresses != addresses || running.has_ended()) {
            self.running = None;
        }
        let running = match self.running.take() {
            Some(running) => {
                let mut state = running.state();
                if !state.trust.is_by(&dns.authorities) {
                    state.trust = Trust::new(dns.authorities.clone(), state_dir);
                }
                state.set(settings, addresses);
                drop(state);
                running
            }
            None => {
                self.changed = true;
                let trust = Trust::new(dns.authorities.clone(), state_dir);
                Running::start(Sockets::open(addresses)?, settings, addresses, trust)?
            }
        };
        if self.changed && known {
            let view = View::new(&config.services.list);
            running.state().server.set_view(view);
            self.changed = false;
        }
        self.running = Some(running);
        Ok(())
    }

    /// What it does, if it runs.
    pub(crate) fn status(&self) -> Option<DnsStatus> {
        let running = self.running.as_ref()?;
        let state = running.state();
        let server = &state.server;
        let counters = server.counters();
        Some(DnsStatus {
            addresses: running.addresses.iter().map(IpAddr::to_string).collect(),
            zone: server.settings().zone.to_string(),
            services: server.services().map(|count| count as u64),
            upstreams: server.upstreams().iter().map(upstream_status).collect(),
            questions: counters.questions.into(),
            cluster: counters.cluster.into(),
            cached: counters.cached.into(),
            forwarded: counters.forwarded.into(),
            stale: counters.stale.into(),
            failed: counters.failed.into(),
            rebound: counters.rebound.into(),
            kept: server.cached() as u64,
            notes: state.notes(),
        })
    }
}

impl State {
    fn set(&mut self, settings: Settings, addresses: &[IpAddr]) {
        self.resolver.set(settings, addresses);
        self.resolver.look(&mut self.server);
        let known: Vec<&NameServer> = self.server.upstreams().iter().map(|upstream| &upstream.server).collect();
        self.distrusted.retain(|server, _| known.contains(&server));
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.resolver.notes(&self.server);
        notes.extend(self.distrusted.iter().map(|(server, why)| format!("{server}: {why}; it is not asked in clear")));
        notes
    }
}

impl Running {
    fn start(sockets: Sockets, settings: Settings, addresses: &[IpAddr], trust: Trust) -> Result<Running> {
        let what = || "start the DNS server".to_owned();
        let server = Server::new(Settings { upstreams: Vec::new(), ..settings.clone() });
        let mut state = State { server, resolver: Resolver::default(), trust, distrusted: BTreeMap::new() };
        state.set(settings, addresses);
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = UnixStream::pair().context(what)?;
        let serving = serve::Serving::new(Arc::clone(&state), sockets, stopped).context(what)?;
        let thread = thread::Builder::new().name("dns".to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || serving.run()).context(what)?;
        Ok(Running { addresses: addresses.to_vec(), state, stop: Some(stop), thread: Some(thread) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop = None;
        // Its sockets are closed before others are opened in their place.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Sockets {
    fn open(addresses: &[IpAddr]) -> Result<Sockets> {
        let at = |address: &IpAddr| SocketAddr::new(*address, PORT);
        let what = || format!("answer DNS on port {PORT}; `doctor`, run by root, says who does");
        Ok(Sockets {
            udp: addresses
                .iter()
                .map(|a| UdpPort::bind_to(at(a)))
                .collect::<selvedge_linux::Result<_>>()
                .context(what)?,
            tcp: addresses
                .iter()
                .map(|a| tcp::listen(at(a), BACKLOG))
                .collect::<selvedge_linux::Result<_>>()
                .context(what)?,
        })
    }
}

fn settings(config: &NodeConfig, dns: &Dns) -> Result<Settings> {
    let name = |text: &str| Name::parse(text).ok_or_else(|| Error::new(format!("\"{text}\" is no domain")));
    Ok(Settings {
        zone: name(&dns.zone)?.lower(),
        networks: [&config.services.cidrs[..], &config.pod_cidrs, &dns.networks].concat(),
        upstreams: dns.upstreams.clone(),
        stubs: dns.stubs.iter().map(|stub| Ok((name(&stub.zone)?, stub.upstreams.clone()))).collect::<Result<_>>()?,
    })
}

fn upstream_status(upstream: &selvedge_dns::Upstream) -> UpstreamStatus {
    use selvedge_dns::State;
    UpstreamStatus {
        address: upstream.server.to_string(),
        state: match upstream.state {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Down => "down",
            State::Loop => "loop",
        }
        .to_owned(),
        rtt_ms: upstream.rtt.map(|rtt| rtt.as_millis() as u64),
        asked: upstream.asked.into(),
        answered: upstream.answered.into(),
    }
}

/// Nobody leaves it half done: a turn that panics ends the program.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
