//! Which endpoints of Services answer, found out by this node alone, with the cloud or without it.
//!
//! ```text
//! packets without an answer ─► handle_suspicion ┐            ┌─► poll_probe ─► ask the endpoint ─► handle_answer
//! errors of ICMP ────────────► handle_refusal ──┤            │
//! links that came or went ───► handle_change ───┼─► Health ──┤
//! what Services say ─────────► handle_endpoints ┘            └─► out: endpoints that take no new connections
//! ```
//!
//! Nobody is judged by hearsay: an endpoint that is suspected is asked, twice, before it is out, and asked again until it
//! is back. One that comes and goes has to be well for longer each time. How many questions are asked in a second is
//! bounded, whatever the number of endpoints.
//!
//! Pure: no sockets, no clock, no randomness; it must not decide what is done with an endpoint that is out.

mod endpoint;
mod health;
mod purse;

pub use endpoint::State;
pub use health::{Health, MAX_ENDPOINTS, Report};

use std::net::IpAddr;

use selvedge_model::Protocol;

/// An endpoint, whichever Services it serves.
pub type Target = (IpAddr, Protocol, u16);

/// How an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// By a TCP connection, which is closed at once.
    Tcp,
    /// By `GET` of this path.
    Http(String),
    /// By an empty datagram, which a closed port refuses, and by a TCP connection: whether it is taken or refused, somebody
    /// is there.
    Udp,
}

/// What is known of an endpoint besides its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How it is asked.
    pub test: Test,
    /// It is asked all the time, and not only if something is wrong.
    pub always: bool,
    /// Asking it costs money: as little as possible.
    pub costly: bool,
}

/// One question to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whom to ask.
    pub target: Target,
    /// How.
    pub test: Test,
    /// To be given back with the answer.
    pub round: u32,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is well.
    Well,
    /// It refused the connection, or closed it.
    Refused,
    /// Nothing came in time.
    Silent,
    /// No way leads there.
    Unreachable,
    /// It speaks HTTP, and says that it is not well by this status.
    Status(u16),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Well => f.write_str("answers"),
            Answer::Refused => f.write_str("refuses connections"),
            Answer::Silent => f.write_str("does not answer"),
            Answer::Unreachable => f.write_str("cannot be reached"),
            Answer::Status(status) => write!(f, "answers with status {status}"),
        }
    }
}
