//! Why packets are dropped, counted.

use crate::{OpenError, SealError};
use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of [`Drops`].
            pub const ALL: &[DropReason] = &[$(DropReason::$name),*];

            /// The reason in words, for counters a person reads.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Outbound: neither IPv4 nor IPv6.
    NotIp = "not an IP packet",
    /// Outbound: no peer has a prefix around the destination.
    NoRoute = "no peer for the destination",
    /// Outbound: the peer is known, but no Security Association towards it is up.
    NoSa = "no security association",
    /// Outbound: the Security Association has no sequence numbers left.
    Exhausted = "sequence numbers exhausted",
    /// Outbound: larger than the buffers.
    TooLong = "packet too long",
    /// Outbound: the network refused the ESP packet.
    NotSent = "not sent",
    /// Inbound: too short for ESP.
    Short = "too short for ESP",
    /// Inbound: no Security Association has this SPI.
    UnknownSpi = "unknown SPI",
    /// Inbound: a sequence number seen before or too old.
    Replayed = "replayed",
    /// Inbound: the ICV does not match.
    Unauthentic = "not authentic",
    /// Inbound: a dummy packet.
    Dummy = "dummy packet",
    /// Inbound: authentic, but no proper inner packet.
    Malformed = "malformed inner packet",
    /// Inbound: the inner source address is outside the peer's prefixes.
    ForeignSource = "source outside the peer's prefixes",
    /// Inbound: the TUN device refused the inner packet.
    NotTaken = "not taken by the TUN device",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl From<SealError> for DropReason {
    fn from(error: SealError) -> Self {
        match error {
            SealError::NotIp => DropReason::NotIp,
            SealError::NoRoom => DropReason::TooLong,
            SealError::Exhausted => DropReason::Exhausted,
        }
    }
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Short => DropReason::Short,
            OpenError::WrongSpi => DropReason::UnknownSpi,
            OpenError::Replayed => DropReason::Replayed,
            OpenError::Unauthentic => DropReason::Unauthentic,
            OpenError::Dummy => DropReason::Dummy,
            OpenError::Malformed => DropReason::Malformed,
        }
    }
}

/// One counter per [`DropReason`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Packets dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason that happened, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().copied().zip(self.0).filter(|(_, count)| *count > 0)
    }

    pub(crate) fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&mut self, reason: DropReason, packets: usize) {
        self.0[reason as usize] += packets as u64;
    }
}

impl FromIterator<(DropReason, u64)> for Drops {
    fn from_iter<I: IntoIterator<Item = (DropReason, u64)>>(counts: I) -> Self {
        let mut drops = Drops::default();
        for (reason, count) in counts {
            let total = &mut drops.0[reason as usize];
            *total = total.saturating_add(count);
        }
        drops
    }
}
