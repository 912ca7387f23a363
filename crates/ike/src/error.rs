//! Why there is no tunnel, in sentences for people.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::crypto::CryptoError;
use crate::wire::{WireError, notify};

/// Why an IKE SA was not made or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NoAnswer {
        remote: SocketAddr,
        after: Duration,
    },
    /// The peer answered AUTHENTICATION_FAILED.
    RefusedUs {
        peer: String,
    },
    /// The peer answered with another error.
    Answered {
        peer: String,
        kind: u16,
    },
    Certificate(CertificateFailure),
    /// An unknown caller.
    UnknownPeer {
        claimed: String,
    },
    /// The peer said it is someone else than we called.
    OtherIdentity {
        expected: String,
        presented: String,
    },
    NoSignatureAuth {
        peer: String,
    },
    NoCommonSelectors {
        local: String,
        remote: String,
        policy_local: String,
        policy_remote: String,
    },
    NoCommonAlgorithms {
        peer: String,
    },
    Malformed {
        peer: String,
        error: WireError,
    },
    /// A message lacks what it must carry.
    Incomplete {
        peer: String,
        what: &'static str,
    },
    Crypto(CryptoError),
    Deleted {
        peer: String,
    },
    Replaced,
    Removed,
    ShutDown,
}

/// What is wrong with the peer's proof of identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateFailure {
    Missing {
        of: String,
    },
    Expired {
        of: String,
        at: u64,
    },
    NotYetValid {
        of: String,
        from: u64,
    },
    OtherAuthority {
        of: String,
    },
    #[cfg(feature = "crl")]
    Revoked {
        of: String,
    },
    OtherName {
        expected: String,
        presented: String,
    },
    NotAName {
        name: String,
    },
    BadSignature {
        of: String,
    },
    Other {
        of: String,
        error: webpki::Error,
    },
}

impl From<CryptoError> for Failure {
    fn from(error: CryptoError) -> Self {
        Self::Crypto(error)
    }
}

impl From<CertificateFailure> for Failure {
    fn from(failure: CertificateFailure) -> Self {
        Self::Certificate(failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { remote, after } => write!(f, "no answer from {remote} after {} s", after.as_secs()),
            Self::RefusedUs { peer } => write!(f, "{peer} refused our certificate (AUTHENTICATION_FAILED)"),
            Self::Answered { peer, kind } => {
                let meaning = match *kind {
                    notify::NO_PROPOSAL_CHOSEN => "no algorithms in common",
                    notify::TS_UNACCEPTABLE => "no subnets in common",
                    _ => "it cannot go on",
                };
                write!(f, "{peer} answered {}: {meaning}", notify::name(*kind))
            }
            Self::Certificate(failure) => failure.fmt(f),
            Self::UnknownPeer { claimed } => write!(f, "{claimed} is not a peer of ours"),
            Self::OtherIdentity { expected, presented } => write!(f, "{presented} answered, expected {expected}"),
            Self::NoSignatureAuth { peer } => write!(f, "{peer} does not support signatures with SHA2-256 (RFC 7427)"),
            Self::NoCommonSelectors { local, remote, policy_local, policy_remote } => write!(
                f,
                "no subnets in common: offered {remote} to {local}, ours are {policy_remote} to {policy_local}"
            ),
            Self::NoCommonAlgorithms { peer } => write!(f, "{peer} offers no algorithms that we support"),
            Self::Malformed { peer, error } => write!(f, "{peer} sent something unreadable: {error}"),
            Self::Incomplete { peer, what } => write!(f, "{peer} sent no {what}"),
            Self::Crypto(error) => error.fmt(f),
            Self::Deleted { peer } => write!(f, "{peer} closed the connection"),
            Self::Replaced => f.write_str("replaced by a newer connection"),
            Self::Removed => f.write_str("no longer configured"),
            Self::ShutDown => f.write_str("shutting down"),
        }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for CertificateFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { of } => write!(f, "{of} sent no certificate"),
            Self::Expired { of, at } => write!(f, "certificate of {of} expired at {}", Utc(*at)),
            Self::NotYetValid { of, from } => {
                write!(f, "certificate of {of} is not valid before {}; is the clock right?", Utc(*from))
            }
            Self::OtherAuthority { of } => write!(f, "certificate of {of} is signed by another CA"),
            #[cfg(feature = "crl")]
            Self::Revoked { of } => write!(f, "certificate of {of} was revoked"),
            Self::OtherName { expected, presented } => {
                write!(f, "certificate is for {presented}, expected {expected}")
            }
            Self::NotAName { name } => write!(f, "{name} is not a DNS name"),
            Self::BadSignature { of } => write!(f, "{of} does not hold the key of its certificate"),
            Self::Other { of, error } => write!(f, "certificate of {of} is not acceptable: {error}"),
        }
    }
}

/// A unix time, in seconds, for people: `2026-11-20 08:00:00 UTC`.
#[derive(Clone, Copy, Debug)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Days since 0000-03-01, in eras of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_132_799, "2026-11-19 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(Utc(unix).to_string(), text);
        }
    }

    #[test]
    fn sentences() {
        let failure = Failure::NoAnswer { remote: "192.0.2.10:4500".parse().unwrap(), after: Duration::from_secs(60) };
        assert_eq!(failure.to_string(), "no answer from 192.0.2.10:4500 after 60 s");
        let failure = CertificateFailure::Expired { of: "beijing.edge-1".into(), at: 951_782_400 };
        assert_eq!(failure.to_string(), "certificate of beijing.edge-1 expired at 2000-02-29 00:00:00 UTC");
    }
}
