//! One configuration per node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_model::{
    Cni, Dns, LocalSide, NodeConfig, Peer, Role, SCHEMA_VERSION, Service, ServiceMode, ServiceSource, Services, Stub,
    Via,
};

use super::admission::{Admission, Member};
use super::allocator::Allocations;
use super::communities;
use super::fabric::Fabric;
use super::gateway::{self, Certificates, Gateways};
use super::ip_pools::{self, IpPool};
use super::problem::Problem;
use super::services;
use super::state::ClusterState;
use crate::api::{PodNetworks, ServicesFrom};

/// The label by which Kubernetes tells where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What is known from earlier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) allocations: Allocations,
    /// Nodes that have a configuration.
    pub(crate) incumbents: BTreeSet<String>,
    /// Whether the state is whole; if not, a node that is missing in it keeps what it has.
    pub(crate) complete: bool,
    /// What is in the Secrets that edge gateways name.
    pub(crate) certificates: Certificates,
}

/// What the person who started the operator says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The name of the own cluster, if it must be said.
    pub(crate) cluster: Option<String>,
    /// What `spec.services.source: auto` means here.
    pub(crate) services: ServiceSource,
}

/// What follows from a state.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// `None` if there is no usable own `Cluster`: then nothing may change.
    pub(crate) output: Option<Output>,
    pub(crate) problems: Vec<Problem>,
}

/// What every node is to get.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Name of the own cluster.
    pub(crate) cluster: String,
    pub(crate) certificate_days: u32,
    pub(crate) authority: AuthoritySettings,
    /// By Kubernetes node; the generation is 0.
    pub(crate) nodes: BTreeMap<String, NodeConfig>,
    pub(crate) allocations: Allocations,
    /// Edge gateways, besides what is in `nodes`.
    pub(crate) gateways: Gateways,
    /// How many members each community has.
    pub(crate) communities: BTreeMap<String, usize>,
    /// What Calico must know not to translate addresses towards, by name.
    pub(crate) ip_pools: BTreeMap<String, IpPool>,
}

/// What the own `Cluster` says about the certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthoritySettings {
    /// Each new value asks for a new authority.
    pub(crate) rotate: Option<String>,
    /// Seconds that delivery may take while authorities change.
    pub(crate) grace: u64,
    /// Names in the fabric whose certificates count no longer.
    pub(crate) revoked: BTreeSet<String>,
}

pub(crate) fn compile(state: &ClusterState, options: &Options, memory: &Memory) -> Compiled {
    let mut problems = Vec::new();
    let Some(fabric) = Fabric::find(state, options.cluster.as_deref(), &mut problems) else {
        return Compiled { output: None, problems };
    };
    let mut allocations = memory.allocations.clone();
    let admission =
        Admission::decide(&fabric, state, &memory.incumbents, memory.complete, &mut allocations, &mut problems);
    fabric.check_others(state, &admission.claims, &mut problems);
    let joined = communities::join(&fabric, state, &admission, &mut problems);
    let services = services::list(&fabric, state, &mut problems);
    let source = match fabric.spec.services.source {
        ServicesFrom::Auto => options.services,
        ServicesFrom::Config => ServiceSource::Config,
        ServicesFrom::Api => ServiceSource::Api,
    };
    let compiler = Compiler { fabric: &fabric, admission: &admission, services: &services, source };
    let labelled = admission.members.iter().map(|(name, member)| (*name, member.node)).collect();
    let gateways = gateway::compile(state, &labelled, &services, &memory.certificates);
    problems.extend(gateways.problems(state));
    let mut nodes = BTreeMap::new();
    for member in admission.members.values() {
        let mut config = match member.role {
            Role::Edge => compiler.edge(member, joined.neighbours.get(member.name)),
            Role::Connector => compiler.connector(member),
            Role::Cloud => compiler.cloud(member),
        };
        gateways.equip(&mut config, &services);
        nodes.insert(member.name.to_owned(), config);
    }
    problems.sort();
    let certificate_days = fabric.spec.certificate_days;
    let name = |node: &String| nodes.get(node).map_or_else(|| fabric.node_name(node), |config| config.name.clone());
    let authority = AuthoritySettings {
        rotate: fabric.spec.rotate_ca.clone(),
        grace: fabric.spec.rotation_grace_seconds,
        revoked: fabric.spec.revoked.iter().map(name).collect(),
    };
    let cluster = fabric.name.to_owned();
    let ip_pools = ip_pools::list(&fabric, state, &admission);
    let communities = joined.members;
    let output = Output { cluster, certificate_days, authority, nodes, allocations, gateways, communities, ip_pools };
    Compiled { output: Some(output), problems }
}

/// Gives a configuration its generation: one more than the previous one if anything is different. Tells whether.
pub(crate) fn number(config: &mut NodeConfig, previous: Option<&NodeConfig>) -> bool {
    config.generation = previous.map_or(0, |p| p.generation);
    if previous == Some(config) {
        return false;
    }
    config.generation += 1;
    true
}

/// The text to be sent. What the node would refuse is not sent.
pub(crate) fn encode(config: &NodeConfig) -> Result<String, String> {
    let text = serde_json::to_string(config).map_err(|e| e.to_string())?;
    NodeConfig::parse(&text).map_err(|e| format!("the node would refuse its configuration: {e}"))?;
    Ok(text)
}

struct Compiler<'a> {
    fabric: &'a Fabric<'a>,
    admission: &'a Admission<'a>,
    services: &'a [Service],
    source: ServiceSource,
}

impl Compiler<'_> {
    fn edge(&self, member: &Member<'_>, neighbours: Option<&BTreeSet<&str>>) -> NodeConfig {
        let connector = &self.fabric.spec.connector;
        let mut peers = vec![Peer {
            name: self.fabric.connector_name(),
            via: Via::Tunnel,
            addresses: connector.addresses.clone(),
            port: connector.port.get(),
            initiate: true,
            metered: self.admission.connector().is_some_and(|connector| connector.node.metered),
            prefixes: self.cloud_prefixes(),
            node_addresses: self.cloud_addresses(),
            overlay: Vec::new(),
        }];
        let others = neighbours.into_iter().flatten().filter_map(|name| self.admission.members.get(*name));
        // Both call: whoever is behind the stricter NAT opens it by that.
        peers.extend(
            others.map(|other| Peer { initiate: !other.node.public_addresses.is_empty(), ..self.tunnel(other) }),
        );
        let cni = &self.fabric.spec.cni;
        NodeConfig {
            local: LocalSide { prefixes: member.pod_cidrs.clone(), node_addresses: member.node.internal_ips.clone() },
            peers,
            // Behind an Outpost is somebody else's network.
            cni: member.node.outpost.is_none().then(|| Cni {
                version: CNI_VERSION.to_owned(),
                network: cni.network.clone(),
                bridge: cni.bridge.clone(),
                mtu: cni.mtu,
                hairpin: cni.hairpin,
            }),
            ..self.base(member)
        }
    }

    fn connector(&self, member: &Member<'_>) -> NodeConfig {
        NodeConfig {
            name: self.fabric.connector_name(),
            local: LocalSide { prefixes: self.cloud_prefixes(), node_addresses: self.cloud_addresses() },
            peers: self.admission.edges().map(|edge| self.tunnel(edge)).collect(),
            ..self.base(member)
        }
    }

    fn cloud(&self, member: &Member<'_>) -> NodeConfig {
        let peer = self.admission.connector().map(|connector| Peer {
            name: self.fabric.connector_name(),
            via: Via::Lan,
            addresses: connector.node.internal_ips.clone(),
            port: self.fabric.spec.connector.port.get(),
            initiate: false,
            metered: false,
            prefixes: self.admission.edges().flat_map(|edge| edge.pod_cidrs.iter().copied()).collect(),
            // Only the connector's own pods and those behind it reach the addresses of edge nodes.
            node_addresses: Vec::new(),
            overlay: connector.pod_cidrs.clone(),
        });
        NodeConfig {
            local: LocalSide { prefixes: member.pod_cidrs.clone(), node_addresses: member.node.internal_ips.clone() },
            peers: peer.into_iter().collect(),
            ..self.base(member)
        }
    }

    /// An edge node as the other end of a tunnel.
    fn tunnel(&self, edge: &Member<'_>) -> Peer {
        Peer {
            name: self.fabric.node_name(edge.name),
            via: Via::Tunnel,
            addresses: edge.node.public_addresses.clone(),
            port: 4500,
            initiate: false,
            metered: edge.node.metered,
            prefixes: edge.pod_cidrs.clone(),
            node_addresses: edge.node.internal_ips.clone(),
            overlay: Vec::new(),
        }
    }

    fn base(&self, member: &Member<'_>) -> NodeConfig {
        let spec = self.fabric.spec;
        let mode = if member.role == Role::Edge { spec.services.edge } else { spec.services.cloud };
        let outpost = member.node.outpost.as_ref();
        let mode = outpost.and_then(|outpost| outpost.services).unwrap_or(mode);
        // Outside Kubernetes there is no API at hand.
        let source = if outpost.is_some() { ServiceSource::Config } else { self.source };
        let dns = self.dns(member, mode);
        // A node that serves none is not told of every change of an endpoint.
        let told = (mode != ServiceMode::Off || dns.is_some()) && source == ServiceSource::Config;
        NodeConfig {
            version: SCHEMA_VERSION,
            generation: 0,
            name: self.fabric.node_name(member.name),
            node: member.name.to_owned(),
            role: member.role,
            pod_cidrs: member.pod_cidrs.clone(),
            local: LocalSide::default(),
            peers: Vec::new(),
            services: Services {
                mode,
                source,
                balance: spec.services.balance,
                distribution: spec.services.distribution,
                zone: member.node.labels.get(ZONE).cloned().unwrap_or_default(),
                cidrs: spec.service_cidrs.clone(),
                node_port_addresses: spec.services.node_port_addresses.clone(),
                list: if told { self.services.to_vec() } else { Vec::new() },
            },
            dns,
            cni: None,
            datapath: member.node.datapath.unwrap_or(spec.datapath),
            firewall: member.node.firewall.unwrap_or(spec.firewall),
            metered: member.node.metered,
            gateway: None,
        }
    }

    /// Pods of cloud nodes ask the cluster's own.
    fn dns(&self, member: &Member<'_>, services: ServiceMode) -> Option<Dns> {
        let spec = self.fabric.spec;
        let enabled = spec.dns.enabled.unwrap_or(services != ServiceMode::Off);
        (enabled && member.role == Role::Edge).then(|| Dns {
            addresses: spec.dns.addresses.clone(),
            zone: spec.dns.zone.0.to_ascii_lowercase(),
            networks: spec.cluster_cidrs.iter().chain(&spec.edge_pod_cidrs).copied().collect(),
            upstreams: spec.dns.upstreams.iter().map(|server| server.0).collect(),
            stubs: spec
                .dns
                .stubs
                .iter()
                .map(|stub| Stub {
                    zone: stub.zone.0.to_ascii_lowercase(),
                    upstreams: stub.upstreams.iter().map(|server| server.0).collect(),
                })
                .collect(),
        })
    }

    /// What the connector speaks for: cluster IPs and the pods of all cloud nodes.
    fn cloud_prefixes(&self) -> Vec<IpNet> {
        let spec = self.fabric.spec;
        let all = if spec.pod_networks == PodNetworks::Cluster { spec.cluster_cidrs.as_slice() } else { &[] };
        let pods = self.admission.cloud().flat_map(|member| &member.pod_cidrs);
        spec.service_cidrs.iter().chain(all).chain(pods).copied().collect()
    }

    fn cloud_addresses(&self) -> Vec<IpAddr> {
        self.admission.cloud().flat_map(|member| &member.node.internal_ips).copied().collect()
    }
}

/// Understood by every version of the CNI plugins that is about.
const CNI_VERSION: &str = "0.3.1";
