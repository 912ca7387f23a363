//! The gateway's thread: keeps the listeners to what is configured and to the addresses there are.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use selvedge_gateway::{Map, Table};
use selvedge_linux::link::{self, Link};
use selvedge_linux::{netlink, process, tcp};
use selvedge_model::gateway::{Listener, ListenerProtocol};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::report::Report;
use super::shared::{Door, Guest, Shared, Slot};
use super::{Wanted, door, forward::Bound, tls, udp};
use crate::Result;
use crate::error::Context as _;

/// Connections from outside at the same time, if there may be as many files. Each may take tens of kilobytes.
const MOST: usize = 1000;

/// Files that are asked for. Each connection and each request may have one to an endpoint, too; others are for the rest of
/// the program, and for connections that wait.
const FILES: u32 = 8192;
const OTHER_FILES: usize = 512;

/// Clients that wait to be accepted.
const BACKLOG: u16 = 256;

/// What could not be bound is tried again; connections that wait for use are looked through.
const RETRY: Duration = Duration::from_secs(5);
const SWEEP: Duration = Duration::from_secs(2);

/// Addresses come in groups.
const SETTLE: Duration = Duration::from_millis(100);

/// What the main thread leaves for this one.
pub(super) struct Inbox {
    pub(super) wanted: Mutex<Option<Wanted>>,
    pub(super) notify: Notify,
    pub(super) report: Arc<Mutex<Report>>,
}

type Key = (SocketAddr, bool);

struct Engine {
    shared: Rc<Shared>,
    doors: Vec<Rc<Door>>,
    open: Map<Key, (Rc<Slot>, Bound<()>)>,
    /// What is wrong with the configuration.
    problems: Vec<String>,
    links: netlink::Socket,
}

/// Serves until the process ends.
pub(super) fn run(inbox: &Inbox) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the gateway's event loop".to_owned())?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(inbox))
}

async fn serve(inbox: &Inbox) -> Result<()> {
    let mut network = link::monitor().context(|| "watch the network".to_owned())?;
    #[expect(deprecated, reason = "the replacement is `unsafe`, and an OwnedFd keeps what it asks for")]
    let fd: AsyncFd<OwnedFd> = network
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| AsyncFd::with_interest(fd, tokio::io::Interest::READABLE))
        .context(|| "watch the network".to_owned())?;
    let mut engine = Engine {
        shared: Shared::new(inbox.report.clone(), most(process::allow_files(FILES))),
        doors: Vec::new(),
        open: Map::default(),
        problems: Vec::new(),
        links: netlink::Socket::open(netlink::Protocol::Route).context(|| "read addresses".to_owned())?,
    };
    let mut again: Option<Instant> = None;
    loop {
        let due = async {
            match again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inbox.notify.notified() => {
                let wanted = inbox.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(wanted) = wanted {
                    engine.take(wanted);
                }
                again = Some(Instant::now());
            }
            readable = fd.readable() => {
                if let Ok(mut guard) = readable {
                    guard.clear_ready();
                }
                while network.take().context(|| "watch the network".to_owned())?.is_some() {}
                again = Some(again.unwrap_or_else(|| Instant::now() + SETTLE));
            }
            () = due => {
                again = match engine.reconcile() {
                    true => None,
                    false => Some(Instant::now() + RETRY),
                };
            }
            () = sleep(SWEEP), if engine.shared.pool.is_used() => {
                engine.shared.pool.sweep();
            }
        }
    }
}

impl Engine {
    fn take(&mut self, wanted: Wanted) {
        *self.shared.endpoints.borrow_mut() = wanted.endpoints;
        let Some((gateway, pem)) = wanted.gateway else { return };
        self.problems.clear();
        let sections = tls::sections(&pem);
        self.doors.clear();
        for listener in gateway.listeners {
            let (table, problems) = Table::new(&listener);
            let mut problems: Vec<String> = problems.iter().map(|p| format!("{}: {p}", listener.name)).collect();
            let mut configs = Vec::new();
            for site in &listener.sites {
                let config = tls::server(&listener, site, &sections);
                let config = config.map_err(|error| problems.push(format!("{}: {error}", listener.name))).ok();
                configs.push(config.flatten());
            }
            self.problems.extend(problems);
            self.doors.push(Rc::new(Door { listener, table, tls: configs }));
        }
        let mut report = self.shared.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.counters.retain(|name, _| self.doors.iter().any(|door| door.listener.name == *name));
    }

    /// Opens and closes listeners. False: not all is as it should be.
    fn reconcile(&mut self) -> bool {
        let mut problems = self.problems.clone();
        let links = match link::list(&mut self.links) {
            Ok(links) => links,
            Err(error) => {
                problems.push(error.to_string());
                self.tell(problems, Vec::new());
                return false;
            }
        };
        let mut wanted: Map<Key, Rc<Door>> = Map::default();
        for door in &self.doors {
            let addresses = addresses(&door.listener, &links);
            if addresses.is_empty() {
                problems.push(format!("{}: no address of this node is one to listen on", door.listener.name));
            }
            for address in addresses {
                let key = (address, door.listener.protocol == ListenerProtocol::Udp);
                if let Some(first) = wanted.get(&key) {
                    let (name, first) = (&door.listener.name, &first.listener.name);
                    problems.push(format!("{name}: {address} is listened on by {first}"));
                } else {
                    wanted.insert(key, door.clone());
                }
            }
        }
        self.open.retain(|key, (slot, _)| {
            let stays = wanted.contains_key(key);
            slot.closed.set(!stays);
            stays
        });
        let mut bound = Vec::new();
        let mut good = true;
        for (key, door) in wanted {
            let name = door.listener.name.clone();
            if let Some((slot, _)) = self.open.get(&key) {
                *slot.door.borrow_mut() = door;
            } else if let Err(error) = self.bind(key, door) {
                problems.push(format!("{name}: listen on {}: {error}", key.0));
                good = false;
                continue;
            }
            bound.push((name, key.0));
        }
        self.tell(problems, bound);
        good
    }

    fn tell(&self, problems: Vec<String>, bound: Vec<(String, SocketAddr)>) {
        let mut report = self.shared.report.lock().unwrap_or_else(PoisonError::into_inner);
        for problem in problems.iter().filter(|problem| !report.problems.contains(problem)) {
            log::error!("gateway: {problem}");
        }
        report.problems = problems;
        report.bound = bound;
    }

    fn bind(&mut self, key: Key, door: Rc<Door>) -> io::Result<()> {
        let (address, udp) = key;
        let slot =
            Rc::new(Slot { address, door: RefCell::new(door), closed: Cell::new(false), shared: self.shared.clone() });
        let task = if udp {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            tokio::task::spawn_local(udp::serve(slot.clone(), socket))
        } else {
            let plain = |error: selvedge_linux::Error| error.errno().map(io::Error::from_raw_os_error);
            let listener = tcp::listen(address, BACKLOG)
                .map_err(|error| plain(error).unwrap_or_else(|| io::ErrorKind::Other.into()))?;
            let listener = TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept(slot.clone(), listener))
        };
        self.open.insert(key, (slot, Bound(task)));
        Ok(())
    }
}

/// Accepts for ever; connections live on when this ends.
async fn accept(slot: Rc<Slot>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => match Guest::new(&slot, client.ip()) {
                Some(guest) => {
                    tokio::task::spawn_local(door::welcome(slot.clone(), stream, client, guest));
                }
                None => slot.shared.count(&slot.door(), |counters| counters.refused += 1),
            },
            Err(error) => {
                // Out of descriptors, say: it passes.
                log::warn!("gateway: {}: {error}", slot.address);
                sleep(SETTLE).await;
            }
        }
    }
}

/// How many connections there may be with so many files.
fn most(files: u32) -> usize {
    ((files as usize).saturating_sub(OTHER_FILES) / 3).clamp(64, MOST)
}

/// Where a listener listens: addresses of its links and networks, none of those it must not.
fn addresses(listener: &Listener, links: &[Link]) -> Vec<SocketAddr> {
    let chosen =
        links.iter().filter(|l| l.up && (listener.interfaces.is_empty() || listener.interfaces.contains(&l.name)));
    let all = chosen.flat_map(|link| &link.addresses).map(|net| net.addr());
    let within = |nets: &[ipnet::IpNet], address| nets.iter().any(|net| net.contains(&address));
    let fits = |address: &std::net::IpAddr| {
        let link_local = matches!(address, std::net::IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80);
        let included = listener.addresses.is_empty() || within(&listener.addresses, *address);
        included && !link_local && !within(&listener.excluded, *address)
    };
    let mut found: Vec<SocketAddr> = all.filter(fits).map(|address| SocketAddr::new(address, listener.port)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use selvedge_model::gateway::TlsVersion;

    use super::*;

    #[test]
    fn where_few_files_may_be_open_there_are_fewer_connections() {
        assert_eq!([0, 1024, 4096, FILES].map(most), [64, 170, MOST, MOST]);
    }

    #[test]
    fn links_and_networks_choose_the_addresses() {
        let link = |name: &str, up, addresses: &[&str]| Link {
            index: 1,
            name: name.into(),
            kind: None,
            master: None,
            mtu: 1500,
            up,
            loopback: name == "lo",
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let links = [
            link("lo", true, &["127.0.0.1/8", "::1/128"]),
            link("lan", true, &["192.168.1.1/24", "192.168.2.1/24", "fe80::1/64", "fd00::1/64"]),
            link("wan", true, &["198.51.100.7/24"]),
            link("down", false, &["10.0.0.1/8"]),
        ];
        let see = |interfaces: &[&str], included: &[&str], excluded: &[&str]| {
            let listener = Listener {
                name: "a".into(),
                port: 80,
                protocol: ListenerProtocol::Http,
                interfaces: interfaces.iter().map(|i| i.to_string()).collect(),
                addresses: included.iter().map(|n| n.parse().unwrap()).collect(),
                excluded: excluded.iter().map(|n| n.parse().unwrap()).collect(),
                min_tls: TlsVersion::default(),
                sites: vec![],
            };
            let found = addresses(&listener, &links);
            assert!(found.iter().all(|address| address.port() == 80));
            found.into_iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()
        };
        let all = ["127.0.0.1", "192.168.1.1", "192.168.2.1", "198.51.100.7", "::1", "fd00::1"];
        assert_eq!(see(&[], &[], &[]), all);
        assert_eq!(see(&["lan"], &[], &[]), ["192.168.1.1", "192.168.2.1", "fd00::1"]);
        assert_eq!(
            see(&["lan", "wan"], &["192.168.0.0/16", "198.51.100.0/24"], &["192.168.2.0/24"]),
            ["192.168.1.1", "198.51.100.7"]
        );
        assert_eq!(see(&["none"], &[], &[]), [] as [&str; 0]);
    }
}
