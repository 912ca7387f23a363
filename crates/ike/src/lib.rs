//! IKEv2 (RFC 7296) for Selvedge: keys ESP tunnels with peers authenticated by X.509 certificates, as initiator and as
//! responder. This crate is pure: it must not open sockets, read clocks or files, or find randomness by itself;
//! datagrams and time go in, datagrams and events come out.
//!
//! ```text
//!  datagram ─► dispatch ─► IkeSa (sa_init, ike_auth, create_child, informational) ─► Transmit
//!  time ─────► timetable ────┘  │ signals                                            Event
//!  peers ────► connect ◄──── lifecycle (which IKE SA counts, what replaces what) ──────┘
//! ```
//!
//! [`Endpoint`] holds the IKE SAs of all peers; its documentation says in which order to call and poll.

mod auth;
mod child;
mod child_rekey;
mod config;
mod connect;
mod cookie;
mod create_child;
mod credentials;
#[cfg(feature = "crl")]
mod crl;
mod crypto;
mod ctx;
mod der;
mod dispatch;
mod endpoint;
#[cfg(feature = "enrol")]
mod enrol;
mod error;
mod event;
mod exchange;
mod expiry;
mod hint;
mod ike_auth;
mod ike_rekey;
mod informational;
mod keymat;
mod lifecycle;
mod messages;
mod natd;
mod path;
mod peer;
mod proposal;
#[cfg(test)]
mod protocol_tests;
mod sa;
mod sa_init;
mod steps;
mod timetable;
mod ts;
mod validity;
mod wire;

pub use config::{Config, Now, Peer, PeerId, Retransmit, Timers, Wall};
pub use credentials::{CredentialError, Credentials};
pub use crypto::{Aead, Crypto, CryptoError, Group, Prf, PrivateValue, RingCrypto};
pub use endpoint::Endpoint;
#[cfg(feature = "enrol")]
pub use enrol::{certificate_request, new_key, sha256};
pub use error::Utc;
pub use event::{Child, EspSuite, Established, Event, LastError, PeerState, PeerStatus, Role, Transmit};
pub use proposal::IkeSuite;
pub use ts::TrafficSelector;
pub use validity::validity;

/// Reads bytes as an IKE message does, for fuzzing: the header, its payloads and the place of the encrypted payload.
pub fn fuzz_parse(bytes: &[u8]) {
    if let Ok((_, first)) = wire::Header::parse(bytes) {
        let _ = wire::Payloads::parse(first, &bytes[wire::HEADER_LEN..]);
        let _ = wire::Sealed::find(first, bytes);
    }
}
