//! What the edge gateway is made of: objects of Gateway API, and those of Istio that EdgeMesh reads. Their `spec` is kept as
//! it is: what cannot be understood of it is said in their status, not here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{FieldError, typed};

/// The kinds that concern the edge gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GatewayKind {
    GatewayClass,
    Gateway,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    ReferenceGrant,
    IstioGateway,
    VirtualService,
    DestinationRule,
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "networking.istio.io";

impl GatewayKind {
    pub(crate) const ALL: [GatewayKind; 11] = [
        GatewayKind::GatewayClass,
        GatewayKind::Gateway,
        GatewayKind::HttpRoute,
        GatewayKind::GrpcRoute,
        GatewayKind::TlsRoute,
        GatewayKind::TcpRoute,
        GatewayKind::UdpRoute,
        GatewayKind::ReferenceGrant,
        GatewayKind::IstioGateway,
        GatewayKind::VirtualService,
        GatewayKind::DestinationRule,
    ];

    /// As manifests call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GatewayKind::GatewayClass => "GatewayClass",
            GatewayKind::Gateway | GatewayKind::IstioGateway => "Gateway",
            GatewayKind::HttpRoute => "HTTPRoute",
            GatewayKind::GrpcRoute => "GRPCRoute",
            GatewayKind::TlsRoute => "TLSRoute",
            GatewayKind::TcpRoute => "TCPRoute",
            GatewayKind::UdpRoute => "UDPRoute",
            GatewayKind::ReferenceGrant => "ReferenceGrant",
            GatewayKind::VirtualService => "VirtualService",
            GatewayKind::DestinationRule => "DestinationRule",
        }
    }

    /// As the operator calls it: two groups have a Gateway.
    pub(crate) fn title(self) -> &'static str {
        if self == GatewayKind::IstioGateway { "Istio Gateway" } else { self.name() }
    }

    /// The kind that the operator calls so.
    pub(crate) fn titled(title: &str) -> Option<GatewayKind> {
        GatewayKind::ALL.into_iter().find(|kind| kind.title() == title)
    }

    pub(crate) fn group(self) -> &'static str {
        match self {
            GatewayKind::IstioGateway | GatewayKind::VirtualService | GatewayKind::DestinationRule => ISTIO,
            _ => GATEWAY_API,
        }
    }

    /// The versions that API servers may have: the first of them that this one serves is watched.
    pub(crate) fn versions(self) -> &'static [&'static str] {
        match self {
            GatewayKind::GatewayClass | GatewayKind::Gateway | GatewayKind::HttpRoute | GatewayKind::GrpcRoute => {
                &["v1"]
            }
            // As they are in the standard channel, and as they were in the experimental one.
            GatewayKind::TlsRoute | GatewayKind::TcpRoute | GatewayKind::UdpRoute => &["v1", "v1alpha2"],
            GatewayKind::ReferenceGrant => &["v1beta1", "v1"],
            // EdgeMesh installs the older one.
            GatewayKind::IstioGateway | GatewayKind::VirtualService | GatewayKind::DestinationRule => {
                &["v1alpha3", "v1"]
            }
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            GatewayKind::GatewayClass => "gatewayclasses",
            GatewayKind::Gateway | GatewayKind::IstioGateway => "gateways",
            GatewayKind::HttpRoute => "httproutes",
            GatewayKind::GrpcRoute => "grpcroutes",
            GatewayKind::TlsRoute => "tlsroutes",
            GatewayKind::TcpRoute => "tcproutes",
            GatewayKind::UdpRoute => "udproutes",
            GatewayKind::ReferenceGrant => "referencegrants",
            GatewayKind::VirtualService => "virtualservices",
            GatewayKind::DestinationRule => "destinationrules",
        }
    }

    /// Of any version, for manifests.
    pub(super) fn of(api_version: &str, kind: &str) -> Option<GatewayKind> {
        let (group, _) = api_version.split_once('/')?;
        GatewayKind::ALL.into_iter().find(|k| k.group() == group && k.name() == kind)
    }
}

/// An object of one of these kinds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayObject {
    pub(crate) kind: GatewayKind,
    /// `metadata.creationTimestamp`, empty if there is none.
    pub(crate) created: String,
    /// `metadata.generation`.
    pub(crate) generation: i64,
    /// Those of ours.
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) spec: Value,
}

// Numbers in `spec` are whole ones or differ by more than rounding.
impl Eq for GatewayObject {}

pub(super) fn object(kind: GatewayKind, value: &Value) -> Result<GatewayObject, FieldError> {
    let RawMetadata { creation_timestamp, generation, annotations } = typed::<Raw>(value)?.metadata;
    let mut annotations = annotations.unwrap_or_default();
    annotations.retain(|name, _| name.starts_with("selvedge.dev/"));
    Ok(GatewayObject {
        kind,
        created: creation_timestamp.unwrap_or_default(),
        generation: generation.unwrap_or_default(),
        annotations,
        spec: value.get("spec").cloned().unwrap_or_default(),
    })
}

#[derive(Deserialize)]
struct Raw {
    metadata: RawMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    creation_timestamp: Option<String>,
    generation: Option<i64>,
    annotations: Option<BTreeMap<String, String>>,
}
