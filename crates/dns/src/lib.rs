//! The DNS server of a node: names of the cluster's Services from the list at hand, all others from those who know
//! them, with what they said kept for when they are gone. It decides and writes messages; it must not open sockets,
//! look at the clock or read files.
//!
//! ```text
//! handle_query ──► answered at once, or later by poll_answer
//!     poll_transmit ──► datagrams to upstreams ──► handle_upstream, handle_failure
//!     poll_timeout ──► handle_timeout
//! ```
//!
//! After every `handle_*` the caller takes all that `poll_transmit` and `poll_answer` have.

mod cache;
mod client;
mod forward;
mod local;
mod message;
mod name;
mod resolv_conf;
mod server;
mod upstream;
mod view;
mod writer;

pub use client::{Response, question};
pub use forward::Transmit;
pub use message::{MAX_UDP, Rcode, kind};
pub use name::{Labels, Name};
pub use resolv_conf::nameservers;
pub use server::{Counters, Handled, Server, Settings};
pub use upstream::{State, Upstream};
pub use view::View;

/// Option of EDNS by which a client asks where an answer is from, and is told (from the range for local use).
pub const EXPLAIN: u16 = 65_001;
