//! ESP packets in user space (RFC 4303, tunnel mode) and which Security Association carries which packet; it opens no
//! sockets, reads no clock and draws no randomness.
//!
//! ```text
//!  inner packet ─► SaTable::route ─► SaTable::seal ─► ESP packet       (to Route::remote in UDP)
//!  ESP packet   ─► SaTable::open  ─► inner packet                      (source checked against the peer's prefixes)
//!  TUN frame    ─► offload::segment ─► inner packets ─► … ─► offload::Coalescer ─► TUN frame
//! ```
//!
//! An ESP packet is laid out in one buffer, sealed and opened in place:
//!
//! ```text
//!  0        4          8          16 = HEADROOM
//!  | SPI    | sequence | IV (8)   | inner packet | padding | pad length | next header | ICV (16) |
//! ```

mod drops;
mod inbound;
mod inner;
pub mod offload;
mod outbound;
mod prefixes;
mod replay;
mod suite;
mod table;

pub use drops::{DropReason, Drops};
pub use inbound::{InboundSa, OpenError};
pub use inner::{destination, source};
pub use outbound::{OutboundSa, SealError};
pub use prefixes::PrefixTable;
pub use replay::{ReplayWindow, WINDOW};
pub use suite::{SaError, Suite};
pub use table::{Event, Install, InstallError, Opened, PairStatus, PeerPrefixes, PeerStatus, Route, SaTable, Traffic};

/// Bytes in front of the inner packet: SPI, sequence number and IV.
pub const HEADROOM: usize = 16;

/// Most bytes behind the inner packet: three of padding, pad length, next header and the ICV.
pub const TAILROOM: usize = 3 + 2 + ICV;

/// Length of the integrity check value (RFC 4106 section 6, RFC 7634 section 2).
const ICV: usize = 16;
