//! What `status` shows: made by the running program, read by people and scripts.

use miniserde::{Deserialize, Serialize};

/// The state of a node as one document, `status --json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Fabric name, empty before the first configuration.
    pub name: String,
    /// `edge`, `connector` or `cloud`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// `kernel` or `user`.
    pub datapath: String,
    /// Why that datapath, in words.
    #[serde(rename = "datapathReason")]
    pub datapath_reason: String,
    /// `nftables` or `iptables`.
    pub firewall: String,
    /// What the program may do: its user, its capabilities, and whether Landlock holds it.
    pub confinement: String,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// The API that is asked, if any is.
    #[cfg(feature = "api")]
    pub source: Option<SourceStatus>,
    /// The DNS server, where there is one.
    #[cfg(feature = "dns")]
    pub dns: Option<DnsStatus>,
    /// What time it is.
    pub clock: ClockStatus,
    /// When the node's own certificate ends, in seconds since 1970; absent on nodes without tunnels.
    #[serde(rename = "certificateNotAfter")]
    pub certificate_not_after: Option<u64>,
    /// Every peer of the configuration.
    pub peers: Vec<PeerStatus>,
    /// Callers that were turned away, newest last.
    pub refused: Vec<Refusal>,
    /// What this kernel and its tools lack, and what that means.
    pub kernel: Vec<String>,
    /// What could not be applied.
    pub problems: Vec<String>,
    /// What could be better.
    pub notes: Vec<String>,
    /// Packets dropped for a reason that concerns no single peer.
    pub drops: Vec<Drops>,
    /// The edge gateway, if there is one.
    #[cfg(feature = "gateway")]
    pub gateway: Option<GatewayStatus>,
    /// Endpoints of Services that do not answer, or may not.
    #[cfg(feature = "services")]
    pub endpoints: Vec<EndpointStatus>,
}

/// The edge gateway.
#[cfg(feature = "gateway")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Its listeners.
    pub listeners: Vec<ListenerStatus>,
    /// Connections from outside that there are now.
    pub connections: u32,
    /// Endpoints that could not be reached, and for how many seconds yet they are left alone.
    #[serde(rename = "leftAlone")]
    pub left_alone: Vec<LeftAlone>,
    /// What does not work.
    pub problems: Vec<String>,
}

/// A listener of the edge gateway.
#[cfg(feature = "gateway")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// As configured.
    pub name: String,
    /// `http`, `https`, `tls`, `tlsTerminate`, `tcp` or `udp`.
    pub protocol: String,
    /// Addresses and port it listens on.
    pub addresses: Vec<String>,
    /// Connections there were, or sessions of datagrams.
    pub connections: u32,
    /// Requests there were.
    pub requests: u32,
    /// Requests that met no rule.
    pub unrouted: u32,
    /// Requests and connections for which no endpoint could be had.
    pub failed: u32,
    /// Connections that broke the rules of TLS or HTTP, or were too many.
    pub refused: u32,
}

/// An endpoint that could not be reached.
#[cfg(feature = "gateway")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Address and port.
    pub endpoint: String,
    /// For how long yet.
    pub seconds: u64,
}

/// The configuration in force, and what is wrong with the newer one, if any.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Generation in force.
    pub generation: u64,
    /// `file`, the kind of the API, or `last good copy`.
    pub source: String,
    /// Why what is delivered now is not in force.
    pub error: Option<String>,
}

/// The API that delivers configuration, Services or both.
#[cfg(feature = "api")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceStatus {
    /// It delivers the configuration, and not only Services.
    pub configuration: bool,
    /// `kubeedge`, `superedge`, `openyurt`, `kubernetes` or `operator`; empty as long as none was found.
    pub kind: String,
    /// Its URL.
    pub server: String,
    /// `online`: what it says comes from the cloud. `offline`: it was stored here. `unknown`: it cannot be told.
    pub reach: String,
    /// Seconds since it answered last; absent before it did.
    #[serde(rename = "readSecondsAgo")]
    pub read_seconds_ago: Option<u64>,
    /// What cannot be read, and why.
    pub errors: Vec<String>,
}

/// The DNS server.
#[cfg(feature = "dns")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Where it answers, on port 53.
    pub addresses: Vec<String>,
    /// Domain of the cluster.
    pub zone: String,
    /// Services that have names; absent as long as they are not known.
    pub services: Option<u64>,
    /// Whom it asks.
    pub upstreams: Vec<UpstreamStatus>,
    /// Questions.
    pub questions: u64,
    /// Answered from the Services.
    pub cluster: u64,
    /// Answered from what was kept.
    pub cached: u64,
    /// Asked an upstream.
    pub forwarded: u64,
    /// Answered with what was kept beyond its time, for nobody else answered.
    pub stale: u64,
    /// Not answered, for nobody answered.
    pub failed: u64,
    /// Answers that were refused because they lead into the cluster's networks.
    pub rebound: u64,
    /// Answers that are kept.
    pub kept: u64,
    /// What does not work.
    pub notes: Vec<String>,
}

/// A server that is asked for names outside the cluster.
#[cfg(feature = "dns")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Address and port.
    pub address: String,
    /// `unknown`, `up`, `down`, or `loop`: it asks this server what it is asked.
    pub state: String,
    /// Round trip in milliseconds; absent before it answered.
    #[serde(rename = "rttMs")]
    pub rtt_ms: Option<u64>,
    /// Questions sent to it.
    pub asked: u64,
    /// Answers it gave.
    pub answered: u64,
}

/// The calendar as the program goes by it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Seconds since 1970.
    pub time: u64,
    /// False: it is that time or later, and nobody vouches for the system's clock.
    pub set: bool,
}

/// One peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Fabric name.
    pub name: String,
    /// `tunnel` or `lan`.
    pub via: String,
    /// `up`, `connecting`, `down` or `refused`; `routed` for `lan`.
    pub state: String,
    /// The tunnel keeps quiet because either end pays for every byte.
    pub metered: bool,
    /// Addresses in use.
    pub path: Option<PathStatus>,
    /// Age of the youngest CHILD_SA in seconds.
    #[serde(rename = "saAgeSeconds")]
    pub sa_age_seconds: Option<u64>,
    /// Cipher of the CHILD_SA.
    pub cipher: Option<String>,
    /// Bytes received, over all SAs of this configuration.
    #[serde(rename = "bytesIn")]
    pub bytes_in: u64,
    /// Bytes sent.
    #[serde(rename = "bytesOut")]
    pub bytes_out: u64,
    /// Packets from the peer that were dropped (foreign source, replay, broken).
    #[serde(rename = "droppedIn")]
    pub dropped_in: u64,
    /// Packets for the peer that were dropped (no tunnel).
    #[serde(rename = "droppedOut")]
    pub dropped_out: u64,
    /// The last thing that went wrong with this peer.
    #[serde(rename = "lastError")]
    pub last_error: Option<String>,
}

/// The outer addresses of a tunnel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PathStatus {
    /// Own address and port.
    pub local: String,
    /// The peer's address and port as seen from here.
    pub remote: String,
    /// ESP travels in UDP.
    pub encap: bool,
}

/// A caller that was turned away.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// Where it called from.
    pub remote: String,
    /// The name it gave.
    pub claimed: Option<String>,
    /// Why it was refused.
    pub reason: String,
    /// How often in a row.
    pub times: u32,
}

/// An endpoint of which something bad is known.
#[cfg(feature = "services")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `suspect`: it is being asked. `out`: it takes no new connections where there are other endpoints.
    pub state: String,
    /// For how long.
    pub seconds: u64,
    /// Its last bad answer, in words.
    pub reason: String,
}

/// A counter of dropped packets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Drops {
    /// Why, in words.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
}

/// What this node serves, as one document, `status services --json`.
#[cfg(feature = "services")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServicesStatus {
    /// Why none are served; empty if they are.
    pub off: String,
    /// Zone of this node, empty if it has none.
    pub zone: String,
    /// By what clients call.
    pub served: Vec<ServedStatus>,
    /// Endpoints that do not answer, or may not; those that are out are in use only where there are no others.
    pub bad: Vec<EndpointStatus>,
}

/// One way to call a Service.
#[cfg(feature = "services")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServedStatus {
    /// `namespace/name:port`.
    pub name: String,
    /// Address and port, or `node:` and a port.
    pub called: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// For this node and its pods.
    pub near: ChosenStatus,
    /// For everybody else, if that differs.
    pub far: Option<ChosenStatus>,
    /// Who may call; empty: everybody.
    pub sources: Vec<String>,
}

/// Endpoints that were chosen.
#[cfg(feature = "services")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChosenStatus {
    /// Address and port, behind it `*` and a weight other than 1.
    pub endpoints: Vec<String>,
    /// Why these: `node`, `zone`, `all`, `policy`; why none: `refused`, `dropped`.
    pub why: String,
    /// `random`, `roundRobin` or `sourceHash`; empty without endpoints.
    pub balance: String,
    /// Seconds for which a silent client keeps its endpoint.
    pub affinity: Option<u32>,
}
