//! Services with their endpoints, and names that lead elsewhere.

use std::collections::BTreeMap;

use ipnet::IpNet;
use selvedge_edgeapi::{EndpointSlice, serve};
use selvedge_model::Service;

use super::claims::Claims;
use super::fabric::Fabric;
use super::problem::Problem;
use super::state::ClusterState;

/// In the order of namespace and name.
pub(super) fn list(fabric: &Fabric<'_>, state: &ClusterState, problems: &mut Vec<Problem>) -> Vec<Service> {
    let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for ((namespace, _), slice) in &state.slices {
        slices.entry((namespace, &slice.value.service)).or_default().push(&slice.value);
    }
    let mut owners = Claims::default();
    let mut list = Vec::new();
    for ((namespace, name), object) in &state.services {
        let ips: Vec<IpNet> = object.value.spec.cluster_ips.iter().map(|ip| IpNet::from(*ip)).collect();
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
        let ignored = object.value.ignored.iter();
        problems.extend(ignored.map(|p| Problem::warning(reference, p.field.clone(), p.message.clone())));
        list.push(serve(namespace, name, &object.value, slices));
    }
    list
}
