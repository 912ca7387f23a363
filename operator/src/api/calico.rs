//! What the operator reads of Calico: the blocks of addresses that its IPAM gave to nodes.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::fields::Prefix;
use super::{FieldError, typed};

/// API version of Calico's kinds in the Kubernetes datastore.
pub(super) const API_VERSION: &str = "crd.projectcalico.org/v1";

/// An `IPAMBlock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) network: IpNet,
    /// Node whose pods get addresses of it; empty if it is nobody's now.
    pub(crate) node: String,
}

pub(super) fn block(value: &Value) -> Result<Block, FieldError> {
    let RawBlock { cidr, affinity, deleted } = typed::<Raw>(value)?.spec;
    // An affinity to something else than a host (a virtual one of a load balancer) is no node's either.
    let node = affinity.as_deref().and_then(|text| text.strip_prefix("host:")).filter(|_| !deleted);
    Ok(Block { network: cidr.0, node: node.unwrap_or_default().to_owned() })
}

#[derive(Deserialize)]
struct Raw {
    spec: RawBlock,
}

#[derive(Deserialize)]
struct RawBlock {
    cidr: Prefix,
    affinity: Option<String>,
    #[serde(default)]
    deleted: bool,
}
