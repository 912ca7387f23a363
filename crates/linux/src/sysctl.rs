//! Kernel settings below `/proc/sys`, of the current network namespace where they have one.

use std::path::PathBuf;

use crate::error::{Context, Error, Result};

/// Where settings of the network are, the second in containers: there the first is read-only, and the node's own may be
/// mounted beside it.
#[cfg(feature = "pod")]
pub const FOLDERS: [&str; 2] = ["/proc/sys/net", "/host/proc/sys/net"];
/// Where settings of the network are.
#[cfg(not(feature = "pod"))]
pub const FOLDERS: [&str; 1] = ["/proc/sys/net"];

/// The value of `key`, without the line end. Keys are paths, as `net/ipv4/conf/eth0.1/rp_filter`, because device names
/// may contain dots.
pub fn get(key: &str) -> Result<String> {
    let text = std::fs::read_to_string(path(key)?).context(|| format!("read sysctl {key}"))?;
    Ok(text.trim_end().to_owned())
}

/// Gives `key` this value. Returns whether it had another one; it is not written otherwise, so that it works where
/// `/proc/sys` is read-only and already right.
pub fn set(key: &str, value: &str) -> Result<bool> {
    if get(key)? == value {
        return Ok(false);
    }
    std::fs::write(writable(key)?, value).context(|| format!("set sysctl {key} = {value}"))?;
    Ok(true)
}

/// Whether `key` is there and could be given another value: not where `/proc/sys` is read-only.
pub fn is_writable(key: &str) -> bool {
    writable(key).is_ok_and(|path| std::fs::File::options().write(true).open(path).is_ok())
}

#[cfg(not(feature = "pod"))]
use path as writable;

/// Where `key` can be written, or would have to be.
#[cfg(feature = "pod")]
fn writable(key: &str) -> Result<PathBuf> {
    let usual = path(key)?;
    let beside = PathBuf::from("/host").join(usual.strip_prefix("/").unwrap_or(&usual));
    Ok(if beside.exists() { beside } else { usual })
}

fn path(key: &str) -> Result<PathBuf> {
    if key.is_empty() || key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::new(format!("{key:?} is not a sysctl key")));
    }
    Ok(PathBuf::from("/proc/sys").join(key))
}
