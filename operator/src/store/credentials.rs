//! The `tls` folder of a node.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::folder::{self, Content};
use crate::authority::Credentials;

/// Nobody gets past the folder here. Copied into a folder on the node that is shared with the agent's group (setgid), it
/// is readable for the agent, too.
const KEY_MODE: u32 = 0o640;

/// Certificates of the edge gateway, with their keys.
const GATEWAY: &str = "gateway.pem";

/// What is in the folder; `None` if anything is missing or unreadable.
pub(super) fn read(directory: &Path) -> Option<Credentials> {
    let mut files =
        folder::read(directory, &[("tls.key", KEY_MODE), (GATEWAY, KEY_MODE)], &["ca.crt", "tls.crt", "tls.key"])?;
    Some(Credentials {
        ca: files.remove("ca.crt")?,
        certificate: files.remove("tls.crt")?,
        key: files.remove("tls.key")?,
        crl: files.remove("crl.pem"),
    })
}

/// The certificates of the node's gateway; empty if it was given none.
pub(super) fn read_gateway(directory: &Path) -> String {
    let files = folder::read(directory, &[], &[GATEWAY]);
    files.and_then(|mut files| files.remove(GATEWAY)).unwrap_or_default()
}

/// Replaces all files at once, with the certificates of the node's gateway if it has any. `version` is a new name for them.
pub(super) fn write(directory: &Path, credentials: &Credentials, gateway: &str, version: &str) -> io::Result<()> {
    let public = |text| Content { text, mode: 0o644 };
    let mut files = BTreeMap::from([
        ("ca.crt", public(&credentials.ca)),
        ("tls.crt", public(&credentials.certificate)),
        ("tls.key", Content { text: &credentials.key, mode: KEY_MODE }),
    ]);
    files.extend(credentials.crl.as_deref().map(|crl| ("crl.pem", public(crl))));
    if !gateway.is_empty() {
        files.insert(GATEWAY, Content { text: gateway, mode: KEY_MODE });
    }
    folder::write(directory, &files, version)
}
