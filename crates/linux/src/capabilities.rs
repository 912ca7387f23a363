//! What this thread and the programs it starts may do.
//!
//! Everything here is given up for good, and by the calling thread alone: it is meant for a program that has no other
//! threads yet.

use crate::error::{Context, Error, Result};
use crate::sys;
use crate::user::User;

/// Numbers of `linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Ports below 1024.
    NetBindService = 10,
    /// Routes, xfrm, firewall, TUN.
    NetAdmin = 12,
    /// Raw sockets.
    NetRaw = 13,
    /// Namespaces, mounts.
    SysAdmin = 21,
}

impl Capability {
    /// Its name in `linux/capability.h`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        }
    }

    fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Whether the capability is in the effective set of this thread.
pub fn has(capability: Capability) -> Result<bool> {
    Ok(own("CapEff")? & capability.bit() != 0)
}

/// Gives up every capability but those of `keep`; of these stays what was there before. As another user than root they
/// are ambient, so that programs started later have them too. No such program can gain anything by being setuid.
///
/// With `user`, which needs root, the thread becomes that user, with the user's own group and no other.
///
/// The bounding set is reduced as well if `CAP_SETPCAP` allows it. Ambient capabilities need Linux 4.3.
pub fn keep_only(keep: &[Capability], user: Option<&User>) -> Result<()> {
    let keep: u64 = keep.iter().fold(0, |set, capability| set | capability.bit()) & own("CapPrm")?;
    let given_up = own("CapBnd")? & !keep;
    for number in (0..64).filter(|number| given_up >> number & 1 == 1) {
        // Without the right to do so the set stays; nothing can be gained from it after what follows.
        let _ = prctl(libc::PR_CAPBSET_DROP, number, 0);
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).context(|| "give up new privileges")?;
    if let Some(user) = user {
        prctl(libc::PR_SET_KEEPCAPS, 1, 0).context(|| "keep capabilities")?;
        user.assume()?;
    }
    let root = User::is_root();
    // Root's programs get theirs from the bounding set.
    set(keep, if root { 0 } else { keep }).context(|| "give up capabilities")?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)
        .context(|| "give up ambient capabilities")?;
    for number in (0..64).filter(|number| !root && keep >> number & 1 == 1) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number)
            .context(|| "keep capabilities for other programs")?;
    }
    Ok(())
}

/// A set of this thread by its name in `/proc/PID/status`.
fn own(name: &str) -> Result<u64> {
    let path = "/proc/thread-self/status";
    let status = std::fs::read_to_string(path).context(|| path)?;
    named(&status, name).ok_or_else(|| Error::new(format!("{path}: no {name}")))
}

fn named(status: &str, name: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> std::io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used here take integers only.
    sys::check(unsafe { libc::prctl(option, first, second, none, none) }).map(drop)
}

/// Makes the permitted and effective set `own`, and the inheritable one.
fn set(own: u64, inheritable: u64) -> std::io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    unsafe extern "C" {
        /// Both C libraries have it; the crate `libc` declares neither it nor its number everywhere.
        fn capset(header: *const u32, data: *const u32) -> libc::c_int;
    }
    let header = [VERSION, 0];
    let mut data = [0; 6];
    for (half, words) in data.chunks_exact_mut(3).enumerate() {
        let word = |set: u64| (set >> (32 * half)) as u32;
        words.copy_from_slice(&[word(own), word(own), word(inheritable)]);
    }
    // SAFETY: version 3 reads two words of header, the second being the thread (0: this one), and six of data.
    sys::check(unsafe { capset(header.as_ptr(), data.as_ptr()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000003400\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(named(status, "CapEff"), Some(1 << 10 | 1 << 12 | 1 << 13));
        assert_eq!(named("CapEff:\tzz\n", "CapEff"), None);
        assert_eq!(named(status, "Cap"), None);
        assert!(has(Capability::NetAdmin).is_ok());
    }
}
