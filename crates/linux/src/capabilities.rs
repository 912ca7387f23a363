//! What this thread may do.

use crate::error::{Context, Error, Result};

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

/// Whether the capability is in the effective set of this thread.
pub fn has(capability: Capability) -> Result<bool> {
    let path = "/proc/thread-self/status";
    let status = std::fs::read_to_string(path).context(|| path)?;
    let set = effective(&status).ok_or_else(|| Error::new(format!("{path}: no CapEff")))?;
    Ok(set & (1 << capability as u8) != 0)
}

fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_set_is_read() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000003400\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(effective(status), Some(1 << 10 | 1 << 12 | 1 << 13));
        assert_eq!(effective("CapEff:\tzz\n"), None);
        assert!(has(Capability::NetAdmin).is_ok());
    }
}
