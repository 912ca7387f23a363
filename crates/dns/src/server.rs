//! The server: whose question it is, and what is answered.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use selvedge_model::NameServer;

use crate::cache::{Cache, Key};
use crate::forward::{Done, Forwarder, Outcome, Transmit, Waiter};
use crate::local::{self, SoaOwner};
use crate::message::{Asked, IN, Rcode, Reply, Unusable, kind};
use crate::name::Name;
use crate::upstream::Upstream;
use crate::view::{Found, View};
use crate::writer::{self, Remarks, Section, Writer};

/// What an answer beyond its time is good for, in seconds (RFC 8767, 4).
const STALE_TTL: u32 = 30;

/// Extended errors (RFC 8914).
const STALE_ANSWER: u16 = 3;
const NOT_READY: u16 = 14;
const FILTERED: u16 = 17;
const NO_REACHABLE_AUTHORITY: u16 = 22;

/// What a server is to know from its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's domain.
    pub zone: Name,
    /// Service and pod networks: reverse names within them are nobody else's, and no name outside leads into them.
    pub networks: Vec<IpNet>,
    /// Whom to ask for names outside the cluster.
    pub upstreams: Vec<NameServer>,
    /// Whom to ask for names at and below these.
    pub stubs: Vec<(Name, Vec<NameServer>)>,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The answer is written.
    Answered,
    /// It comes from [`Server::poll_answer`].
    Waiting,
    /// There is none.
    Ignored,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions.
    pub questions: u32,
    /// Answered from the Services of the cluster.
    pub cluster: u32,
    /// Answered from what was kept.
    pub cached: u32,
    /// Answered with what was kept beyond its time.
    pub stale: u32,
    /// Asked an upstream.
    pub forwarded: u32,
    /// Not answered, for no upstream answered.
    pub failed: u32,
    /// Answers of upstreams that led into the cluster's networks.
    pub rebound: u32,
}

/// A DNS server without sockets and clock. `C` is how the caller knows a client.
pub struct Server<C> {
    settings: Settings,
    view: Option<View>,
    cache: Cache,
    forwarder: Forwarder<C>,
    counters: Counters,
}

impl<C: Clone> Server<C> {
    /// One that knows no names yet: until it does, those of the cluster are answered with an error, not denied.
    pub fn new(settings: Settings) -> Self {
        let mut forwarder = Forwarder::default();
        forwarder.set_upstreams(&settings.upstreams, &settings.stubs);
        Server { settings, view: None, cache: Cache::default(), forwarder, counters: Counters::default() }
    }

    /// Other settings; what was learnt of upstreams that stay, stays.
    pub fn set(&mut self, settings: Settings) {
        if (&settings.upstreams, &settings.stubs) != (&self.settings.upstreams, &self.settings.stubs) {
            self.forwarder.set_upstreams(&settings.upstreams, &settings.stubs);
        }
        self.settings = settings;
    }

    /// The names of the cluster.
    pub fn set_view(&mut self, view: View) {
        self.view = Some(view);
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many Services have names; `None`: not known yet.
    pub fn services(&self) -> Option<usize> {
        self.view.as_ref().map(View::len)
    }

    /// The servers that are asked.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.forwarder.upstreams
    }

    /// How often what happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many answers are kept.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Takes a question. An answer is written behind what is in `out`.
    pub fn handle_query(&mut self, now: Duration, client: C, tcp: bool, query: &[u8], out: &mut Vec<u8>) -> Handled {
        self.counters.questions = self.counters.questions.wrapping_add(1);
        let asked = match Asked::read(query, tcp) {
            Ok(asked) => asked,
            Err(Unusable::Silent) => return Handled::Ignored,
            Err(Unusable::Refused { id, flags, rcode }) => {
                writer::refusal(out, id, flags, rcode);
                return Handled::Answered;
            }
        };
        if asked.edns.is_some_and(|edns| edns.version > 0) {
            return refuse(out, &asked, Rcode::BadVersion, None);
        }
        if asked.class != IN {
            return refuse(out, &asked, Rcode::Refused, None);
        }
        if matches!(asked.kind, kind::AXFR | kind::IXFR | kind::OPT) {
            return refuse(out, &asked, Rcode::NotImp, None);
        }
        let name = asked.name.lower();
        match self.find(&name) {
            Some(Found::Alias(target)) if asked.kind != kind::CNAME => {
                self.counters.cluster = self.counters.cluster.wrapping_add(1);
                self.follow(now, client, asked, *target, out)
            }
            Some(Found::Unknown) => refuse(out, &asked, Rcode::ServFail, Some(NOT_READY)),
            Some(_) => {
                self.counters.cluster = self.counters.cluster.wrapping_add(1);
                self.answer_locally(&asked, &name, None, out);
                Handled::Answered
            }
            None if self.forwarder.is_own(now, &asked) => refuse(out, &asked, Rcode::Refused, None),
            None => self.ask(now, Waiter { client, asked, alias: None }, out),
        }
    }

    /// Whether there is something to send.
    pub fn wants_transmit(&self) -> bool {
        self.forwarder.wants_transmit()
    }

    /// The next question to send; `random` must be unpredictable.
    pub fn poll_transmit(&mut self, now: Duration, random: [u8; 10]) -> Option<Transmit> {
        self.forwarder.poll_transmit(now, random)
    }

    /// Whether the socket of an exchange is still of use.
    pub fn is_open(&self, exchange: u32) -> bool {
        self.forwarder.is_open(exchange)
    }

    /// Something came by the socket of an exchange.
    pub fn handle_upstream(&mut self, now: Duration, exchange: u32, message: &[u8]) {
        self.forwarder.handle_upstream(now, exchange, message);
    }

    /// The socket of an exchange failed.
    pub fn handle_failure(&mut self, now: Duration, exchange: u32) {
        self.forwarder.handle_failure(now, exchange);
    }

    /// The time of [`Server::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.forwarder.handle_timeout(now);
    }

    /// When to call [`Server::handle_timeout`]; `None` while nothing is out.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.forwarder.poll_timeout()
    }

    /// An answer for a client that waited, with the question's protocol in mind as far as its length goes.
    pub fn poll_answer(&mut self, now: Duration) -> Option<(C, Vec<u8>)> {
        loop {
            let done = self.forwarder.done.front_mut()?;
            if let Some(waiter) = done.waiters.pop() {
                let Done { key, outcome, .. } = done;
                let mut out = Vec::new();
                match outcome {
                    Outcome::Answer { reply, upstream, took, stub } => {
                        if !*stub && leads_into(reply, &self.settings.networks) {
                            self.counters.rebound = self.counters.rebound.wrapping_add(1);
                            refuse(&mut out, &waiter.asked, Rcode::ServFail, Some(FILTERED));
                        } else {
                            let origin = format!("upstream {upstream}, {} ms", took.as_millis());
                            let kept = Kept { reply, age: 0, stale: false, origin: &origin };
                            kept.write(&waiter, &mut out);
                        }
                    }
                    Outcome::Failed(_) | Outcome::Late => {
                        let rcode = if let Outcome::Failed(rcode) = outcome { *rcode } else { Rcode::ServFail };
                        match self.cache.get(now, key) {
                            Some(found) => {
                                self.counters.stale = self.counters.stale.wrapping_add(1);
                                Kept { reply: found.reply, age: found.age, stale: true, origin: "stale" }
                                    .write(&waiter, &mut out);
                            }
                            None => {
                                self.counters.failed = self.counters.failed.wrapping_add(1);
                                refuse(&mut out, &waiter.asked, rcode, Some(NO_REACHABLE_AUTHORITY));
                            }
                        }
                    }
                }
                return Some((waiter.client, out));
            }
            let done = self.forwarder.done.pop_front()?;
            if let Outcome::Answer { reply, stub, .. } = done.outcome {
                if stub || !leads_into(&reply, &self.settings.networks) {
                    self.cache.put(now, done.key, reply);
                }
            }
        }
    }

    /// What the cluster says to a name in lower case; `None`: it is none of the cluster's.
    fn find(&self, name: &Name) -> Option<Found> {
        if let Some(labels) = name.below(&self.settings.zone) {
            return Some(self.view.as_ref().map_or(Found::Unknown, |view| view.find(labels)));
        }
        let address = local::reverse(name)?;
        if !self.settings.networks.iter().any(|net| net.contains(&address)) {
            return None;
        }
        Some(self.view.as_ref().map_or(Found::Unknown, |view| view.find_address(address)))
    }

    fn answer_locally(&self, asked: &Asked, name: &Name, alias: Option<(&Name, &Name)>, out: &mut Vec<u8>) {
        let Some(view) = &self.view else { return };
        let found = self.find(name).unwrap_or(Found::Nothing);
        let owner = match local::reverse(name) {
            Some(_) => SoaOwner::Parent,
            None => SoaOwner::Zone(&self.settings.zone),
        };
        local::Answer { view, zone: &self.settings.zone, owner, asked, name, alias }.write(found, out);
    }

    /// Answers for the name that a Service of type `ExternalName` stands for.
    fn follow(&mut self, now: Duration, client: C, asked: Asked, target: Name, out: &mut Vec<u8>) -> Handled {
        let lower = target.lower();
        match self.find(&lower) {
            // One alias may lead to a Service; what leads further is left to the client.
            Some(_) => {
                self.answer_locally(&asked, &lower, Some((&asked.name, &target)), out);
                Handled::Answered
            }
            None => self.ask(now, Waiter { client, asked, alias: Some(target) }, out),
        }
    }

    fn ask(&mut self, now: Duration, waiter: Waiter<C>, out: &mut Vec<u8>) -> Handled {
        let key = Key::new(waiter.alias.as_ref().unwrap_or(&waiter.asked.name), &waiter.asked);
        let mut stale = false;
        if let Some(found) = self.cache.get(now, &key) {
            if found.fresh {
                self.counters.cached = self.counters.cached.wrapping_add(1);
                Kept { reply: found.reply, age: found.age, stale: false, origin: "cache" }.write(&waiter, out);
                return Handled::Answered;
            }
            stale = true;
        }
        self.counters.forwarded = self.counters.forwarded.wrapping_add(1);
        let Err(waiter) = self.forwarder.ask(now, key.clone(), waiter, stale) else { return Handled::Waiting };
        match self.cache.get(now, &key) {
            Some(found) => {
                self.counters.stale = self.counters.stale.wrapping_add(1);
                Kept { reply: found.reply, age: found.age, stale: true, origin: "stale" }.write(&waiter, out);
                Handled::Answered
            }
            None => {
                self.counters.failed = self.counters.failed.wrapping_add(1);
                refuse(out, &waiter.asked, Rcode::ServFail, Some(NO_REACHABLE_AUTHORITY))
            }
        }
    }
}

/// Whether an answer names an address of the cluster.
fn leads_into(reply: &Reply, networks: &[IpNet]) -> bool {
    reply.each().any(|(record, _)| {
        let address = match record.kind {
            kind::A => <[u8; 4]>::try_from(record.data).ok().map(IpAddr::from),
            kind::AAAA => <[u8; 16]>::try_from(record.data).ok().map(|octets| {
                let address = std::net::Ipv6Addr::from(octets);
                address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
            }),
            _ => None,
        };
        address.is_some_and(|address| networks.iter().any(|net| net.contains(&address)))
    })
}

fn refuse(out: &mut Vec<u8>, asked: &Asked, rcode: Rcode, error: Option<u16>) -> Handled {
    let remarks = Remarks { error, origin: "nowhere" };
    Writer::answer(out, asked).finish(asked, rcode, 0, &remarks);
    Handled::Answered
}

/// An answer of an upstream, now or then.
struct Kept<'a> {
    reply: &'a Reply,
    age: u32,
    stale: bool,
    origin: &'a str,
}

impl Kept<'_> {
    fn write<C>(&self, waiter: &Waiter<C>, out: &mut Vec<u8>) {
        use crate::message::flag;
        let asked = &waiter.asked;
        let mut writer = Writer::answer(out, asked);
        if let Some(target) = &waiter.alias {
            local::put_alias(&mut writer, &asked.name, target);
        }
        for (record, is_answer) in self.reply.each() {
            writer.section(if is_answer { Section::Answer } else { Section::Authority });
            let left = record.ttl.saturating_sub(self.age);
            let ttl = if self.stale { STALE_TTL } else { left };
            writer.record(&record.name, record.kind, record.class, ttl, |w| w.octets(record.data));
        }
        let flags = if self.reply.authentic && waiter.alias.is_none() { flag::AUTHENTIC } else { 0 };
        let error = self.stale.then_some(STALE_ANSWER);
        let rcode = self.reply.rcode;
        writer.finish(asked, rcode, flags, &Remarks { error, origin: self.origin });
    }
}
