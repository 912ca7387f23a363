//! SOCKS5 (RFC 1928), CONNECT only: a way into the fabric for programs on this node that would not find it by routes, as
//! `ssh` to the address of another node.
//!
//! Its own socket in the run directory asks nobody for a name: who may open that may do anything here. On a network
//! address it serves only users of a file (RFC 1929), and nowhere does it lead out of the fabric.

mod client;
mod destination;
mod ssh;
mod talk;
mod users;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use selvedge_model::NodeConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::{Options, Result};

pub(crate) use client::connect;
pub(crate) use ssh::config as ssh_config;
pub(crate) use talk::Call;
use talk::{Code, Stream};
pub(crate) use users::Users;

/// Connections at once.
const MAX_CLIENTS: usize = 64;

/// Of these, the last ones are for who comes by the socket in the run directory.
const MAX_STRANGERS: usize = 48;

/// Who wants something says so within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// For each address of a name.
const DIAL: Duration = Duration::from_secs(5);

/// Silence before a client is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How often an address that is not there yet is tried.
const RETRY: Duration = Duration::from_secs(5);

/// What waits for clients, and all that goes on with them.
pub(crate) struct Socks {
    local: UnixListener,
    /// On the network: where, and who may.
    door: Option<(SocketAddr, Arc<Users>)>,
    listener: Option<TcpListener>,
    open_at: Duration,
    problem: Option<String>,
    work: JoinSet<Option<Call>>,
}

impl Socks {
    /// Listens in the run directory. `users` are those of the options, read before this program gave up its rights.
    pub(crate) fn new(options: &Options, users: Option<Users>) -> Result<Self> {
        Ok(Socks {
            local: crate::run::listen(&options.socks_socket())?,
            door: options.socks.zip(users.map(Arc::new)),
            listener: None,
            open_at: Duration::ZERO,
            problem: None,
            work: JoinSet::new(),
        })
    }

    /// Reads the file of users, if the options name one.
    pub(crate) fn users(options: &Options) -> Result<Option<Users>> {
        options.socks_users.as_deref().map(Users::read).transpose()
    }

    /// Opens the network address, if it is time to try. Returns why it is not served there.
    pub(crate) fn handle_timeout(&mut self, now: Duration) -> Option<String> {
        let Some((address, _)) = self.door.as_ref().filter(|_| self.listener.is_none() && self.open_at <= now) else {
            return self.problem.clone();
        };
        self.problem = match listen(*address) {
            Ok(listener) => {
                log::info!("SOCKS5 is served at {address}");
                self.listener = Some(listener);
                None
            }
            Err(error) => {
                self.open_at = now + RETRY;
                let text = format!("SOCKS5 cannot be served at {address}: {error}");
                if self.problem.as_ref() != Some(&text) {
                    log::warn!("{text}");
                }
                Some(text)
            }
        };
        self.problem.clone()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        (self.door.is_some() && self.listener.is_none()).then_some(self.open_at)
    }

    /// Waits until a client says where it wants to go. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Call {
        loop {
            let (listener, clients) = (self.listener.as_ref(), self.work.len());
            let arriving = async {
                match listener.filter(|_| clients < MAX_STRANGERS) {
                    Some(listener) => listener.accept().await.map(|(stream, _)| stream),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.work.join_next() => {
                    if let Ok(Some(call)) = done {
                        return call;
                    }
                }
                accepted = self.local.accept(), if clients < MAX_CLIENTS => {
                    if let Ok((stream, _)) = accepted {
                        self.greet(Box::new(stream), None);
                    }
                }
                accepted = arriving => {
                    let users = self.door.as_ref().map(|(_, users)| users.clone());
                    if let (Ok(stream), Some(users)) = (accepted, users) {
                        let _ = stream.set_nodelay(true);
                        // Whoever is gone must not keep its place.
                        let _ = selvedge_linux::tcp::keep_alive(&stream, KEEPALIVE, KEEPALIVE / 4, 4);
                        self.greet(Box::new(stream), Some(users));
                    }
                }
            }
        }
    }

    /// Brings a client to where it wants to go, if that is in the fabric; `sources` are own addresses in pod networks.
    pub(crate) fn serve(&mut self, call: Call, config: Option<&NodeConfig>, sources: Vec<IpAddr>) {
        let found = config.ok_or(Code::Failure).and_then(|config| destination::find(config, &call.host));
        self.work.spawn(async move {
            let dialled = match found {
                Ok(addresses) => dial(&addresses, call.port, &sources).await,
                Err(code) => Err(code),
            };
            let mut stream = call.stream;
            if talk::reply(&mut stream, dialled.as_ref().err().copied().unwrap_or(Code::Good)).await.is_ok() {
                if let Ok(mut other) = dialled {
                    // Whoever ends it has a reason of its own.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
                }
            }
            None
        });
    }

    fn greet(&mut self, mut stream: Box<dyn Stream>, users: Option<Arc<Users>>) {
        self.work.spawn(async move {
            let asked = tokio::time::timeout(PATIENCE, talk::hear(&mut stream, users.as_deref())).await;
            let (host, port) = asked.ok()?.ok()?;
            Some(Call { stream, host, port })
        });
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address.ip())?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(64)
}

/// The first address that answers.
async fn dial(addresses: &[IpAddr], port: u16, sources: &[IpAddr]) -> std::result::Result<TcpStream, Code> {
    let mut code = Code::Unreachable;
    for address in addresses {
        let source = sources.iter().find(|source| source.is_ipv4() == address.is_ipv4());
        match tokio::time::timeout(DIAL, call(SocketAddr::new(*address, port), source.copied())).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => code = Code::Refused,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(code)
}

async fn call(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = socket(to.ip())?;
    // Other nodes' addresses are behind tunnels only for who comes from a pod network.
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.set_keepalive(true)?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn socket(address: IpAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}
