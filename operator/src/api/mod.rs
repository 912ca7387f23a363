//! The objects the operator reads: our own kinds and the narrow part of the Kubernetes kinds that matters.
//!
//! A JSON value goes in, a typed object with every address and network already read comes out, or the field that is
//! wrong.

#![allow(clippy::duplicated_attributes, reason = "two columns of one type are no duplicates")]

mod agent;
mod calico;
mod cluster;
mod community;
mod crds;
mod dns;
mod fields;
mod gateway;
mod kubernetes;
mod outpost;
mod schema;
mod selector;
mod status;
mod tls;

use std::collections::BTreeMap;
use std::fmt;

use selvedge_edgeapi::{EndpointSlice, Service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use agent::{AgentMode, AgentSpec, NodeAgent, Resources, Rollout};
#[cfg(test)]
pub(crate) use agent::{LogLevel, Share};
pub(crate) use calico::Block;
pub(crate) use cluster::{AgentsStatus, CERTIFICATE_DAYS, ClusterSpec, ClusterStatus, PodNetworks, ServicesFrom};
pub(crate) use community::{CommunitySpec, CommunityStatus};
pub(crate) use crds::definitions;
pub(crate) use fields::{dns_subdomain, is_dns_label};
pub(crate) use gateway::{GatewayKind, GatewayObject};
pub(crate) use kubernetes::Node;
pub(crate) use outpost::OutpostStatus;
pub(crate) use status::{Condition, date};
pub(crate) use tls::Certificate;

/// API version of our own kinds.
pub(crate) const API_VERSION: &str = "selvedge.dev/v1alpha1";

/// Which object, and where it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ObjectRef {
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// File name within the manifest directory.
    pub(crate) file: String,
    /// Position in the file, from 1; empty documents do not count.
    pub(crate) document: usize,
    /// Line of the file where the document's content starts, from 1; 0 if unknown.
    pub(crate) line: u64,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kind.is_empty() {
            f.write_str(&self.kind)?;
            if !self.name.is_empty() {
                let slash = if self.namespace.is_empty() { "" } else { "/" };
                write!(f, " {}{slash}{}", self.namespace, self.name)?;
            }
            if !self.file.is_empty() {
                f.write_str(" in ")?;
            }
        }
        f.write_str(&self.file)?;
        if self.document > 1 {
            write!(f, ", document {}", self.document)?;
        }
        if self.line > 0 {
            write!(f, " (line {})", self.line)?;
        }
        Ok(())
    }
}

/// A typed object and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Object<T> {
    pub(crate) reference: ObjectRef,
    pub(crate) value: T,
}

/// An object of any kind the operator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Cluster(Box<ClusterSpec>),
    Community(CommunitySpec),
    /// Also what an Outpost is narrowed to.
    Node(Node),
    /// `None`: it has no address yet.
    Service(Option<Service>),
    /// `None`: it belongs to no Service.
    EndpointSlice(Option<EndpointSlice>),
    Block(Block),
    Gateway(Box<GatewayObject>),
    /// With a certificate, or why it has none. In manifests only: those of a cluster are read by name.
    Secret(Result<Certificate, String>),
}

/// What is wrong in an object: `spec.podCIDRs[0]` and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError { field: field.into(), message: message.into() }
    }
}

/// Kind, namespace and name as far as they can be told, for errors about the rest.
pub(crate) fn name(value: &Value) -> ObjectRef {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut reference = ObjectRef {
        kind: text("/kind"),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        ..ObjectRef::default()
    };
    match reference.kind.as_str() {
        "Service" | "EndpointSlice" | "Secret" if reference.namespace.is_empty() => {
            reference.namespace = "default".to_owned()
        }
        "Node" | "Cluster" | "Community" | "Outpost" | "IPAMBlock" | "GatewayClass" => reference.namespace.clear(),
        _ => {}
    }
    if let Some(kind) = GatewayKind::of(&text("/apiVersion"), &reference.kind) {
        reference.kind = kind.title().to_owned();
        if reference.namespace.is_empty() && kind != GatewayKind::GatewayClass {
            reference.namespace = "default".to_owned();
        }
    }
    reference
}

/// `Ok(None)` for a kind that is none of the operator's business.
pub(crate) fn read(value: &Value) -> Result<Option<Content>, FieldError> {
    if !value.is_object() {
        return Err(FieldError::new("", "is no object with apiVersion and kind"));
    }
    let header: Header = typed(value)?;
    let content = match (header.api_version.as_str(), header.kind.as_str()) {
        (API_VERSION, "Cluster") => Content::Cluster(Box::new(own_cluster(value)?)),
        (API_VERSION, "Community") => {
            let spec = typed::<Custom<CommunitySpec>>(value)?.spec;
            spec.selector.iter().try_for_each(|selector| selector.check("spec.selector"))?;
            Content::Community(spec)
        }
        (API_VERSION, "Outpost") => Content::Node(outpost::node(value)?),
        (API_VERSION, kind) => {
            return Err(FieldError::new("kind", format!("\"{kind}\" is none of Cluster, Community, Outpost")));
        }
        (version, _) if version.starts_with("selvedge.dev/") => {
            return Err(FieldError::new("apiVersion", format!("\"{version}\" is not {API_VERSION}")));
        }
        ("v1", "Node") => Content::Node(kubernetes::node(value)?),
        ("v1", "Secret") => match tls::secret(value) {
            Some(secret) => Content::Secret(secret),
            None => return Ok(None),
        },
        ("v1", "Service") => Content::Service(kubernetes::narrow(value)?),
        ("discovery.k8s.io/v1", "EndpointSlice") => Content::EndpointSlice(kubernetes::narrow(value)?),
        (calico::API_VERSION, "IPAMBlock") => Content::Block(calico::block(value)?),
        (version, "EndpointSlice") => {
            return Err(FieldError::new("apiVersion", format!("\"{version}\" is not discovery.k8s.io/v1")));
        }
        (version, kind) => match GatewayKind::of(version, kind) {
            Some(kind) => Content::Gateway(Box::new(gateway::object(kind, value)?)),
            None => return Ok(None),
        },
    };
    let name = header.metadata.and_then(|m| m.name).unwrap_or_default();
    fields::dns_subdomain(&name).map_err(|problem| FieldError::new("metadata.name", problem))?;
    Ok(Some(content))
}

fn own_cluster(value: &Value) -> Result<ClusterSpec, FieldError> {
    let mut spec = typed::<Custom<ClusterSpec>>(value)?.spec;
    let annotation = value.pointer("/metadata/annotations").and_then(|all| all.get(cluster::ROTATE_CA));
    spec.rotate_ca = annotation.and_then(Value::as_str).map(str::to_owned);
    Ok(spec)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
    metadata: Option<HeaderMetadata>,
}

#[derive(Deserialize)]
struct HeaderMetadata {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Custom<S> {
    spec: S,
}

#[derive(Deserialize)]
struct Labelled<S> {
    metadata: Labels,
    spec: S,
}

#[derive(Deserialize)]
struct Labels {
    labels: Option<BTreeMap<String, String>>,
}

/// Reads a type, naming the field that does not fit.
fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        FieldError::new(if path == "." { String::new() } else { path }, e.into_inner().to_string())
    })
}
