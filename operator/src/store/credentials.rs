//! The `tls` folder of a node.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::folder::{self, Content};
use crate::authority::Credentials;

/// Nobody gets past the folder here. Copied into a folder on the node that is shared with the agent's group (setgid), it
/// is readable for the agent, too.
const KEY_MODE: u32 = 0o640;

/// What is in the folder; `None` if anything is missing or unreadable.
pub(super) fn read(directory: &Path) -> Option<Credentials> {
    let mut files = folder::read(directory, &[("tls.key", KEY_MODE)], &["ca.crt", "tls.crt", "tls.key"])?;
    Some(Credentials {
        ca: files.remove("ca.crt")?,
        certificate: files.remove("tls.crt")?,
        key: files.remove("tls.key")?,
        crl: files.remove("crl.pem"),
    })
}

/// Replaces all files at once. `version` is a new name for them.
pub(super) fn write(directory: &Path, credentials: &Credentials, version: &str) -> io::Result<()> {
    let public = |text| Content { text, mode: 0o644 };
    let mut files = BTreeMap::from([
        ("ca.crt", public(&credentials.ca)),
        ("tls.crt", public(&credentials.certificate)),
        ("tls.key", Content { text: &credentials.key, mode: KEY_MODE }),
    ]);
    files.extend(credentials.crl.as_deref().map(|crl| ("crl.pem", public(crl))));
    folder::write(directory, &files, version)
}
