//! A virtual network: endpoints, latency, loss, duplication, reordering, NATs and virtual time. Beside IKE it carries
//! made-up ESP packets, so that a tunnel that is up on paper only, or loses packets while it is rekeyed, is noticed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use selvedge_ike::{
    Child, Config, Endpoint, Established, Event, Now, Peer, PeerId, PeerState, PeerStatus, RingCrypto, TrafficSelector,
    Wall,
};

use crate::pki;

/// How long the receiving half of a retired pair is kept, as the user of the crate is told to.
const KEEP_INBOUND: Duration = Duration::from_secs(5);
const ESP_PERIOD: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub enum Payload {
    Ike { bytes: Vec<u8>, marker: bool },
    Esp { spi: u32, key: Vec<u8> },
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Payload,
}

impl Packet {
    /// Exchange type, whether it is a response, and message id, if it is IKE.
    pub fn ike(&self) -> Option<(u8, bool, u32)> {
        let Payload::Ike { bytes, .. } = &self.payload else { return None };
        let id = u32::from_be_bytes(bytes.get(20..24)?.try_into().unwrap());
        Some((bytes[18], bytes[19] & 0x20 != 0, id))
    }
}

pub struct Pair {
    pub child: Child,
    pub peer: PeerId,
    pub retired: Option<Duration>,
}

pub struct Node {
    pub name: String,
    pub ip: IpAddr,
    pub config: Config,
    pub peers: Vec<Peer>,
    pub endpoint: Option<Endpoint>,
    /// By inbound SPI.
    pub pairs: BTreeMap<u32, Pair>,
    /// The pair to send on, by peer.
    pub sending: BTreeMap<PeerId, u32>,
    pub events: Vec<Event>,
    pub nat: Option<Nat>,
    /// What its calendar says, if that is not what it is.
    pub wall: Option<Wall>,
    /// ESP packets of peers received, and those that could not be.
    pub esp_ok: u32,
    pub esp_lost: u32,
}

/// A port-rewriting NAT in front of one node.
pub struct Nat {
    pub public: IpAddr,
    next_port: u16,
    /// Inside source to outside port.
    mappings: BTreeMap<SocketAddr, Mapping>,
    /// Mappings end as those of Linux do (nf_conntrack_proto_udp.c).
    pub forgetful: bool,
}

/// A port of a NAT.
#[derive(Clone, Copy)]
struct Mapping {
    port: u16,
    opened: Duration,
    until: Duration,
    answered: bool,
}

impl Mapping {
    fn new(port: u16, now: Duration) -> Self {
        Self { port, opened: now, until: now, answered: false }
    }

    /// A packet passes: whatever comes from inside opens it for 30 s, and once it was used both ways and for more than
    /// 2 s it stays for 2 minutes.
    fn passed(&mut self, now: Duration) {
        let stream = self.answered && now > self.opened + Duration::from_secs(2);
        self.until = now + Duration::from_secs(if stream { 120 } else { 30 });
    }
}

type Filter = Box<dyn FnMut(&Packet) -> bool>;

pub struct Net {
    pub now: Duration,
    pub nodes: Vec<Node>,
    queue: BTreeMap<(Duration, u64), Packet>,
    sequence: u64,
    rng: u64,
    pub latency: Duration,
    /// Latency varies by up to this, which reorders.
    pub jitter: Duration,
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    /// False drops the packet.
    pub filter: Option<Filter>,
    pub traffic: bool,
    next_esp: Duration,
    pub log: Vec<String>,
    pub ike_packets: usize,
    /// Octets of IKE and keepalives put on the wire, with their headers.
    pub bytes: Budget,
}

/// Octets on the wire by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub keepalive: usize,
    pub liveness: usize,
    pub rekey: usize,
    pub handshake: usize,
}

impl Budget {
    pub fn total(&self) -> usize {
        self.keepalive + self.liveness + self.rekey + self.handshake
    }

    fn count(&mut self, packet: &Packet) {
        let Payload::Ike { bytes, marker } = &packet.payload else { return };
        // IPv4 and UDP.
        let size = 20 + 8 + if *marker { 4 } else { 0 } + bytes.len();
        // An encrypted message that says nothing: header, generic header, IV, padding length, tag.
        const NOTHING: usize = 28 + 4 + 8 + 1 + 16;
        match packet.ike() {
            None => self.keepalive += size,
            Some((34 | 35, ..)) => self.handshake += size,
            Some((37, ..)) if bytes.len() == NOTHING => self.liveness += size,
            Some(_) => self.rekey += size,
        }
    }
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            now: Duration::from_secs(1000),
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss_percent: 0,
            duplicate_percent: 0,
            filter: None,
            traffic: false,
            next_esp: Duration::ZERO,
            log: Vec::new(),
            ike_packets: 0,
            bytes: Budget::default(),
        }
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng % below.max(1)
    }

    pub fn now(&self) -> Now {
        Now { mono: self.now, wall: Wall::Is(pki::WALL + self.now.as_secs()) }
    }

    /// The present as a node knows it.
    fn now_at(&self, node: usize) -> Now {
        let now = self.now();
        Now { wall: self.nodes[node].wall.unwrap_or(now.wall), ..now }
    }

    pub fn add(&mut self, name: &str, ip: &str) -> usize {
        let config = Config::new(name, pki::ca().credentials(name, pki::ca()));
        self.nodes.push(Node {
            name: name.to_owned(),
            ip: ip.parse().unwrap(),
            endpoint: Some(Endpoint::new(config.clone(), Box::new(RingCrypto::new()))),
            config,
            peers: Vec::new(),
            pairs: BTreeMap::new(),
            sending: BTreeMap::new(),
            events: Vec::new(),
            nat: None,
            wall: None,
            esp_ok: 0,
            esp_lost: 0,
        });
        self.nodes.len() - 1
    }

    /// Puts a node behind a NAT of its own.
    pub fn behind_nat(&mut self, node: usize, public: &str) {
        self.nodes[node].nat = Some(Nat {
            public: public.parse().unwrap(),
            next_port: 20_000,
            mappings: BTreeMap::new(),
            forgetful: false,
        });
    }

    /// The NAT passes UDP 4500 on to its node and keeps that port, as one with a forwarded port does.
    pub fn forward(&mut self, node: usize) {
        let inside = SocketAddr::new(self.nodes[node].ip, 4500);
        let mapping = Mapping::new(4500, self.now);
        self.nodes[node].nat.as_mut().unwrap().mappings.insert(inside, mapping);
    }

    /// The NAT forgets its mappings: the next packets come from other ports.
    pub fn rebind(&mut self, node: usize) {
        self.nodes[node].nat.as_mut().unwrap().mappings.clear();
    }

    pub fn configure(&mut self, node: usize, change: impl FnOnce(&mut Config)) {
        change(&mut self.nodes[node].config);
        let (now, config) = (self.now_at(node), self.nodes[node].config.clone());
        self.endpoint(node).set_config(now, config);
    }

    pub fn endpoint(&mut self, node: usize) -> &mut Endpoint {
        self.nodes[node].endpoint.as_mut().expect("the node is off")
    }

    /// `a`'s view of `b`; calls `remotes` if there are any.
    pub fn peer(&self, a: usize, b: usize, remotes: &[&str]) -> Peer {
        Peer {
            id: id(b),
            name: self.nodes[b].name.clone(),
            remotes: remotes.iter().map(|remote| remote.parse().unwrap()).collect(),
            initiate: !remotes.is_empty(),
            metered: false,
            local_ts: subnets(a),
            remote_ts: subnets(b),
        }
    }

    pub fn set_peers(&mut self, node: usize, peers: Vec<Peer>) {
        self.nodes[node].peers.clone_from(&peers);
        let (now, ip) = (self.now_at(node), self.nodes[node].ip);
        let endpoint = self.endpoint(node);
        endpoint.set_peers(now, peers.clone());
        for peer in peers {
            endpoint.handle_local_address(now, peer.id, ip);
        }
        self.drain(node);
    }

    /// `a` calls `b` at `remote`; `b` waits.
    pub fn call(&mut self, a: usize, b: usize, remote: &str) {
        let mut of_b = self.nodes[b].peers.clone();
        of_b.push(self.peer(b, a, &[]));
        self.set_peers(b, of_b);
        let mut of_a = self.nodes[a].peers.clone();
        of_a.push(self.peer(a, b, &[remote]));
        self.set_peers(a, of_a);
    }

    /// Both call each other at once.
    pub fn call_each_other(&mut self, a: usize, b: usize) {
        let (ip_a, ip_b) = (self.nodes[a].ip, self.nodes[b].ip);
        let of_a = self.peer(a, b, &[&SocketAddr::new(ip_b, 500).to_string()]);
        let of_b = self.peer(b, a, &[&SocketAddr::new(ip_a, 500).to_string()]);
        self.set_peers(a, vec![of_a]);
        self.set_peers(b, vec![of_b]);
    }

    /// The process dies without a word; its kernel forgets everything.
    pub fn kill(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.endpoint = None;
        node.pairs.clear();
        node.sending.clear();
        node.events.clear();
    }

    pub fn start(&mut self, node: usize) {
        let config = self.nodes[node].config.clone();
        self.nodes[node].endpoint = Some(Endpoint::new(config, Box::new(RingCrypto::new())));
        let peers = self.nodes[node].peers.clone();
        self.set_peers(node, peers);
    }

    pub fn restart(&mut self, node: usize) {
        self.kill(node);
        self.start(node);
    }

    /// The process dies without a word and comes back; packets flow on with the keys it left behind.
    pub fn restart_over_its_pairs(&mut self, node: usize) {
        let (pairs, sending) = (self.nodes[node].pairs.split_off(&0), self.nodes[node].sending.clone());
        self.restart(node);
        self.nodes[node].pairs.extend(pairs);
        self.nodes[node].sending.extend(sending);
    }

    /// Does something with an endpoint and handles what comes out.
    pub fn act(&mut self, node: usize, act: impl FnOnce(&mut Endpoint, Now)) {
        let now = self.now_at(node);
        act(self.endpoint(node), now);
        self.drain(node);
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    pub fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Runs until the condition holds; panics if it does not within `limit`.
    pub fn run_until(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&mut Net) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            let at = self.next().filter(|at| *at <= end);
            let Some(at) = at else { panic!("{what} did not happen within {limit:?}\n{}", self.story()) };
            self.now = self.now.max(at);
            self.step();
        }
    }

    fn next(&self) -> Option<Duration> {
        let packet = self.queue.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.iter().filter_map(|node| node.endpoint.as_ref()?.poll_timeout()).min();
        [packet, timers, self.traffic.then_some(self.next_esp)].into_iter().flatten().min()
    }

    fn step(&mut self) {
        if let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let packet = entry.remove();
            self.deliver(packet);
            return;
        }
        for node in 0..self.nodes.len() {
            let now = self.now_at(node);
            let due = |endpoint: &mut Endpoint| endpoint.poll_timeout().is_some_and(|at| at <= now.mono);
            if let Some(endpoint) = self.nodes[node].endpoint.as_mut().filter(|endpoint| {
                let endpoint: &Endpoint = endpoint;
                endpoint.poll_timeout().is_some_and(|at| at <= now.mono)
            }) {
                endpoint.handle_timeout(now);
                assert!(!due(endpoint), "{} asks for the same instant again", self.nodes[node].name);
                self.drain(node);
            }
        }
        if self.traffic && self.next_esp <= self.now {
            self.next_esp = self.now + ESP_PERIOD;
            self.send_esp();
        }
    }

    fn drain(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let Some(endpoint) = &mut node.endpoint else { return };
        while let Some(event) = endpoint.poll_event() {
            self.log.push(format!("{:9.3} {}: {event:?}", now.as_secs_f64(), node.name));
            match &event {
                Event::ChildUp { peer, child } => {
                    if let Some(old) = child.replaces {
                        let known = node.pairs.get(&old).is_some_and(|pair| pair.retired.is_none());
                        assert!(known, "{:08x} replaces an unknown {old:08x}\n{}", child.spi_in, self.log.join("\n"));
                    }
                    if child.send {
                        node.sending.insert(*peer, child.spi_in);
                    }
                    let pair = Pair { child: child.clone(), peer: *peer, retired: None };
                    assert!(node.pairs.insert(child.spi_in, pair).is_none(), "an SPI comes twice");
                }
                Event::ChildSend { peer, spi_in, .. } => {
                    assert!(node.pairs.get(spi_in).is_some_and(|pair| pair.retired.is_none()), "send on the unknown");
                    node.sending.insert(*peer, *spi_in);
                }
                Event::ChildRetired { peer, spi_in, spi_out } => {
                    let pair = node.pairs.get_mut(spi_in).expect("an unknown pair is retired");
                    assert_eq!((pair.child.spi_out, pair.retired), (*spi_out, None));
                    pair.retired = Some(now);
                    if node.sending.get(peer) == Some(spi_in) {
                        node.sending.remove(peer);
                    }
                }
                Event::PeerUp { .. } | Event::PeerDown { .. } | Event::Refused { .. } | Event::Later { .. } => {}
            }
            node.events.push(event);
        }
        let mut packets = Vec::new();
        while let Some(transmit) = endpoint.poll_transmit() {
            let source = transmit.local.unwrap_or(node.ip);
            // A packet from an address the node no longer has leaves nobody.
            if source == node.ip {
                packets.push(Packet {
                    from: SocketAddr::new(source, transmit.local_port),
                    to: transmit.remote,
                    payload: Payload::Ike { bytes: transmit.payload, marker: transmit.non_esp_marker },
                });
            }
        }
        for packet in packets {
            self.ike_packets += 1;
            self.bytes.count(&packet);
            self.send(index, packet);
        }
    }

    fn send_esp(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let packets: Vec<Packet> = node
                .sending
                .values()
                .map(|spi_in| {
                    let child = &node.pairs[spi_in].child;
                    Packet {
                        from: SocketAddr::new(node.ip, if child.encap { 4500 } else { 0 }),
                        to: if child.encap { child.remote } else { SocketAddr::new(child.remote.ip(), 0) },
                        payload: Payload::Esp { spi: child.spi_out, key: child.key_out.to_vec() },
                    }
                })
                .collect();
            for packet in packets {
                self.send(index, packet);
            }
        }
    }

    fn send(&mut self, from: usize, mut packet: Packet) {
        if let Some(nat) = &mut self.nodes[from].nat {
            let now = self.now;
            nat.mappings.retain(|_, mapping| !nat.forgetful || now <= mapping.until);
            let mapping = nat.mappings.entry(packet.from).or_insert_with(|| {
                nat.next_port += 1;
                Mapping::new(nat.next_port, now)
            });
            mapping.passed(now);
            packet.from = SocketAddr::new(nat.public, mapping.port);
        }
        self.inject(packet);
    }

    /// Puts a packet on the wire as the network sees it.
    pub fn inject(&mut self, packet: Packet) {
        let ike = matches!(packet.payload, Payload::Ike { .. });
        if let Some((exchange, response, id)) = packet.ike() {
            let kind = if response { "response" } else { "request" };
            let line = format!(
                "{:9.3}   {} > {} exchange {exchange} {kind} {id}",
                self.now.as_secs_f64(),
                packet.from,
                packet.to
            );
            self.log.push(line);
        }
        if let Some(mut filter) = self.filter.take() {
            let pass = filter(&packet);
            self.filter = Some(filter);
            if !pass {
                self.log.push("            dropped by the filter".into());
                return;
            }
        }
        let copies = 1 + u64::from(ike && self.random(100) < self.duplicate_percent);
        for _ in 0..copies {
            if ike && self.random(100) < self.loss_percent {
                self.log.push("            lost".into());
                continue;
            }
            let jitter = Duration::from_micros(self.random(1 + u64::try_from(self.jitter.as_micros()).unwrap()));
            self.sequence += 1;
            self.queue.insert((self.now + self.latency + jitter, self.sequence), packet.clone());
        }
    }

    fn deliver(&mut self, mut packet: Packet) {
        let found = self.nodes.iter().position(|node| match &node.nat {
            None => node.ip == packet.to.ip(),
            Some(nat) => nat.public == packet.to.ip(),
        });
        let Some(index) = found else { return };
        let now = self.now;
        if let Some(nat) = &mut self.nodes[index].nat {
            nat.mappings.retain(|_, mapping| !nat.forgetful || now <= mapping.until);
            match nat.mappings.iter_mut().find(|(_, mapping)| mapping.port == packet.to.port()) {
                Some((inside, mapping)) => {
                    mapping.answered = true;
                    mapping.passed(now);
                    packet.to = *inside;
                }
                None => {
                    if matches!(packet.payload, Payload::Esp { .. }) {
                        self.nodes[index].esp_lost += 1;
                    }
                    return;
                }
            }
        }
        let now = self.now_at(index);
        let node = &mut self.nodes[index];
        let Some(endpoint) = &mut node.endpoint else { return };
        match packet.payload {
            Payload::Ike { bytes, marker } => {
                let keepalive = bytes == [0xff];
                assert_eq!(marker, packet.to.port() != 500 && !keepalive, "the marker does not fit the port");
                endpoint.handle_datagram(now, packet.to, packet.from, &bytes);
            }
            Payload::Esp { spi, key } => {
                let receivable = |pair: &&Pair| {
                    *pair.child.key_in == key && pair.retired.is_none_or(|at| now.mono <= at + KEEP_INBOUND)
                };
                let Some(pair) = node.pairs.get(&spi).filter(receivable) else {
                    node.esp_lost += 1;
                    self.log.push(format!("{:9.3} {}: lost ESP {spi:08x}", now.mono.as_secs_f64(), node.name));
                    return;
                };
                node.esp_ok += 1;
                let peer = pair.peer;
                if pair.child.encap && pair.retired.is_none() && pair.child.remote != packet.from {
                    endpoint.handle_peer_moved(now, peer, packet.from);
                }
            }
        }
        self.drain(index);
    }

    pub fn status(&self, node: usize, peer: usize) -> PeerStatus {
        let endpoint = self.nodes[node].endpoint.as_ref().expect("the node is off");
        endpoint.peers().find(|status| status.id == id(peer)).expect("an unknown peer")
    }

    pub fn established(&self, node: usize, peer: usize) -> Option<Established> {
        match self.status(node, peer).state {
            PeerState::Established(established) => Some(established),
            PeerState::Idle | PeerState::Connecting { .. } => None,
        }
    }

    pub fn last_error(&self, node: usize, peer: usize) -> String {
        self.status(node, peer).last_error.map(|error| error.reason).unwrap_or_default()
    }

    /// Pairs in use with a peer.
    pub fn live(&self, node: usize, peer: usize) -> Vec<&Child> {
        let pairs = self.nodes[node].pairs.values();
        pairs.filter(|pair| pair.peer == id(peer) && pair.retired.is_none()).map(|pair| &pair.child).collect()
    }

    /// Both ends hold one IKE SA and one pair, mirrored, and send on it.
    pub fn is_joined(&self, a: usize, b: usize) -> bool {
        let (Some(at_a), Some(at_b)) = (self.established(a, b), self.established(b, a)) else { return false };
        let (pairs_a, pairs_b) = (self.live(a, b), self.live(b, a));
        let ([of_a], [of_b]) = (pairs_a.as_slice(), pairs_b.as_slice()) else { return false };
        at_a.ike_spis == at_b.ike_spis
            && (of_a.spi_in, of_a.spi_out) == (of_b.spi_out, of_b.spi_in)
            && (&of_a.key_in, &of_a.key_out) == (&of_b.key_out, &of_b.key_in)
            && of_a.suite == of_b.suite
            && of_a.encap == of_b.encap
            && (&of_a.local_ts, &of_a.remote_ts) == (&of_b.remote_ts, &of_b.local_ts)
            && self.nodes[a].sending.get(&id(b)) == Some(&of_a.spi_in)
            && self.nodes[b].sending.get(&id(a)) == Some(&of_b.spi_in)
    }

    pub fn assert_joined(&self, a: usize, b: usize) {
        assert!(self.is_joined(a, b), "{:?} {:?}\n{}", self.status(a, b), self.status(b, a), self.story());
    }

    /// As [`Net::assert_joined`], and nothing else is left of these two nodes' IKE SAs.
    pub fn assert_settled(&self, a: usize, b: usize) {
        self.assert_joined(a, b);
        for node in [a, b] {
            let count = self.nodes[node].endpoint.as_ref().unwrap().ike_sas();
            assert_eq!(count, 1, "IKE SAs at {}\n{}", self.nodes[node].name, self.story());
        }
    }

    /// Runs until the tunnel is there and no IKE message is on its way.
    pub fn wait_joined(&mut self, a: usize, b: usize, limit: Duration) {
        let quiet = |net: &Net| !net.queue.values().any(|packet| matches!(packet.payload, Payload::Ike { .. }));
        self.run_until(limit, "the tunnel", |net| net.is_joined(a, b) && quiet(net));
    }

    /// No ESP packet was lost since the traffic began.
    pub fn assert_no_esp_lost(&self) {
        for node in &self.nodes {
            assert_eq!(node.esp_lost, 0, "ESP lost at {} ({} ok)\n{}", node.name, node.esp_ok, self.story());
            assert!(node.esp_ok > 0, "no ESP at {}", node.name);
        }
    }

    pub fn start_traffic(&mut self) {
        self.traffic = true;
        self.next_esp = self.now;
    }

    pub fn story(&self) -> String {
        self.log.join("\n")
    }

    /// How many events of a node fit.
    pub fn count(&self, node: usize, fits: impl Fn(&Event) -> bool) -> usize {
        self.nodes[node].events.iter().filter(|event| fits(event)).count()
    }
}

pub fn id(node: usize) -> PeerId {
    PeerId(u32::try_from(node).unwrap())
}

/// What a node has behind it: IPv4 and IPv6.
pub fn subnets(node: usize) -> Vec<TrafficSelector> {
    [format!("10.{node}.0.0/24"), format!("10.{node}.8.0/21"), format!("fd00:{node}::/64")]
        .iter()
        .map(|net| net.parse::<ipnet::IpNet>().unwrap().into())
        .collect()
}
