//! From the state of a cluster to the configuration of every node. Pure: no files, no clock, no randomness.
//!
//! ```text
//! ClusterState ─► Fabric (checked settings) ─► admission (which nodes, which networks) ─► compile ─► NodeConfig
//! ```

mod admission;
mod allocator;
mod claims;
mod communities;
mod compile;
mod digest;
mod fabric;
pub(crate) mod fleet;
pub(crate) mod gateway;
mod ip_pools;
pub(crate) mod issued;
mod networks;
mod problem;
pub(crate) mod renewal;
pub(crate) mod rotation;
mod services;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use allocator::Allocations;
pub(crate) use compile::{AuthoritySettings, Memory, Options, Output, compile, encode, number};
pub(crate) use digest::{Digest, digest};
pub(crate) use ip_pools::IpPool;
pub(crate) use problem::{Problem, Severity};
pub(crate) use state::ClusterState;
