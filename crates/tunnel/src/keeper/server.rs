//! The keeper's loop.

use super::datapath::{Datapath, NotEsp};
use super::keepalive::Keepalives;
use super::message::{Ike, Install, Report, Request, VERSION, Welcome};
use super::ports::Ports;
use super::session::{Inbox, Mailbox};
use super::{Mode, Options};
use selvedge_esp::{Drops, Event, PeerPrefixes};
use selvedge_linux::landlock::{self, Access, Tcp};
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::seqpacket::{Connection, Listener};
use selvedge_linux::{Batch, Context, Result, capabilities, process};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections that have not said hello yet.
const MAX_STRANGERS: usize = 4;
/// Requests taken before the packets have their turn.
const REQUESTS: usize = 64;
/// From a packet to the counters that a client awaits: long enough for the other end to have answered.
const AFTER_TRAFFIC: Duration = Duration::from_secs(2);

/// Is the keeper until a client says stop.
///
/// Fails if the socket cannot be made, which it cannot while another keeper of this run directory lives. Ports and
/// TUN device that cannot be had are told in [`Welcome`].
pub fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.run_dir).context(|| format!("make {}", options.run_dir.display()))?;
    let listener = Listener::bind(options.socket())?;
    let ports = Ports::bind(options);
    let (datapath, tun_problem) = match options.mode {
        Mode::Kernel => (None, None),
        Mode::User => match Datapath::open(options) {
            Ok(datapath) => (Some(datapath), None),
            Err(error) => (None, Some(error.to_string())),
        },
    };
    for problem in ports.states.iter().filter_map(|state| state.problem.as_ref()).chain(&tun_problem) {
        log::warn!("{problem}");
    }
    // All is open. From here on there are only packets of strangers to read.
    give_up(options)?;
    let welcome = Welcome {
        version: VERSION,
        mode: options.mode,
        pid: std::process::id(),
        ports: ports.states.clone(),
        tun_problem,
    };
    let keeper = Keeper {
        welcome,
        listener,
        ports,
        datapath,
        client: None,
        strangers: VecDeque::new(),
        mailbox: Mailbox::default(),
        inbox: Inbox::new(),
        keepalives: Keepalives::default(),
        awaited: false,
        counters_at: None,
        started: Instant::now(),
        peers: Vec::new(),
        new_keepalives: Vec::new(),
    };
    keeper.run()
}

/// Gives up all capabilities, and all files but those of the run directory.
fn give_up(options: &Options) -> Result<()> {
    capabilities::keep_only(&[], None)?;
    process::forbid_dumps()?;
    landlock::restrict([(&*options.run_dir, Access::Write)], Tcp::Denied).map(drop)
}

struct Keeper {
    welcome: Welcome,
    listener: Listener,
    ports: Ports,
    /// In user mode, unless there is no TUN device.
    datapath: Option<Datapath>,
    client: Option<Connection>,
    strangers: VecDeque<Connection>,
    mailbox: Mailbox,
    inbox: Inbox,
    keepalives: Keepalives,
    /// The client wants the counters after traffic.
    awaited: bool,
    counters_at: Option<Duration>,
    started: Instant,
    /// Lists of which parts have come.
    peers: Vec<PeerPrefixes>,
    new_keepalives: Vec<super::message::Keepalive>,
}

enum Next {
    Go,
    Stop,
}

impl Keeper {
    fn run(mut self) -> Result<()> {
        // Datagrams joined by the kernel fill 64 KiB; memory is taken only by those that come.
        let mut batch = Batch::new(65_535);
        let mut interests = Vec::new();
        loop {
            self.interests(&mut interests);
            let due = self.keepalives.next_due().into_iter().chain(self.counters_at).min();
            let timeout = due.map(|due| due.saturating_sub(self.started.elapsed()));
            poll(&mut interests, timeout).context(|| "wait for packets")?;
            let now = self.started.elapsed();

            if interests[LISTENER].is_readable() {
                self.accept();
            }
            // First, so that what comes is not read for a client that has just left.
            if let Next::Stop = self.serve(now) {
                return Ok(());
            }
            self.carry(now, &interests, &mut batch)?;
            self.keep_alive(now);
            self.tell_traffic(now);
            self.tell();
        }
    }

    /// Descriptors in a fixed order: listener, client, TUN, ports, strangers.
    fn interests(&self, interests: &mut Vec<Interest>) {
        interests.clear();
        interests.push(Interest::readable(&self.listener));
        interests.push(match &self.client {
            Some(client) if self.mailbox.is_empty() => Interest::readable(client),
            Some(client) => Interest::readable(client).or_writable(),
            None => Interest::none(),
        });
        let full = self.datapath.as_ref().and_then(|datapath| datapath.outbox.waiting_for());
        interests.push(match &self.datapath {
            Some(datapath) if full.is_none() => Interest::readable(&datapath.tun),
            _ => Interest::none(),
        });
        for (index, port) in self.ports.open.iter().enumerate() {
            let read = self.reads(port.encap);
            interests.push(match (read, full == Some(index)) {
                (true, true) => Interest::readable(&port.socket).or_writable(),
                (true, false) => Interest::readable(&port.socket),
                (false, _) => Interest::none(),
            });
        }
        interests.extend(self.strangers.iter().map(Interest::readable));
    }

    /// Whether a port is read now: IKE only for a client that listens, ESP always.
    fn reads(&self, encap: bool) -> bool {
        (encap && self.datapath.is_some()) || (self.client.is_some() && self.mailbox.has_room())
    }

    /// Packets, both ways.
    fn carry(&mut self, now: Duration, interests: &[Interest], batch: &mut Batch) -> Result<()> {
        if let Some(datapath) = &mut self.datapath {
            if !datapath.outbox.is_empty() {
                datapath.flush(&self.ports);
            } else if interests[TUN].is_readable() {
                datapath.pump_out(now, &self.ports).context(|| "read the TUN device")?;
            }
        }
        for index in 0..self.ports.open.len() {
            // The client may have left since, and the ports before may have brought as much as can be kept.
            if interests[PORTS + index].is_readable() && self.reads(self.ports.open[index].encap) {
                self.receive(now, index, batch);
            }
        }
        let Some(datapath) = &mut self.datapath else { return Ok(()) };
        while let Some(event) = datapath.table.poll_event() {
            let lasting = matches!(event, Event::SoftLimit { .. });
            let report = Report::Esp(event);
            match lasting {
                true => self.mailbox.lasting(&report),
                false if self.client.is_some() => self.mailbox.passing(&report),
                false => {}
            }
        }
        Ok(())
    }

    fn receive(&mut self, now: Duration, index: usize, batch: &mut Batch) {
        let port = &self.ports.open[index];
        if port.socket.recv_many(batch).is_err() {
            return;
        }
        let (number, mailbox) = (port.number, &mut self.mailbox);
        let mut keep = |ike: NotEsp<'_>| {
            let NotEsp { local, remote, payload } = ike;
            mailbox.lasting(&Report::Ike(Ike { local, remote, payload: payload.to_vec() }));
        };
        match &mut self.datapath {
            Some(datapath) if port.encap => datapath.receive(now, number, batch, keep),
            _ => {
                for datagram in batch.datagrams() {
                    let (remote, local) = (datagram.remote, SocketAddr::new(datagram.local, number));
                    match (&*datagram.payload, port.encap) {
                        (payload, false) | ([0, 0, 0, 0, payload @ ..], true) => {
                            keep(NotEsp { local, remote, payload })
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok(Some(stranger)) => {
                if self.strangers.len() == MAX_STRANGERS {
                    self.strangers.pop_front();
                }
                self.strangers.push_back(stranger);
            }
            Ok(None) => {}
            Err(error) => log::warn!("{error}"),
        }
    }

    /// Requests of the client and of those who want to be it.
    fn serve(&mut self, now: Duration) -> Next {
        for _ in 0..self.strangers.len() {
            let Some(stranger) = self.strangers.pop_front() else { break };
            match self.inbox.next(&stranger) {
                Ok(None) => self.strangers.push_back(stranger),
                Ok(Some(Request::Stop)) => {
                    // Its end tells that the ports are free, so it must end after them.
                    self.strangers.push_back(stranger);
                    return Next::Stop;
                }
                Ok(Some(Request::Hello { version: VERSION })) => {
                    self.client = Some(stranger);
                    self.peers.clear();
                    self.new_keepalives.clear();
                    (self.awaited, self.counters_at) = (false, None);
                    self.mailbox.welcome(self.welcome.clone());
                }
                Ok(Some(Request::Hello { .. })) => {
                    if stranger.send(&Report::Welcome(self.welcome.clone()).encode()).is_ok() {
                        self.strangers.push_back(stranger);
                    }
                }
                Ok(Some(_)) | Err(_) => {}
            }
        }
        for _ in 0..REQUESTS {
            let Some(client) = &self.client else { break };
            match self.inbox.next(client) {
                Ok(None) => break,
                Ok(Some(Request::Stop)) => return Next::Stop,
                Ok(Some(request)) => {
                    if let Err(reason) = self.handle(now, request) {
                        self.mailbox.answer(&Report::Refused { reason });
                    }
                }
                Err(error) => self.client_left(&error),
            }
        }
        Next::Go
    }

    fn handle(&mut self, now: Duration, request: Request) -> std::result::Result<(), String> {
        match request {
            Request::Hello { .. } | Request::Stop => {}
            Request::SetPeers { peers, more } => {
                for peer in peers {
                    match self.peers.last_mut() {
                        Some(last) if last.id == peer.id => last.prefixes.extend(peer.prefixes),
                        _ => self.peers.push(peer),
                    }
                }
                if !more {
                    let peers = std::mem::take(&mut self.peers);
                    self.user_mode()?.table.set_peers(&peers);
                }
            }
            Request::Install(install) => self.install(now, &install)?,
            Request::UseOutbound { peer, spi_in } => {
                if !self.user_mode()?.table.use_outbound(peer, spi_in) {
                    return Err(format!("send to peer {peer} on the pair of {spi_in:08x}: no such pair"));
                }
            }
            Request::RemoveInbound { spi_in } => {
                self.user_mode()?.table.remove_inbound(now, spi_in);
            }
            Request::RemoveOutbound { spi_in } => {
                self.user_mode()?.table.remove_outbound(spi_in);
            }
            Request::SendIke(ike) => {
                self.keepalives.sent(now, ike.remote);
                self.ports.send_ike(&ike).map_err(|error| format!("send IKE to {}: {error}", ike.remote))?;
            }
            Request::List => {
                let pairs: Vec<_> = self.datapath.iter().flat_map(|datapath| datapath.table.pairs(now)).collect();
                Report::sa_list(&pairs).iter().for_each(|report| self.mailbox.answer(report));
            }
            Request::Counters => self.tell_counters(),
            Request::CountersAfterTraffic => {
                self.user_mode()?;
                self.awaited = true;
            }
            Request::SetKeepalives { keepalives, more } => {
                self.new_keepalives.extend(keepalives);
                if !more {
                    self.keepalives.set(now, std::mem::take(&mut self.new_keepalives));
                }
            }
        }
        Ok(())
    }

    fn install(&mut self, now: Duration, install: &Install) -> std::result::Result<(), String> {
        let pair = selvedge_esp::Install {
            peer: install.peer,
            spi_in: install.spi_in,
            spi_out: install.spi_out,
            suite: install.suite,
            key_in: &install.key_in,
            key_out: &install.key_out,
            local: install.local,
            remote: install.remote,
            send: install.send,
        };
        let installed = self.user_mode()?.table.install(now, &pair);
        installed.map_err(|error| format!("install {:08x} of peer {}: {error}", install.spi_in, install.peer))
    }

    fn user_mode(&mut self) -> std::result::Result<&mut Datapath, String> {
        self.datapath.as_mut().ok_or_else(|| "this keeper carries no ESP".to_owned())
    }

    fn tell_counters(&mut self) {
        let (drops, peers) = match &self.datapath {
            Some(datapath) => (datapath.table.drops().clone(), datapath.table.peers().cloned().collect()),
            None => (Drops::default(), Vec::new()),
        };
        Report::counters(&drops, &peers).iter().for_each(|report| self.mailbox.answer(report));
    }

    fn tell_traffic(&mut self, now: Duration) {
        let Some(datapath) = self.datapath.as_mut().filter(|_| self.awaited) else { return };
        if self.counters_at.is_some_and(|at| at <= now) {
            datapath.moved = false;
            (self.awaited, self.counters_at) = (false, None);
            self.tell_counters();
        } else if datapath.moved && self.counters_at.is_none() {
            self.counters_at = Some(now + AFTER_TRAFFIC);
        }
    }

    fn keep_alive(&mut self, now: Duration) {
        let last_sent = self.datapath.iter().flat_map(|datapath| datapath.table.last_sent());
        self.keepalives.run(now, last_sent, |keepalive| {
            // One lost keepalive is like any lost datagram; the next is due soon.
            let _ = self.ports.send_keepalive(keepalive);
        });
    }

    fn tell(&mut self) {
        let Some(client) = &self.client else { return };
        match self.mailbox.flush(client) {
            Ok(()) if self.mailbox.is_overfull() => self.client_left(&io::ErrorKind::TimedOut.into()),
            Ok(()) => {}
            Err(error) => self.client_left(&error),
        }
    }

    fn client_left(&mut self, error: &io::Error) {
        log::debug!("client left: {error}");
        self.client = None;
        self.mailbox.client_left();
    }
}

const LISTENER: usize = 0;
const TUN: usize = 2;
const PORTS: usize = 3;
