//! What went wrong, as one sentence with its causes in order.

use std::fmt;
use std::io;

/// A failed operation: what was tried, then why it failed.
///
/// `Display` prints the whole chain, outermost first:
/// `add route 10.1.0.0/24 table 220: network is unreachable (ENETUNREACH)`. There is no
/// [`std::error::Error::source`], because the sentence already contains it.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    text: String,
    errno: Option<i32>,
}

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error in words, without an error number.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), errno: None }
    }

    /// A system error number with what the kernel said about it, if anything.
    pub(crate) fn kernel(errno: i32, detail: Option<&str>) -> Self {
        let mut text = describe(errno);
        if let Some(detail) = detail.filter(|d| !d.is_empty()) {
            text.push_str(": ");
            text.push_str(detail);
        }
        Self { text, errno: Some(errno) }
    }

    /// The system error number at the end of the chain (`libc::ENOENT`, …).
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// The kernel lacks the protocol, the address family or the operation. The numbers differ between architectures.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno, Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
    }

    /// Nobody listens there.
    pub fn is_refused(&self) -> bool {
        self.errno == Some(libc::ECONNREFUSED)
    }

    /// A file, or what a file stands for, is not there.
    pub fn is_not_found(&self) -> bool {
        self.errno == Some(libc::ENOENT)
    }

    /// The same error with what was tried put before it.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { text: format!("{what}: {}", self.text), errno: self.errno }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?})", self.text)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::kernel(errno, None),
            None => Self::new(error.to_string()),
        }
    }
}

/// Adds what was tried to a failure. The words are only made when there is one.
pub trait Context<T> {
    /// Puts `what()` before the error.
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context(what()))
    }
}

/// `no such file or directory (ENOENT)`.
fn describe(errno: i32) -> String {
    let full = io::Error::from_raw_os_error(errno).to_string();
    let words = full.split(" (os error").next().unwrap_or_default();
    let mut text = match words.as_bytes() {
        // "Network is…" becomes "network is…"; "RTNETLINK…" stays.
        [first, second, ..] if first.is_ascii_uppercase() && !second.is_ascii_uppercase() => {
            let mut text = words.to_owned();
            text[..1].make_ascii_lowercase();
            text
        }
        _ => words.to_owned(),
    };
    match NAMES.iter().find(|(number, _)| *number == errno) {
        Some((_, name)) => text.push_str(&format!(" ({name})")),
        None => text.push_str(&format!(" (errno {errno})")),
    }
    text
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

/// The numbers this crate's calls return; they differ between architectures.
const NAMES: &[(i32, &str)] = names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR
    EINVAL ENFILE EMFILE ENOTTY EFBIG ENOSPC EROFS EPIPE ERANGE ENAMETOOLONG ENOSYS ELOOP EPROTO EMSGSIZE
    EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT EOPNOTSUPP EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH
    ECONNREFUSED ECONNRESET ENOBUFS ENOTCONN ETIMEDOUT EHOSTUNREACH EALREADY
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_reads_outermost_first() {
        let error = Error::kernel(libc::ENETUNREACH, Some("Nexthop has invalid gateway"));
        let error = error.context("add route 10.1.0.0/24 dev selvedge0 table 220");
        let text = error.to_string();
        assert!(text.starts_with("add route 10.1.0.0/24 dev selvedge0 table 220: network "), "{text}");
        assert!(text.ends_with("unreachable (ENETUNREACH): Nexthop has invalid gateway"), "{text}");
        assert_eq!(error.errno(), Some(libc::ENETUNREACH));
    }

    #[test]
    fn io_errors_keep_their_number() {
        let error: Error = io::Error::from_raw_os_error(libc::ENOENT).into();
        assert_eq!(error.to_string(), "no such file or directory (ENOENT)");
        let result: Result<()> = Err(io::Error::other("odd")).context(|| "read x");
        let error = result.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.errno()), ("read x: odd", None));
    }

    #[test]
    fn unknown_number_is_shown() {
        assert!(Error::kernel(4000, None).to_string().ends_with("(errno 4000)"));
    }
}
