//! The `tls` directory of a node, laid out as Kubernetes lays out a mounted Secret:
//!
//! ```text
//! tls/..data -> ..5f3a09c2…        swapped in one step
//! tls/..5f3a09c2…/{ca.crt,tls.crt,tls.key}
//! tls/ca.crt -> ..data/ca.crt      and so the others
//! ```
//!
//! So certificate and key change together, and a reader needs one way for both sources.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::atomic;
use crate::authority::Credentials;

const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
const DATA: &str = "..data";

/// Nobody gets past the folder here. Copied into a folder on the node that is shared with the agent's group (setgid), it
/// is readable for the agent, too.
const KEY_MODE: u32 = 0o640;

/// What is in the directory; `None` if anything is missing or unreadable. Modes that were loosened are set right.
pub(super) fn read(directory: &Path) -> Option<Credentials> {
    let data = directory.join(DATA);
    for (path, mode) in [(directory, 0o700), (&data, 0o700), (&data.join("tls.key"), KEY_MODE)] {
        atomic::set_mode(path, mode).ok()?;
    }
    let read = |name: &str| fs::read_to_string(data.join(name)).ok();
    let whole = FILES
        .iter()
        .all(|name| fs::read_link(directory.join(name)).is_ok_and(|target| target == Path::new(DATA).join(name)));
    if !whole {
        return None;
    }
    Some(Credentials { ca: read("ca.crt")?, certificate: read("tls.crt")?, key: read("tls.key")? })
}

/// Replaces all three files at once. `version` is a new name for them.
pub(super) fn write(directory: &Path, credentials: &Credentials, version: &str) -> io::Result<()> {
    atomic::directory(directory, 0o700)?;
    let version = format!("..{version}");
    let fresh = directory.join(&version);
    atomic::directory(&fresh, 0o700)?;
    atomic::create(&fresh.join("ca.crt"), credentials.ca.as_bytes(), 0o644)?;
    atomic::create(&fresh.join("tls.crt"), credentials.certificate.as_bytes(), 0o644)?;
    atomic::create(&fresh.join("tls.key"), credentials.key.as_bytes(), KEY_MODE)?;
    atomic::sync_directory(&fresh)?;
    link(directory, &version, DATA)?;
    for name in FILES {
        let target = format!("{DATA}/{name}");
        if fs::read_link(directory.join(name)).ok().is_none_or(|old| old != Path::new(&target)) {
            link(directory, &target, name)?;
        }
    }
    atomic::sync_directory(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("..") && name != DATA && name != version && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Makes or swaps a link in one step.
fn link(directory: &Path, target: &str, name: &str) -> io::Result<()> {
    let temporary = directory.join("..link_tmp");
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(target, &temporary)?;
    fs::rename(&temporary, directory.join(name))
}
