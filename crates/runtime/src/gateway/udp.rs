//! Datagrams: a session for each client, with a socket of its own to its endpoint.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use selvedge_gateway::{Endpoints, Map, Picker};
use selvedge_model::Protocol;
use selvedge_model::gateway::Backend;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::forward::Bound;
use super::shared::Slot;

/// Without a datagram either way.
const IDLE: Duration = Duration::from_secs(60);

/// The longest datagram there is.
const DATAGRAM: usize = 65_535;

struct Session {
    socket: Rc<UdpSocket>,
    backend: Backend,
    /// Among which its endpoint was when that was looked at last.
    among: RefCell<Arc<Endpoints>>,
    last: Rc<RefCell<Instant>>,
    _task: Bound<()>,
}

impl Session {
    /// Whether its endpoint still is one: a client that never pauses would send to one that is gone for ever.
    fn is_served(&self, slot: &Slot) -> bool {
        let now = slot.shared.endpoints.borrow();
        let mut among = self.among.borrow_mut();
        if !Arc::ptr_eq(&now, &among) {
            let endpoint = self.socket.peer_addr().ok();
            let port = now.of(&self.backend, Protocol::Udp);
            if !port.is_some_and(|port| port.targets.iter().any(|(_, target)| Some(*target) == endpoint)) {
                return false;
            }
            *among = now.clone();
        }
        true
    }
}

/// Serves a socket for ever.
pub(super) async fn serve(slot: Rc<Slot>, socket: UdpSocket) {
    let socket = Rc::new(socket);
    let sessions: Rc<RefCell<Map<SocketAddr, Session>>> = Rc::default();
    let mut bytes = vec![0; DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut bytes).await {
            Ok(received) => received,
            Err(error) => {
                // What an earlier answer met on its way.
                log::debug!("gateway: {}: {error}", slot.address);
                continue;
            }
        };
        let known = sessions.borrow().get(&client).filter(|session| session.is_served(&slot)).map(|session| {
            *session.last.borrow_mut() = Instant::now();
            session.socket.clone()
        });
        if known.is_none() {
            sessions.borrow_mut().remove(&client);
        }
        let to = match known {
            Some(to) => to,
            None if sessions.borrow().len() >= slot.shared.most => {
                slot.shared.count(&slot.door(), |counters| counters.refused += 1);
                continue;
            }
            None => match begin(&slot, &socket, &sessions, client).await {
                Some(to) => to,
                None => {
                    slot.shared.count(&slot.door(), |counters| counters.failed += 1);
                    continue;
                }
            },
        };
        if let Err(error) = to.send(bytes.get(..length).unwrap_or_default()).await {
            log::debug!("gateway: {}: {error}", slot.address);
            // Nobody there: the next datagram goes to another.
            sessions.borrow_mut().remove(&client);
            if let Ok(endpoint) = to.peer_addr() {
                slot.shared.failed(endpoint);
            }
        }
    }
}

async fn begin(
    slot: &Rc<Slot>,
    outside: &Rc<UdpSocket>,
    sessions: &Rc<RefCell<Map<SocketAddr, Session>>>,
    client: SocketAddr,
) -> Option<Rc<UdpSocket>> {
    let door = slot.door();
    let shared = &slot.shared;
    let rule = door.table.sites().first().and_then(|site| site.connection(""))?;
    let backend = Picker::backend(&rule.backends, shared.random()).filter(|backend| !backend.invalid)?;
    let (endpoint, _) = shared.pick(backend, Protocol::Udp, client.ip(), None, &[]).ok()?;
    let any: SocketAddr = match endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(endpoint).await.ok()?;
    let socket = Rc::new(socket);
    shared.count(&door, |counters| counters.connections += 1);
    let last = Rc::new(RefCell::new(Instant::now()));
    let task = answers(socket.clone(), outside.clone(), client, last.clone(), sessions.clone());
    let (backend, among) = (backend.clone(), RefCell::new(shared.endpoints.borrow().clone()));
    let session =
        Session { socket: socket.clone(), backend, among, last, _task: Bound(tokio::task::spawn_local(task)) };
    sessions.borrow_mut().insert(client, session);
    Some(socket)
}

thread_local! {
    /// One datagram is carried at a time.
    static DATAGRAM_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM]);
}

/// Brings answers back until there was nothing to carry for a while.
async fn answers(
    socket: Rc<UdpSocket>,
    outside: Rc<UdpSocket>,
    client: SocketAddr,
    last: Rc<RefCell<Instant>>,
    sessions: Rc<RefCell<Map<SocketAddr, Session>>>,
) {
    loop {
        let deadline = *last.borrow() + IDLE;
        match timeout_at(deadline, socket.readable()).await {
            Err(_) if *last.borrow() + IDLE <= Instant::now() => break,
            Err(_) => continue,
            Ok(_) => {}
        }
        let carried = DATAGRAM_BUFFER.with_borrow_mut(|bytes| {
            let length = socket.try_recv(bytes)?;
            // A full queue loses it, as any other on the way would.
            let _ = outside.try_send_to(bytes.get(..length).unwrap_or_default(), client);
            Ok::<(), std::io::Error>(())
        });
        match carried {
            Ok(()) => *last.borrow_mut() = Instant::now(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    sessions.borrow_mut().remove(&client);
}
