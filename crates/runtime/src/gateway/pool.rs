//! Connections to endpoints that wait for the next request.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use selvedge_gateway::Map;
use tokio::net::TcpStream;

use super::http2::Client;

/// Shorter than any usual server keeps one.
const IDLE: Duration = Duration::from_secs(4);

/// Connections that wait, to one endpoint and to all.
const MOST_EACH: usize = 32;
const MOST: usize = 256;

#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<Map<SocketAddr, Vec<(Instant, TcpStream)>>>,
    count: Cell<usize>,
    http2: RefCell<Map<SocketAddr, Rc<Client>>>,
}

impl Pool {
    /// The youngest connection that still stands and is no older than `age`.
    pub(super) fn take(&self, endpoint: SocketAddr, age: Duration) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&endpoint)?;
        while let Some((since, stream)) = list.pop() {
            self.count.set(self.count.get() - 1);
            // One that has something to say has nothing good to say.
            let stands = stream.try_read(&mut [0; 1]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
            if since.elapsed() < age.min(IDLE) && stands {
                return Some(stream);
            }
        }
        None
    }

    pub(super) fn put(&self, endpoint: SocketAddr, stream: TcpStream) {
        if self.count.get() >= MOST {
            self.sweep();
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.or_insert(endpoint, Vec::new());
        if self.count.get() < MOST && list.len() < MOST_EACH {
            self.count.set(self.count.get() + 1);
            list.push((Instant::now(), stream));
        }
    }

    /// Whether any connection waits.
    pub(super) fn is_used(&self) -> bool {
        self.count.get() > 0
    }

    /// Lets go of what waited too long.
    pub(super) fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        for list in idle.values_mut() {
            list.retain(|(since, _)| since.elapsed() < IDLE);
        }
        idle.retain(|_, list| !list.is_empty());
        self.count.set(idle.iter().map(|(_, list)| list.len()).sum());
        self.http2.borrow_mut().retain(|_, client| client.is_open());
    }

    /// The connection of HTTP/2 to an endpoint, if it takes another request.
    pub(super) fn http2(&self, endpoint: SocketAddr) -> Option<Rc<Client>> {
        self.http2.borrow().get(&endpoint).filter(|client| client.is_open()).cloned()
    }

    pub(super) fn put_http2(&self, endpoint: SocketAddr, client: Rc<Client>) {
        let mut http2 = self.http2.borrow_mut();
        http2.retain(|_, client| client.is_open());
        http2.insert(endpoint, client);
    }
}
