//! A timer that can be waited for like a socket.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::sys;

/// Readable once its time has come; by the steady clock, which stands still while the machine sleeps.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// One that is not set.
    pub fn new() -> Result<Self> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        let fd = sys::check(fd).context(|| "make a timer")?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Its time comes after `pause`, or never. What came before is forgotten.
    pub fn set(&self, pause: Option<Duration>) -> Result<()> {
        // Zero would mean never.
        let pause = pause.map_or(Duration::ZERO, |pause| pause.max(Duration::from_nanos(1)));
        // SAFETY: zeros are valid in all of its fields, which are integers.
        let mut spec: libc::itimerspec = unsafe { std::mem::zeroed() };
        spec.it_value.tv_sec = pause.as_secs().try_into().unwrap_or(i32::MAX.into());
        // Below a thousand million, which fits on every architecture.
        spec.it_value.tv_nsec = pause.subsec_nanos() as _;
        // SAFETY: `spec` is readable for the length of the call, and nothing is to be written.
        let done = unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
        sys::check(done).context(|| "set a timer").map(drop)
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}
