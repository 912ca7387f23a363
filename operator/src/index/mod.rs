//! From where the state of the cluster comes: a directory of manifests, or the watches of an API server. Reads; judges
//! nothing but the form.

mod directory;
mod listing;
mod objects;
mod watches;
mod written;
pub(crate) mod yaml;

pub(crate) use directory::{Directory, is_manifest};
pub(crate) use listing::{Change, Key, Listing};
pub(crate) use objects::{Kind, Objects, Seen};
pub(crate) use watches::{News, follow, resource, start};
pub(crate) use written::{
    CONFIG_KEY, NODE_LABEL, NODE_PREFIX, PACKED_KEY, Written, WrittenConfig, WrittenSecret, config, key, secret,
};
