//! The words of the domain and the one contract between cloud and edge, [`NodeConfig`].
//!
//! ```text
//! operator ──(NodeConfig as JSON)──► agent, connector
//! ```
//!
//! Pure: no files, no sockets, no clock. Reading a configuration never panics and names the field that is wrong.

mod config;
mod decode;
mod reader;
mod syntax;
mod validate;

pub use config::{
    Balance, Cni, DatapathMode, Endpoint, FirewallBackend, LocalSide, NodeConfig, Peer, Protocol, Role, Service,
    ServiceMode, ServicePort, ServiceSource, Services, Via,
};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use reader::ConfigError;

/// The schema version this build reads and writes.
pub const SCHEMA_VERSION: u64 = 1;

/// The longest configuration text that is read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;
