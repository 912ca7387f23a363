//! From where the state of the cluster comes: a directory of manifests, or the watches of an API server. Reads; judges
//! nothing but the form.

mod directory;
mod yaml;

pub(crate) use directory::{Directory, is_manifest};
