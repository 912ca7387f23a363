//! The words of the domain and the one contract between cloud and edge, [`NodeConfig`].
//!
//! ```text
//! operator ──(NodeConfig as JSON)──► agent, connector
//! ```
//!
//! Pure: no files, no sockets, no clock. Reading a configuration never panics and names the field that is wrong.

mod config;
mod decode;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "gateway")]
pub mod gateway;
mod reader;
mod services;
mod syntax;
mod validate;

pub use config::{Cni, DatapathMode, FirewallBackend, LocalSide, NodeConfig, Peer, Role, Via};
#[cfg(feature = "dns")]
pub use dns::{Dns, NameServer, NoNameServer, Stub, is_domain};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use reader::ConfigError;
pub use services::{
    Balance, Distribution, Endpoint, HealthCheck, MAX_AFFINITY, MAX_WEIGHT, Protocol, Service, ServiceMode,
    ServicePort, ServiceSource, Services,
};

/// The schema version this build reads and writes.
pub const SCHEMA_VERSION: u64 = 1;

/// The longest configuration text that is read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;
