//! What the operator reads of `Node`, `Service` and `EndpointSlice`; nothing else of them can be wrong for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use selvedge_model::{DatapathMode, FirewallBackend, Protocol, ServiceMode};
use serde::Deserialize;
use serde_json::Value;

use super::agent::NodeAgent;
use super::fields::{Prefix, Word, parse_word};
use super::{FieldError, typed};

/// A Kubernetes node, or an Outpost seen as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) labels: BTreeMap<String, String>,
    /// `spec.podCIDRs`, else `spec.podCIDR`.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Addresses of type `InternalIP`, in their order.
    pub(crate) internal_ips: Vec<IpAddr>,
    /// Annotation `selvedge.dev/pod-cidrs`: pod networks given to the node earlier.
    pub(crate) annotated_cidrs: Vec<IpNet>,
    /// Annotation `selvedge.dev/public-addresses`: where peers can call this edge.
    pub(crate) public_addresses: Vec<IpAddr>,
    /// Annotation `selvedge.dev/datapath`.
    pub(crate) datapath: Option<DatapathMode>,
    /// Annotation `selvedge.dev/firewall`.
    pub(crate) firewall: Option<FirewallBackend>,
    /// Annotation `selvedge.dev/metered`.
    pub(crate) metered: bool,
    /// Condition `Ready`.
    pub(crate) online: bool,
    /// Annotations that begin with `selvedge.dev/agent`.
    pub(crate) agent: NodeAgent,
    /// What only an Outpost has.
    pub(crate) outpost: Option<Outside>,
}

/// What is different where there is no Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// `spec.services`.
    pub(crate) services: Option<ServiceMode>,
}

/// A Kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// Empty for a headless Service and for one of type `ExternalName`.
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
}

/// A port of a Service, or of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Empty if it has none.
    pub(crate) name: String,
    pub(crate) protocol: PortProtocol,
    pub(crate) port: u16,
}

/// Transport protocol as Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortProtocol {
    Known(Protocol),
    /// SCTP, or what a later Kubernetes may add.
    Other(String),
}

/// A part of the endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointSlice {
    /// Label `kubernetes.io/service-name`, empty if the slice belongs to no Service.
    pub(crate) service: String,
    pub(crate) endpoints: Vec<SliceEndpoint>,
    pub(crate) ports: Vec<Port>,
}

/// One ready endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) addresses: Vec<IpAddr>,
    /// Node it runs on, empty if unknown.
    pub(crate) node: String,
}

pub(super) fn node(value: &Value) -> Result<Node, FieldError> {
    let raw: RawNode = typed(value)?;
    let metadata = raw.metadata;
    let mut pod_cidrs: Vec<IpNet> = raw.spec.pod_cidrs.unwrap_or_default().into_iter().map(|p| p.0).collect();
    if pod_cidrs.is_empty() {
        pod_cidrs.extend(raw.spec.pod_cidr.map(|p| p.0));
    }
    let mut internal_ips = Vec::new();
    for (i, address) in raw.status.addresses.unwrap_or_default().into_iter().enumerate() {
        if address.kind == "InternalIP" {
            let ip = parse_address(&address.address, || format!("status.addresses[{i}].address"))?;
            if !internal_ips.contains(&ip) {
                internal_ips.push(ip);
            }
        }
    }
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let agent = NodeAgent {
        mode: annotation_word(&metadata, "agent")?.unwrap_or_default(),
        image: annotation(&metadata, "agent-image").map(|(text, _)| text.to_owned()),
        args: annotation(&metadata, "agent-args").map(|(text, _)| words(text)).unwrap_or_default(),
    };
    let conditions = raw.status.conditions.unwrap_or_default();
    Ok(Node {
        pod_cidrs,
        internal_ips,
        annotated_cidrs: annotation_list(&metadata, "pod-cidrs", |text| Ok(Prefix::parse(text)?.0))?,
        public_addresses: annotation_list(&metadata, "public-addresses", |text| {
            text.parse().map_err(|_| format!("\"{text}\" is not an IP address"))
        })?,
        datapath: annotation_word(&metadata, "datapath")?,
        firewall: annotation_word(&metadata, "firewall")?,
        metered: annotation_word(&metadata, "metered")?.unwrap_or(false),
        labels: metadata.labels.unwrap_or_default(),
        online: conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True"),
        agent,
        outpost: None,
    })
}

pub(super) fn service(value: &Value) -> Result<Service, FieldError> {
    let spec = typed::<RawService>(value)?.spec;
    let mut ips = spec.cluster_ips.unwrap_or_default();
    let mut field = "spec.clusterIPs";
    if ips.is_empty() {
        ips.extend(spec.cluster_ip);
        field = "spec.clusterIP";
    }
    let mut cluster_ips = Vec::new();
    if spec.kind.as_deref() != Some("ExternalName") {
        for ip in ips.iter().filter(|ip| !ip.is_empty() && *ip != "None") {
            cluster_ips.push(parse_address(ip, || field.to_owned())?);
        }
    }
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(RawPort::narrow).collect();
    Ok(Service { cluster_ips, ports })
}

pub(super) fn endpoint_slice(value: &Value) -> Result<EndpointSlice, FieldError> {
    let raw: RawEndpointSlice = typed(value)?;
    let service = raw.metadata.labels.and_then(|mut l| l.remove("kubernetes.io/service-name")).unwrap_or_default();
    let mut endpoints = Vec::new();
    // A slice of names has nothing that packets could be sent to.
    if raw.address_type != "FQDN" {
        for (i, endpoint) in raw.endpoints.unwrap_or_default().into_iter().enumerate() {
            if endpoint.conditions.and_then(|c| c.ready) == Some(false) {
                continue;
            }
            let mut addresses = Vec::new();
            for (j, text) in endpoint.addresses.iter().enumerate() {
                addresses.push(parse_address(text, || format!("endpoints[{i}].addresses[{j}]"))?);
            }
            endpoints.push(SliceEndpoint { addresses, node: endpoint.node_name.unwrap_or_default() });
        }
    }
    let ports = raw.ports.unwrap_or_default().into_iter().filter_map(RawPort::narrow).collect();
    Ok(EndpointSlice { service, endpoints, ports })
}

fn parse_address(text: &str, field: impl FnOnce() -> String) -> Result<IpAddr, FieldError> {
    text.parse().map_err(|_| FieldError::new(field(), format!("\"{text}\" is not an IP address")))
}

/// The value of `selvedge.dev/<name>` and the path to it.
fn annotation<'a>(metadata: &'a RawMetadata, name: &str) -> Option<(&'a str, String)> {
    let value = metadata.annotations.as_ref()?.get(&format!("selvedge.dev/{name}"))?;
    Some((value, format!("metadata.annotations[selvedge.dev/{name}]")))
}

/// A comma-joined annotation.
fn annotation_list<T>(
    metadata: &RawMetadata,
    name: &str,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, FieldError> {
    let Some((text, field)) = annotation(metadata, name) else { return Ok(Vec::new()) };
    let items = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    items.map(item).collect::<Result<_, _>>().map_err(|problem| FieldError::new(field, problem))
}

fn annotation_word<T: Word>(metadata: &RawMetadata, name: &str) -> Result<Option<T>, FieldError> {
    let Some((text, field)) = annotation(metadata, name) else { return Ok(None) };
    parse_word(text).map(Some).map_err(|problem| FieldError::new(field, problem))
}

#[derive(Deserialize)]
struct RawMetadata {
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawNode {
    metadata: RawMetadata,
    #[serde(default)]
    spec: RawNodeSpec,
    #[serde(default)]
    status: RawNodeStatus,
}

#[derive(Default, Deserialize)]
struct RawNodeSpec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<Prefix>>,
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<Prefix>,
}

#[derive(Default, Deserialize)]
struct RawNodeStatus {
    addresses: Option<Vec<RawNodeAddress>>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Deserialize)]
struct RawNodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Deserialize)]
struct RawService {
    spec: RawServiceSpec,
}

#[derive(Deserialize)]
struct RawServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<NonZeroU16>,
}

impl RawPort {
    /// `None` for the port of a slice that means every port: nothing to translate to.
    fn narrow(self) -> Option<Port> {
        let protocol = match self.protocol.as_deref() {
            None | Some("TCP") => PortProtocol::Known(Protocol::Tcp),
            Some("UDP") => PortProtocol::Known(Protocol::Udp),
            Some(other) => PortProtocol::Other(other.to_owned()),
        };
        Some(Port { name: self.name.unwrap_or_default(), protocol, port: self.port?.get() })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpointSlice {
    metadata: RawMetadata,
    address_type: String,
    endpoints: Option<Vec<RawEndpoint>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    addresses: Vec<String>,
    conditions: Option<RawConditions>,
    node_name: Option<String>,
}

#[derive(Deserialize)]
struct RawConditions {
    ready: Option<bool>,
}
