//! All endpoints that are worth remembering.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::purse::Purse;
use crate::{Answer, Probe, State, Target, Terms};

/// Endpoints remembered at once: those asked as a matter of routine, and those of which something bad is known.
pub const MAX_ENDPOINTS: usize = 1024;

/// Of these, the last ones are for those in trouble.
const MAX_ROUTINE: usize = MAX_ENDPOINTS / 4 * 3;

/// Questions without an answer yet.
const MAX_FLIGHTS: usize = 32;

/// Places in an agenda: an endpoint in trouble is asked, one is asked as a matter of routine, one is forgotten.
const ASK_NOW: usize = 0;
const ASK: usize = 1;
const FORGET: usize = 2;

/// Links that change together are looked at once things are quiet again.
const SPREAD: Duration = Duration::from_millis(500);

/// The health of endpoints. Times are of one clock that never runs back.
#[derive(Debug)]
pub struct Health {
    endpoints: BTreeMap<Target, Endpoint>,
    /// When something is to be done with an endpoint, by what.
    agenda: [BTreeSet<(Duration, Target)>; 3],
    out: BTreeSet<Target>,
    flights: usize,
    purse: Purse,
    random: u64,
    view: u32,
    changed: bool,
}

/// An endpoint as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub target: Target,
    /// How it is.
    pub state: State,
    /// For how long.
    pub age: Duration,
    /// The last bad answer, unless it is well and was so for as long as it is remembered.
    pub answer: Option<Answer>,
}

impl Health {
    /// Nothing is known yet. `seed` is any number, of each node its own.
    pub fn new(now: Duration, seed: u64) -> Self {
        Health {
            endpoints: BTreeMap::new(),
            agenda: Default::default(),
            out: BTreeSet::new(),
            flights: 0,
            purse: Purse::new(now),
            random: seed,
            view: 0,
            changed: false,
        }
    }

    /// Endpoints that are out, in use or not.
    pub fn out(&self) -> &BTreeSet<Target> {
        &self.out
    }

    /// Whether `out` has changed since this was asked last.
    pub fn poll_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether this endpoint is out.
    pub fn is_out(&self, target: &Target) -> bool {
        self.out.contains(target)
    }

    /// All endpoints there are, as often as they serve: others are forgotten.
    pub fn handle_endpoints(&mut self, now: Duration, all: impl IntoIterator<Item = (Target, Terms)>) {
        self.view = self.view.wrapping_add(1);
        for (target, terms) in all {
            let (random, view) = (self.random(), self.view);
            if terms.always && !terms.costly {
                self.remember(now, target, &terms, MAX_ROUTINE);
            }
            self.change(target, |known| {
                // Two Services share it: who asks for more gets it.
                if known.view != view || (terms.always && !known.terms.always) {
                    known.view = view;
                    known.terms = terms;
                }
                if known.is_routine() {
                    known.begin(now, random);
                }
            });
        }
        let gone = self.endpoints.iter().filter(|(_, endpoint)| endpoint.view != self.view);
        let gone: Vec<Target> = gone.map(|(target, _)| *target).collect();
        gone.iter().for_each(|target| self.forget(target));
        let before = self.out.len();
        self.out.retain(|target| self.endpoints.contains_key(target));
        self.changed |= self.out.len() != before;
    }

    /// A packet for this endpoint, one of those there are, got no answer, or a bad one: it is asked now.
    pub fn handle_suspicion(&mut self, now: Duration, target: Target, terms: Terms) {
        self.doubt(now, target, terms, Duration::ZERO, MAX_ENDPOINTS);
    }

    /// The same, and an error of ICMP said so.
    pub fn handle_refusal(&mut self, now: Duration, target: Target, terms: Terms) {
        self.handle_suspicion(now, target, terms);
        self.change(target, |endpoint| endpoint.refused(now));
    }

    /// Something changed around these endpoints, which are near: they are asked soon.
    pub fn handle_change(&mut self, now: Duration, near: impl IntoIterator<Item = (Target, Terms)>) {
        for (target, terms) in near {
            let part = SPREAD / 4 * (self.random() >> 30);
            self.doubt(now, target, terms, SPREAD + part, MAX_ROUTINE);
        }
    }

    /// The answer to a probe; every probe gets one.
    pub fn handle_answer(&mut self, now: Duration, probe: &Probe, answer: Answer) {
        self.flights = self.flights.saturating_sub(1);
        let random = self.random();
        let turned = self.change(probe.target, |endpoint| {
            endpoint.answer(now, probe.round, answer, random).then_some(endpoint.state)
        });
        if let Some(Some(state)) = turned {
            self.changed = true;
            match state {
                State::Out => self.out.insert(probe.target),
                _ => self.out.remove(&probe.target),
            };
        }
    }

    /// Forgets what need not be remembered any longer.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some((_, target)) = self.agenda[FORGET].first().filter(|(at, _)| *at <= now).copied() {
            self.forget(&target);
        }
    }

    /// The next question to ask now, if any.
    pub fn poll_probe(&mut self, now: Duration) -> Option<Probe> {
        if self.flights >= MAX_FLIGHTS || self.purse.ready_at() > now {
            return None;
        }
        let due = |queue: &BTreeSet<(Duration, Target)>| queue.first().filter(|(at, _)| *at <= now).copied();
        let (_, target) = due(&self.agenda[ASK_NOW]).or_else(|| due(&self.agenda[ASK]))?;
        self.purse.pay(now);
        self.flights += 1;
        self.change(target, |endpoint| Probe { target, test: endpoint.terms.test.clone(), round: endpoint.ask(now) })
    }

    /// When `poll_probe` or `handle_timeout` have something to do next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let first = |queue: &BTreeSet<(Duration, Target)>| queue.first().map(|(at, _)| *at);
        let questions = first(&self.agenda[ASK_NOW]).into_iter().chain(first(&self.agenda[ASK])).min();
        // With too many on their way it is an answer that is waited for.
        let questions = questions.filter(|_| self.flights < MAX_FLIGHTS).map(|at| at.max(self.purse.ready_at()));
        questions.into_iter().chain(first(&self.agenda[FORGET])).min()
    }

    /// What is remembered, in order.
    pub fn report(&self, now: Duration) -> impl Iterator<Item = Report> + '_ {
        self.endpoints.iter().map(move |(target, endpoint)| Report {
            target: *target,
            state: endpoint.state,
            age: now.saturating_sub(endpoint.since),
            answer: endpoint.answer,
        })
    }

    fn doubt(&mut self, now: Duration, target: Target, terms: Terms, delay: Duration, limit: usize) {
        self.remember(now, target, &terms, limit);
        self.change(target, |endpoint| endpoint.suspect(now, delay));
    }

    /// If there is room, and it is not remembered yet. Something is to be done with it next.
    fn remember(&mut self, now: Duration, target: Target, terms: &Terms, limit: usize) {
        if self.endpoints.len() < limit && !self.endpoints.contains_key(&target) {
            let endpoint = Endpoint::new(now, terms.clone(), self.view);
            self.enter(target, endpoint.agenda());
            self.endpoints.insert(target, endpoint);
        }
    }

    fn forget(&mut self, target: &Target) {
        if let Some(endpoint) = self.endpoints.remove(target) {
            self.strike(*target, endpoint.agenda());
        }
    }

    /// Does something to an endpoint that is remembered, and keeps the agenda.
    fn change<T>(&mut self, target: Target, action: impl FnOnce(&mut Endpoint) -> T) -> Option<T> {
        let endpoint = self.endpoints.get_mut(&target)?;
        let before = endpoint.agenda();
        let result = action(endpoint);
        let after = endpoint.agenda();
        if before != after {
            self.strike(target, before);
            self.enter(target, after);
        }
        Some(result)
    }

    fn enter(&mut self, target: Target, times: [Option<Duration>; 3]) {
        for (queue, at) in self.agenda.iter_mut().zip(times) {
            queue.extend(at.map(|at| (at, target)));
        }
    }

    fn strike(&mut self, target: Target, times: [Option<Duration>; 3]) {
        for (queue, at) in self.agenda.iter_mut().zip(times) {
            at.map(|at| queue.remove(&(at, target)));
        }
    }

    /// SplitMix64: good enough to keep nodes from asking in step.
    fn random(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 32) as u32
    }
}
