//! A server over values: no sockets, and a clock that is set by hand.
#![allow(dead_code, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::IpAddr;
use std::time::Duration;

use selvedge_dns::{Handled, Name, Rcode, Response, Server, Settings, Transmit, View, kind, question};
use selvedge_model::{Endpoint, NameServer, Protocol, Service, ServicePort};

pub const UPSTREAMS: [&str; 2] = ["192.0.2.1:53", "192.0.2.2:53"];

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn settings(upstreams: &[&str]) -> Settings {
    Settings {
        zone: name("cluster.local"),
        networks: ["10.96.0.0/16", "10.234.0.0/16", "fd00:96::/112"].map(|net| net.parse().unwrap()).to_vec(),
        upstreams: upstreams.iter().map(|a| a.parse().unwrap()).collect(),
        stubs: Vec::new(),
    }
}

pub fn port(name: &str, protocol: Protocol, port: u16, endpoints: Vec<Endpoint>) -> ServicePort {
    ServicePort { name: name.into(), protocol, port, endpoints, ..ServicePort::default() }
}

pub fn named(address: &str, port: u16, hostname: &str) -> Endpoint {
    Endpoint { hostname: hostname.into(), ..Endpoint::new(ip(address), port, "") }
}

pub fn services() -> Vec<Service> {
    let service =
        |namespace: &str, name: &str| Service { namespace: namespace.into(), name: name.into(), ..Service::default() };
    let database = vec![
        named("10.234.1.10", 5432, "db-0"),
        named("10.234.2.10", 5433, "db-1"),
        named("10.234.3.10", 5432, ""),
        Endpoint { terminating: true, ..named("10.234.4.10", 5432, "db-3") },
    ];
    let metrics = database.iter().map(|e| Endpoint { port: 9187, ..e.clone() }).collect();
    vec![
        Service {
            cluster_ips: vec![ip("10.96.0.1"), ip("fd00:96::1")],
            ports: vec![
                port("https", Protocol::Tcp, 443, vec![]),
                port("dns", Protocol::Udp, 53, vec![]),
                port("", Protocol::Tcp, 80, vec![]),
            ],
            ..service("default", "Kubernetes")
        },
        Service {
            ports: vec![port("pg", Protocol::Tcp, 5432, database), port("metrics", Protocol::Tcp, 9187, metrics)],
            ..service("shop", "db")
        },
        Service {
            ports: vec![port("", Protocol::Tcp, 0, vec![named("10.234.5.5", 0, "")])],
            ..service("shop", "bare")
        },
        service("shop", "nobody"),
        Service { external_name: Some("www.example.com.".into()), ..service("shop", "away") },
        Service { external_name: Some("kubernetes.default.svc.cluster.local".into()), ..service("shop", "api") },
        Service { external_name: Some("not a..name".into()), ..service("shop", "broken") },
    ]
}

/// A server, its clock, and what it wants to send.
pub struct Bench {
    pub server: Server<u32>,
    pub now: Duration,
    next: u8,
}

impl Bench {
    pub fn new(upstreams: &[&str]) -> Bench {
        let mut bench = Bench::without_view(upstreams);
        bench.server.set_view(View::new(&services()));
        bench
    }

    pub fn without_view(upstreams: &[&str]) -> Bench {
        Bench { server: Server::new(settings(upstreams)), now: Duration::from_secs(1000), next: 0 }
    }

    /// Asks over UDP and gives the answer if there is one at once.
    pub fn ask(&mut self, client: u32, text: &str, kind: u16) -> Option<Response> {
        let query = question(7, &name(text), kind);
        let mut out = Vec::new();
        match self.server.handle_query(self.now, client, false, &query, &mut out) {
            Handled::Answered => Some(Response::read(&out, 7, &name(text), kind).expect("readable")),
            Handled::Waiting => None,
            Handled::Ignored => panic!("ignored"),
        }
    }

    /// Asks for what is answered at once: the code, and the data of the answers in order.
    pub fn local(&mut self, text: &str, kind: u16) -> (Rcode, Vec<String>) {
        let response = self.ask(0, text, kind).expect("known here");
        assert_eq!(response.origin.as_deref(), Some("cluster"), "{text}");
        let mut data: Vec<String> = response.answers.into_iter().map(|(.., data)| data).collect();
        data.sort();
        (response.rcode, data)
    }

    pub fn transmits(&mut self) -> Vec<Transmit> {
        let mut out = Vec::new();
        while self.server.wants_transmit() {
            self.next = self.next.wrapping_add(1);
            out.extend(self.server.poll_transmit(self.now, [self.next; 10]));
        }
        out
    }

    /// What is sent to upstreams but for the search for loops.
    pub fn questions(&mut self) -> Vec<Transmit> {
        self.transmits().into_iter().filter(|t| question_of(&t.payload).1 != kind::HINFO).collect()
    }

    /// Answers to clients who waited.
    pub fn answers(&mut self, text: &str, kind: u16) -> Vec<(u32, Response)> {
        let mut out = Vec::new();
        while let Some((client, message)) = self.server.poll_answer(self.now) {
            out.push((client, Response::read(&message, 7, &name(text), kind).expect("readable")));
        }
        out
    }

    pub fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.server.handle_timeout(self.now);
    }

    /// Lets an upstream answer.
    pub fn reply(&mut self, to: &Transmit, message: &[u8]) {
        self.server.handle_upstream(self.now, to.exchange, message);
    }
}

pub fn addr(text: &str) -> NameServer {
    text.parse().unwrap()
}

/// Name and type of a question.
pub fn question_of(message: &[u8]) -> (Name, u16) {
    let (name, at) = Name::read(message, 12).unwrap();
    (name, u16::from_be_bytes([message[at], message[at + 1]]))
}

/// An answer to `query` with these records: type, TTL and data. The owner is the name asked for.
pub fn answer_to(query: &[u8], rcode: u8, records: &[(u16, u32, &[u8])]) -> Vec<u8> {
    let (_, end) = Name::read(query, 12).unwrap();
    let mut out = query[..end + 4].to_vec();
    out[2] |= 0x80;
    out[3] = 0x80 | rcode;
    out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    out[10..12].fill(0);
    for (kind, ttl, data) in records {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    out
}
