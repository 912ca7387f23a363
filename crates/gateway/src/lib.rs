//! The edge gateway's decisions: what a request says, which rule it meets, what becomes of it, and which endpoint gets it.
//! It opens no socket and reads no clock.
//!
//! ```text
//! bytes ─► http1, http2 ─► Request ─► Table::find ─► Rule ─► rewrite ─► Picker ─► endpoint
//! ```
//!
//! Pure: no files, no sockets, no clock; random numbers are parameters. What is read is bounded, and never panics.

mod balance;
mod edit;
mod fields;
mod hpack;
pub mod http1;
pub mod http2;
mod huffman;
mod map;
mod message;
mod pattern;
mod regex;
mod sni;
mod table;

pub use balance::{Choice, Endpoints, Picker, Port};
pub use edit::{answer, prepare, redirection};
pub use fields::Fields;
pub use map::Map;
pub use message::{Bad, Request, Response};
pub use sni::{Hello, server_name};
pub use table::{Found, Site, Table};

/// The longest head of a message that is read, in bytes.
pub const MAX_HEAD: usize = 32 << 10;

/// How many fields a head may have.
pub const MAX_FIELDS: usize = 100;
