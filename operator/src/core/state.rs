use std::collections::BTreeMap;

use selvedge_edgeapi::{EndpointSlice, Service};

use super::gateway::Certificates;
use crate::api::{
    Block, Certificate, ClusterSpec, CommunitySpec, Content, GatewayKind, GatewayObject, Node, Object, ObjectRef,
};

/// Every object that matters, by name or by namespace and name.
#[derive(Default)]
pub(crate) struct ClusterState {
    pub(crate) clusters: BTreeMap<String, Object<ClusterSpec>>,
    pub(crate) communities: BTreeMap<String, Object<CommunitySpec>>,
    pub(crate) nodes: BTreeMap<String, Object<Node>>,
    pub(crate) services: BTreeMap<(String, String), Object<Service>>,
    pub(crate) slices: BTreeMap<(String, String), Object<EndpointSlice>>,
    /// What the edge gateway is made of, by kind, namespace and name.
    pub(crate) gateways: BTreeMap<(GatewayKind, String, String), Object<GatewayObject>>,
    /// Of Calico's IPAM.
    pub(crate) blocks: BTreeMap<String, Object<Block>>,
    /// TLS Secrets of manifests.
    pub(crate) secrets: BTreeMap<(String, String), Object<Result<Certificate, String>>>,
}

impl ClusterState {
    /// What is in the TLS Secrets of manifests.
    pub(crate) fn certificates(&self) -> Certificates {
        self.secrets.iter().map(|(name, secret)| (name.clone(), secret.value.clone())).collect()
    }

    /// Adds an object unless one of that name is there: then the error is that one.
    pub(crate) fn insert(&mut self, object: Object<Content>) -> Result<(), ObjectRef> {
        let reference = object.reference;
        let name = reference.name.clone();
        let namespaced = (reference.namespace.clone(), name.clone());
        match object.value {
            Content::Cluster(value) => put(&mut self.clusters, name, reference, *value),
            Content::Community(value) => put(&mut self.communities, name, reference, value),
            Content::Node(value) => put(&mut self.nodes, name, reference, value),
            Content::Service(Some(value)) => put(&mut self.services, namespaced, reference, value),
            Content::EndpointSlice(Some(value)) => put(&mut self.slices, namespaced, reference, value),
            // Of no use, and no harm if there are two.
            Content::Service(None) | Content::EndpointSlice(None) => Ok(()),
            Content::Gateway(value) => {
                let key = (value.kind, namespaced.0, namespaced.1);
                put(&mut self.gateways, key, reference, *value)
            }
            Content::Block(value) => put(&mut self.blocks, name, reference, value),
            Content::Secret(value) => put(&mut self.secrets, namespaced, reference, value),
        }
    }
}

fn put<K: Ord, T>(map: &mut BTreeMap<K, Object<T>>, key: K, reference: ObjectRef, value: T) -> Result<(), ObjectRef> {
    if let Some(first) = map.get(&key) {
        return Err(first.reference.clone());
    }
    map.insert(key, Object { reference, value });
    Ok(())
}
