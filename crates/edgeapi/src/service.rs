use std::net::IpAddr;

use miniserde::Deserialize;
use selvedge_model::Protocol;

use crate::object::{Meta, Object, RawMeta, is_plain};

/// A Service with cluster IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// At least one, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// What it serves.
    pub ports: Vec<Port>,
}

/// A port of a Service, or of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty if it has none.
    pub name: String,
    /// TCP or UDP; `None` for what is not served here.
    pub protocol: Option<Protocol>,
    /// Its number.
    pub port: u16,
}

/// `Service` as it is written.
#[derive(Deserialize)]
pub struct RawService {
    metadata: Option<RawMeta>,
    spec: Option<RawSpec>,
}

#[derive(Default, Deserialize)]
struct RawSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
pub(crate) struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

impl Object for Service {
    const LIST: &'static str = "ServiceList";
    const PATH: &'static str = "/api/v1/services";
    type Raw = RawService;

    /// A headless Service and one of type `ExternalName` have no address to serve.
    fn narrow(raw: RawService) -> Result<(Meta, Option<Self>), String> {
        let meta = Meta::from(raw.metadata);
        let spec = raw.spec.unwrap_or_default();
        let mut ips = spec.cluster_ips.unwrap_or_default();
        if ips.is_empty() {
            ips.extend(spec.cluster_ip);
        }
        if spec.kind.as_deref() == Some("ExternalName") {
            ips.clear();
        }
        let mut cluster_ips = Vec::with_capacity(ips.len());
        for ip in ips.iter().filter(|ip| !ip.is_empty() && *ip != "None") {
            cluster_ips.push(address(&meta, ip)?);
        }
        if cluster_ips.is_empty() {
            return Ok((meta, None));
        }
        let ports = spec.ports.unwrap_or_default().into_iter().filter_map(RawPort::narrow).collect();
        Ok((meta, Some(Service { cluster_ips, ports })))
    }

    /// `10.96.0.7,fd00::7 80/tcp/http,53/udp/`
    fn keep(&self) -> String {
        let ips: Vec<String> = self.cluster_ips.iter().map(IpAddr::to_string).collect();
        format!("{} {}", ips.join(","), keep_ports(&self.ports))
    }

    fn restore(text: &str) -> Option<Self> {
        let (ips, ports) = text.split_once(' ')?;
        let cluster_ips = ips.split(',').map(|ip| ip.parse().ok()).collect::<Option<_>>()?;
        Some(Service { cluster_ips, ports: restore_ports(ports)? })
    }
}

impl RawPort {
    /// `None` for the port of a slice that means every port: nothing to translate to.
    pub(crate) fn narrow(self) -> Option<Port> {
        let protocol = match self.protocol.as_deref() {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some(_) => None,
        };
        let port = self.port.filter(|port| *port != 0)?;
        let name = self.name.filter(|name| is_plain(name)).unwrap_or_default();
        Some(Port { name, protocol, port })
    }
}

/// `80/tcp/http,53/udp/`
pub(crate) fn keep_ports(ports: &[Port]) -> String {
    let one = |port: &Port| {
        let protocol = match port.protocol {
            Some(Protocol::Tcp) => "tcp",
            Some(Protocol::Udp) => "udp",
            None => "",
        };
        format!("{}/{protocol}/{}", port.port, port.name)
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

pub(crate) fn restore_ports(text: &str) -> Option<Vec<Port>> {
    let one = |text: &str| {
        let (port, rest) = text.split_once('/')?;
        let (protocol, name) = rest.split_once('/')?;
        let protocol = match protocol {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            _ => None,
        };
        Some(Port { name: name.to_owned(), protocol, port: port.parse().ok()? })
    };
    text.split(',').filter(|one| !one.is_empty()).map(one).collect()
}

pub(crate) fn address(meta: &Meta, text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{}: \"{}\" is not an IP address", meta.show(), crate::answer::printable(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = r#"{"metadata":{"namespace":"a","name":"web","resourceVersion":"7","managedFields":[{"x":{}}]},
        "spec":{"type":"ClusterIP","clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00::7"],"ports":[
        {"name":"http","protocol":"TCP","port":80,"targetPort":"web"},{"port":53,"protocol":"UDP"},
        {"port":9,"protocol":"SCTP"}]},"status":{"loadBalancer":{}}}"#;

    #[test]
    fn a_service_keeps_what_is_served() {
        let (meta, web) = Service::read(WEB).unwrap();
        assert_eq!((meta.show().as_str(), meta.version), ("a/web", 7));
        let web = web.unwrap();
        assert_eq!(web.cluster_ips.len(), 2);
        let ports: Vec<_> = web.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port)).collect();
        assert_eq!(ports, [("http", Some(Protocol::Tcp), 80), ("", Some(Protocol::Udp), 53), ("", None, 9)]);
        assert_eq!(web.keep(), "10.96.0.7,fd00::7 80/tcp/http,53/udp/,9//");
        assert_eq!(Service::restore(&web.keep()), Some(web));
        assert_eq!(Service::restore("10.96.0.7"), None);
        assert_eq!(Service::restore("ten 80/tcp/http"), None);
    }

    #[test]
    fn services_without_an_address_are_of_no_use() {
        for spec in [
            r#"{"clusterIP":"None"}"#,
            r#"{"clusterIP":""}"#,
            r#"{"clusterIPs":["None"]}"#,
            r#"{"type":"ExternalName","clusterIP":"10.96.0.1"}"#,
            "null",
        ] {
            let text = format!(r#"{{"metadata":{{"name":"x"}},"spec":{spec}}}"#);
            assert_eq!(Service::read(&text).unwrap().1, None, "{spec}");
        }
        let old = r#"{"metadata":{"name":"x"},"spec":{"clusterIP":"10.96.0.1"}}"#;
        assert!(Service::read(old).unwrap().1.is_some());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |text: &str| Service::read(text).unwrap_err().1;
        let ip = r#"{"metadata":{"namespace":"a","name":"b"},"spec":{"clusterIP":"ten"}}"#;
        assert_eq!(error(ip), "a/b: \"ten\" is not an IP address");
        let port = r#"{"metadata":{"namespace":"a","name":"b"},"spec":{"ports":[{"port":70000}]}}"#;
        assert_eq!(error(port), "a/b: a field has a wrong type");
        assert_eq!(error("{}"), "an object has no name");
        assert_eq!(error("7"), "/: a field has a wrong type");
    }
}
