//! What a node should have in its kernel, firewall and CNI directory, as a value; and the steps from what it has.
//!
//! ```text
//! NodeConfig + Facts ──► Plan ──► diff(Applied, Plan) ──► Vec<Step>      addresses, routes, rules, policies
//!                          └────► iptables / ipset / nft text            Plan::ruleset
//! ```
//!
//! Pure: no files, no sockets, no clock, no processes. Everything it must know about the node comes in as [`Facts`];
//! everything it wants done goes out as values and text. Equal inputs give equal plans, byte for byte.

mod cni;
mod diff;
mod facts;
mod node;
mod plan;
mod policy;
mod route;
mod sysctl;

pub mod firewall;
pub mod ipset;
pub mod iptables;
pub mod nft;

pub use diff::{Applied, Step, diff};
pub use facts::{Backend, Datapath, Facts, Family, NextHop, Path, probes};
pub use plan::{DEVICE, Device, File, MTU, Plan};
pub use policy::{Action, BLOCK_PRIORITY, Direction, PROTECT_PRIORITY, Policy, Template};
pub use route::{GUARD_METRIC, METRIC, NODE_TABLE, POD_TABLE, PROTOCOL, Route, RouteKind, Rule};
pub use sysctl::Sysctl;
