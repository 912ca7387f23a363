use std::net::IpAddr;

use miniserde::Deserialize;
use selvedge_model::Protocol;

use crate::object::{Meta, Object, Problem, RawMeta, is_plain};
use crate::service::{address, kept_ports, meant, protocol};

/// A part of the endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name of the Service.
    pub service: String,
    /// Where it is served.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports at all of these addresses.
    pub ports: Vec<Port>,
}

/// One endpoint that takes connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Addresses of one pod, all of one family.
    pub addresses: Vec<IpAddr>,
    /// Node it runs on, empty if unknown.
    pub node: String,
    /// Zone of that node, empty if unknown.
    pub zone: String,
    /// Name within the Service, empty if it has none.
    pub hostname: String,
    /// It is not ready because it ends, and still answers.
    pub terminating: bool,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty if it has none.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// `EndpointSlice` as it is written.
#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct RawEndpointSlice {
    metadata: Option<RawMeta>,
    #[serde(rename = "addressType")]
    address_type: Option<String>,
    endpoints: Option<Vec<RawEndpoint>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<RawConditions>,
    hostname: Option<String>,
    #[serde(rename = "nodeName")]
    node_name: Option<String>,
    zone: Option<String>,
}

#[derive(Default, Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

impl Object for EndpointSlice {
    const LIST: &'static str = "EndpointSliceList";
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";
    type Raw = RawEndpointSlice;

    /// A slice that belongs to no Service is of no use.
    fn narrow(raw: RawEndpointSlice) -> Result<(Meta, Option<Self>), Problem> {
        let mut metadata = raw.metadata;
        let labels = metadata.as_mut().and_then(|metadata| metadata.labels.take());
        let meta = Meta::from(metadata);
        let service = labels.and_then(|labels| labels.service_name).unwrap_or_default();
        if service.is_empty() || !is_plain(&service) {
            return Ok((meta, None));
        }
        let mut endpoints = Vec::new();
        // A slice of names has nothing that packets could be sent to.
        if raw.address_type.as_deref() != Some("FQDN") {
            for (i, raw) in raw.endpoints.unwrap_or_default().into_iter().enumerate() {
                endpoints.extend(raw.narrow(i)?);
            }
        }
        let mut ports = Vec::from_iter(raw.ports.unwrap_or_default().into_iter().filter_map(RawPort::narrow));
        // There are thousands of them, and they stay.
        endpoints.shrink_to_fit();
        ports.shrink_to_fit();
        Ok((meta, Some(EndpointSlice { service, endpoints, ports })))
    }

    /// `web 8080/tcp/http 10.1.0.5@edge,10.1.0.6+10.1.0.7@,!10.1.0.8@edge@zone@web-0`
    fn keep(&self) -> String {
        let ports: Vec<String> =
            self.ports.iter().map(|port| format!("{}/{}/{}", port.port, port.protocol.name(), port.name)).collect();
        let endpoints: Vec<String> = self.endpoints.iter().map(SliceEndpoint::keep).collect();
        format!("{} {} {}", self.service, ports.join(","), endpoints.join(","))
    }

    fn restore(text: &str) -> Option<Self> {
        let (service, rest) = text.split_once(' ')?;
        let (ports, endpoints) = rest.split_once(' ')?;
        let port = |text: &str| {
            let mut parts = text.splitn(3, '/');
            let (port, protocol) = (parts.next()?.parse().ok()?, meant(&Protocol::WORDS, parts.next()?)?);
            Some(Port { name: parts.next()?.to_owned(), protocol, port })
        };
        let endpoints = endpoints.split(',').filter(|one| !one.is_empty());
        Some(EndpointSlice {
            service: service.to_owned(),
            endpoints: endpoints.map(SliceEndpoint::restore).collect::<Option<_>>()?,
            ports: kept_ports(ports).map(port).collect::<Option<_>>()?,
        })
    }
}

impl EndpointSlice {
    /// Name of the Service of a slice that is kept.
    pub(crate) fn service_of(kept: &str) -> &str {
        kept.split(' ').next().unwrap_or_default()
    }

    /// It names this machine, which no Service may: MetaServer wrote that over the real address.
    pub(crate) fn is_forged(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.addresses.iter().any(IpAddr::is_loopback))
    }
}

impl RawEndpoint {
    /// `None` for one that takes no connections.
    fn narrow(self, i: usize) -> Result<Option<SliceEndpoint>, Problem> {
        let RawConditions { ready, serving, terminating } = self.conditions.unwrap_or_default();
        let ready = ready != Some(false);
        if !(ready || serving == Some(true) && terminating == Some(true)) {
            return Ok(None);
        }
        let texts = self.addresses.unwrap_or_default();
        let mut addresses = Vec::with_capacity(texts.len());
        for (j, text) in texts.iter().enumerate() {
            addresses.push(address(text, || format!("endpoints[{i}].addresses[{j}]"))?);
        }
        let plain = |text: Option<String>| text.filter(|text| is_plain(text)).unwrap_or_default();
        let (node, zone, hostname) = (plain(self.node_name), plain(self.zone), plain(self.hostname));
        Ok(Some(SliceEndpoint { addresses, node, zone, hostname, terminating: !ready }))
    }
}

impl RawPort {
    /// `None` for the port that means every port: nothing to translate to.
    fn narrow(self) -> Option<Port> {
        let (port, protocol) = (self.port.filter(|port| *port != 0)?, protocol(self.protocol.as_deref())?);
        Some(Port { name: self.name.filter(|name| is_plain(name)).unwrap_or_default(), protocol, port })
    }
}

impl SliceEndpoint {
    fn keep(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let mut text = format!("{}{}@{}", if self.terminating { "!" } else { "" }, addresses.join("+"), self.node);
        if !self.zone.is_empty() || !self.hostname.is_empty() {
            text.extend(["@", &self.zone, "@", &self.hostname]);
        }
        text
    }

    fn restore(text: &str) -> Option<Self> {
        let (terminating, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let mut parts = text.split('@');
        let addresses = parts.next()?.split('+').filter(|a| !a.is_empty()).map(|a| a.parse().ok());
        Some(SliceEndpoint {
            addresses: addresses.collect::<Option<_>>()?,
            node: parts.next()?.to_owned(),
            zone: parts.next().unwrap_or_default().to_owned(),
            hostname: parts.next().unwrap_or_default().to_owned(),
            terminating,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: &str = r#"{"metadata":{"namespace":"a","name":"web-1","resourceVersion":"9",
        "labels":{"x":"y","kubernetes.io/service-name":"web"}},"addressType":"IPv4","endpoints":[
        {"addresses":["10.1.0.5"],"conditions":{"ready":true,"serving":true},"nodeName":"edge"},
        {"addresses":["10.1.0.6"],"conditions":{"ready":false}},{"addresses":["10.1.0.7"],"conditions":{}},
        {"addresses":["10.1.0.8"],"conditions":{"ready":false,"serving":true,"terminating":true},"zone":"shop","hostname":"web-0"},
        {"addresses":["10.1.0.9"],"conditions":{"ready":false,"serving":false,"terminating":true}}],
        "ports":[{"name":"http","port":8080,"protocol":"TCP"},{"name":"all"}]}"#;

    #[test]
    fn a_slice_keeps_endpoints_that_take_connections() {
        let (meta, slice) = EndpointSlice::read(SLICE).unwrap();
        let slice = slice.unwrap();
        assert_eq!((slice.service.as_str(), slice.ports.len()), ("web", 1));
        let nodes: Vec<(String, _)> =
            slice.endpoints.iter().map(|e| (e.addresses[0].to_string(), e.node.as_str())).collect();
        assert_eq!(nodes, [("10.1.0.5".into(), "edge"), ("10.1.0.7".into(), ""), ("10.1.0.8".into(), "")]);
        assert_eq!(meta.show(), "a/web-1");
        assert_eq!(slice.keep(), "web 8080/tcp/http 10.1.0.5@edge,10.1.0.7@,!10.1.0.8@@shop@web-0");
        assert_eq!(EndpointSlice::restore(&slice.keep()), Some(slice));
        let empty = EndpointSlice { service: "web".into(), endpoints: Vec::new(), ports: Vec::new() };
        assert_eq!(EndpointSlice::restore(&empty.keep()), Some(empty));
        assert_eq!(EndpointSlice::restore("web 8080/tcp/http ten@edge"), None);
    }

    #[test]
    fn slices_of_names_or_of_nobody() {
        let names = SLICE.replace("IPv4", "FQDN").replace("10.1.0.5", "example.org");
        assert_eq!(EndpointSlice::read(&names).unwrap().1.unwrap().endpoints, []);
        let nobody = SLICE.replace("kubernetes.io/service-name", "other");
        assert_eq!(EndpointSlice::read(&nobody).unwrap().1, None);
        let wrong = SLICE.replace("10.1.0.7", "10.1.0.700");
        assert_eq!(
            EndpointSlice::read(&wrong).unwrap_err().1,
            "a/web-1: endpoints[2].addresses[0]: \"10.1.0.700\" is not an IP address"
        );
    }

    #[test]
    fn an_endpoint_on_this_machine_is_forged() {
        let read = |text: &str| EndpointSlice::read(text).unwrap().1.unwrap();
        assert!(!read(SLICE).is_forged());
        assert!(read(&SLICE.replace("10.1.0.7", "127.0.0.1")).is_forged());
    }
}
