//! What all connections of the gateway share. It has one thread, so there are no locks but that of the counters.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use selvedge_gateway::{Choice, Endpoints, Map, Picker, Request, Table};
use selvedge_linux::tcp::keep_alive;
use selvedge_model::Protocol;
use selvedge_model::gateway::{Backend, Listener};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::pool::Pool;
use super::report::Report;

/// An endpoint that does not take a connection within this time is not waited for.
const CONNECT: Duration = Duration::from_millis(1500);

/// A client or endpoint that is gone is noticed within two minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(15);

/// A connection in either direction, plain or encrypted.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}
pub(super) type Connection = Box<dyn Io>;

pub(super) struct Shared {
    pub(super) picker: RefCell<Picker>,
    pub(super) endpoints: RefCell<Arc<Endpoints>>,
    pub(super) pool: Pool,
    pub(super) report: Arc<Mutex<Report>>,
    /// Connections from outside that there are now, and those of each client.
    pub(super) connections: Cell<usize>,
    clients: RefCell<Map<IpAddr, usize>>,
    /// Requests of HTTP/2 that are being answered, and copies of requests under way.
    busy: Cell<usize>,
    pub(super) mirrored: Cell<usize>,
    /// Connections, requests of HTTP/2, and sessions of a listener that there may be.
    pub(super) most: usize,
    random: Cell<u64>,
    started: Instant,
}

/// A listener as it is now configured.
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) table: Table,
    /// For each site.
    pub(super) tls: Vec<Option<Arc<ServerConfig>>>,
}

/// What accepts connections, whose configuration may change under them.
pub(super) struct Slot {
    pub(super) address: SocketAddr,
    pub(super) door: RefCell<Rc<Door>>,
    /// Nothing new is begun.
    pub(super) closed: Cell<bool>,
    pub(super) shared: Rc<Shared>,
}

/// Counts a connection as long as it is there.
pub(super) struct Guest(Rc<Slot>, IpAddr);

/// Counts a request of HTTP/2 as long as it is answered: one connection can have many.
pub(super) struct Busy(Rc<Shared>);

/// Why no endpoint can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// There is no such Service.
    NoService,
    /// It has no endpoint.
    NoEndpoint,
    /// None takes a connection in time.
    Timeout,
    /// None takes a connection.
    Refused,
}

impl Shared {
    pub(super) fn new(report: Arc<Mutex<Report>>, most: usize) -> Rc<Self> {
        let mut seed = [0; 8];
        let read = std::fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut seed));
        if let Err(error) = read {
            log::debug!("no random number: {error}");
        }
        Rc::new(Shared {
            picker: RefCell::default(),
            endpoints: RefCell::default(),
            pool: Pool::default(),
            report,
            connections: Cell::new(0),
            clients: RefCell::default(),
            busy: Cell::new(0),
            mirrored: Cell::new(0),
            most,
            random: Cell::new(u64::from_ne_bytes(seed) | 1),
            started: Instant::now(),
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Good enough to share out requests (xorshift64*).
    pub(super) fn random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    pub(super) fn count(&self, door: &Door, add: impl FnOnce(&mut super::report::Counters)) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if !report.counters.contains_key(&door.listener.name) {
            report.counters.insert(door.listener.name.clone(), Default::default());
        }
        report.counters.get_mut(&door.listener.name).map(add);
    }

    pub(super) fn pick(
        &self,
        backend: &Backend,
        protocol: Protocol,
        client: IpAddr,
        request: Option<&Request>,
        tried: &[SocketAddr],
    ) -> Result<(SocketAddr, bool), Unreachable> {
        let endpoints = self.endpoints.borrow();
        let port = endpoints.of(backend, protocol).ok_or(Unreachable::NoService)?;
        if port.targets.is_empty() {
            return Err(Unreachable::NoEndpoint);
        }
        let choice = Choice { client, request, random: self.random(), tried, now: self.now() };
        let chosen = self.picker.borrow_mut().pick(backend, &port.targets, protocol, &choice);
        chosen.map(|endpoint| (endpoint, port.http2)).ok_or(Unreachable::Refused)
    }

    /// A new connection to an endpoint.
    pub(super) async fn connect(&self, endpoint: SocketAddr) -> Result<TcpStream, Unreachable> {
        let (problem, stream) = match timeout(CONNECT, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => (None, Some(stream)),
            Ok(Err(error)) => (Some((error.to_string(), Unreachable::Refused)), None),
            Err(_) => (Some(("takes no connection in time".to_owned(), Unreachable::Timeout)), None),
        };
        if let Some((why, unreachable)) = problem {
            log::debug!("gateway: {endpoint}: {why}");
            self.failed(endpoint);
            return Err(unreachable);
        }
        if self.picker.borrow_mut().reached(endpoint) {
            self.tell_left_alone();
        }
        let stream = stream.ok_or(Unreachable::Refused)?;
        prepare(&stream);
        Ok(stream)
    }

    /// A new connection to one of a backend's endpoints, the next where one cannot be reached.
    pub(super) async fn connect_any(&self, backend: &Backend, client: IpAddr) -> Result<TcpStream, Unreachable> {
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let (endpoint, _) =
                self.pick(backend, Protocol::Tcp, client, None, &tried).map_err(|error| last.unwrap_or(error))?;
            match self.connect(endpoint).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
            tried.push(endpoint);
            if tried.len() >= super::forward::MAX_TRIES {
                return Err(last.unwrap_or(Unreachable::Refused));
            }
        }
    }

    /// An endpoint could not be reached.
    pub(super) fn failed(&self, endpoint: SocketAddr) {
        self.picker.borrow_mut().failed(endpoint, self.now());
        self.tell_left_alone();
    }

    fn tell_left_alone(&self) {
        let left = self.picker.borrow().left_alone(self.now()).map(|(e, left)| (e, Instant::now() + left)).collect();
        self.report.lock().unwrap_or_else(PoisonError::into_inner).left_alone = left;
    }

    fn connections(&self, count: usize) {
        self.connections.set(count);
        self.report.lock().unwrap_or_else(PoisonError::into_inner).connections = count as u32;
    }
}

impl Slot {
    pub(super) fn door(&self) -> Rc<Door> {
        self.door.borrow().clone()
    }
}

impl Guest {
    /// `None`: there are too many, or too many of this client, who must leave room for others.
    pub(super) fn new(slot: &Rc<Slot>, client: IpAddr) -> Option<Self> {
        let shared = &slot.shared;
        let client = household(client);
        let mut clients = shared.clients.borrow_mut();
        let its = clients.get(&client).copied().unwrap_or_default();
        if shared.connections.get() >= shared.most || its >= shared.most / 2 {
            return None;
        }
        clients.insert(client, its + 1);
        shared.connections(shared.connections.get() + 1);
        Some(Guest(slot.clone(), client))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let shared = &self.0.shared;
        let mut clients = shared.clients.borrow_mut();
        match clients.get(&self.1).copied() {
            Some(its @ 2..) => clients.insert(self.1, its - 1),
            _ => drop(clients.remove(&self.1)),
        }
        shared.connections(shared.connections.get() - 1);
    }
}

impl Busy {
    /// `None`: there are too many.
    pub(super) fn new(shared: &Rc<Shared>) -> Option<Self> {
        let busy = shared.busy.get();
        (busy < shared.most).then(|| {
            shared.busy.set(busy + 1);
            Busy(shared.clone())
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

/// Whoever has one address of a network of IPv6 has all of them.
fn household(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(bits.into())
        }
        other => other,
    }
}

/// No waiting for more to send, and an eye on whether the other side is there.
pub(super) fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        log::debug!("gateway: {error}");
    }
    if let Err(error) = keep_alive(stream, KEEPALIVE, KEEPALIVE_AGAIN, 4) {
        log::debug!("gateway: {error}");
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::gateway::{ListenerProtocol, TlsVersion};

    use super::*;

    #[test]
    fn one_client_leaves_room_for_others() {
        let shared = Shared::new(Arc::default(), 4);
        let listener = Listener {
            name: "a".into(),
            port: 80,
            protocol: ListenerProtocol::Http,
            interfaces: vec![],
            addresses: vec![],
            excluded: vec![],
            min_tls: TlsVersion::default(),
            sites: vec![],
        };
        let table = Table::new(&listener).0;
        let door = RefCell::new(Rc::new(Door { listener, table, tls: vec![] }));
        let address = SocketAddr::from(([0, 0, 0, 0], 80));
        let slot = Rc::new(Slot { address, door, closed: Cell::new(false), shared });
        let come = |client: &str| Guest::new(&slot, client.parse().unwrap());
        let (first, second) = (come("192.0.2.1"), come("192.0.2.1"));
        assert!(first.is_some() && second.is_some() && come("192.0.2.1").is_none());
        let third = come("2001:db8::1");
        let fourth = come("2001:db8::2");
        assert!(third.is_some() && fourth.is_some() && come("192.0.2.2").is_none());
        drop((first, third));
        assert_eq!(slot.shared.connections.get(), 2);
        assert!(come("192.0.2.1").is_some() && come("2001:db8::3").is_some());
        drop((second, fourth));
        assert!(slot.shared.clients.borrow().is_empty());
    }
}
