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
use super::communities::{self, Joined};
use super::digest::{Digest, digest_all, digest_json};
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
pub(crate) struct Compiled<'a> {
    /// `None` if there is no usable own `Cluster`: then nothing may change.
    pub(crate) output: Option<Output<'a>>,
    pub(crate) problems: Vec<Problem>,
}

/// What every node is to get. Configurations are made one at a time, when they are asked for: all of them at once are as
/// large as the nodes times the members of their communities.
pub(crate) struct Output<'a> {
    /// Name of the own cluster.
    pub(crate) cluster: String,
    pub(crate) certificate_days: u32,
    pub(crate) authority: AuthoritySettings,
    /// By Kubernetes node.
    pub(crate) nodes: BTreeMap<&'a str, Outline>,
    pub(crate) allocations: Allocations,
    /// How many members each community has.
    pub(crate) communities: BTreeMap<String, usize>,
    /// What Calico must know not to translate addresses towards, by name.
    pub(crate) ip_pools: BTreeMap<String, IpPool>,
    /// Whether any configuration, or any status, says what the Services are.
    pub(crate) tells_services: bool,
    compiler: Compiler<'a>,
}

/// What is known of a configuration before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    /// In the fabric.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Whether the node asks an API for the Services.
    pub(crate) asks_api: bool,
    /// Of all that the configuration is made from: as long as it stays, so does the configuration.
    pub(crate) input: Digest,
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

pub(crate) fn compile<'a>(state: &'a ClusterState, options: &Options, memory: &Memory) -> Compiled<'a> {
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
    let ip_pools = ip_pools::list(&fabric, state, &admission);
    let communities = joined.communities.iter().map(|(name, members)| ((*name).to_owned(), members.len())).collect();
    let labelled = admission.members.iter().map(|(name, member)| (*name, member.node)).collect();
    let gateways = gateway::compile(state, &labelled, &services, &memory.certificates);
    problems.extend(gateways.problems(state));
    problems.sort();
    let compiler = Compiler { fabric, admission, joined, services, source, gateways };
    let nodes = compiler.outlines();
    let spec = compiler.fabric.spec;
    let name = |node: &String| match nodes.get(node.as_str()) {
        Some(outline) => outline.name.clone(),
        None => compiler.fabric.node_name(node),
    };
    let authority = AuthoritySettings {
        rotate: spec.rotate_ca.clone(),
        grace: spec.rotation_grace_seconds,
        revoked: spec.revoked.iter().map(name).collect(),
    };
    let output = Output {
        cluster: compiler.fabric.name.to_owned(),
        certificate_days: spec.certificate_days,
        authority,
        tells_services: !state.gateways.is_empty()
            || compiler.admission.members.values().any(|member| compiler.tells_services(member)),
        nodes,
        allocations,
        communities,
        ip_pools,
        compiler,
    };
    Compiled { output: Some(output), problems }
}

impl<'a> Output<'a> {
    /// The configuration of a node; its generation is 0.
    pub(crate) fn config(&self, node: &str) -> Option<NodeConfig> {
        self.compiler.admission.members.get(node).map(|member| self.compiler.config(member))
    }

    /// The edge gateways, and what is to be said about them.
    pub(crate) fn gateways(&self) -> &Gateways {
        &self.compiler.gateways
    }

    /// All of them, one after the other.
    pub(crate) fn configs(&self) -> impl Iterator<Item = (&'a str, NodeConfig)> {
        self.compiler.admission.members.iter().map(|(name, member)| (*name, self.compiler.config(member)))
    }
}

/// Gives a configuration its generation: one more than the previous one if anything is different. Tells whether.
pub(crate) fn number(config: &mut NodeConfig, generation: u64, previous: Option<&NodeConfig>) -> bool {
    config.generation = generation;
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
    fabric: Fabric<'a>,
    admission: Admission<'a>,
    joined: Joined<'a>,
    services: Vec<Service>,
    source: ServiceSource,
    gateways: Gateways,
}

impl<'a> Compiler<'a> {
    fn config(&self, member: &Member<'_>) -> NodeConfig {
        let mut config = self.own(member);
        match member.role {
            Role::Edge => {
                let others = self.joined.neighbours(member.name);
                let others = others.into_iter().filter_map(|name| self.admission.members.get(name));
                config.peers.extend(others.map(|other| self.neighbour(other)));
            }
            Role::Connector => config.peers.extend(self.admission.edges().map(|edge| self.tunnel(edge))),
            Role::Cloud => {
                let networks = self.admission.edges().flat_map(|edge| edge.pod_cidrs.iter().copied());
                if let Some(connector) = config.peers.first_mut() {
                    connector.prefixes.extend(networks);
                }
            }
        }
        if self.tells_services(member) {
            config.services.list.clone_from(&self.services);
        }
        config
    }

    /// The configuration without what it has in common with others: edges as peers, their networks, and Services.
    fn own(&self, member: &Member<'_>) -> NodeConfig {
        let mut config = match member.role {
            Role::Edge => self.edge(member),
            Role::Connector => self.connector(member),
            Role::Cloud => self.cloud(member),
        };
        self.gateways.equip(&mut config, &self.services);
        config
    }

    /// What several nodes have in common is looked at once.
    fn outlines(&self) -> BTreeMap<&'a str, Outline> {
        let edges = self.admission.edges();
        let ways: BTreeMap<&str, Digest> = edges.map(|edge| (edge.name, digest_json(&self.neighbour(edge)))).collect();
        let networks = digest_json(&self.admission.edges().map(|edge| &edge.pod_cidrs).collect::<Vec<_>>());
        let services = digest_json(&self.services);
        let communities: BTreeMap<&str, Digest> = self
            .joined
            .communities
            .iter()
            .map(|(name, members)| {
                let ways = members.iter().filter_map(|member| ways.get(member));
                (*name, digest_all(ways))
            })
            .collect();
        let all = digest_all(ways.values());
        let outline = |member: &Member<'a>| {
            let own = self.own(member);
            let mut parts = vec![digest_json(&own)];
            match member.role {
                Role::Edge => parts.extend(self.joined.of(member.name).iter().filter_map(|name| communities.get(name))),
                Role::Connector => parts.push(all),
                Role::Cloud => parts.push(networks),
            }
            parts.extend(self.tells_services(member).then_some(services));
            let asks_api = match self.needs_services(member) {
                Some(source) => source == ServiceSource::Api,
                None => own.gateway.is_some() && own.services.source == ServiceSource::Api,
            };
            Outline { name: own.name, role: own.role, pod_cidrs: own.pod_cidrs, asks_api, input: digest_all(&parts) }
        };
        self.admission.members.iter().map(|(name, member)| (*name, outline(member))).collect()
    }

    fn edge(&self, member: &Member<'_>) -> NodeConfig {
        let connector = &self.fabric.spec.connector;
        let to_connector = Peer {
            name: self.fabric.connector_name(),
            via: Via::Tunnel,
            addresses: connector.addresses.clone(),
            port: connector.port.get(),
            initiate: true,
            metered: self.admission.connector().is_some_and(|connector| connector.node.metered),
            prefixes: self.cloud_prefixes(),
            node_addresses: self.cloud_addresses(),
            overlay: Vec::new(),
        };
        let cni = &self.fabric.spec.cni;
        NodeConfig {
            local: LocalSide { prefixes: member.pod_cidrs.clone(), node_addresses: member.node.internal_ips.clone() },
            peers: vec![to_connector],
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
            prefixes: Vec::new(),
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

    /// A member of the same community as an edge node sees it. Both call: whoever is behind the stricter NAT opens it by
    /// that.
    fn neighbour(&self, other: &Member<'_>) -> Peer {
        Peer { initiate: !other.node.public_addresses.is_empty(), ..self.tunnel(other) }
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
        let (mode, source) = self.serving(member);
        let dns = self.dns(member, mode);
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
                list: Vec::new(),
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
            upstreams: spec.dns.upstreams.iter().map(|server| server.0.clone()).collect(),
            authorities: spec.dns.authorities.clone(),
            stubs: spec
                .dns
                .stubs
                .iter()
                .map(|stub| Stub {
                    zone: stub.zone.0.to_ascii_lowercase(),
                    upstreams: stub.upstreams.iter().map(|server| server.0.clone()).collect(),
                })
                .collect(),
        })
    }

    /// Whether the node serves Services, and from where it knows them.
    fn serving(&self, member: &Member<'_>) -> (ServiceMode, ServiceSource) {
        let services = &self.fabric.spec.services;
        let mode = if member.role == Role::Edge { services.edge } else { services.cloud };
        let outpost = member.node.outpost.as_ref();
        // Outside Kubernetes there is no API at hand.
        let source = if outpost.is_some() { ServiceSource::Config } else { self.source };
        (outpost.and_then(|outpost| outpost.services).unwrap_or(mode), source)
    }

    /// From where the node knows the Services that it serves or whose names it answers; `None` if it does neither.
    fn needs_services(&self, member: &Member<'_>) -> Option<ServiceSource> {
        let (mode, source) = self.serving(member);
        (mode != ServiceMode::Off || self.dns(member, mode).is_some()).then_some(source)
    }

    /// A node that needs none is not told of every change of an endpoint.
    fn tells_services(&self, member: &Member<'_>) -> bool {
        self.needs_services(member) == Some(ServiceSource::Config)
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
