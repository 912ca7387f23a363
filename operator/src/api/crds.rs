//! The definitions of our kinds, for `kubectl apply -f`.

use kube::CustomResourceExt;

use super::cluster::Cluster;
use super::community::Community;
use super::outpost::Outpost;

/// Plural and YAML of each definition.
pub(crate) fn definitions() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    let crds = [("clusters", Cluster::crd()), ("communities", Community::crd()), ("outposts", Outpost::crd())];
    crds.into_iter().map(|(plural, crd)| Ok((plural, serde_saphyr::to_string(&crd)?))).collect()
}

#[cfg(test)]
mod tests;
