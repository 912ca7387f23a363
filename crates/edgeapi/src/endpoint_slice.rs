use std::net::IpAddr;

use miniserde::Deserialize;

use crate::object::{Meta, Object, RawMeta, is_plain};
use crate::service::{Port, RawPort, address, keep_ports, restore_ports};

/// A part of the ready endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name of the Service.
    pub service: String,
    /// Where it is served.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports at all of these addresses.
    pub ports: Vec<Port>,
}

/// One ready endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Addresses of one pod, all of one family.
    pub addresses: Vec<IpAddr>,
    /// Node it runs on, empty if unknown.
    pub node: String,
}

/// `EndpointSlice` as it is written.
#[derive(Deserialize)]
pub struct RawEndpointSlice {
    metadata: Option<RawMeta>,
    #[serde(rename = "addressType")]
    address_type: Option<String>,
    endpoints: Option<Vec<RawEndpoint>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
struct RawEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<RawConditions>,
    #[serde(rename = "nodeName")]
    node_name: Option<String>,
}

#[derive(Deserialize)]
struct RawConditions {
    ready: Option<bool>,
}

impl Object for EndpointSlice {
    const LIST: &'static str = "EndpointSliceList";
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";
    type Raw = RawEndpointSlice;

    /// A slice that belongs to no Service is of no use.
    fn narrow(raw: RawEndpointSlice) -> Result<(Meta, Option<Self>), String> {
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
            for endpoint in raw.endpoints.unwrap_or_default() {
                if endpoint.conditions.and_then(|conditions| conditions.ready) == Some(false) {
                    continue;
                }
                let texts = endpoint.addresses.unwrap_or_default();
                let addresses = texts.iter().map(|text| address(&meta, text)).collect::<Result<_, _>>()?;
                let node = endpoint.node_name.filter(|node| is_plain(node)).unwrap_or_default();
                endpoints.push(SliceEndpoint { addresses, node });
            }
        }
        let ports = raw.ports.unwrap_or_default().into_iter().filter_map(RawPort::narrow).collect();
        Ok((meta, Some(EndpointSlice { service, endpoints, ports })))
    }

    /// `web 8080/tcp/http 10.1.0.5@edge,10.1.0.6+10.1.0.7@`
    fn keep(&self) -> String {
        let endpoints = self.endpoints.iter().map(|endpoint| {
            let addresses: Vec<String> = endpoint.addresses.iter().map(IpAddr::to_string).collect();
            format!("{}@{}", addresses.join("+"), endpoint.node)
        });
        let endpoints: Vec<String> = endpoints.collect();
        format!("{} {} {}", self.service, keep_ports(&self.ports), endpoints.join(","))
    }

    fn restore(text: &str) -> Option<Self> {
        let (service, rest) = text.split_once(' ')?;
        let (ports, endpoints) = rest.split_once(' ')?;
        let one = |text: &str| {
            let (addresses, node) = text.split_once('@')?;
            let addresses = addresses.split('+').filter(|a| !a.is_empty()).map(|a| a.parse().ok());
            Some(SliceEndpoint { addresses: addresses.collect::<Option<_>>()?, node: node.to_owned() })
        };
        let endpoints = endpoints.split(',').filter(|one| !one.is_empty()).map(one).collect::<Option<_>>()?;
        Some(EndpointSlice { service: service.to_owned(), endpoints, ports: restore_ports(ports)? })
    }
}

impl EndpointSlice {
    /// It names this machine, which no Service may: MetaServer wrote that over the real address.
    pub(crate) fn is_forged(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.addresses.iter().any(IpAddr::is_loopback))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: &str = r#"{"metadata":{"namespace":"a","name":"web-1","resourceVersion":"9",
        "labels":{"x":"y","kubernetes.io/service-name":"web"}},"addressType":"IPv4","endpoints":[
        {"addresses":["10.1.0.5"],"conditions":{"ready":true,"serving":true},"nodeName":"edge"},
        {"addresses":["10.1.0.6"],"conditions":{"ready":false}},{"addresses":["10.1.0.7"],"conditions":{}}],
        "ports":[{"name":"http","port":8080,"protocol":"TCP"},{"name":"all"}]}"#;

    #[test]
    fn a_slice_keeps_ready_endpoints() {
        let (meta, slice) = EndpointSlice::read(SLICE).unwrap();
        let slice = slice.unwrap();
        assert_eq!((slice.service.as_str(), slice.ports.len()), ("web", 1));
        let nodes: Vec<_> = slice.endpoints.iter().map(|e| (e.addresses[0].to_string(), e.node.as_str())).collect();
        assert_eq!(nodes, [("10.1.0.5".to_owned(), "edge"), ("10.1.0.7".to_owned(), "")]);
        assert_eq!(meta.show(), "a/web-1");
        assert_eq!(slice.keep(), "web 8080/tcp/http 10.1.0.5@edge,10.1.0.7@");
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
        assert_eq!(EndpointSlice::read(&wrong).unwrap_err().1, "a/web-1: \"10.1.0.700\" is not an IP address");
    }

    #[test]
    fn an_endpoint_on_this_machine_is_forged() {
        let read = |text: &str| EndpointSlice::read(text).unwrap().1.unwrap();
        assert!(!read(SLICE).is_forged());
        assert!(read(&SLICE.replace("10.1.0.7", "127.0.0.1")).is_forged());
    }
}
