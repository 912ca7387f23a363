//! What the edge gateway serves in detail: for `status gateway`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use miniserde::{Deserialize, Serialize};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use selvedge_gateway::{Endpoints, Map};
use selvedge_model::Protocol;
use selvedge_model::gateway::{Backend, Listener, ListenerProtocol, Match, MatchKind, Rule, Site};
use selvedge_tunnel::{Now, validity};

use super::{backends, tls};
use crate::node::Node;
use crate::status::{GatewayStatus, ListenerStatus};
use crate::view::age;

/// The edge gateway as one document.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Seconds since 1970.
    time: u64,
    /// As `status` has it; absent where there is no gateway.
    gateway: Option<GatewayStatus>,
    /// In the order of the listeners there.
    sites: Vec<Vec<ToldSite>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ToldSite {
    /// Empty for every host.
    host: String,
    /// Empty where TLS does not end here.
    certificate: String,
    /// When it ends, in seconds since 1970.
    #[serde(rename = "notAfter")]
    not_after: Option<u64>,
    rules: Vec<ToldRule>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ToldRule {
    name: String,
    hosts: Vec<String>,
    /// One of them must fit.
    matches: Vec<String>,
    /// What is answered, where no backend is asked.
    answer: String,
    backends: Vec<ToldBackend>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ToldBackend {
    /// `namespace/name:port`.
    service: String,
    weight: u32,
    /// It gets copies.
    mirror: bool,
    endpoints: Vec<ToldEndpoint>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ToldEndpoint {
    address: String,
    /// `well`, `out` or `left alone`.
    state: String,
}

/// Endpoints and who of them is not well.
struct View {
    endpoints: Endpoints,
    out: BTreeSet<String>,
    alone: BTreeSet<String>,
    pem: Map<String, Vec<u8>>,
}

pub(crate) fn summary(node: &Node, status: Option<GatewayStatus>, now: Now) -> Told {
    let time = now.wall.seconds();
    let (Some(gateway), Some(config)) = (status, node.config()) else {
        return Told { time, gateway: None, sites: Vec::new() };
    };
    let section = node.gateway.section();
    let view = View {
        endpoints: Endpoints::new(&config.services, &config.node, &BTreeSet::new(), backends(section)),
        out: out(node, now),
        alone: gateway.left_alone.iter().map(|e| e.endpoint.clone()).collect(),
        pem: tls::sections(&node.gateway.pem),
    };
    let sites = section.listeners.iter().map(|l| l.sites.iter().map(|site| view.site(l, site)).collect()).collect();
    Told { time, gateway: Some(gateway), sites }
}

/// Endpoints that are known not to answer.
#[cfg(feature = "services")]
fn out(node: &Node, now: Now) -> BTreeSet<String> {
    let bad = node.watch.report(now.mono).into_iter().filter(|endpoint| endpoint.state == "out");
    let named = |e: crate::status::EndpointStatus| match e.address.contains(':') {
        true => format!("[{}]:{}", e.address, e.port),
        false => format!("{}:{}", e.address, e.port),
    };
    bad.map(named).collect()
}

#[cfg(not(feature = "services"))]
fn out(_: &Node, _: Now) -> BTreeSet<String> {
    BTreeSet::new()
}

impl View {
    fn site(&self, listener: &Listener, site: &Site) -> ToldSite {
        let leaf = self.pem.get(&site.certificate).and_then(|pem| CertificateDer::pem_slice_iter(pem).next()?.ok());
        let udp = listener.protocol == ListenerProtocol::Udp;
        ToldSite {
            host: site.host.clone(),
            certificate: site.certificate.clone(),
            not_after: leaf.and_then(|leaf| validity(&leaf)).map(|(_, end)| end),
            rules: site.rules.iter().map(|rule| self.rule(rule, udp)).collect(),
        }
    }

    fn rule(&self, rule: &Rule, udp: bool) -> ToldRule {
        let answer = match (&rule.redirect, rule.status) {
            (Some(redirect), _) => format!("{}: somewhere else", redirect.status),
            (None, Some(status)) => format!("{status}: it cannot be served"),
            (None, None) => String::new(),
        };
        let asked = rule.backends.iter().map(|backend| (backend, false));
        let all = asked.chain(rule.mirrors.iter().map(|mirror| (&mirror.backend, true)));
        ToldRule {
            name: rule.name.clone(),
            hosts: rule.hosts.clone(),
            matches: rule.matches.iter().map(words).collect(),
            answer,
            backends: all.map(|(backend, mirror)| self.backend(backend, mirror, udp)).collect(),
        }
    }

    fn backend(&self, backend: &Backend, mirror: bool, udp: bool) -> ToldBackend {
        let port = self.endpoints.of(backend, if udp { Protocol::Udp } else { Protocol::Tcp });
        let endpoints = port.into_iter().flat_map(|port| &port.targets).map(|(_, endpoint)| {
            let address = endpoint.to_string();
            let state = match address {
                _ if self.out.contains(&address) => "out",
                _ if self.alone.contains(&address) => "left alone",
                _ => "well",
            };
            ToldEndpoint { address, state: state.to_owned() }
        });
        ToldBackend {
            service: format!("{}/{}:{}", backend.namespace, backend.service, backend.port),
            weight: backend.weight,
            mirror,
            endpoints: endpoints.collect(),
        }
    }
}

/// `GET /api/* x-team=two ?q=1`.
fn words(one: &Match) -> String {
    let compared = |kind, value: &str| match kind {
        MatchKind::Exact => value.to_owned(),
        MatchKind::Prefix => format!("{}/*", value.trim_end_matches('/')),
        MatchKind::Beginning => format!("{value}*"),
        MatchKind::Regex => format!("~{value}"),
    };
    let mut words: Vec<String> = one.method.iter().cloned().collect();
    words.extend(one.path.iter().map(|path| compared(path.kind, &path.value)));
    words.extend(one.headers.iter().map(|f| format!("{}={}", f.name, compared(f.kind, &f.value))));
    words.extend(one.query.iter().map(|f| format!("?{}={}", f.name, compared(f.kind, &f.value))));
    words.join(" ")
}

/// Lines for a terminal.
pub(crate) fn human(told: &Told) -> String {
    let Some(gateway) = &told.gateway else {
        return "there is no gateway: the configuration has none\n".to_owned();
    };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{} listeners, {} connections now", gateway.listeners.len(), gateway.connections);
    for (listener, sites) in gateway.listeners.iter().zip(&told.sites) {
        let ListenerStatus { connections, requests, unrouted, failed, refused, .. } = listener;
        let at = if listener.addresses.is_empty() { "nowhere".to_owned() } else { listener.addresses.join(" ") };
        let _ = writeln!(out, "\n  {}  {} at {at}", listener.name, listener.protocol);
        let _ = writeln!(
            out,
            "    {connections} connections, {requests} requests; {unrouted} without a route, {failed} without an endpoint, \
             {refused} refused"
        );
        for site in sites {
            let host = if site.host.is_empty() { "every host" } else { &site.host };
            let end = site.not_after.map(|end| match end.checked_sub(told.time) {
                Some(left) => format!("valid for {}", age(left)),
                None => "EXPIRED".to_owned(),
            });
            let certificate = match &*site.certificate {
                "" => String::new(),
                name => format!(", certificate {name} {}", end.unwrap_or_else(|| "is not there".to_owned())),
            };
            let _ = writeln!(out, "    {host}{certificate}");
            site.rules.iter().for_each(|rule| write_rule(&mut out, rule));
        }
    }
    for problem in &gateway.problems {
        let _ = writeln!(out, "\n  PROBLEM: {problem}");
    }
    out
}

fn write_rule(out: &mut String, rule: &ToldRule) {
    let hosts = if rule.hosts.is_empty() { String::new() } else { format!(" for {}", rule.hosts.join(" ")) };
    let matches = if rule.matches.is_empty() { "everything".to_owned() } else { rule.matches.join(" or ") };
    let answer = if rule.answer.is_empty() { String::new() } else { format!(": answers {}", rule.answer) };
    let name = if rule.name.is_empty() { "rule" } else { &rule.name };
    let _ = writeln!(out, "      {name}{hosts}: {matches}{answer}");
    for backend in &rule.backends {
        let weight = if backend.weight == 1 { String::new() } else { format!(" (weight {})", backend.weight) };
        let copies = if backend.mirror { "copies to " } else { "" };
        let state = |e: &ToldEndpoint| match &*e.state {
            "well" => e.address.clone(),
            state => format!("{} ({state})", e.address),
        };
        let endpoints: Vec<String> = backend.endpoints.iter().map(state).collect();
        let endpoints = if endpoints.is_empty() { "no endpoint".to_owned() } else { endpoints.join(", ") };
        let _ = writeln!(out, "        {copies}{}{weight}: {endpoints}", backend.service);
    }
}
