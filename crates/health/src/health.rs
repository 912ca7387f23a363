//! All endpoints that are worth remembering.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::purse::Purse;
use crate::{Answer, Probe, State, Target, Terms};

/// Endpoints remembered at once: those asked as a matter of routine, and those of which something bad is known.
pub const MAX_ENDPOINTS: usize = 1024;

/// Questions without an answer yet.
const MAX_FLIGHTS: usize = 32;

/// Links that change together are looked at once things are quiet again.
const SPREAD: Duration = Duration::from_millis(500);

/// The health of endpoints. Times are of one clock that never runs back.
#[derive(Debug)]
pub struct Health {
    endpoints: BTreeMap<Target, Endpoint>,
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
            let random = self.random();
            let room = self.endpoints.len() < MAX_ENDPOINTS;
            match self.endpoints.get_mut(&target) {
                // Two Services share it: who asks for more gets it.
                Some(known) if known.view == self.view && (known.terms.always || !terms.always) => {}
                Some(known) => {
                    known.view = self.view;
                    known.terms = terms;
                    if known.is_routine() {
                        known.begin(now, random);
                    }
                }
                None if room && terms.always && !terms.costly => {
                    let mut endpoint = Endpoint::new(now, terms, self.view);
                    endpoint.begin(now, random);
                    self.endpoints.insert(target, endpoint);
                }
                None => {}
            }
        }
        let view = self.view;
        self.endpoints.retain(|_, endpoint| endpoint.view == view);
        let before = self.out.len();
        self.out.retain(|target| self.endpoints.contains_key(target));
        self.changed |= self.out.len() != before;
    }

    /// A packet for this endpoint, one of those there are, got no answer, or a bad one: it is asked now.
    pub fn handle_suspicion(&mut self, now: Duration, target: Target, terms: Terms) {
        self.doubt(now, target, terms, Duration::ZERO);
    }

    /// Something changed around these endpoints, which are near: they are asked soon.
    pub fn handle_change(&mut self, now: Duration, near: impl IntoIterator<Item = (Target, Terms)>) {
        for (target, terms) in near {
            let part = SPREAD / 4 * (self.random() >> 30);
            self.doubt(now, target, terms, SPREAD + part);
        }
    }

    /// The answer to a probe; every probe gets one.
    pub fn handle_answer(&mut self, now: Duration, probe: &Probe, answer: Answer) {
        self.flights = self.flights.saturating_sub(1);
        let random = self.random();
        let Some(endpoint) = self.endpoints.get_mut(&probe.target) else { return };
        if endpoint.answer(now, probe.round, answer, random) {
            self.changed = true;
            match endpoint.state {
                State::Out => self.out.insert(probe.target),
                _ => self.out.remove(&probe.target),
            };
        }
    }

    /// Forgets what need not be remembered any longer.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.endpoints.retain(|_, endpoint| {
            endpoint.forgive(now);
            endpoint.forget_at().is_none_or(|at| at > now)
        });
    }

    /// The next question to ask now, if any.
    pub fn poll_probe(&mut self, now: Duration) -> Option<Probe> {
        if self.flights >= MAX_FLIGHTS || self.purse.ready_at() > now {
            return None;
        }
        let due = |endpoint: &Endpoint| endpoint.ask_at.filter(|at| *at <= now);
        let waiting =
            self.endpoints.iter_mut().filter_map(|(target, endpoint)| Some((due(endpoint)?, target, endpoint)));
        let (_, target, endpoint) = waiting.min_by_key(|(at, _, endpoint)| (!endpoint.urgent, *at))?;
        self.purse.pay(now);
        self.flights += 1;
        Some(Probe { target: *target, test: endpoint.terms.test.clone(), round: endpoint.ask(now) })
    }

    /// When `poll_probe` or `handle_timeout` have something to do next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let questions = self.endpoints.values().filter_map(|endpoint| endpoint.ask_at).min();
        // With too many on their way it is an answer that is waited for.
        let questions = questions.filter(|_| self.flights < MAX_FLIGHTS).map(|at| at.max(self.purse.ready_at()));
        questions.into_iter().chain(self.endpoints.values().filter_map(Endpoint::forget_at)).min()
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

    fn doubt(&mut self, now: Duration, target: Target, terms: Terms, delay: Duration) {
        let room = self.endpoints.len() < MAX_ENDPOINTS;
        match self.endpoints.get_mut(&target) {
            Some(endpoint) => endpoint.suspect(now, delay),
            None if room => {
                let mut endpoint = Endpoint::new(now, terms, self.view);
                endpoint.suspect(now, delay);
                self.endpoints.insert(target, endpoint);
            }
            None => {}
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
