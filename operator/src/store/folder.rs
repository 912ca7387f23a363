//! A folder whose files change together, laid out as Kubernetes lays out a mounted Secret:
//!
//! ```text
//! tls/..data -> ..5f3a09c2…        swapped in one step
//! tls/..5f3a09c2…/{ca.crt,tls.crt,tls.key}
//! tls/ca.crt -> ..data/ca.crt      and so the others
//! ```
//!
//! So certificate and key never disagree, and a reader needs one way for both sources.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::atomic;

const DATA: &str = "..data";

/// The text of a file and its mode.
pub(super) struct Content<'a> {
    pub(super) text: &'a str,
    pub(super) mode: u32,
}

/// The texts of all files in the folder; `None` if one of those named is missing or any is unreadable. Modes that were
/// loosened are set right.
pub(super) fn read(directory: &Path, modes: &[(&str, u32)], required: &[&str]) -> Option<BTreeMap<String, String>> {
    let data = directory.join(DATA);
    for path in [directory, &data] {
        atomic::set_mode(path, 0o700).ok()?;
    }
    let linked =
        |name: &str| fs::read_link(directory.join(name)).is_ok_and(|target| target == Path::new(DATA).join(name));
    if !required.iter().all(|name| linked(name)) {
        return None;
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&data).ok()? {
        let name = entry.ok()?.file_name().to_string_lossy().into_owned();
        let path = data.join(&name);
        if let Some((_, mode)) = modes.iter().find(|(file, _)| *file == name) {
            atomic::set_mode(&path, *mode).ok()?;
        }
        files.insert(name, fs::read_to_string(path).ok()?);
    }
    required.iter().all(|name| files.contains_key(*name)).then_some(files)
}

/// Replaces all files at once. `version` is a new name for them.
pub(super) fn write(directory: &Path, files: &BTreeMap<&str, Content<'_>>, version: &str) -> io::Result<()> {
    atomic::directory(directory, 0o700)?;
    let version = format!("..{version}");
    let fresh = directory.join(&version);
    atomic::directory(&fresh, 0o700)?;
    for (name, content) in files {
        atomic::create(&fresh.join(name), content.text.as_bytes(), content.mode)?;
    }
    atomic::sync_directory(&fresh)?;
    link(directory, &version, DATA)?;
    for name in files.keys() {
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
        } else if !files.contains_key(name.as_str())
            && fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(DATA).join(&name))
        {
            fs::remove_file(entry.path())?;
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
