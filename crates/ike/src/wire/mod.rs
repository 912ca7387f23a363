//! IKEv2 messages as bytes (RFC 7296 section 3).
//!
//! Every length is checked before it is used; parsing never panics and allocates no more than a small multiple of the
//! datagram. Multi-octet numbers are big endian.

mod auth;
mod cert;
mod chain;
mod delete;
mod header;
mod id;
mod ke;
mod notification;
mod reader;
mod sa;
mod sk;
mod ts;

pub(crate) use auth::{Auth, AuthMethod};
pub(crate) use cert::{CERT_X509_SIGNATURE, Cert};
pub(crate) use chain::{Chain, Payload, Payloads, payload};
pub(crate) use delete::Delete;
pub(crate) use header::{Exchange, HEADER_LEN, Header};
pub(crate) use id::Id;
pub(crate) use ke::Ke;
pub(crate) use notification::{Notify, notify};
pub(crate) use reader::Reader;
pub(crate) use sa::{Proposal, Protocol, Transform, transform};
pub(crate) use sk::{Opened, Sealed, open, seal};

use std::fmt;

/// Why bytes are not a message we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// A field or payload ends before its announced length.
    Truncated,
    /// A length field contradicts the bytes.
    Length,
    /// The major version is not 2.
    Version(u8),
    /// A payload type we do not know is marked critical.
    UnknownCritical(u8),
    /// More payloads than any exchange of ours needs.
    TooMany,
    /// A payload's contents break its format; the payload's name.
    Malformed(&'static str),
    /// The integrity check of the encrypted payload failed.
    Integrity,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("message is cut short"),
            Self::Length => f.write_str("a length field contradicts the message"),
            Self::Version(major) => write!(f, "IKE version {major} is not supported"),
            Self::UnknownCritical(kind) => write!(f, "critical payload {kind} is unknown"),
            Self::TooMany => f.write_str("too many payloads"),
            Self::Malformed(what) => write!(f, "malformed {what} payload"),
            Self::Integrity => f.write_str("integrity check failed"),
        }
    }
}

impl std::error::Error for WireError {}
