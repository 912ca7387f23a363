//! Services with a cluster IP and their ready endpoints.

use std::collections::BTreeMap;

use ipnet::IpNet;
use selvedge_model::{Endpoint, Protocol, Service, ServicePort};

use super::claims::Claims;
use super::fabric::Fabric;
use super::problem::Problem;
use super::state::ClusterState;
use crate::api::{EndpointSlice, ObjectRef, Port, PortProtocol};

/// In the order of namespace and name.
pub(super) fn list(fabric: &Fabric<'_>, state: &ClusterState, problems: &mut Vec<Problem>) -> Vec<Service> {
    let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for ((namespace, _), slice) in &state.slices {
        slices.entry((namespace, &slice.value.service)).or_default().push(&slice.value);
    }
    let mut owners = Claims::default();
    let mut list = Vec::new();
    for ((namespace, name), object) in &state.services {
        let ips: Vec<IpNet> = object.value.cluster_ips.iter().map(|ip| IpNet::from(*ip)).collect();
        if ips.is_empty() {
            continue;
        }
        let reference = &object.reference;
        if let Some(ip) = ips.iter().find(|ip| !fabric.spec.service_cidrs.iter().any(|net| net.contains(*ip))) {
            let networks: Vec<String> = fabric.spec.service_cidrs.iter().map(IpNet::to_string).collect();
            let message = format!(
                "{} lies outside {} of {}, spec.serviceCIDRs",
                ip.addr(),
                networks.join(", "),
                fabric.reference
            );
            problems.push(Problem::error(reference, "spec.clusterIPs", message));
            continue;
        }
        if let Err(conflict) = owners.claim(&ips, &reference.to_string()) {
            let message = format!("{} is the cluster IP of {}", conflict.network.addr(), conflict.owner);
            problems.push(Problem::error(reference, "spec.clusterIPs", message));
            continue;
        }
        let slices = slices.get(&(namespace.as_str(), name.as_str())).map_or(&[][..], Vec::as_slice);
        list.push(Service {
            namespace: namespace.clone(),
            name: name.clone(),
            cluster_ips: object.value.cluster_ips.clone(),
            ports: ports(&object.value.ports, slices, reference, problems),
        });
    }
    list
}

fn ports(
    ports: &[Port],
    slices: &[&EndpointSlice],
    reference: &ObjectRef,
    problems: &mut Vec<Problem>,
) -> Vec<ServicePort> {
    let mut served: Vec<ServicePort> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let protocol = match &port.protocol {
            PortProtocol::Known(protocol) => *protocol,
            PortProtocol::Other(name) => {
                let message = format!("{name} is not served, only TCP and UDP");
                problems.push(Problem::warning(reference, format!("spec.ports[{i}].protocol"), message));
                continue;
            }
        };
        if served.iter().any(|other| (other.protocol, other.port) == (protocol, port.port)) {
            let message = format!("{} is there already with the same protocol", port.port);
            problems.push(Problem::error(reference, format!("spec.ports[{i}].port"), message));
            continue;
        }
        served.push(ServicePort {
            name: port.name.clone(),
            protocol,
            port: port.port,
            endpoints: endpoints(&port.name, protocol, slices),
        });
    }
    served
}

/// Sorted, each address and port once, though slices may repeat an endpoint while it moves between them.
fn endpoints(name: &str, protocol: Protocol, slices: &[&EndpointSlice]) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in slices {
        let same = |port: &&Port| port.name == name && port.protocol == PortProtocol::Known(protocol);
        for port in slice.ports.iter().filter(same) {
            for endpoint in &slice.endpoints {
                endpoints.extend(endpoint.addresses.iter().map(|address| Endpoint {
                    address: *address,
                    port: port.port,
                    node: endpoint.node.clone(),
                }));
            }
        }
    }
    // A known node comes before an empty one, and so is the one that is kept.
    endpoints.sort_by(|a, b| (a.address, a.port, &b.node).cmp(&(b.address, b.port, &a.node)));
    endpoints.dedup_by_key(|endpoint| (endpoint.address, endpoint.port));
    endpoints
}
