//! What the cluster has names for, in little memory: texts lie one after another, and everything else points at them.

use std::net::{IpAddr, Ipv6Addr};

use selvedge_model::{Protocol, Service};

use crate::name::{Labels, Name};

/// The names of all Services (Kubernetes DNS specification 1.1.0).
#[derive(Debug, Default)]
pub struct View {
    /// By hash of their names.
    services: Vec<Entry>,
    /// The hashes alone, so that few cache lines are read to find one.
    hashes: Vec<u32>,
    /// Labels and names, in lower case and wire form.
    text: Vec<u8>,
    addresses: Vec<IpAddr>,
    hosts: Vec<Host>,
    ports: Vec<Port>,
    /// By address; which Service, and which of its hosts.
    pointers: Vec<(IpAddr, u32, Option<u32>)>,
}

/// Places in a list.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    at: u32,
    len: u32,
}

#[derive(Debug)]
struct Entry {
    hash: u32,
    /// Where in `text` its name begins: name and namespace.
    name: u32,
    content: Content,
    ports: Span,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// Cluster IPs.
    Cluster(Span),
    /// Endpoints, each once.
    Headless(Span),
    /// Another name, in `text`.
    Alias(u32),
}

#[derive(Debug)]
struct Port {
    /// Its label in `text`.
    name: u32,
    protocol: Protocol,
    port: u16,
    /// Endpoints of a headless Service.
    hosts: Span,
}

/// An endpoint of a headless Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Its label in `text`; it may have none.
    label: Option<u32>,
}

/// What a name of the cluster stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The cluster's names are not known yet.
    Unknown,
    /// There is no such name.
    Nothing,
    /// There is, but only others below it, or one of another type.
    Empty,
    /// The zone itself.
    Apex,
    /// The version of the specification.
    Version,
    /// A Service with cluster IPs, or the endpoints of one without.
    Service(usize),
    /// Endpoints of a headless Service called like the first of them.
    Host(usize, usize),
    /// A port of a Service.
    Port(usize, usize),
    /// A pod by its address.
    Pod(IpAddr),
    /// What a Service of type `ExternalName` stands for.
    Alias(Box<Name>),
    /// Names of an address: places in the list of pointers.
    Pointers(usize, usize),
}

impl View {
    /// The names of these Services. What has no name in DNS has none here.
    pub fn new(services: &[Service]) -> View {
        let mut view = View::default();
        for service in services {
            view.add(service);
        }
        view.services.sort_by_key(|entry| entry.hash);
        view.hashes = view.services.iter().map(|entry| entry.hash).collect();
        // Only now do Services have their places.
        for (index, entry) in view.services.iter().enumerate() {
            let index = index as u32;
            match entry.content {
                Content::Cluster(span) => {
                    let addresses = slice(&view.addresses, span).iter();
                    view.pointers.extend(addresses.map(|address| (*address, index, None)));
                }
                Content::Headless(span) => {
                    let hosts = slice(&view.hosts, span).iter().zip(span.at..);
                    view.pointers.extend(hosts.map(|(host, at)| (host.address, index, Some(at))));
                }
                Content::Alias(_) => {}
            }
        }
        view.pointers.sort();
        view.text.shrink_to_fit();
        view.addresses.shrink_to_fit();
        view.hosts.shrink_to_fit();
        view.ports.shrink_to_fit();
        view.pointers.shrink_to_fit();
        view
    }

    /// How many Services have names.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// What the labels before the zone, in lower case, stand for.
    pub(crate) fn find(&self, mut labels: Labels<'_>) -> Found {
        match labels.pop() {
            None => Found::Apex,
            Some(b"svc") => self.find_service(labels),
            Some(b"pod") => find_pod(labels),
            Some(b"dns-version") if labels.wire().is_empty() => Found::Version,
            Some(_) => Found::Nothing,
        }
    }

    pub(crate) fn find_address(&self, address: IpAddr) -> Found {
        let first = self.pointers.partition_point(|pointer| pointer.0 < address);
        let end = self.pointers.partition_point(|pointer| pointer.0 <= address);
        if first == end { Found::Nothing } else { Found::Pointers(first, end) }
    }

    /// Cluster IPs of a Service.
    pub(crate) fn addresses(&self, service: usize) -> &[IpAddr] {
        match self.services.get(service).map(|entry| entry.content) {
            Some(Content::Cluster(span)) => slice(&self.addresses, span),
            _ => &[],
        }
    }

    /// Endpoints of a headless Service; each is there once.
    pub(crate) fn hosts(&self, service: usize) -> &[Host] {
        match self.services.get(service).map(|entry| entry.content) {
            Some(Content::Headless(span)) => slice(&self.hosts, span),
            _ => &[],
        }
    }

    /// The number of a port, and the endpoints that serve it if the Service is headless.
    pub(crate) fn port(&self, port: usize) -> Option<(u16, &[Host])> {
        self.ports.get(port).map(|port| (port.port, slice(&self.hosts, port.hosts)))
    }

    pub(crate) fn is_headless(&self, service: usize) -> bool {
        matches!(self.services.get(service).map(|entry| entry.content), Some(Content::Headless(_)))
    }

    /// Full name of a Service.
    pub(crate) fn service_name(&self, service: usize, zone: &Name) -> Option<Name> {
        let entry = self.services.get(service)?;
        let (own, _) = Name::read(&self.text, entry.name as usize)?;
        Name::from_labels(own.labels().chain([&b"svc"[..]]).chain(zone.labels()))
    }

    /// Full name of an endpoint of a headless Service.
    pub(crate) fn host_name(&self, host: &Host, service: &Name) -> Option<Name> {
        let dashed;
        let label = match host.label {
            Some(label) => self.label(label),
            None => {
                dashed = self::dashed(host.address);
                dashed.as_bytes()
            }
        };
        Name::from_labels([label].into_iter().chain(service.labels()))
    }

    /// Whether two endpoints have one name.
    pub(crate) fn same_name(&self, one: &Host, other: &Host) -> bool {
        match (one.label, other.label) {
            (Some(one), Some(other)) => self.label(one) == self.label(other),
            (None, None) => one.address == other.address,
            _ => false,
        }
    }

    /// Services and hosts that have an address.
    pub(crate) fn pointers(&self, first: usize, end: usize) -> impl Iterator<Item = (usize, Option<&Host>)> {
        let pointers = self.pointers.get(first..end).unwrap_or_default().iter();
        pointers.map(|(_, service, host)| (*service as usize, host.and_then(|host| self.hosts.get(host as usize))))
    }

    fn find_service(&self, mut labels: Labels<'_>) -> Found {
        let Some(namespace) = labels.pop() else { return Found::Empty };
        let Some(service) = labels.pop() else {
            let known = self.services.iter().any(|entry| self.key(entry).is_some_and(|(_, own)| own == namespace));
            return if known { Found::Empty } else { Found::Nothing };
        };
        let Some(index) = self.index_of(service, namespace) else { return Found::Nothing };
        let Some(entry) = self.services.get(index) else { return Found::Nothing };
        let Some(outer) = labels.pop() else {
            return match entry.content {
                Content::Alias(target) => Name::read(&self.text, target as usize)
                    .map_or(Found::Nothing, |(name, _)| Found::Alias(name.into())),
                // So the specification has it.
                Content::Headless(Span { len: 0, .. }) => Found::Nothing,
                _ => Found::Service(index),
            };
        };
        let Some(inner) = labels.pop() else { return self.find_host(index, outer) };
        if !labels.wire().is_empty() {
            return Found::Nothing;
        }
        let first = entry.ports.at as usize;
        let ports = slice(&self.ports, entry.ports).iter().zip(first..);
        let wanted = |port: &Port| {
            inner.len() > 1
                && inner.strip_prefix(b"_") == Some(self.label(port.name))
                && is_protocol(outer, port.protocol)
        };
        let found = ports.into_iter().find(|(port, _)| wanted(port));
        found.map_or(Found::Nothing, |(_, port)| Found::Port(index, port))
    }

    /// A label before a Service: an endpoint, or a protocol.
    fn find_host(&self, service: usize, label: &[u8]) -> Found {
        let Some(entry) = self.services.get(service) else { return Found::Nothing };
        if label.starts_with(b"_") {
            let known = slice(&self.ports, entry.ports).iter().any(|port| is_protocol(label, port.protocol));
            return if known { Found::Empty } else { Found::Nothing };
        }
        let address = undashed(label);
        let called = |host: &Host| match host.label {
            Some(own) => self.label(own) == label,
            None => Some(host.address) == address,
        };
        let found = self.hosts(service).iter().position(called);
        found.map_or(Found::Nothing, |host| Found::Host(service, host))
    }

    fn index_of(&self, service: &[u8], namespace: &[u8]) -> Option<usize> {
        let hash = hash(service, namespace);
        let first = self.hashes.partition_point(|other| *other < hash);
        let same = self.services.iter().enumerate().skip(first).take_while(|(_, entry)| entry.hash == hash);
        same.into_iter().find(|(_, entry)| self.key(entry) == Some((service, namespace))).map(|(index, _)| index)
    }

    /// Name and namespace.
    fn key(&self, entry: &Entry) -> Option<(&[u8], &[u8])> {
        let service = self.label(entry.name);
        Some((service, self.label(entry.name + 1 + u32::try_from(service.len()).ok()?)))
    }

    fn label(&self, at: u32) -> &[u8] {
        let at = at as usize;
        let length = self.text.get(at).copied().unwrap_or_default();
        self.text.get(at + 1..at + 1 + usize::from(length)).unwrap_or_default()
    }

    fn add(&mut self, service: &Service) {
        let parts = [service.name.as_bytes(), service.namespace.as_bytes()];
        let Some(name) = Name::from_labels(parts).map(|name| name.lower()) else { return };
        let mut labels = name.labels();
        let hash = hash(labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
        let (content, ports) = if let Some(target) = &service.external_name {
            let Some(target) = Name::parse(target) else { return };
            (Content::Alias(self.push_text(target.wire())), Span::default())
        } else if service.is_headless() {
            let ports = self.push_ports(service);
            (Content::Headless(self.push_hosts(ports)), ports)
        } else {
            let at = self.addresses.len() as u32;
            self.addresses.extend(&service.cluster_ips);
            (Content::Cluster(span(at, self.addresses.len())), self.push_ports(service))
        };
        let name = self.push_text(name.wire());
        self.services.push(Entry { hash, name, content, ports });
    }

    /// Ports without a name have none in DNS either, but those of headless Services have endpoints.
    fn push_ports(&mut self, service: &Service) -> Span {
        let first = self.ports.len() as u32;
        for port in &service.ports {
            let at = self.hosts.len() as u32;
            if service.is_headless() {
                for endpoint in port.endpoints.iter().filter(|e| !e.terminating || service.publish_not_ready) {
                    let label = self.push_label(&endpoint.hostname);
                    self.hosts.push(Host { address: endpoint.address, port: endpoint.port, label });
                }
            }
            let hosts = span(at, self.hosts.len());
            if let Some(name) = self.push_label(&port.name) {
                self.ports.push(Port { name, protocol: port.protocol, port: port.port, hosts });
            } else if service.is_headless() {
                let name = self.push_text(&[0]);
                self.ports.push(Port { name, protocol: port.protocol, port: port.port, hosts });
            }
        }
        span(first, self.ports.len())
    }

    /// The endpoints of all ports, each once.
    fn push_hosts(&mut self, ports: Span) -> Span {
        let spans: Vec<Span> = slice(&self.ports, ports).iter().map(|port| port.hosts).collect();
        match spans[..] {
            [] => Span::default(),
            [only] => only,
            _ => {
                let mut all: Vec<Host> = Vec::new();
                for host in spans.into_iter().flat_map(|span| slice(&self.hosts, span)) {
                    if !all.iter().any(|known| known.address == host.address && self.same_name(known, host)) {
                        all.push(*host);
                    }
                }
                let at = self.hosts.len() as u32;
                self.hosts.extend(all);
                span(at, self.hosts.len())
            }
        }
    }

    fn push_label(&mut self, label: &str) -> Option<u32> {
        let name = Name::from_labels([label.as_bytes()])?.lower();
        let labels = name.labels();
        Some(self.push_text(labels.wire()))
    }

    fn push_text(&mut self, text: &[u8]) -> u32 {
        let at = self.text.len() as u32;
        self.text.extend_from_slice(text);
        at
    }
}

fn span(at: u32, end: usize) -> Span {
    Span { at, len: end as u32 - at }
}

fn slice<T>(list: &[T], span: Span) -> &[T] {
    list.get(span.at as usize..(span.at + span.len) as usize).unwrap_or_default()
}

fn is_protocol(label: &[u8], protocol: Protocol) -> bool {
    label.strip_prefix(b"_") == Some(protocol.name().as_bytes())
}

/// FNV-1a over two labels.
fn hash(service: &[u8], namespace: &[u8]) -> u32 {
    let octets = service.iter().chain([&b'.']).chain(namespace);
    octets.fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}

/// `10-234-1-5.namespace`; the specification asks for it, although there may be no such pod.
fn find_pod(mut labels: Labels<'_>) -> Found {
    let Some(_namespace) = labels.pop() else { return Found::Empty };
    let Some(pod) = labels.pop() else { return Found::Empty };
    match undashed(pod) {
        Some(address) if labels.wire().is_empty() => Found::Pod(address),
        _ => Found::Nothing,
    }
}

/// An address as a label.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn undashed(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let v4 = text.replace('-', ".").parse().ok();
    v4.or_else(|| text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}
