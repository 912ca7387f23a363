//! What Kubernetes APIs near a node say, and what of it can be believed: MetaServer, lite-apiserver, yurthub and plain API
//! servers. It asks nobody itself.
//!
//! ```text
//! status and body of an answer ─► judge ─► ListReader, Lines ─► Store, One ─► Services
//! ```
//!
//! Pure: no files, no sockets, no clock. What is read is bounded in size and depth, and never panics.

mod answer;
mod backoff;
mod base64;
mod endpoint_slice;
mod event;
mod flavour;
mod lines;
mod list;
mod object;
mod one;
mod owned;
mod service;
mod store;
mod view;

pub use answer::{Head, Verdict, judge};
pub use backoff::Backoff;
pub use endpoint_slice::{EndpointSlice, Port, RawEndpointSlice, SliceEndpoint};
pub use event::Event;
pub use flavour::{Flavour, Pace};
pub use lines::Lines;
pub use list::{ListHead, ListReader};
pub use object::{Key, Meta, Object, Problem};
pub use one::{Found, One, is_online};
pub use owned::{ConfigMap, Secret};
pub use service::{RawService, Service};
pub use store::{Believed, Listing, Store};
pub use view::{View, read_kept, serve};

/// The longest object that is read, in bytes: etcd takes 1.5 MiB.
pub const MAX_OBJECT_BYTES: usize = 2 << 20;

/// The longest answer that holds no objects.
pub const MAX_STATUS_BYTES: usize = 64 << 10;
