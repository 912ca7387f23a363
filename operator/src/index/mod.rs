//! From where the state of the cluster comes: a directory of manifests, or the watches of an API server. Reads; judges
//! nothing but the form.

mod directory;
mod listing;
mod objects;
mod watches;
mod written;
pub(crate) mod yaml;

pub(crate) use directory::{Directory, is_manifest};
#[cfg(test)]
pub(crate) use listing::Change;
pub(crate) use listing::Key;
pub(crate) use objects::{Kind, Objects, Seen};
pub(crate) use watches::{News, resource, start};
pub(crate) use written::{CONFIG_KEY, NODE_LABEL, Written, WrittenConfig, WrittenSecret, config, digest, key, secret};
