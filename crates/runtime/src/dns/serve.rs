//! The thread: waits for all sockets at once, and moves as many datagrams as there are in one call.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use selvedge_dns::{Handled, Transmit};
use selvedge_linux::poll::{Interest, poll};
use selvedge_linux::{Batch, Outgoing};
use selvedge_model::NameServer;

use super::exchange::{Exchange, MAX_DATAGRAM};
use super::secure::Channel;
use super::stream::Connection;
use super::{Client, Sockets, State, lock};
use crate::error::Context as _;

/// The longest question over UDP in octets; a longer one is cut off, and refused for that.
const MAX_QUESTION: usize = 512;

/// Batches of one socket before the others have their turn.
const BATCHES: usize = 4;

/// Clients connected at once; of more, the one that would be closed first anyway goes.
const MAX_CONNECTIONS: usize = 32;

pub(super) struct Serving {
    state: Arc<Mutex<State>>,
    sockets: Sockets,
    stopped: UnixStream,
    random: File,
    origin: Instant,
    batch: Batch,
    connections: BTreeMap<u32, Connection>,
    next_connection: u32,
    exchanges: BTreeMap<u32, Exchange>,
    /// To servers that are asked over TLS.
    channels: BTreeMap<NameServer, Channel>,
}

impl Serving {
    pub(super) fn new(state: Arc<Mutex<State>>, sockets: Sockets, stopped: UnixStream) -> io::Result<Serving> {
        Ok(Serving {
            state,
            sockets,
            stopped,
            random: File::open("/dev/urandom")?,
            origin: Instant::now(),
            batch: Batch::new(MAX_QUESTION),
            connections: BTreeMap::new(),
            next_connection: 0,
            exchanges: BTreeMap::new(),
            channels: BTreeMap::new(),
        })
    }

    /// Until the other end of `stopped` is closed.
    pub(super) fn run(mut self) {
        let mut interests = Vec::new();
        loop {
            interests.clear();
            interests.push(Interest::readable(&self.stopped));
            interests.extend(self.sockets.udp.iter().map(Interest::readable));
            interests.extend(self.sockets.tcp.iter().map(Interest::readable));
            interests.extend(self.connections.values().map(Connection::interest));
            interests.extend(self.exchanges.values().map(Exchange::interest));
            interests.extend(self.channels.values().map(Channel::interest));
            if let Err(error) = poll(&mut interests, self.pause()) {
                log::error!("the DNS server ends: {error}");
                return;
            }
            let mut ready = interests.iter().map(|interest| interest.is_readable() || interest.is_writable());
            if ready.next() == Some(true) {
                return;
            }
            let udp: Vec<usize> = (0..self.sockets.udp.len()).filter(|_| ready.next() == Some(true)).collect();
            let tcp: Vec<usize> = (0..self.sockets.tcp.len()).filter(|_| ready.next() == Some(true)).collect();
            let called: Vec<u32> = self.connections.keys().copied().filter(|_| ready.next() == Some(true)).collect();
            let answered: Vec<u32> = self.exchanges.keys().copied().filter(|_| ready.next() == Some(true)).collect();
            let spoken = self.channels.keys().filter(|_| ready.next() == Some(true)).cloned().collect::<Vec<_>>();
            udp.into_iter().for_each(|socket| self.take_datagrams(socket));
            tcp.into_iter().for_each(|socket| self.take_connections(socket));
            called.into_iter().for_each(|number| self.take_questions(number));
            answered.into_iter().for_each(|number| self.take_answers(number));
            spoken.into_iter().for_each(|server| self.take_secure_answers(&server));
            loop {
                // Who has an answer may have asked more than was taken.
                let served = self.drain();
                if served.is_empty() {
                    break;
                }
                served.into_iter().for_each(|number| self.take_questions(number));
            }
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn pause(&self) -> Option<Duration> {
        let due = lock(&self.state).server.poll_timeout();
        let silent = self.connections.values().filter(|connection| connection.waiting == 0);
        let owing = self.channels.values().filter_map(Channel::ends);
        let due = due.into_iter().chain(silent.map(|connection| connection.ends)).chain(owing).min();
        due.map(|at| at.saturating_sub(self.now()))
    }

    fn take_datagrams(&mut self, number: usize) {
        let Some(socket) = self.sockets.udp.get(number) else { return };
        let now = self.origin.elapsed();
        let state = &mut *lock(&self.state);
        state.resolver.look(&mut state.server);
        let (mut answers, mut places) = (Vec::new(), Vec::new());
        for _ in 0..BATCHES {
            let count = socket.recv_many(&mut self.batch).unwrap_or(0);
            answers.clear();
            places.clear();
            for datagram in self.batch.datagrams() {
                let begin = answers.len();
                let client = Client::Udp(number, datagram.remote);
                let handled = state.server.handle_query(now, client, false, datagram.payload, &mut answers);
                if handled == Handled::Answered {
                    places.push((datagram.remote, begin..answers.len()));
                }
            }
            let outgoing = |(remote, place): &(SocketAddr, std::ops::Range<usize>)| Outgoing {
                local: None,
                remote: *remote,
                segment: None,
                payload: answers.get(place.clone()).unwrap_or_default(),
            };
            let outgoing: Vec<Outgoing<'_>> = places.iter().map(outgoing).collect();
            let mut rest = &outgoing[..];
            while !rest.is_empty() {
                // Whom one answer does not reach, may not keep the others from theirs.
                let sent = socket.send_many(rest).unwrap_or(0).max(1);
                rest = rest.get(sent..).unwrap_or_default();
            }
            if count < selvedge_linux::BATCH {
                return;
            }
        }
    }

    fn take_connections(&mut self, number: usize) {
        let Some(listener) = self.sockets.tcp.get(number) else { return };
        while let Ok((stream, _)) = listener.accept() {
            let Ok(connection) = Connection::new(self.origin.elapsed(), stream) else { continue };
            if self.connections.len() >= MAX_CONNECTIONS {
                let first = self.connections.iter().min_by_key(|(_, c)| c.ends).map(|(number, _)| *number);
                first.and_then(|number| self.connections.remove(&number));
            }
            self.next_connection = self.next_connection.wrapping_add(1);
            self.connections.insert(self.next_connection, connection);
        }
    }

    fn take_questions(&mut self, number: u32) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if !(connection.write() && connection.read(now)) {
            self.connections.remove(&number);
            return;
        }
        let state = &mut *lock(&self.state);
        while let Some(question) = connection.question() {
            let mut answer = Vec::new();
            match state.server.handle_query(now, Client::Tcp(number), true, &question, &mut answer) {
                Handled::Answered => connection.answer(now, &answer),
                Handled::Waiting => connection.waiting += 1,
                Handled::Ignored => {}
            }
        }
        if !connection.write() {
            self.connections.remove(&number);
        }
    }

    fn take_answers(&mut self, number: u32) {
        let mut buffer = [0; MAX_DATAGRAM];
        let now = self.now();
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        let server = &mut lock(&self.state).server;
        match exchange.advance(&mut buffer) {
            Ok(Some(message)) => server.handle_upstream(now, number, message),
            Ok(None) => {}
            Err(error) => {
                log::debug!("ask an upstream: {error}");
                server.handle_failure(now, number);
            }
        }
    }

    fn take_secure_answers(&mut self, server: &NameServer) {
        let now = self.now();
        let Some(channel) = self.channels.get_mut(server) else { return };
        let mut answers = Vec::new();
        let ended = channel.advance(now, &mut answers);
        let state = &mut *lock(&self.state);
        for (exchange, message) in answers {
            state.distrusted.remove(server);
            state.server.handle_upstream(now, exchange, &message);
        }
        if let Err(error) = ended {
            end(now, state, &mut self.channels, server, &error.to_string());
        }
    }

    /// What follows: questions to upstreams, answers to those who waited, and an end to what is over. Returns the
    /// connections that got an answer.
    fn drain(&mut self) -> Vec<u32> {
        let now = self.now();
        let state = Arc::clone(&self.state);
        let state = &mut *lock(&state);
        self.drop_channels(now, state);
        if state.server.poll_timeout().is_some_and(|at| at <= now) {
            state.server.handle_timeout(now);
        }
        while state.server.wants_transmit() {
            let mut random = [0; 10];
            if let Err(error) = self.random.read_exact(&mut random) {
                log::error!("without random numbers no upstream is asked: {error}");
                break;
            }
            let Some(transmit) = state.server.poll_transmit(now, random) else { break };
            if transmit.upstream.tls.is_some() {
                ask(now, state, &mut self.channels, transmit);
                continue;
            }
            match Exchange::open(&transmit) {
                Ok(exchange) => drop(self.exchanges.insert(transmit.exchange, exchange)),
                Err(error) => {
                    log::debug!("ask {}: {error}", transmit.upstream);
                    state.server.handle_failure(now, transmit.exchange);
                }
            }
        }
        let server = &mut state.server;
        let mut served = Vec::new();
        while let Some((client, answer)) = server.poll_answer(now) {
            self.answer(now, client, &answer);
            if let Client::Tcp(number) = client {
                served.push(number);
            }
        }
        self.exchanges.retain(|number, _| server.is_open(*number));
        self.connections.retain(|_, connection| connection.ends > now || connection.waiting > 0);
        served
    }

    /// Connections over TLS to servers that say nothing, or that nobody asks any more.
    fn drop_channels(&mut self, now: Duration, state: &mut State) {
        let known = |server: &NameServer| state.server.upstreams().iter().any(|upstream| upstream.server == *server);
        self.channels.retain(|server, _| known(server));
        let is_open = |exchange| state.server.is_open(exchange);
        let silent = self.channels.iter_mut().filter_map(|(server, channel)| {
            let useful = channel.keep(now, is_open);
            (!useful).then(|| server.clone())
        });
        for server in silent.collect::<Vec<_>>() {
            end(now, state, &mut self.channels, &server, "no answer");
        }
    }

    fn answer(&mut self, now: Duration, client: Client, answer: &[u8]) {
        match client {
            Client::Udp(socket, remote) => {
                let sent = self.sockets.udp.get(socket).map(|socket| socket.send_from(None, remote, answer));
                if let Some(Err(error)) = sent {
                    log::debug!("answer {remote}: {error}");
                }
            }
            Client::Tcp(number) => {
                let Some(connection) = self.connections.get_mut(&number) else { return };
                connection.waiting = connection.waiting.saturating_sub(1);
                connection.answer(now, answer);
                if !connection.write() {
                    self.connections.remove(&number);
                }
            }
        }
    }
}

/// Asks over the connection there is, or over a new one.
fn ask(now: Duration, state: &mut State, channels: &mut BTreeMap<NameServer, Channel>, transmit: Transmit) {
    let (server, exchange) = (transmit.upstream.clone(), transmit.exchange);
    let opened = match channels.entry(server.clone()) {
        Entry::Occupied(there) => Ok(there.into_mut()),
        Entry::Vacant(place) => Channel::open(now, &server, &mut state.trust).map(|channel| place.insert(channel)),
    };
    if let Err(error) = opened.and_then(|channel| channel.ask(now, transmit).context(|| "send".to_owned())) {
        log::debug!("ask {server}: {error}");
        state.distrusted.insert(server, error.to_string());
        state.server.handle_failure(now, exchange);
    }
}

/// Ends a connection. Servers close them when they like: what was asked over one that served is asked again over another.
fn end(now: Duration, state: &mut State, channels: &mut BTreeMap<NameServer, Channel>, server: &NameServer, why: &str) {
    let Some((proven, mut waiting)) = channels.remove(server).map(Channel::close) else { return };
    waiting.retain(|asked| state.server.is_open(asked.exchange));
    if waiting.is_empty() {
        return;
    }
    log::debug!("ask {server}: {why}");
    if proven {
        return waiting.into_iter().for_each(|asked| ask(now, state, channels, asked));
    }
    state.distrusted.insert(server.clone(), why.to_owned());
    waiting.iter().for_each(|asked| state.server.handle_failure(now, asked.exchange));
}
