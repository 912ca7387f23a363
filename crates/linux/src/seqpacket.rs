//! Unix sockets that keep message boundaries (`SOCK_SEQPACKET`), between processes of one user.
//!
//! Root may be at either end, too, and so may a user to whom root has given the socket. Root itself trusts whoever
//! listens in a folder that nobody but root or the listener can change.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::sys;
use crate::user::User;

/// The largest message that may be sent; it fits the default socket buffers.
pub const MAX_MESSAGE: usize = 65_536;

/// A listening socket. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// The socket's file, by a descriptor: its folder may become another's.
    file: File,
}

/// One end of a connection, non-blocking.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
}

impl Listener {
    /// Listens at `path`, readable and writable for this user only.
    ///
    /// A file left by a process that is gone is replaced; a listener that is alive gives `EADDRINUSE`.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bind = || -> io::Result<Self> {
            let fd = open()?;
            let (address, len) = address(path)?;
            let attempt = || {
                // SAFETY: `address` is a socket address of `len` bytes.
                sys::check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })
            };
            if let Err(error) = attempt() {
                let stale = error.raw_os_error() == Some(libc::EADDRINUSE)
                    && connect(path).is_err_and(|e| e.raw_os_error() == Some(libc::ECONNREFUSED));
                if !stale {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                attempt()?;
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            // SAFETY: takes no pointers.
            sys::check(unsafe { libc::listen(fd.as_raw_fd(), 8) })?;
            let file = sys::open_path(path, libc::O_NOFOLLOW)?;
            Ok(Self { fd, path: path.to_owned(), file })
        };
        bind().context(|| format!("listen on {}", path.display()))
    }

    /// Takes the next waiting connection. One from a foreign user is closed and reported as an error.
    pub fn accept(&self) -> Result<Option<Connection>> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: null address and length are allowed.
        let accepted = sys::retry(|| {
            sys::check(unsafe { libc::accept4(self.fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) })
        });
        let fd = match accepted {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other.context(|| format!("accept on {}", self.path.display()))?,
        };
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let connection = Connection { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        // It is ours, unless root has changed that.
        let given_to = self.file.metadata().map(|data| data.uid()).ok();
        connection.check_user(given_to).context(|| format!("accept on {}", self.path.display()))?;
        Ok(Some(connection))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A successor may have replaced the file by its own; that one stays.
        let identity = |data: std::io::Result<std::fs::Metadata>| data.map(|data| (data.dev(), data.ino())).ok();
        if identity(std::fs::symlink_metadata(&self.path)) == identity(self.file.metadata()) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Connection {
    /// Connects to the listener at `path`, which must not be a foreign user's.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let what = || format!("connect to {}", path.display());
        let connection = Self { fd: connect(path).context(what)? };
        let folder = path.parent().filter(|_| User::is_root()).and_then(|folder| std::fs::metadata(folder).ok());
        let trusted = folder.filter(|data| data.mode() & 0o022 == 0).map(|data| data.uid());
        if trusted != Some(0) {
            connection.check_user(trusted).context(what)?;
        }
        Ok(connection)
    }

    /// Sends one message of 1 to [`MAX_MESSAGE`] octets, whole or not at all; `WouldBlock` when the other end does
    /// not read.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        if message.is_empty() || message.len() > MAX_MESSAGE {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        sys::send(self.fd.as_fd(), message).map(drop)
    }

    /// Takes one message: its length, or 0 when the other end is gone. `WouldBlock` when there is none.
    ///
    /// A message longer than `buffer` is an error (`EMSGSIZE`) and lost.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = sys::recv(self.fd.as_fd(), buffer, libc::MSG_TRUNC)?;
        if len > buffer.len() { Err(io::Error::from_raw_os_error(libc::EMSGSIZE)) } else { Ok(len) }
    }

    fn check_user(&self, trusted: Option<u32>) -> Result<()> {
        let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: 0 };
        let mut len = std::mem::size_of_val(&peer) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes into `peer`.
        sys::check(unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &mut len)
        })?;
        // SAFETY: takes no arguments and cannot fail.
        let own = unsafe { libc::geteuid() };
        if peer.uid == own || peer.uid == 0 || Some(peer.uid) == trusted {
            return Ok(());
        }
        Err(Error::new(format!("the other end runs as user {}, not as {own}", peer.uid)))
    }
}

fn open() -> io::Result<OwnedFd> {
    sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, 0)
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let fd = open()?;
    let (address, len) = address(path)?;
    // SAFETY: `address` is a socket address of `len` bytes.
    sys::retry(|| sys::check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), len) }))?;
    Ok(fd)
}

/// The path as a socket address; too long (over 107 octets) or empty is an error.
fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((address, std::mem::size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

macro_rules! as_fd {
    ($($kind:ty)*) => {$(
        impl AsRawFd for $kind {
            fn as_raw_fd(&self) -> RawFd {
                self.fd.as_raw_fd()
            }
        }

        impl AsFd for $kind {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }
    )*};
}
as_fd!(Listener Connection);
