//! Questions that others answer: whom to ask, for how long, and who waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use selvedge_model::NameServer;

use crate::cache::Key;
use crate::message::{self, Asked, Rcode, Reply, flag, kind};
use crate::name::Name;
use crate::upstream::{State, Upstream};
use crate::writer;

/// Questions that are out at once.
const MAX_FLIGHTS: usize = 128;

/// Sockets in use at once.
const MAX_EXCHANGES: usize = 192;

/// Clients that wait for one question.
const MAX_WAITERS: usize = 32;

/// When nobody waits any longer.
const GIVE_UP: Duration = Duration::from_secs(5);

/// When an answer whose time is over is better than none (RFC 8767, 5).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// When the same server is asked again, and how long an answer is waited for.
const AGAIN: Duration = Duration::from_secs(1);
const UDP_PATIENCE: Duration = Duration::from_secs(2);
const TCP_PATIENCE: Duration = Duration::from_secs(4);

/// Answers to something else on one socket, before it is taken for attacked.
const MAX_STRAYS: u8 = 16;

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Waiter<C> {
    pub(crate) client: C,
    pub(crate) asked: Asked,
    /// What its name stands for, if that is what was asked outside.
    pub(crate) alias: Option<Name>,
}

/// A datagram or stream to open.
#[derive(Debug, PartialEq, Eq)]
pub struct Transmit {
    /// What it is known by.
    pub exchange: u32,
    /// Whom to ask.
    pub upstream: NameServer,
    /// Over a stream, with the length in front; over TLS, if the server is asked so.
    pub tcp: bool,
    /// The question.
    pub payload: Vec<u8>,
}

/// What became of a question.
pub(crate) struct Done<C> {
    pub(crate) key: Key,
    pub(crate) waiters: Vec<Waiter<C>>,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    Answer {
        reply: Reply,
        upstream: NameServer,
        took: Duration,
        stub: bool,
    },
    Failed(Rcode),
    /// It is still out, but what is kept is better than to wait.
    Late,
}

/// Servers for a part of the names.
struct Group {
    /// `None`: all names.
    zone: Option<Name>,
    upstreams: Vec<usize>,
}

struct Flight<C> {
    waiters: Vec<Waiter<C>>,
    stub: bool,
    order: Vec<usize>,
    attempts: usize,
    /// Exchanges that may still bring an answer.
    open: usize,
    worst: Rcode,
    started: Duration,
    next_at: Duration,
    stale_at: Option<Duration>,
}

struct Exchange {
    purpose: Purpose,
    upstream: usize,
    tcp: bool,
    /// `None`: it is to be sent.
    sent: Option<Sent>,
}

enum Purpose {
    Flight(Key),
    /// Does what it is asked come to us?
    Probe,
}

struct Sent {
    id: u16,
    at: Duration,
    name: Name,
    kind: u16,
    strays: u8,
    came_back: bool,
}

pub(crate) struct Forwarder<C> {
    pub(crate) upstreams: Vec<Upstream>,
    groups: Vec<Group>,
    flights: BTreeMap<Key, Flight<C>>,
    exchanges: BTreeMap<u32, Exchange>,
    next_exchange: u32,
    outbox: VecDeque<u32>,
    pub(crate) done: VecDeque<Done<C>>,
}

impl<C> Default for Forwarder<C> {
    fn default() -> Self {
        Forwarder {
            upstreams: Vec::new(),
            groups: Vec::new(),
            flights: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            next_exchange: 0,
            outbox: VecDeque::new(),
            done: VecDeque::new(),
        }
    }
}

impl<C> Forwarder<C> {
    /// Whom to ask: servers for everything, and for names at and below a zone. What is out has failed.
    pub(crate) fn set_upstreams(&mut self, all: &[NameServer], stubs: &[(Name, Vec<NameServer>)]) {
        let before = std::mem::take(&mut self.upstreams);
        for key in self.flights.keys().cloned().collect::<Vec<_>>() {
            self.fail(&key);
        }
        self.exchanges.clear();
        self.outbox.clear();
        let mut add = |servers: &[NameServer]| {
            let upstreams = &mut self.upstreams;
            let mut indices = Vec::new();
            for server in servers {
                let known = upstreams.iter().position(|u| u.server == *server);
                indices.push(known.unwrap_or_else(|| {
                    let old = before.iter().find(|u| u.server == *server).cloned();
                    upstreams.push(old.unwrap_or_else(|| Upstream::new(server.clone())));
                    upstreams.len() - 1
                }));
            }
            indices
        };
        let mut groups = vec![Group { zone: None, upstreams: add(all) }];
        groups.extend(stubs.iter().map(|(zone, servers)| Group { zone: Some(zone.lower()), upstreams: add(servers) }));
        self.groups = groups;
    }

    /// Asks, or joins those who do. Gives the waiter back if nobody can be asked now.
    pub(crate) fn ask(
        &mut self,
        now: Duration,
        key: Key,
        waiter: Waiter<C>,
        stale: bool,
    ) -> Result<(), Box<Waiter<C>>> {
        if let Some(flight) = self.flights.get_mut(&key) {
            if flight.waiters.len() >= MAX_WAITERS {
                return Err(waiter.into());
            }
            flight.waiters.push(waiter);
            return Ok(());
        }
        let Some((name, ..)) = key.parts() else { return Err(waiter.into()) };
        let (order, trials, stub) = self.choose(now, &name);
        if order.is_empty() || self.flights.len() >= MAX_FLIGHTS {
            return Err(waiter.into());
        }
        let flight = Flight {
            waiters: vec![waiter],
            stub,
            order,
            attempts: 0,
            open: 0,
            worst: Rcode::ServFail,
            started: now,
            next_at: now,
            stale_at: stale.then_some(now + STALE_AFTER),
        };
        self.flights.insert(key.clone(), flight);
        self.advance(now, &key);
        for upstream in trials {
            self.send(Purpose::Flight(key.clone()), upstream, false);
        }
        Ok(())
    }

    pub(crate) fn wants_transmit(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next thing to send; `random` must be unpredictable.
    pub(crate) fn poll_transmit(&mut self, now: Duration, random: [u8; 10]) -> Option<Transmit> {
        while let Some(number) = self.outbox.pop_front() {
            let Some(exchange) = self.exchanges.get_mut(&number) else { continue };
            let Some(upstream) = self.upstreams.get_mut(exchange.upstream) else { continue };
            let [high, low, rest @ ..] = random;
            let id = u16::from_be_bytes([high, low]);
            let (name, kind, dnssec, flags) = match &exchange.purpose {
                Purpose::Probe => (probe_name(rest), kind::HINFO, false, flag::RECURSION_DESIRED),
                Purpose::Flight(key) => {
                    let Some((name, kind, dnssec, unchecked)) = key.parts() else { continue };
                    let unchecked = if unchecked { flag::CHECKING_DISABLED } else { 0 };
                    (name, kind, dnssec, flag::RECURSION_DESIRED | unchecked)
                }
            };
            upstream.asked = upstream.asked.saturating_add(1);
            let ask = |options: &[u8]| {
                let edns = (!upstream.plain).then_some((dnssec, options));
                writer::question(id, &name, kind, flags, edns)
            };
            let secure = upstream.server.tls.is_some() && !upstream.plain;
            let payload = if secure { ask(&padding(ask(&padding(0)).len())) } else { ask(&[]) };
            exchange.sent = Some(Sent { id, at: now, name, kind, strays: 0, came_back: false });
            return Some(Transmit { exchange: number, upstream: upstream.server.clone(), tcp: exchange.tcp, payload });
        }
        None
    }

    /// Whether an exchange is waited for.
    pub(crate) fn is_open(&self, exchange: u32) -> bool {
        self.exchanges.contains_key(&exchange)
    }

    /// Something came by the socket of an exchange.
    pub(crate) fn handle_upstream(&mut self, now: Duration, number: u32, message: &[u8]) {
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        let Some(sent) = &mut exchange.sent else { return };
        let took = now.saturating_sub(sent.at);
        let reply = message::answers(message, sent.id, &sent.name, sent.kind).then(|| Reply::read(message)).flatten();
        let Some(reply) = reply else {
            sent.strays += 1;
            if sent.strays > MAX_STRAYS {
                self.handle_failure(now, number);
            }
            return;
        };
        let Some(exchange) = self.exchanges.remove(&number) else { return };
        let Some(upstream) = self.upstreams.get_mut(exchange.upstream) else { return };
        let server = upstream.server.clone();
        let came_back = exchange.sent.is_some_and(|sent| sent.came_back);
        if exchange.tcp && server.tls.is_none() {
            // A handshake more than it takes.
            upstream.answered = upstream.answered.saturating_add(1);
        } else {
            upstream.heard(took);
        }
        let key = match exchange.purpose {
            Purpose::Probe if came_back => return,
            Purpose::Probe => return upstream.unlooped(),
            Purpose::Flight(key) => key,
        };
        let without_edns = matches!(reply.rcode, Rcode::FormErr | Rcode::NotImp) && !upstream.plain;
        if without_edns {
            upstream.plain = true;
        }
        let Some(flight) = self.flights.get_mut(&key) else { return };
        flight.open = flight.open.saturating_sub(1);
        if reply.truncated && exchange.tcp {
            flight.worst = Rcode::ServFail;
        } else if without_edns || reply.truncated {
            return self.send(Purpose::Flight(key), exchange.upstream, reply.truncated);
        } else if matches!(reply.rcode, Rcode::NoError | Rcode::NxDomain) {
            let Some(flight) = self.flights.remove(&key) else { return };
            let outcome = Outcome::Answer { reply, upstream: server, took, stub: flight.stub };
            return self.done.push_back(Done { key, waiters: flight.waiters, outcome });
        } else {
            flight.worst = reply.rcode;
        }
        self.next(now, &key);
    }

    /// The socket of an exchange failed.
    pub(crate) fn handle_failure(&mut self, now: Duration, number: u32) {
        let Some(exchange) = self.exchanges.remove(&number) else { return };
        if let Some(upstream) = self.upstreams.get_mut(exchange.upstream) {
            upstream.missed(now);
        }
        let Purpose::Flight(key) = exchange.purpose else { return };
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.open = flight.open.saturating_sub(1);
            self.next(now, &key);
        }
    }

    /// Whether this question is one of ours that came back; who sent it back is remembered.
    pub(crate) fn is_own(&mut self, now: Duration, asked: &Asked) -> bool {
        if asked.kind != kind::HINFO {
            return false;
        }
        let own = self.exchanges.values_mut().find_map(|exchange| {
            let sent = exchange.sent.as_mut().filter(|sent| sent.name == asked.name)?;
            matches!(exchange.purpose, Purpose::Probe).then_some((sent, exchange.upstream))
        });
        let Some((sent, upstream)) = own else { return false };
        sent.came_back = true;
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.looped(now);
        }
        true
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        let over: Vec<u32> =
            self.exchanges.iter().filter(|(_, e)| e.ends().is_some_and(|at| at <= now)).map(|(n, _)| *n).collect();
        for number in over {
            self.handle_failure(now, number);
        }
        let due: Vec<Key> = self.flights.iter().filter(|(_, f)| f.due() <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            let Some(flight) = self.flights.get_mut(&key) else { continue };
            if flight.stale_at.take_if(|at| *at <= now).is_some() {
                let waiters = std::mem::take(&mut flight.waiters);
                self.done.push_back(Done { key: key.clone(), waiters, outcome: Outcome::Late });
            }
            if flight.started + GIVE_UP <= now {
                self.fail(&key);
            } else if flight.next_at <= now {
                self.advance(now, &key);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let exchanges = self.exchanges.values().filter_map(Exchange::ends);
        exchanges.chain(self.flights.values().map(Flight::due)).min()
    }

    /// Whom to ask for a name, the best one first; who is gone and should be tried; and whether they are a stub's.
    fn choose(&mut self, now: Duration, name: &Name) -> (Vec<usize>, Vec<usize>, bool) {
        let below = |group: &&Group| group.zone.is_some_and(|zone| name.below(&zone).is_some());
        let longest = |group: &&Group| group.zone.map_or(0, |zone| zone.wire().len());
        let stub = self.groups.iter().filter(below).max_by_key(longest);
        let Some(group) = stub.or(self.groups.first()) else { return Default::default() };
        let (mut order, mut trials, mut probes) = (Vec::new(), Vec::new(), Vec::new());
        for index in &group.upstreams {
            let Some(upstream) = self.upstreams.get_mut(*index) else { continue };
            if matches!(upstream.state, State::Unknown | State::Up) {
                order.push(*index);
            } else if upstream.trial(now) {
                trials.push(*index);
            } else if upstream.look_again(now) {
                probes.push(*index);
            }
        }
        let stub = group.zone.is_some();
        let rtt = |index: &usize| self.upstreams.get(*index).and_then(|u| u.rtt).unwrap_or_default();
        order.sort_by_key(rtt);
        if order.is_empty() {
            order = std::mem::take(&mut trials);
        }
        for upstream in probes {
            self.send(Purpose::Probe, upstream, false);
        }
        (order, trials, stub)
    }

    /// Asks the next server in turn.
    fn advance(&mut self, now: Duration, key: &Key) {
        let Some(flight) = self.flights.get_mut(key) else { return };
        let servers = flight.order.len().max(1);
        let Some(upstream) = flight.order.get(flight.attempts % servers).copied() else { return };
        flight.attempts += 1;
        let patience = self.upstreams.get(upstream).map_or(AGAIN, Upstream::patience);
        flight.next_at = match flight.attempts {
            tried if tried < servers => now + patience,
            tried if tried < (servers * 2).max(3) => now + AGAIN,
            _ => flight.started + GIVE_UP,
        };
        self.send(Purpose::Flight(key.clone()), upstream, false);
    }

    /// One of those that were asked does not know.
    fn next(&mut self, now: Duration, key: &Key) {
        let Some(flight) = self.flights.get(key) else { return };
        if flight.attempts < flight.order.len() {
            self.advance(now, key);
        } else if flight.open == 0 {
            self.fail(key);
        }
    }

    fn fail(&mut self, key: &Key) {
        let Some(flight) = self.flights.remove(key) else { return };
        let outcome = Outcome::Failed(flight.worst);
        self.done.push_back(Done { key: key.clone(), waiters: flight.waiters, outcome });
    }

    fn send(&mut self, purpose: Purpose, upstream: usize, tcp: bool) {
        if self.exchanges.len() >= MAX_EXCHANGES {
            return;
        }
        let probed = |e: &Exchange| e.upstream == upstream && matches!(e.purpose, Purpose::Probe);
        let unsure = self.upstreams.get(upstream).is_some_and(|u| matches!(u.state, State::Unknown | State::Down));
        let probe = unsure && matches!(purpose, Purpose::Flight(_)) && !self.exchanges.values().any(probed);
        if let Purpose::Flight(key) = &purpose {
            if let Some(flight) = self.flights.get_mut(key) {
                flight.open += 1;
            }
        }
        let tcp = tcp || self.upstreams.get(upstream).is_some_and(|u| u.server.tls.is_some());
        for purpose in [Some(purpose), probe.then_some(Purpose::Probe)].into_iter().flatten() {
            self.next_exchange = self.next_exchange.wrapping_add(1);
            self.exchanges.insert(self.next_exchange, Exchange { purpose, upstream, tcp, sent: None });
            self.outbox.push_back(self.next_exchange);
        }
    }
}

impl<C> Flight<C> {
    fn due(&self) -> Duration {
        self.next_at.min(self.started + GIVE_UP).min(self.stale_at.unwrap_or(Duration::MAX))
    }
}

impl Exchange {
    fn ends(&self) -> Option<Duration> {
        let patience = if self.tcp { TCP_PATIENCE } else { UDP_PATIENCE };
        self.sent.as_ref().map(|sent| sent.at + patience)
    }
}

/// An option that makes a question as long as others are (RFC 8467); `length`: its own with an empty one.
fn padding(length: usize) -> Vec<u8> {
    const OPTION: u16 = 12;
    const BLOCK: usize = 128;
    let octets = if length == 0 { 0 } else { length.next_multiple_of(BLOCK) - length };
    let [high, low] = u16::try_from(octets).unwrap_or_default().to_be_bytes();
    let mut option = OPTION.to_be_bytes().to_vec();
    option.extend([high, low]);
    option.resize(4 + octets, 0);
    option
}

/// A name that nobody has, and nobody else asks for.
fn probe_name(random: [u8; 8]) -> Name {
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let (front, back) = random.split_at(4);
    Name::from_labels([hex(front).as_bytes(), hex(back).as_bytes()]).unwrap_or(Name::ROOT)
}
