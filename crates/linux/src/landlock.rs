//! Landlock: a program gives up files for itself and for all that it starts, for good (Linux 5.13).
//!
//! Applies to the calling thread: it is meant for a program that has no other threads yet. What is open already stays
//! usable.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::error::{Context, Result};
use crate::sys;

/// What is allowed at a path and below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read files and folders and start programs.
    Read,
    /// Read, write, make and remove files, folders and sockets, but start no programs.
    Write,
    /// Read, write and control a device.
    Device,
}

/// TCP, where the kernel can tell it apart (Linux 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tcp {
    /// As before.
    Allowed,
    /// No more ports are bound or connected to.
    Denied,
}

/// `LANDLOCK_ACCESS_FS_*` of `linux/landlock.h`, and the version of the interface that brought each.
mod fs {
    pub(super) const EXECUTE: u64 = 1 << 0;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    pub(super) const REMOVE_DIR: u64 = 1 << 4;
    pub(super) const REMOVE_FILE: u64 = 1 << 5;
    pub(super) const MAKE_DIR: u64 = 1 << 7;
    pub(super) const MAKE_REG: u64 = 1 << 8;
    pub(super) const MAKE_SOCK: u64 = 1 << 9;
    pub(super) const TRUNCATE: u64 = 1 << 14;
    pub(super) const IOCTL_DEV: u64 = 1 << 15;

    /// Rights that a rule on something else than a folder may give.
    pub(super) const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

    /// All rights that a version knows.
    pub(super) fn known(version: u32) -> u64 {
        let count = match version {
            0 | 1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << count) - 1
    }
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// The version of the interface that this kernel has; `None` without Landlock, or where it is switched off.
pub fn version() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`
    const VERSION: libc::c_uint = 1;
    let (none, size): (*const RulesetAttr, libc::size_t) = (std::ptr::null(), 0);
    // SAFETY: with this flag the kernel reads nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, size, VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Allows this thread and what it starts only what the rules say, as far as this kernel can hold it to that, and no
/// signals or abstract sockets to processes outside. Returns the version of the interface, or `None` if the kernel has
/// none and nothing is held.
///
/// A path that is not there gets no rule; one that is made later is not allowed. A rule follows its folder when that is
/// renamed. Needs `no_new_privs`, see [`crate::capabilities::keep_only`].
pub fn restrict<'a>(rules: impl IntoIterator<Item = (&'a Path, Access)>, tcp: Tcp) -> Result<Option<u32>> {
    let Some(version) = version() else { return Ok(None) };
    let ruleset = create(version, tcp).context(|| "make a Landlock ruleset")?;
    for (path, access) in rules {
        let Ok(at) = sys::open_path(path, 0) else { continue };
        allow(&ruleset, version, &at, access).context(|| format!("allow {} in Landlock", path.display()))?;
        if path.starts_with("/proc") {
            // The rule is the inode's, and there it lives only as long as somebody looks at it.
            std::mem::forget(at);
        }
    }
    // SAFETY: takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    sys::check_size(done as libc::ssize_t).context(|| "restrict this program by Landlock")?;
    Ok(Some(version))
}

fn create(version: u32, tcp: Tcp) -> std::io::Result<OwnedFd> {
    /// `LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP`, version 4.
    const TCP: u64 = 3;
    /// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL`, version 6.
    const SCOPES: u64 = 3;
    let attributes = RulesetAttr {
        handled_access_fs: fs::known(version),
        handled_access_net: if version >= 4 && tcp == Tcp::Denied { TCP } else { 0 },
        scoped: if version >= 6 { SCOPES } else { 0 },
    };
    // An older kernel takes a longer structure as long as what it does not know is zero.
    let size = std::mem::size_of_val(&attributes);
    // SAFETY: the kernel reads `size` bytes of `attributes`.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0) };
    let fd = sys::check(fd as libc::c_int)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn allow(ruleset: &OwnedFd, version: u32, at: &File, access: Access) -> std::io::Result<()> {
    /// `LANDLOCK_RULE_PATH_BENEATH`
    const PATH_BENEATH: libc::c_int = 1;
    let read = fs::READ_FILE | fs::READ_DIR;
    let rights = match access {
        Access::Read => read | fs::EXECUTE,
        Access::Write => {
            let made = fs::MAKE_DIR | fs::MAKE_REG | fs::MAKE_SOCK;
            read | made | fs::WRITE_FILE | fs::TRUNCATE | fs::REMOVE_DIR | fs::REMOVE_FILE
        }
        Access::Device => fs::READ_FILE | fs::WRITE_FILE | fs::IOCTL_DEV,
    };
    let possible = if at.metadata()?.is_dir() { u64::MAX } else { fs::OF_FILES };
    let rule = PathBeneathAttr { allowed_access: rights & possible & fs::known(version), parent_fd: at.as_raw_fd() };
    // SAFETY: the kernel reads one `landlock_path_beneath_attr`.
    let done =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0) };
    sys::check(done as libc::c_int).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!(std::mem::size_of::<RulesetAttr>(), 24);
        assert_eq!(std::mem::size_of::<PathBeneathAttr>(), 12);
        assert_eq!(fs::known(1), 0x1fff);
        assert_eq!(fs::known(7), 0xffff);
    }
}
