//! `poll(2)`: waiting on several descriptors without a runtime.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::sys;

/// A descriptor to wait for, and what became of it.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Interest(libc::pollfd);

impl Interest {
    /// Waits until `fd` can be read without blocking, or is at its end.
    pub fn readable(fd: &impl AsRawFd) -> Self {
        Self::new(fd.as_raw_fd(), libc::POLLIN)
    }

    /// Waits until `fd` can be written without blocking, too.
    #[must_use]
    pub fn or_writable(mut self) -> Self {
        self.0.events |= libc::POLLOUT;
        self
    }

    /// A place that is never ready, to keep positions when there is nothing to wait for.
    pub fn none() -> Self {
        Self::new(-1, 0)
    }

    /// Reading would not block now: data, end or error.
    pub fn is_readable(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Writing would not block now: room or error.
    pub fn is_writable(&self) -> bool {
        self.0.revents & (libc::POLLOUT | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    fn new(fd: RawFd, events: libc::c_short) -> Self {
        Self(libc::pollfd { fd, events, revents: 0 })
    }
}

/// Waits until one of `interests` is ready, a signal comes or `timeout` (`None`: for ever) is over. Returns how many
/// are ready: 0 after a signal or the timeout.
pub fn poll(interests: &mut [Interest], timeout: Option<Duration>) -> io::Result<usize> {
    // Rounded up, so that a caller whose time has not quite come does not spin.
    let millis = match timeout {
        None => -1,
        Some(t) => libc::c_int::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX),
    };
    let count = libc::nfds_t::try_from(interests.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: Interest is a transparent pollfd, and `interests` holds `count` of them.
    let ready = sys::check(unsafe { libc::poll(interests.as_mut_ptr().cast(), count, millis) });
    match ready {
        Ok(ready) => Ok(usize::try_from(ready).unwrap_or(0)),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {
            interests.iter_mut().for_each(|i| i.0.revents = 0);
            Ok(0)
        }
        Err(e) => Err(e),
    }
}
