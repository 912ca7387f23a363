//! What the tests share. They run as root, each in a network namespace of its own.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// Held by whoever runs a program: in its first moments a new process has a copy of every open descriptor.
static FORKS: RwLock<()> = RwLock::new(());

/// While this is held, closing a descriptor is the end of it, because no copy is on its way to another program.
pub fn no_forks() -> RwLockWriteGuard<'static, ()> {
    FORKS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Moves this test's thread, and the programs it starts, into a fresh namespace with loopback up.
pub fn fresh_namespace() {
    selvedge_linux::netns::unshare().unwrap();
    sh("ip link set lo up");
}

/// Runs a shell command that must succeed and returns what it printed.
pub fn sh(command: &str) -> String {
    let _forking = FORKS.read().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Waits until the kernel has made `ip` an address of this namespace: for IPv6 it does so in the background.
pub fn until_local(ip: &str) {
    sh(&format!("until ip route get {ip} 2>/dev/null | grep -q ^local; do :; done"));
}
