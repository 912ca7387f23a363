use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// The Services that this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Services {
    /// Whether this node serves them at all; a node with kube-proxy does not.
    pub mode: ServiceMode,
    /// From where the node knows them.
    pub source: ServiceSource,
    /// How an endpoint is chosen where the Service does not say.
    pub balance: Balance,
    /// Which endpoints come first where the Service does not say.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub distribution: Distribution,
    /// Zone of this node (`topology.kubernetes.io/zone`), empty if it has none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub zone: String,
    /// Cluster IP networks.
    pub cidrs: Vec<IpNet>,
    /// Networks of the addresses of this node at which node ports are served; empty: at all but loopback.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub node_port_addresses: Vec<IpNet>,
    /// Every Service, in the order of namespace and name; empty if `source` is `api`.
    pub list: Vec<Service>,
}

/// Whether Services are served on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum ServiceMode {
    /// Somebody else does it.
    #[default]
    Off,
    /// Destination NAT in the kernel.
    Kernel,
}

/// From where a node knows the Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum ServiceSource {
    /// From `list`.
    #[default]
    Config,
    /// From the Kubernetes API at hand: its Services and EndpointSlices.
    Api,
}

/// How an endpoint is chosen for a new connection. Weights of endpoints count in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum Balance {
    /// Each with the same chance.
    #[default]
    Random,
    /// In turn.
    RoundRobin,
    /// By the client's address: always the same, as long as it is there.
    SourceHash,
}

/// Which endpoints come before others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum Distribution {
    /// Those on this node; without any, those in its zone; without any, all.
    #[default]
    SameNode,
    /// Those in the zone of this node; without any, all.
    SameZone,
    /// None: all the same.
    Any,
}

/// A Kubernetes Service. One without cluster IPs is not served, but has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Service {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// Cluster IPs, at most one of each family. None: headless, unless there is an `external_name`.
    pub cluster_ips: Vec<IpAddr>,
    /// Ports with their endpoints.
    pub ports: Vec<ServicePort>,
    /// `spec.externalName` of a Service of that type: it is an alias, and has nothing else.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub external_name: Option<String>,
    /// `spec.externalIPs`: addresses that are routed here by whoever set them.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub external_ips: Vec<IpAddr>,
    /// Addresses of the load balancers before it that hand packets on as they are.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may call `load_balancer_ips`; empty: everybody.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Vec::is_empty"))]
    pub load_balancer_sources: Vec<IpNet>,
    /// `spec.sessionAffinity: ClientIP`: seconds for which a client that is silent keeps its endpoint.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy: Local`: clients of this node reach endpoints of this node or none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy: Local`: clients from outside reach endpoints of this node or none, and keep their
    /// address.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub external_local: bool,
    /// Which endpoints come first, if it says.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub distribution: Option<Distribution>,
    /// How an endpoint is chosen, if it says.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub balance: Option<Balance>,
    /// What of each HTTP request chooses its endpoint: `header:NAME` or `cookie:NAME`, which only the edge gateway of the
    /// node can see; so it goes through that.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub per_request: Option<String>,
    /// How endpoints are to be asked whether they are well; `None`: not at all.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub health: Option<HealthCheck>,
    /// `spec.publishNotReadyAddresses`: endpoints count as ready from their first moment.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub publish_not_ready: bool,
    /// Label `service.kubernetes.io/service-proxy-name`: another program serves it, here too.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub other_proxy: bool,
}

/// How an endpoint is asked whether it is well: `tcp` or `http:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// It takes a connection.
    Tcp,
    /// It answers `GET` of this path with a status below 400.
    Http(String),
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct ServicePort {
    /// Name of the port, empty if it has none.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the cluster IP. 0 stands for the endpoints of a headless Service that has no ports; theirs is 0, too.
    pub port: u16,
    /// Port on every node, 0 if it has none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_default"))]
    pub node_port: u16,
    /// `appProtocol`, empty if it does not say.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub app_protocol: String,
    /// Endpoints of every family.
    pub endpoints: Vec<Endpoint>,
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Where a Service port is really served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "camelCase"))]
pub struct Endpoint {
    /// Pod or node address.
    pub address: IpAddr,
    /// Port at that address.
    pub port: u16,
    /// Kubernetes node it runs on, empty if unknown.
    pub node: String,
    /// Zone of that node, empty if unknown.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub zone: String,
    /// Name within the Service, as pods of a StatefulSet have one; empty if it has none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "String::is_empty"))]
    pub hostname: String,
    /// It still answers while it ends: of use where no other is ready, and no longer for names.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub terminating: bool,
    /// Its share of new connections among others, 1 unless the Service says more.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_one"))]
    pub weight: u16,
}

/// The greatest weight of an endpoint.
pub const MAX_WEIGHT: u16 = 100;

/// What a client is remembered for without packets, at most: Kubernetes allows no more than a day, in seconds.
pub const MAX_AFFINITY: u32 = 86_400;

impl Balance {
    /// Each as it is written.
    pub const WORDS: [(&str, Balance); 3] =
        [("random", Balance::Random), ("roundRobin", Balance::RoundRobin), ("sourceHash", Balance::SourceHash)];
}

impl Distribution {
    /// Each as it is written.
    pub const WORDS: [(&str, Distribution); 3] =
        [("sameNode", Distribution::SameNode), ("sameZone", Distribution::SameZone), ("any", Distribution::Any)];
}

impl Protocol {
    /// Each as it is written.
    pub const WORDS: [(&str, Protocol); 3] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl Endpoint {
    /// A ready one of which no more is known.
    pub fn new(address: IpAddr, port: u16, node: impl Into<String>) -> Self {
        let (zone, hostname) = (String::new(), String::new());
        Endpoint { address, port, node: node.into(), zone, hostname, terminating: false, weight: 1 }
    }
}

impl Service {
    /// Whether it has addresses of its own and is served by this program, if any Service is.
    pub fn is_proxied(&self) -> bool {
        !self.cluster_ips.is_empty() && !self.other_proxy
    }

    /// Whether names lead to its endpoints.
    pub fn is_headless(&self) -> bool {
        self.cluster_ips.is_empty() && self.external_name.is_none()
    }
}

impl Service {
    /// Whether this is what a request can be balanced by: `header:` or `cookie:`, and a name.
    pub fn is_per_request(text: &str) -> bool {
        let name = text.strip_prefix("header:").or_else(|| text.strip_prefix("cookie:"));
        let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        name.is_some_and(|name| !name.is_empty() && name.len() <= 64 && name.bytes().all(token))
    }
}

impl HealthCheck {
    /// `tcp`, or `http:` and the path to ask for, of plain printable characters.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "tcp" {
            return Some(HealthCheck::Tcp);
        }
        let path = text.strip_prefix("http:")?;
        let plain = path.starts_with('/') && path.len() <= 256 && path.bytes().all(|b| b.is_ascii_graphic());
        plain.then(|| HealthCheck::Http(path.to_owned()))
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthCheck::Tcp => f.write_str("tcp"),
            HealthCheck::Http(path) => write!(f, "http:{path}"),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for HealthCheck {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(feature = "serde")]
fn is_one(weight: &u16) -> bool {
    *weight == 1
}
