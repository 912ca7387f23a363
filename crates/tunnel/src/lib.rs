//! Tunnels: key exchange joined to a datapath (kernel xfrm, or user-space ESP over TUN) by way of the keeper, the
//! process that holds what must outlive the program. It sets no route and no firewall rule.
//!
//! ```text
//!  NodeConfig ─► Tunnels ─► ike::Endpoint ─► ChildUp, ChildRetired ─► kernel SAs | keeper (esp over TUN)
//!                  ▲ └─────────── paths: which peers are up, between which addresses ─► routes, policies
//!       keeper ────┘ IKE datagrams, moved peers, counters
//! ```

mod abilities;
mod associations;
mod convert;
mod counters;
mod cpu;
mod error;
mod ids;
pub mod keeper;
mod kernel;
mod pair;
mod report;
mod silence;
mod tunnels;

pub use abilities::Abilities;
pub use error::{Error, Result};
pub use ids::REQIDS;
pub use kernel::flush_kernel_sas;
pub use pair::{Traffic, TunnelPath};
pub use report::{Drops, PeerReport, Report};
pub use selvedge_ike::{Credentials, Now, Utc, Wall, validity};
#[cfg(feature = "enrol")]
pub use selvedge_ike::{certificate_request, new_key, sha256};
pub use tunnels::{Refusal, Tunnels};
