//! What the gateway tells about itself.

use std::net::SocketAddr;
use std::time::Instant;

use selvedge_gateway::Map;

/// The gateway as its thread sees it.
#[derive(Default)]
pub(crate) struct Report {
    /// Addresses listened on, by the name of the listener.
    pub(crate) bound: Vec<(String, SocketAddr)>,
    pub(crate) problems: Vec<String>,
    pub(crate) counters: Map<String, Counters>,
    /// Connections from outside that there are now.
    pub(crate) connections: u32,
    /// Endpoints that could not be reached, and until when they are left alone.
    pub(crate) left_alone: Vec<(SocketAddr, Instant)>,
}

/// What went through a listener.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Connections; sessions where there are datagrams.
    pub(crate) connections: u32,
    pub(crate) requests: u32,
    /// Requests that met no rule.
    pub(crate) unrouted: u32,
    /// Requests and connections for which nobody could be had.
    pub(crate) failed: u32,
    /// Connections that broke the rules of TLS or HTTP.
    pub(crate) refused: u32,
}
