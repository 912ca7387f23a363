//! Gives devices their certificates and their configurations, over TLS:
//!
//! ```text
//! POST /v1/enroll   {"node", "secret", "csr"}   the first certificate, by a one-time token
//! POST /v1/renew    {"csr"}                     the next one, for the name of the one presented
//! GET  /v1/config   NodeConfig of that name; with If-None-Match it waits for a change. The header Selvedge-Trust says
//!                   which version of /v1/trust there is, in a request which one the device has
//! GET  /v1/trust    certificates of the authorities and their revocation lists, in PEM
//! ```
//!
//! A certificate speaks for its own name and nothing else: no request says whom it is about. Decides nothing about
//! nodes: what it gives is published to it.

mod directory;
mod feed;
mod limits;
mod metrics;
mod routes;
mod tls;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authorities, AuthorityError, Certificate, Everybody, bearer};
use crate::core::Digest;
use crate::core::issued::Serial;
use feed::Feed;
use limits::{Attempts, Slot, Slots};
use tls::Identity;
use token::hash;

pub(crate) use feed::Entry;
pub(crate) use metrics::Metrics;
pub(crate) use token::{Record, Token, Verdict};

/// From the first byte to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// From the first byte of a request's head to its last.
const HEAD: Duration = Duration::from_secs(15);
/// A connection is closed in good order after that: certificates are asked for again.
const AGE: Duration = Duration::from_secs(15 * 60);
/// The same without a certificate: enrolment is one request.
const STRANGERS_AGE: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 8 << 10;

/// Where tokens and issued certificates are kept.
pub(crate) trait Registrar: Send + Sync + 'static {
    /// Redeems the token of a node for a key, given by its hash. Two at once must not both spend it.
    fn redeem(
        &self,
        node: &str,
        secret: &str,
        key: &str,
        now: u64,
    ) -> impl Future<Output = Result<bool, RegistrarError>> + Send;

    /// Remembers a certificate, before it is given away.
    fn record(&self, name: &str, certificate: &Certificate) -> impl Future<Output = Result<(), RegistrarError>> + Send;
}

/// Why something could not be kept.
pub(crate) type RegistrarError = Box<dyn std::error::Error + Send + Sync>;

/// What all nodes have in common.
pub(crate) struct Common {
    pub(crate) authorities: Arc<Authorities>,
    /// Validity of the certificates.
    pub(crate) days: u32,
    /// Names that get nothing.
    pub(crate) revoked: BTreeSet<String>,
}

/// The server; what it answers is published to it.
pub(crate) struct Server<R> {
    registrar: R,
    feed: Feed,
    common: RwLock<Option<Published>>,
    slots: Slots,
    attempts: Mutex<Attempts>,
    seen: Mutex<BTreeMap<String, Seen>>,
    metrics: Metrics,
}

/// [`Common`] and what follows from it.
#[derive(Clone)]
struct Published {
    common: Arc<Common>,
    /// `ca.crt` and `crl.pem` in one.
    trust: Arc<str>,
    /// Names that version.
    trust_tag: Arc<str>,
    identity: Arc<Identity>,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    /// The name of its certificate.
    name: Option<(String, Serial)>,
    /// The certificate itself.
    certificate: Arc<[u8]>,
}

/// What a device was seen to have.
struct Seen {
    /// It trusts the authorities of this version.
    trust: String,
    certificate: Arc<[u8]>,
}

impl<R: Registrar> Server<R> {
    pub(crate) fn new(registrar: R, metrics: Metrics) -> Arc<Server<R>> {
        Arc::new(Server {
            registrar,
            feed: Feed::default(),
            common: RwLock::default(),
            slots: Slots::default(),
            attempts: Mutex::default(),
            seen: Mutex::default(),
            metrics,
        })
    }

    /// Answers nothing until something is published.
    pub(crate) fn withdraw(&self) {
        *self.common.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.feed.publish(BTreeMap::new(), &BTreeSet::new(), "");
    }

    /// Replaces what is answered from now on; whoever waits for it is told. `nodes` by name in the fabric; those that are
    /// `kept` go on with what they have if they are not among them.
    pub(crate) fn publish(
        &self,
        common: Common,
        nodes: BTreeMap<String, Entry>,
        kept: &BTreeSet<String>,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let before = self.published();
        let identity = match before.filter(|before| !before.identity.is_stale(&common.authorities, now)) {
            Some(before) => before.identity,
            None => Arc::new(Identity::new(&common.authorities, now)?),
        };
        let trust = format!("{}{}", common.authorities.bundle(), common.authorities.crl().unwrap_or_default());
        let tag = &hash(&trust)[..16];
        *self.common.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Published { common: Arc::new(common), trust: trust.as_str().into(), trust_tag: tag.into(), identity });
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|name, _| nodes.contains_key(name) || kept.contains(name));
        self.feed.publish(nodes, kept, tag);
        Ok(())
    }

    /// Whether this is what was published last of a name.
    pub(crate) fn has(&self, name: &str, digest: Digest) -> bool {
        self.feed.has(name, digest)
    }

    /// What all these devices have, as far as they have been seen since the start of the operator.
    pub(crate) fn everybody<'a>(&self, devices: impl Iterator<Item = &'a String>) -> Everybody {
        let nobody = Everybody { trusted: false, replaced: false };
        let Some(published) = self.published() else { return nobody };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let signing = published.common.authorities.signing();
        devices.fold(Everybody { trusted: true, replaced: true }, |all, name| {
            let Some(seen) = seen.get(name) else { return nobody };
            Everybody {
                trusted: all.trusted && *seen.trust == *published.trust_tag,
                replaced: all.replaced && signing.is_issuer_of(&seen.certificate),
            }
        })
    }

    fn published(&self) -> Option<Published> {
        self.common.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers until the listener fails for good, which it does not.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let router = routes::router(Arc::clone(&self));
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let (server, router) = (Arc::clone(&self), router.clone());
                    tokio::spawn(async move { server.connection(stream, address, router).await });
                }
                // Too many open files, or a caller that is gone again.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr, router: Router) {
        let Some((stream, caller, slot)) = self.accept(stream, address).await else {
            self.metrics.refused_connections.inc();
            return;
        };
        let age = if caller.name.is_some() { AGE } else { STRANGERS_AGE };
        self.metrics.connections.inc();
        let service = TowerToHyperService::new(router.layer(Extension(caller)));
        let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // What goes wrong with one connection concerns nobody else, and the caller knows it.
        if timeout(age, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(STRANGERS_AGE, connection).await;
        }
        self.metrics.connections.dec();
        drop(slot);
    }

    async fn accept(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Caller, Slot)> {
        let stranger = self.slots.stranger()?;
        let acceptor = TlsAcceptor::from(Arc::clone(&self.published()?.identity.config));
        let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await.ok()?.ok()?;
        let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else {
            let caller = Caller { address, name: None, certificate: Arc::default() };
            return Some((stream, caller, stranger));
        };
        let name = bearer(certificate)?;
        let slot = self.slots.node(&name.0)?;
        let certificate = certificate.to_vec().into();
        Some((stream, Caller { address, name: Some(name), certificate }, slot))
    }
}

/// Opens the port and answers on it, on a runtime of its own.
pub(crate) fn spawn<R: Registrar>(server: Arc<Server<R>>, address: SocketAddr) -> io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(address))?;
    let bound = listener.local_addr()?;
    std::thread::Builder::new().name("feed".to_owned()).spawn(move || runtime.block_on(server.serve(listener)))?;
    Ok(bound)
}

#[cfg(test)]
mod tests;
