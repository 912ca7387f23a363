//! Endpoints that die, come back and flap, against the clock of a simulation.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use selvedge_health::{Answer, Health, MAX_ENDPOINTS, Probe, State, Target, Terms, Test};
use selvedge_model::Protocol;

const PATIENCE: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn target(n: u32) -> Target {
    (IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), Protocol::Tcp, 80)
}

fn terms(always: bool, costly: bool) -> Terms {
    Terms { test: Test::Tcp, always, costly }
}

/// How an endpoint answers a question asked at a time.
type Nature = Box<dyn Fn(Duration) -> (Duration, Answer)>;

fn well() -> Nature {
    Box::new(|_| (ms(2), Answer::Well))
}

/// Well except between these two times.
fn gone(from: Duration, to: Duration, how: Answer) -> Nature {
    Box::new(move |at| match how {
        _ if at < from || at >= to => (ms(2), Answer::Well),
        Answer::Silent => (PATIENCE, Answer::Silent),
        other => (ms(2), other),
    })
}

struct World {
    now: Duration,
    health: Health,
    natures: BTreeMap<Target, Nature>,
    /// Answers on their way.
    flights: Vec<(Duration, Probe, Answer)>,
    asked: Vec<(Duration, Target)>,
    /// When an endpoint went out or came back.
    turns: Vec<(Duration, Target, bool)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = ms(5000);
        let health = Health::new(now, seed);
        World { now, health, natures: BTreeMap::new(), flights: vec![], asked: vec![], turns: vec![] }
    }

    fn with(mut self, endpoints: impl IntoIterator<Item = (Target, Nature)>, terms: Terms) -> Self {
        self.natures = endpoints.into_iter().collect();
        self.health.handle_endpoints(self.now, self.natures.keys().map(|target| (*target, terms.clone())));
        self
    }

    fn suspect(&mut self, target: Target) {
        self.health.handle_suspicion(self.now, target, terms(false, false));
        self.settle();
    }

    fn settle(&mut self) {
        let before = self.health.out().clone();
        self.health.handle_timeout(self.now);
        while let Some(probe) = self.health.poll_probe(self.now) {
            let (after, answer) = self.natures[&probe.target](self.now);
            self.asked.push((self.now, probe.target));
            self.flights.push((self.now + after, probe, answer));
            assert!(self.flights.len() <= 32);
        }
        assert_eq!(&before, self.health.out(), "asking alone changes nothing");
    }

    /// Lets time pass until `to`.
    fn run(&mut self, to: Duration) {
        self.settle();
        for _ in 0..1_000_000 {
            let answer = self.flights.iter().map(|(at, ..)| *at).min();
            let next = answer.into_iter().chain(self.health.poll_timeout()).min().unwrap_or(to).max(self.now);
            if next >= to {
                self.now = to;
                return;
            }
            self.now = next;
            while let Some(at) = self.flights.iter().position(|(at, ..)| *at <= self.now) {
                let (_, probe, answer) = self.flights.swap_remove(at);
                let before = self.health.is_out(&probe.target);
                self.health.handle_answer(self.now, &probe, answer);
                let after = self.health.is_out(&probe.target);
                assert_eq!(before != after, self.health.poll_changed());
                if before != after {
                    self.turns.push((self.now, probe.target, after));
                }
            }
            self.settle();
        }
        assert!(self.now >= to, "no end at {:?}", self.now);
    }

    fn turned(&self, out: bool) -> Option<Duration> {
        self.turns.iter().find(|(.., is)| *is == out).map(|(at, ..)| *at)
    }
}

#[test]
fn nobody_is_asked_who_gives_no_reason() {
    let mut world = World::new(1).with((0..100).map(|n| (target(n), well())), terms(false, false));
    assert_eq!(world.health.poll_timeout(), None);
    world.run(ms(100_000));
    assert!(world.asked.is_empty());
    assert_eq!(world.health.report(world.now).count(), 0);
}

#[test]
fn a_false_suspicion_costs_one_question_and_is_forgotten() {
    let mut world = World::new(1).with([(target(1), well())], terms(false, false));
    world.suspect(target(1));
    for step in 0..10 {
        world.run(ms(5100 + step * 50));
        world.suspect(target(1));
    }
    assert_eq!(world.asked.len(), 1, "a second at least between two");
    world.run(ms(20_000));
    assert!(world.asked.len() <= 2 && world.turns.is_empty());
    assert_eq!(world.health.poll_timeout(), None);
    assert_eq!(world.health.report(world.now).count(), 0);
}

#[test]
fn money_is_not_spent_on_routine() {
    let dead = gone(ms(6000), ms(1_000_000), Answer::Silent);
    let mut world = World::new(1).with([(target(1), dead)], terms(true, true));
    world.run(ms(60_000));
    assert!(world.asked.is_empty());
    world.health.handle_suspicion(world.now, target(1), terms(true, true));
    world.run(ms(62_000));
    assert!(world.health.is_out(&target(1)), "but a reason is followed");
    world.asked.clear();
    world.run(ms(662_000));
    assert!((10..25).contains(&world.asked.len()), "once a minute: {}", world.asked.len());
}

#[test]
fn shared_endpoints_are_asked_once() {
    let mut health = Health::new(ms(0), 1);
    let shared = [(target(1), terms(false, false)), (target(1), terms(true, false)), (target(1), terms(false, false))];
    health.handle_endpoints(ms(0), shared);
    assert!(health.poll_probe(ms(1000)).is_some());
    assert!(health.poll_probe(ms(1000)).is_none());
    health.handle_endpoints(ms(2000), []);
    assert_eq!(health.poll_timeout(), None);
}

#[test]
fn an_endpoint_that_is_no_more_is_not_out() {
    let dead = gone(ms(0), ms(1_000_000), Answer::Refused);
    let mut world = World::new(1).with([(target(1), dead)], terms(false, false));
    world.suspect(target(1));
    world.run(ms(6000));
    assert!(world.health.is_out(&target(1)));
    world.health.handle_endpoints(world.now, [(target(2), terms(false, false))]);
    assert!(world.health.out().is_empty() && world.health.poll_changed());
}

#[test]
fn an_answer_that_comes_too_late_says_nothing() {
    let mut health = Health::new(ms(0), 1);
    health.handle_suspicion(ms(0), target(1), terms(false, false));
    let first = health.poll_probe(ms(0)).expect("a question");
    let second = health.poll_probe(ms(300)).expect("another");
    let state = |health: &Health| health.report(ms(1000)).next().map(|report| report.state);
    assert_eq!(state(&health), Some(State::Suspect));
    health.handle_answer(ms(302), &second, Answer::Well);
    health.handle_answer(ms(1000), &first, Answer::Silent);
    assert_eq!(state(&health), Some(State::Well));
    assert_eq!(health.poll_probe(ms(1400)), None);
}

/// A pod tells each client once a second at most that a port is closed: who asks after that hears nothing.
#[test]
fn a_refusal_that_others_heard_is_no_silence() {
    let heard = |protocol, test: Test| {
        let (address, ..) = target(1);
        let (target, terms) = ((address, protocol, 80), Terms { test, ..terms(false, false) });
        let mut world = World::new(1).with([(target, well())], terms.clone());
        for n in 0..4 {
            world.health.handle_refusal(world.now, target, terms.clone());
            world.run(ms(6000 + n * 1000));
        }
        world.run(ms(60_000));
        (world.turned(true), world.turned(false))
    };
    let (out, back) = heard(Protocol::Udp, Test::Udp);
    assert!(out.is_some_and(|at| at < ms(7000)) && back.is_some_and(|at| at < ms(15_000)), "{out:?} {back:?}");
    assert_eq!(heard(Protocol::Tcp, Test::Tcp), (None, None), "who takes connections is well");
}

#[test]
fn the_past_is_forgiven() {
    let bad = |at: Duration| [6, 20, 40, 60, 80, 2000].iter().any(|s| at >= ms(s * 1000) && at < ms(s * 1000 + 4000));
    let nature: Nature = Box::new(move |at| if bad(at) { (ms(2), Answer::Refused) } else { (ms(2), Answer::Well) });
    let mut world = World::new(1).with([(target(1), nature)], terms(true, false));
    world.run(ms(2_100_000));
    let lengths = world.turns.chunks(2).map(|turn| (turn[1].0 - turn[0].0).as_secs()).collect::<Vec<_>>();
    assert_eq!(lengths.len(), 6, "{lengths:?}");
    assert!(lengths[4] >= 16 && lengths[5] <= 8, "{lengths:?}");
}

#[test]
fn a_crowd_is_bounded() {
    let endpoints = (0..5000).map(|n| (target(n), gone(ms(0), ms(1_000_000), Answer::Silent)));
    let mut world = World::new(1).with(endpoints, terms(true, false));
    for n in 0..5000 {
        world.health.handle_suspicion(world.now, target(n), terms(true, false));
    }
    world.run(ms(65_000));
    assert_eq!(world.health.report(world.now).count(), MAX_ENDPOINTS);
    assert!(world.asked.len() <= 60 * 20 + 20, "{}", world.asked.len());
    assert!(world.asked.len() >= 60 * 15, "{}", world.asked.len());
}

#[test]
fn whoever_is_in_trouble_is_asked_before_routine() {
    let endpoints = (0..5000).map(|n| (target(n), well()));
    let mut world = World::new(1).with(endpoints, terms(true, false));
    world.run(ms(30_000));
    world.natures.insert(target(4999), gone(world.now, ms(1_000_000), Answer::Silent));
    world.suspect(target(4999));
    // The purse is empty and many are remembered, but for a suspect there is room, and it is first in line.
    world.run(ms(32_000));
    assert!(world.health.is_out(&target(4999)));
}

proptest! {
    #[test]
    fn asked_as_routine_it_is_out_within_three_seconds(seed: u64, after in 0u64..5000, refused: bool) {
        let died = ms(6000 + after);
        let how = if refused { Answer::Refused } else { Answer::Silent };
        let mut world = World::new(seed).with([(target(1), gone(died, ms(1_000_000), how))], terms(true, false));
        world.run(died + ms(5000));
        let out = world.turned(true).expect("out");
        prop_assert!(out > died && out <= died + ms(2600), "{:?} after {:?}", out, died);
    }

    #[test]
    fn suspected_it_is_out_at_once(seed: u64, refused: bool, always: bool) {
        let how = if refused { Answer::Refused } else { Answer::Silent };
        let mut world = World::new(seed).with([(target(1), gone(ms(0), ms(1_000_000), how))], terms(always, false));
        world.suspect(target(1));
        world.run(ms(8000));
        let limit = if refused { ms(5300) } else { ms(6600) };
        prop_assert!(world.turned(true).expect("out") <= limit);
    }

    #[test]
    fn it_comes_back(seed: u64, for_how_long in 3000u64..100_000, always: bool) {
        let back = ms(5000 + for_how_long);
        let mut world = World::new(seed).with([(target(1), gone(ms(0), back, Answer::Silent))], terms(always, false));
        world.suspect(target(1));
        world.run(back + ms(10_000));
        let seen = world.turned(false).expect("back");
        prop_assert!(seen > back && seen <= back + ms(6500), "{:?} after {:?}", seen, back);
        world.run(ms(600_000));
        prop_assert_eq!(world.turns.len(), 2);
        prop_assert_eq!(world.health.report(world.now).count(), usize::from(always), "forgiven and forgotten");
    }

    #[test]
    fn one_lost_packet_puts_nobody_out(seed: u64, every in 2u64..10) {
        let count = std::cell::Cell::new(0);
        let lossy: Nature = Box::new(move |_| {
            count.set(count.get() + 1);
            if count.get() % every == 0 { (PATIENCE, Answer::Silent) } else { (ms(2), Answer::Well) }
        });
        let mut world = World::new(seed).with([(target(1), lossy)], terms(true, false));
        world.run(ms(300_000));
        prop_assert!(world.turns.is_empty());
    }

    #[test]
    fn flapping_is_damped(seed: u64, period in 4000u64..12_000) {
        let flapping: Nature = Box::new(move |at| {
            let up = at.as_millis() as u64 % period < period / 2;
            if up { (ms(2), Answer::Well) } else { (ms(2), Answer::Refused) }
        });
        let mut world = World::new(seed).with([(target(1), flapping)], terms(true, false));
        world.run(ms(605_000));
        // Undamped, it would turn twice in each period.
        prop_assert!(world.turns.len() <= 24, "{} turns", world.turns.len());
        prop_assert!(world.turns.len() >= 2);
    }

    #[test]
    fn any_history_is_survived(
        seed: u64,
        events in prop::collection::vec((0u64..3000, 0u32..6, 0u8..8), 1..200),
    ) {
        let natures = (0..6).map(|n| {
            let nature: Nature = Box::new(move |at| match (at.as_millis() as u64 / 7000 + u64::from(n)) % 4 {
                0 => (PATIENCE, Answer::Silent),
                1 => (ms(1), Answer::Refused),
                _ => (ms(400), Answer::Well),
            });
            (target(n), nature)
        });
        let mut world = World::new(seed).with(natures, terms(false, false));
        for (pause, n, what) in events {
            world.run(world.now + ms(pause));
            match what {
                0 => world.health.handle_endpoints(world.now, (0..=n).map(|n| (target(n), terms(n % 2 == 0, n % 3 == 0)))),
                1 => world.health.handle_change(world.now, [(target(n), terms(false, false))]),
                _ => world.suspect(target(n)),
            }
            let _ = world.health.poll_changed();
            let out = world.health.report(world.now).filter(|r| r.state == State::Out).map(|r| r.target);
            prop_assert!(out.eq(world.health.out().iter().copied()));
        }
        // Seconds are bounded, whatever happens.
        for (at, _) in &world.asked {
            prop_assert!(world.asked.iter().filter(|(t, _)| t >= at && *t < *at + ms(1000)).count() <= 40);
        }
    }
}
