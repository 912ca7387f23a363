//! Which endpoint gets a request: by turns, by chance or by a hash that moves few when endpoints change. One that could not
//! be reached is left alone for a while, unless there is no other.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use selvedge_model::gateway::{Backend, GatewayBalance};
use selvedge_model::{Distribution, Endpoint, Protocol, Service, Services};

use crate::{Map, Request};

/// How long an endpoint is left alone after a failure; twice as long after the next, up to the cap.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_CAP: Duration = Duration::from_secs(60);

/// More are not remembered.
const MAX_FAILURES: usize = 1024;
const MAX_TURNS: usize = 4096;

type ServiceKey = (String, String, u16, Protocol);

/// Where the ports of Services are served.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints(Map<ServiceKey, Port>);

/// Where one port is served.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// `appProtocol` says HTTP/2 without TLS.
    pub http2: bool,
    /// Each with how far away it is: 0 on this node, 1 in its zone, 2 elsewhere; as far as the Service cares.
    pub targets: Vec<(u8, SocketAddr)>,
}

impl Endpoints {
    /// Those of the Services that `wanted` names, as the node of that name sees them. Those in `out` are known not to
    /// answer: they are left out where there are others.
    pub fn new<'a>(
        services: &Services,
        node: &str,
        out: &BTreeSet<(IpAddr, Protocol, u16)>,
        wanted: impl Iterator<Item = (&'a Backend, Protocol)>,
    ) -> Self {
        let mut map = Map::default();
        for (backend, protocol) in wanted {
            let named = |s: &&Service| s.name == backend.service && s.namespace == backend.namespace;
            let Some(service) = services.list.iter().find(named) else { continue };
            let Some(port) = service.ports.iter().find(|p| (p.port, p.protocol) == (backend.port, protocol)) else {
                continue;
            };
            let ends = port.endpoints.iter().all(|e| e.terminating);
            let distance = |e: &Endpoint| match service.distribution.unwrap_or(services.distribution) {
                Distribution::Any => 2,
                Distribution::SameNode if e.node == node => 0,
                _ if !services.zone.is_empty() && e.zone == services.zone => 1,
                _ => 2,
            };
            let here = port.endpoints.iter().filter(|e| !service.internal_local || e.node == node);
            let ready: Vec<&Endpoint> = here.filter(|e| ends || !e.terminating).collect();
            let answers = |e: &Endpoint| !out.contains(&(e.address, protocol, e.port));
            let any = ready.iter().any(|e| answers(e));
            let targets = ready.into_iter().filter(|e| !any || answers(e));
            let targets = targets.map(|e| (distance(e), SocketAddr::new(e.address, e.port))).collect();
            map.insert(key(backend, protocol), Port { http2: port.app_protocol == "kubernetes.io/h2c", targets });
        }
        Endpoints(map)
    }

    /// Those of one port. `None`: there is no such Service or port.
    pub fn of(&self, backend: &Backend, protocol: Protocol) -> Option<&Port> {
        self.0.get(&key(backend, protocol))
    }
}

fn key(backend: &Backend, protocol: Protocol) -> ServiceKey {
    (backend.namespace.clone(), backend.service.clone(), backend.port, protocol)
}

/// What a choice may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Who asks.
    pub client: IpAddr,
    /// What for; absent for connections.
    pub request: Option<&'a Request>,
    /// Any number.
    pub random: u32,
    /// Endpoints that were tried already.
    pub tried: &'a [SocketAddr],
    /// The time since any fixed moment.
    pub now: Duration,
}

/// Whose turn it is, and who failed.
#[derive(Debug, Default)]
pub struct Picker {
    turns: Map<ServiceKey, u32>,
    failures: Map<SocketAddr, Failure>,
}

#[derive(Debug)]
struct Failure {
    until: Duration,
    pause: Duration,
}

impl Picker {
    /// One of the backends by weight. `None`: none has any.
    pub fn backend(backends: &[Backend], random: u32) -> Option<&Backend> {
        let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
        let mut at = (u64::from(random) * total) >> 32;
        backends.iter().filter(|b| b.weight > 0).find(|backend| {
            let hit = at < u64::from(backend.weight);
            at = at.saturating_sub(u64::from(backend.weight));
            hit
        })
    }

    /// One of the endpoints of a backend: a near one, if any such may be well. `None`: all were tried.
    pub fn pick(
        &mut self,
        backend: &Backend,
        targets: &[(u8, SocketAddr)],
        protocol: Protocol,
        by: &Choice<'_>,
    ) -> Option<SocketAddr> {
        let fresh = |(_, e): &&(u8, SocketAddr)| !by.tried.contains(e);
        let well = |(_, e): &&(u8, SocketAddr)| self.failures.get(e).is_none_or(|failure| failure.until <= by.now);
        let nearest = targets.iter().filter(fresh).filter(well).map(|(distance, _)| *distance).min();
        let candidates: Vec<SocketAddr> = match nearest {
            Some(nearest) => {
                targets.iter().filter(fresh).filter(well).filter(|t| t.0 == nearest).map(|t| t.1).collect()
            }
            None => targets.iter().filter(fresh).map(|t| t.1).collect(),
        };
        let hashed = match &backend.balance {
            GatewayBalance::SourceHash => Some(hash(by.client.to_string().as_bytes())),
            GatewayBalance::Header(name) => by.request.and_then(|r| r.fields.get(&name.to_ascii_lowercase())).map(hash),
            GatewayBalance::Cookie(name) => by.request.and_then(|r| cookie(r, name)).map(hash),
            GatewayBalance::RoundRobin | GatewayBalance::Random => None,
        };
        if let Some(hashed) = hashed {
            // Rendezvous hashing: each endpoint keeps its clients, whoever else comes or goes.
            return candidates.into_iter().max_by_key(|e| mix(hashed ^ hash(e.to_string().as_bytes())));
        }
        if backend.balance != GatewayBalance::RoundRobin {
            let at = (u64::from(by.random) * candidates.len() as u64) >> 32;
            return candidates.get(at as usize).copied();
        }
        let key = key(backend, protocol);
        if self.turns.len() >= MAX_TURNS && !self.turns.contains_key(&key) {
            self.turns.clear();
        }
        let turn = self.turns.or_insert(key, by.random);
        *turn = turn.wrapping_add(1);
        candidates.get(*turn as usize % candidates.len().max(1)).copied()
    }

    /// An endpoint could not be reached.
    pub fn failed(&mut self, endpoint: SocketAddr, now: Duration) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.retain(|_, failure| failure.until > now);
        }
        if self.failures.len() < MAX_FAILURES || self.failures.contains_key(&endpoint) {
            let failure = self.failures.or_insert(endpoint, Failure { until: now, pause: PAUSE_FIRST / 2 });
            if failure.until <= now {
                failure.pause = (failure.pause * 2).min(PAUSE_CAP);
                failure.until = now + failure.pause;
            }
        }
    }

    /// An endpoint was reached. True if it could not be before.
    pub fn reached(&mut self, endpoint: SocketAddr) -> bool {
        self.failures.remove(&endpoint).is_some()
    }

    /// Endpoints that are left alone, and for how long yet.
    pub fn left_alone(&self, now: Duration) -> impl Iterator<Item = (SocketAddr, Duration)> {
        let still =
            move |(e, f): (&SocketAddr, &Failure)| Some((*e, f.until.checked_sub(now).filter(|left| !left.is_zero())?));
        self.failures.iter().filter_map(still)
    }
}

fn cookie<'a>(request: &'a Request, name: &str) -> Option<&'a [u8]> {
    let texts = request.fields.all("cookie").filter_map(|value| std::str::from_utf8(value).ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value.as_bytes())
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The end of SplitMix64: each bit of the result depends on all.
fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Fields;

    fn backend(weight: u32, balance: GatewayBalance) -> Backend {
        Backend {
            namespace: "a".into(),
            service: format!("w{weight}"),
            port: 80,
            weight,
            balance,
            http2: false,
            request_headers: Default::default(),
            response_headers: Default::default(),
            invalid: false,
        }
    }

    fn endpoints(count: u8) -> Vec<(u8, SocketAddr)> {
        (1..=count).map(|i| (2, SocketAddr::from(([10, 0, 0, i], 80)))).collect()
    }

    fn choice<'a>(client: u8, request: Option<&'a Request>, random: u32, tried: &'a [SocketAddr]) -> Choice<'a> {
        Choice { client: IpAddr::from([192, 0, 2, client]), request, random, tried, now: Duration::from_secs(100) }
    }

    #[test]
    fn weights_are_shares() {
        let backends = [backend(1, Default::default()), backend(0, Default::default()), backend(3, Default::default())];
        let mut counts = BTreeMap::new();
        for i in 0..4096u32 {
            let chosen = Picker::backend(&backends, i << 20).unwrap();
            *counts.entry(chosen.weight).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([(1, 1024), (3, 3072)]));
        assert!(Picker::backend(&backends[1..2], 7).is_none());
    }

    #[test]
    fn by_turns_each_gets_as_many() {
        let (mut picker, backend, all) = (Picker::default(), backend(1, GatewayBalance::RoundRobin), endpoints(3));
        let mut counts = BTreeMap::new();
        for _ in 0..30 {
            let chosen = picker.pick(&backend, &all, Protocol::Tcp, &choice(1, None, 9, &[])).unwrap();
            *counts.entry(chosen).or_insert(0) += 1;
        }
        assert!(counts.values().all(|n| *n == 10), "{counts:?}");
        let tried = [all[0].1, all[1].1];
        assert_eq!(picker.pick(&backend, &all, Protocol::Tcp, &choice(1, None, 9, &tried)), Some(all[2].1));
        assert_eq!(
            picker.pick(&backend, &all, Protocol::Tcp, &choice(1, None, 9, &[tried[0], tried[1], all[2].1])),
            None
        );
        assert_eq!(picker.pick(&backend, &[], Protocol::Tcp, &choice(1, None, 9, &[])), None);
    }

    #[test]
    fn a_header_or_an_address_sticks_and_few_move() {
        let (mut picker, all) = (Picker::default(), endpoints(5));
        let by_header = backend(1, GatewayBalance::Header("User".into()));
        let mut moved = 0;
        for user in 0..1000 {
            let fields: Fields = [("user", format!("u{user}").as_bytes())].into_iter().collect();
            let request = Request { fields, ..Request::default() };
            let mut pick = |all: &[(u8, SocketAddr)]| {
                picker.pick(&by_header, all, Protocol::Tcp, &choice(user as u8, Some(&request), user, &[])).unwrap()
            };
            let first = pick(&all);
            assert_eq!(first, pick(&all));
            moved += u32::from(first != pick(&all[1..]));
        }
        assert!((150..250).contains(&moved), "{moved} of 1000 moved when one of five went");
        let by_source = backend(1, GatewayBalance::SourceHash);
        let chosen: Vec<_> = (0..20)
            .map(|random| picker.pick(&by_source, &all, Protocol::Tcp, &choice(7, None, random, &[])).unwrap())
            .collect();
        assert!(chosen.iter().all(|e| *e == chosen[0]));
    }

    #[test]
    fn who_failed_is_left_alone_but_not_if_there_is_no_other() {
        let (mut picker, backend, all) = (Picker::default(), backend(1, GatewayBalance::RoundRobin), endpoints(2));
        let now = Duration::from_secs(100);
        picker.failed(all[0].1, now);
        for _ in 0..10 {
            assert_eq!(picker.pick(&backend, &all, Protocol::Tcp, &choice(1, None, 9, &[])), Some(all[1].1));
        }
        assert_eq!(picker.left_alone(now).collect::<Vec<_>>(), [(all[0].1, PAUSE_FIRST)]);
        picker.failed(all[1].1, now);
        assert!(picker.pick(&backend, &all, Protocol::Tcp, &choice(1, None, 9, &[])).is_some());
        picker.failed(all[0].1, now + PAUSE_FIRST);
        assert_eq!(
            picker.left_alone(now + PAUSE_FIRST).next(),
            Some((all[0].1, PAUSE_FIRST * 2)),
            "longer the next time"
        );
        picker.reached(all[0].1);
        assert_eq!(picker.pick(&backend, &all, Protocol::Tcp, &choice(1, None, 9, &[])), Some(all[0].1));
    }

    #[test]
    fn who_does_not_answer_is_left_out_unless_nobody_does() {
        let endpoints: Vec<Endpoint> = (1..=3).map(|i| Endpoint::new(IpAddr::from([10, 0, 0, i]), 80, "far")).collect();
        let mut web = Service { namespace: "a".into(), name: "w1".into(), ..Service::default() };
        web.ports.push(selvedge_model::ServicePort { port: 80, endpoints, ..Default::default() });
        let services = Services { list: vec![web], ..Services::default() };
        let backend = backend(1, GatewayBalance::RoundRobin);
        let see = |out: &[(u8, Protocol)]| {
            let out = out.iter().map(|(i, protocol)| (IpAddr::from([10, 0, 0, *i]), *protocol, 80)).collect();
            let all = Endpoints::new(&services, "me", &out, [(&backend, Protocol::Tcp)].into_iter());
            let targets = all.of(&backend, Protocol::Tcp).unwrap().targets.iter();
            targets.map(|(_, e)| e.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(see(&[(1, Protocol::Tcp), (2, Protocol::Udp)]), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(see(&[(1, Protocol::Tcp), (2, Protocol::Tcp), (3, Protocol::Tcp)]).len(), 3);
    }

    #[test]
    fn near_ones_come_first_as_long_as_they_are_well() {
        let mut web = Service { namespace: "a".into(), name: "w1".into(), ..Service::default() };
        let endpoint = |i: u8, node: &str, zone: &str| Endpoint {
            zone: zone.into(),
            ..Endpoint::new(IpAddr::from([10, 0, 0, i]), 80, node)
        };
        let mut endpoints =
            vec![endpoint(1, "me", "z"), endpoint(2, "you", "z"), endpoint(3, "far", "y"), endpoint(4, "me", "z")];
        endpoints[3].terminating = true;
        web.ports.push(selvedge_model::ServicePort { port: 80, endpoints, ..Default::default() });
        let mut services = Services { zone: "z".into(), list: vec![web], ..Services::default() };
        let backend = backend(1, GatewayBalance::RoundRobin);
        let see = |services: &Services| {
            let none = BTreeSet::new();
            let all = Endpoints::new(services, "me", &none, [(&backend, Protocol::Tcp)].into_iter());
            all.of(&backend, Protocol::Tcp).unwrap().targets.iter().map(|(distance, _)| *distance).collect::<Vec<_>>()
        };
        assert_eq!(see(&services), [0, 1, 2]);
        services.list[0].distribution = Some(Distribution::SameZone);
        assert_eq!(see(&services), [1, 1, 2]);
        services.list[0].distribution = Some(Distribution::Any);
        assert_eq!(see(&services), [2, 2, 2]);
        services.list[0].internal_local = true;
        assert_eq!(see(&services), [2]);

        let (mut picker, now) = (Picker::default(), Duration::from_secs(100));
        let targets: Vec<_> = (0..3).map(|i| (i, SocketAddr::from(([10, 0, 0, i], 80)))).collect();
        let pick =
            |picker: &mut Picker| picker.pick(&backend, &targets, Protocol::Tcp, &choice(1, None, 5, &[])).unwrap();
        assert_eq!(pick(&mut picker), targets[0].1);
        picker.failed(targets[0].1, now);
        assert_eq!(pick(&mut picker), targets[1].1);
    }
}
