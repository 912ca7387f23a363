//! What the operator reads of `Node`, `Service` and `EndpointSlice`; nothing else of them can be wrong for it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_edgeapi as edgeapi;
use selvedge_model::{DatapathMode, FirewallBackend, ServiceMode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
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

/// An object in the same narrow form as on a node; `None`: of no use.
pub(super) fn narrow<T: edgeapi::Object>(value: &Value) -> Result<Option<T>, FieldError>
where
    T::Raw: DeserializeOwned,
{
    let (_, object) = T::narrow(typed(value)?).map_err(|problem| FieldError::new(problem.field, problem.message))?;
    Ok(object)
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
