use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use miniserde::Deserialize;
use selvedge_model::{
    Balance, Distribution, HealthCheck, MAX_AFFINITY, MAX_WEIGHT, Protocol, Service as Served, ServicePort,
};

use crate::answer::printable;
use crate::object::{Annotations, Labels, Meta, Object, Problem, RawMeta, is_plain};

/// A Service that is served, or has a name at least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// All but its name and its endpoints.
    pub spec: Served,
    /// Annotation `selvedge.dev/weights`: the weight of endpoints by their node.
    pub weights: BTreeMap<String, u16>,
    /// What it asks for and does not get.
    pub ignored: Vec<Problem>,
}

/// `Service` as it is written.
#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct RawService {
    metadata: Option<RawMeta>,
    spec: Option<RawSpec>,
    status: Option<RawStatus>,
}

#[derive(Default, Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalName")]
    external_name: Option<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    #[serde(rename = "loadBalancerSourceRanges")]
    load_balancer_sources: Option<Vec<String>>,
    #[serde(rename = "sessionAffinity")]
    affinity: Option<String>,
    #[serde(rename = "sessionAffinityConfig")]
    affinity_config: Option<RawAffinityConfig>,
    #[serde(rename = "internalTrafficPolicy")]
    internal_policy: Option<String>,
    #[serde(rename = "externalTrafficPolicy")]
    external_policy: Option<String>,
    #[serde(rename = "trafficDistribution")]
    distribution: Option<String>,
    #[serde(rename = "publishNotReadyAddresses")]
    publish_not_ready: Option<bool>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawAffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<RawClientIp>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawClientIp {
    #[serde(rename = "timeoutSeconds")]
    seconds: Option<u32>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawStatus {
    #[serde(rename = "loadBalancer")]
    load_balancer: Option<RawLoadBalancer>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawLoadBalancer {
    ingress: Option<Vec<RawIngress>>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawIngress {
    ip: Option<String>,
    #[serde(rename = "ipMode")]
    mode: Option<String>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
    #[serde(rename = "nodePort")]
    node_port: Option<u16>,
    #[serde(rename = "appProtocol")]
    app_protocol: Option<String>,
}

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where nothing is said.
const USUAL_AFFINITY: u32 = 10_800;

impl Object for Service {
    const LIST: &'static str = "ServiceList";
    const PATH: &'static str = "/api/v1/services";
    type Raw = RawService;

    /// One that has no address yet, and is not to have none, is of no use.
    fn narrow(raw: RawService) -> Result<(Meta, Option<Self>), Problem> {
        let mut metadata = raw.metadata.unwrap_or_default();
        let annotations = metadata.annotations.take().unwrap_or_default();
        let labels = metadata.labels.take().unwrap_or_default();
        let meta = Meta::from(Some(metadata));
        let spec = raw.spec.unwrap_or_default();
        let mut service = Service::default();
        if spec.kind.as_deref() == Some("ExternalName") {
            let name = spec.external_name.unwrap_or_default();
            let name = name.trim_end_matches('.');
            if name.is_empty() || !is_plain(name) {
                return Err(Problem::new("spec.externalName", format!("\"{}\" is not a name", printable(name))));
            }
            service.spec.external_name = Some(name.to_ascii_lowercase());
            return Ok((meta, Some(service)));
        }
        let (texts, field) = match spec.cluster_ips {
            Some(texts) if !texts.is_empty() => (texts, "spec.clusterIPs"),
            _ => (Vec::from_iter(spec.cluster_ip), "spec.clusterIP"),
        };
        if texts.iter().all(String::is_empty) {
            return Ok((meta, None));
        }
        let given = |text: &&String| !text.is_empty() && *text != "None";
        service.spec.cluster_ips =
            texts.iter().filter(given).map(|text| address(text, || field.to_owned())).collect::<Result<_, _>>()?;
        for (i, raw) in spec.ports.unwrap_or_default().into_iter().enumerate() {
            service.port(i, raw);
        }
        // There are thousands of them, and they stay.
        service.spec.ports.shrink_to_fit();
        service.spec.cluster_ips.shrink_to_fit();
        service.spec.publish_not_ready = spec.publish_not_ready == Some(true);
        service.annotations(&annotations, &labels, spec.distribution.as_deref());
        if service.spec.cluster_ips.is_empty() {
            return Ok((meta, Some(service)));
        }
        let external = spec.external_ips.unwrap_or_default();
        service.spec.external_ips = addresses(&external, |i| format!("spec.externalIPs[{i}]"))?;
        let ingress = raw.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
        // Who is asked to leave it to the balancer's proxy does.
        let as_they_are = ingress.unwrap_or_default().into_iter().filter(|one| one.mode.as_deref() != Some("Proxy"));
        let balancers: Vec<String> = as_they_are.filter_map(|one| one.ip).filter(|ip| !ip.is_empty()).collect();
        service.spec.load_balancer_ips = addresses(&balancers, |i| format!("status.loadBalancer.ingress[{i}].ip"))?;
        for (i, text) in spec.load_balancer_sources.unwrap_or_default().iter().enumerate() {
            let net: IpNet = text.trim().parse().map_err(|_| {
                let message = format!("\"{}\" is not a network in CIDR notation", printable(text));
                Problem::new(format!("spec.loadBalancerSourceRanges[{i}]"), message)
            })?;
            service.spec.load_balancer_sources.push(net.trunc());
        }
        if spec.affinity.as_deref() == Some("ClientIP") {
            let seconds = spec.affinity_config.and_then(|config| config.client_ip).and_then(|client| client.seconds);
            service.spec.affinity = Some(seconds.unwrap_or(USUAL_AFFINITY).clamp(1, MAX_AFFINITY));
        }
        service.spec.internal_local = spec.internal_policy.as_deref() == Some("Local");
        service.spec.external_local = spec.external_policy.as_deref() == Some("Local");
        Ok((meta, Some(service)))
    }

    /// `10.96.0.7,fd00::7 80/tcp/http,53/udp//30053 affinity=600 external-ips=192.0.2.1`; headless: `- …`
    fn keep(&self) -> String {
        let spec = &self.spec;
        let ips = if spec.cluster_ips.is_empty() { "-".to_owned() } else { join(&spec.cluster_ips) };
        let ports: Vec<String> = spec.ports.iter().map(keep_port).collect();
        let mut text = format!("{ips} {}", ports.join(","));
        let mut word = |key: &str, value: &str| text.extend([" ", key, "=", value]);
        if let Some(name) = &spec.external_name {
            word("external-name", name);
        }
        for (key, ips) in [("external-ips", &spec.external_ips), ("balancers", &spec.load_balancer_ips)] {
            if !ips.is_empty() {
                word(key, &join(ips));
            }
        }
        if !spec.load_balancer_sources.is_empty() {
            word("sources", &join(&spec.load_balancer_sources));
        }
        if let Some(seconds) = spec.affinity {
            word("affinity", &seconds.to_string());
        }
        if let Some(distribution) = spec.distribution {
            word("distribution", spelt(&Distribution::WORDS, distribution));
        }
        if let Some(balance) = spec.balance {
            word("balance", spelt(&Balance::WORDS, balance));
        }
        if let Some(by) = &spec.per_request {
            word("per-request", by);
        }
        if let Some(health) = &spec.health {
            word("health", &health.to_string());
        }
        if !self.weights.is_empty() {
            let weights: Vec<String> = self.weights.iter().map(|(node, weight)| format!("{node}:{weight}")).collect();
            word("weights", &weights.join(","));
        }
        let flags = [
            ("internal", spec.internal_local),
            ("external", spec.external_local),
            ("not-ready", spec.publish_not_ready),
            ("proxy", spec.other_proxy),
        ];
        for (flag, _) in flags.iter().filter(|(_, set)| *set) {
            word(flag, "");
        }
        text
    }

    fn restore(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut service = Service::default();
        let spec = &mut service.spec;
        spec.cluster_ips = match words.next()? {
            "-" => Vec::new(),
            ips => list(ips)?,
        };
        spec.ports = kept_ports(words.next()?).map(restore_port).collect::<Option<_>>()?;
        for word in words {
            match word.split_once('=')? {
                ("external-name", name) => spec.external_name = Some(name.to_owned()),
                ("external-ips", ips) => spec.external_ips = list(ips)?,
                ("balancers", ips) => spec.load_balancer_ips = list(ips)?,
                ("sources", nets) => spec.load_balancer_sources = list(nets)?,
                ("affinity", seconds) => spec.affinity = Some(seconds.parse().ok()?),
                ("distribution", word) => spec.distribution = Some(meant(&Distribution::WORDS, word)?),
                ("balance", word) => spec.balance = Some(meant(&Balance::WORDS, word)?),
                ("per-request", by) => {
                    spec.per_request = Some(by.to_owned()).filter(|by| selvedge_model::Service::is_per_request(by))
                }
                ("health", text) => spec.health = Some(HealthCheck::parse(text)?),
                ("weights", text) => {
                    let one = |text: &str| {
                        let (node, weight) = text.split_once(':')?;
                        Some((node.to_owned(), weight.parse().ok()?))
                    };
                    service.weights = text.split(',').map(one).collect::<Option<_>>()?;
                }
                ("internal", _) => spec.internal_local = true,
                ("external", _) => spec.external_local = true,
                ("not-ready", _) => spec.publish_not_ready = true,
                ("proxy", _) => spec.other_proxy = true,
                // A newer program knew more.
                _ => {}
            }
        }
        Some(service)
    }
}

impl Service {
    fn port(&mut self, i: usize, raw: RawPort) {
        let Some(port) = raw.port.filter(|port| *port != 0) else { return };
        let Some(protocol) = protocol(raw.protocol.as_deref()) else {
            let message = format!("\"{}\" is none of TCP, UDP, SCTP", printable(&raw.protocol.unwrap_or_default()));
            return self.ignore(format!("spec.ports[{i}].protocol"), message);
        };
        if self.spec.ports.iter().any(|other| (other.protocol, other.port) == (protocol, port)) {
            let message = format!("{port} is there already with the same protocol");
            return self.ignore(format!("spec.ports[{i}].port"), message);
        }
        let plain = |text: &String| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        self.spec.ports.push(ServicePort {
            name: raw.name.filter(|name| is_plain(name)).unwrap_or_default(),
            protocol,
            port,
            node_port: raw.node_port.unwrap_or(0),
            app_protocol: raw.app_protocol.filter(plain).unwrap_or_default(),
            endpoints: Vec::new(),
        });
    }

    /// Words that are not understood do no more harm than to be missing.
    fn annotations(&mut self, annotations: &Annotations, labels: &Labels, distribution: Option<&str>) {
        let field = |name: &str| format!("metadata.annotations[selvedge.dev/{name}]");
        self.spec.other_proxy = labels.proxy_name.as_ref().is_some_and(|name| name != "selvedge");
        if annotations.topology_mode.as_deref().is_some_and(|mode| mode.eq_ignore_ascii_case("auto")) {
            self.spec.distribution = Some(Distribution::SameZone);
        }
        match distribution {
            None => {}
            Some("PreferClose" | "PreferSameZone") => self.spec.distribution = Some(Distribution::SameZone),
            Some("PreferSameNode") => self.spec.distribution = Some(Distribution::SameNode),
            Some(other) => {
                let message =
                    format!("\"{}\" is none of PreferClose, PreferSameZone, PreferSameNode", printable(other));
                self.ignore("spec.trafficDistribution".to_owned(), message);
            }
        }
        match annotations.distribution.as_deref().map(|text| understood(&Distribution::WORDS, text)) {
            None => {}
            Some(Ok(distribution)) => self.spec.distribution = Some(distribution),
            Some(Err(message)) => self.ignore(field("distribution"), message),
        }
        let balance = annotations.balance.as_deref().map(str::trim);
        self.spec.per_request = balance.filter(|text| selvedge_model::Service::is_per_request(text)).map(str::to_owned);
        match balance.filter(|_| self.spec.per_request.is_none()).map(|text| understood(&Balance::WORDS, text)) {
            None => {}
            Some(Ok(balance)) => self.spec.balance = Some(balance),
            Some(Err(message)) => self.ignore(field("balance"), message),
        }
        if let Some(text) = &annotations.health_check {
            self.spec.health = HealthCheck::parse(text.trim());
            if self.spec.health.is_none() {
                let message = format!("\"{}\" is neither tcp nor http:/path", printable(text));
                self.ignore(field("health-check"), message);
            }
        }
        for part in annotations.weights.iter().flat_map(|text| text.split(',')) {
            let weight = part.split_once('=').and_then(|(node, weight)| {
                let weight = weight.trim().parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight))?;
                Some((node.trim(), weight)).filter(|(node, _)| !node.is_empty() && is_plain(node))
            });
            match weight {
                Some((node, weight)) => drop(self.weights.insert(node.to_owned(), weight)),
                None => {
                    let message = format!("\"{}\" is not of the form node=1 to node={MAX_WEIGHT}", printable(part));
                    self.ignore(field("weights"), message);
                }
            }
        }
    }

    fn ignore(&mut self, field: String, message: String) {
        self.ignored.push(Problem { field, message });
    }
}

/// `None` for what no kernel serves.
pub(crate) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

pub(crate) fn address(text: &str, field: impl FnOnce() -> String) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| Problem::new(field(), format!("\"{}\" is not an IP address", printable(text))))
}

fn addresses(texts: &[String], field: impl Fn(usize) -> String) -> Result<Vec<IpAddr>, Problem> {
    texts.iter().enumerate().map(|(i, text)| address(text, || field(i))).collect()
}

/// `80/tcp/http`, with a node port `80/tcp/http/30080`, with an application protocol `80/tcp/http/0/kubernetes.io/h2c`
fn keep_port(port: &ServicePort) -> String {
    let mut text = format!("{}/{}/{}", port.port, port.protocol.name(), port.name);
    if port.node_port != 0 || !port.app_protocol.is_empty() {
        text.extend(["/", &port.node_port.to_string()]);
    }
    if !port.app_protocol.is_empty() {
        text.extend(["/", &port.app_protocol]);
    }
    text
}

/// An older program kept ports that it could not serve, without a protocol.
pub(crate) fn kept_ports(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|one| !one.is_empty() && one.split('/').nth(1) != Some(""))
}

fn restore_port(text: &str) -> Option<ServicePort> {
    let mut parts = text.splitn(5, '/');
    Some(ServicePort {
        port: parts.next()?.parse().ok()?,
        protocol: meant(&Protocol::WORDS, parts.next()?)?,
        name: parts.next()?.to_owned(),
        node_port: parts.next().map_or(Some(0), |port| port.parse().ok())?,
        app_protocol: parts.next().unwrap_or_default().to_owned(),
        endpoints: Vec::new(),
    })
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn list<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split(',').map(|one| one.parse().ok()).collect()
}

fn spelt<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, other)| *other == value).map_or("", |(word, _)| word)
}

pub(crate) fn meant<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

fn understood<T: Copy>(words: &[(&str, T)], text: &str) -> Result<T, String> {
    meant(words, text.trim()).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("\"{}\" is none of {}", printable(text), known.join(", "))
    })
}

#[cfg(test)]
mod tests;
