//! The own `Cluster`, found and checked, and what the other ones must not overlap.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::allocator::Pool;
use super::claims::{Claims, overlap};
use super::problem::Problem;
use super::state::ClusterState;
use crate::api::{ClusterSpec, Object, ObjectRef, dns_subdomain, is_dns_label};

/// The own cluster with settings that make sense.
pub(super) struct Fabric<'a> {
    pub(super) name: &'a str,
    pub(super) spec: &'a ClusterSpec,
    pub(super) reference: &'a ObjectRef,
    /// One for each address family in use.
    pub(super) pools: Vec<Pool>,
}

impl<'a> Fabric<'a> {
    /// The own cluster is the one called `wanted`, or the only one that is not marked `spec.remote: true`. `None` means
    /// that nothing can be compiled; the reason is among the problems.
    pub(super) fn find(
        state: &'a ClusterState,
        wanted: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Fabric<'a>> {
        let own = match wanted {
            Some(name) => state.clusters.get_key_value(name),
            None => {
                let mut own = state.clusters.iter().filter(|(_, cluster)| !cluster.value.remote);
                let first = own.next();
                if let (Some((first, _)), Some((second, cluster))) = (first, own.next()) {
                    let message = format!(
                        "both {first} and {second} may be the own cluster: mark the other one with \"remote: true\" or \
                         say --cluster NAME"
                    );
                    problems.push(Problem::error(&cluster.reference, "spec.remote", message));
                    return None;
                }
                first
            }
        };
        let Some((name, cluster)) = own else {
            let named = wanted.map(|name| format!(" named {name}")).unwrap_or_default();
            let known = state.clusters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { String::new() } else { format!("; there is only: {known}") };
            let message = format!("no object of kind Cluster{named} describes the own cluster{known}");
            problems.push(Problem::error(&ObjectRef::default(), "", message));
            return None;
        };
        let faults = faults(name, &cluster.value);
        if faults.is_empty() {
            let Object { reference, value: spec } = cluster;
            return Some(Fabric { name, spec, reference, pools: pools(spec) });
        }
        problems.extend(faults.into_iter().map(|(field, message)| Problem::error(&cluster.reference, field, message)));
        None
    }

    pub(super) fn node_name(&self, node: &str) -> String {
        format!("{}.{node}", self.name)
    }

    pub(super) fn connector_name(&self) -> String {
        self.node_name(CONNECTOR)
    }

    /// The names of the other clusters, those refused included.
    pub(super) fn others(&self, state: &'a ClusterState) -> BTreeSet<&'a str> {
        state.clusters.keys().map(String::as_str).filter(|name| *name != self.name).collect()
    }

    /// Refuses every other cluster that overlaps the networks of this one or of its nodes.
    pub(super) fn check_others(&self, state: &ClusterState, claims: &Claims, problems: &mut Vec<Problem>) {
        for (name, cluster) in state.clusters.iter().filter(|(name, _)| *name != self.name) {
            if let Err(message) = label(name) {
                problems.push(Problem::error(&cluster.reference, "metadata.name", message));
            }
            for (field, network) in networks(&cluster.value) {
                let ours = networks(self.spec).into_iter().find(|(_, other)| overlap(network, *other));
                let owner = match (ours, claims.find(network)) {
                    (Some((ours, other)), _) => format!("{other} of {}, {ours}", self.reference),
                    (None, Some((other, owner))) => format!("{other} of {owner}"),
                    (None, None) => continue,
                };
                problems.push(Problem::error(&cluster.reference, field, format!("{network} overlaps {owner}")));
            }
        }
    }
}

/// Last part of the connector's name in the fabric.
pub(super) const CONNECTOR: &str = "connector";

/// All the networks of a cluster and the fields they stand in.
fn networks(spec: &ClusterSpec) -> Vec<(String, IpNet)> {
    let lists = [
        ("clusterCIDRs", &spec.cluster_cidrs),
        ("serviceCIDRs", &spec.service_cidrs),
        ("edgePodCIDRs", &spec.edge_pod_cidrs),
    ];
    lists
        .into_iter()
        .flat_map(|(field, list)| list.iter().enumerate().map(move |(i, net)| (format!("spec.{field}[{i}]"), *net)))
        .collect()
}

fn pools(spec: &ClusterSpec) -> Vec<Pool> {
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = spec.edge_pod_cidrs.iter().partition(|net| net.addr().is_ipv4());
    [(v4, spec.edge_mask_size), (v6, spec.edge_mask_size6)]
        .into_iter()
        .filter(|(networks, _)| !networks.is_empty())
        .map(|(networks, mask)| Pool::new(networks, mask))
        .collect()
}

/// The cluster's name is the first label of every name in the fabric; a dot in it would make those ambiguous.
fn label(name: &str) -> Result<(), String> {
    if is_dns_label(name) {
        return Ok(());
    }
    Err(format!("\"{name}\" is not a single label of small letters, digits and '-'"))
}

/// Field and words of all that is wrong with the settings of the own cluster.
fn faults(name: &str, spec: &ClusterSpec) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, message: String| faults.push((field.to_owned(), message));
    if let Err(message) = label(name) {
        fault("metadata.name", message);
    }
    if spec.service_cidrs.is_empty() {
        fault("spec.serviceCIDRs", "is empty; every cluster has a network of cluster IPs".to_owned());
    }
    let networks = networks(spec);
    for (i, (field, network)) in networks.iter().enumerate() {
        if let Some((other_field, other)) = networks[..i].iter().find(|(_, other)| overlap(*network, *other)) {
            fault(field, format!("{network} overlaps {other} of {other_field}"));
        }
    }
    // Two addresses of a block are the network and the gateway, one must be left for a pod.
    for (field, mask, bounds, v4) in
        [("edgeMaskSize", spec.edge_mask_size, 8..=30, true), ("edgeMaskSize6", spec.edge_mask_size6, 16..=126, false)]
    {
        let field = format!("spec.{field}");
        if !bounds.contains(&mask) {
            fault(&field, format!("{mask} is not within {} to {}", bounds.start(), bounds.end()));
        }
        for pool in spec.edge_pod_cidrs.iter().filter(|p| p.addr().is_ipv4() == v4 && p.prefix_len() > mask) {
            fault(&field, format!("a block of /{mask} does not fit into {pool} of spec.edgePodCIDRs"));
        }
    }
    for (field, selector) in [("edgeSelector", &spec.edge_selector), ("connectorSelector", &spec.connector_selector)] {
        if selector.0.is_empty() {
            fault(&format!("spec.{field}"), "is empty and would take every node".to_owned());
        }
    }
    if spec.connector.addresses.is_empty() {
        fault(
            "spec.connector.addresses",
            "is empty: edge nodes need an address where they reach the connector".to_owned(),
        );
    }
    // What the CNI plugins and the kernel can take: IFNAMSIZ less the final zero, the least MTU of IPv6.
    for (field, value, longest) in [("network", &spec.cni.network, 64), ("bridge", &spec.cni.bridge, 15)] {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if value.is_empty() || value.len() > longest || !value.bytes().all(plain) || value.starts_with('.') {
            let message = format!("\"{value}\" is not a plain name of at most {longest} characters");
            fault(&format!("spec.cni.{field}"), message);
        }
    }
    if !(1280..=65535).contains(&spec.cni.mtu) {
        fault("spec.cni.mtu", format!("{} is not within 1280 to 65535", spec.cni.mtu));
    }
    for (i, node) in spec.revoked.iter().enumerate() {
        if let Err(message) = dns_subdomain(node) {
            fault(&format!("spec.revoked[{i}]"), message);
        }
    }
    // Renewal comes after two thirds: less than a day would be a matter of hours, and a year is long for a stolen key.
    if !(1..=825).contains(&spec.certificate_days) {
        fault("spec.certificateDays", format!("{} is not within 1 to 825", spec.certificate_days));
    }
    faults
}
