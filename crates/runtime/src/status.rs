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

/// A counter of dropped packets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Drops {
    /// Why, in words.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
}
