//! Notice when a file gets other content, however it is replaced.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::sys;

/// `linux/inotify.h`: an event's header before its name.
const HEADER: usize = 16;

const CHANGES: u32 = libc::IN_CLOSE_WRITE
    | libc::IN_MOVED_TO
    | libc::IN_MOVED_FROM
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF;

/// A watch on the directory of one file, non-blocking.
///
/// It sees writes, atomic renames onto the file and the swap of the `..data` link by which Kubernetes updates a
/// mounted ConfigMap or Secret.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    directory: PathBuf,
    name: OsString,
}

impl Watch {
    /// Watches `file`, which need not exist; its directory must.
    pub fn new(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = file.file_name().unwrap_or_default().to_owned();
        let open = || -> io::Result<OwnedFd> {
            // SAFETY: takes no pointers.
            let fd = sys::check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
            // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            add(&fd, &directory)?;
            Ok(fd)
        };
        let fd = open().context(|| format!("watch {}", file.display())).map_err(|error| match error.errno() {
            // Files are not what is meant, and the usual 128 are soon used up.
            Some(libc::EMFILE) => error.context("fs.inotify.max_user_instances"),
            _ => error,
        })?;
        Ok(Self { fd, directory, name })
    }

    /// Takes all waiting events. Returns whether the file should be read again.
    ///
    /// When the directory itself was removed or replaced, it is watched anew; as long as it is away that is an error
    /// and the watch stays silent.
    pub fn drain(&mut self) -> Result<bool> {
        let mut changed = false;
        let mut gone = false;
        let mut buffer = [0; 4096];
        loop {
            match sys::read(self.fd.as_fd(), &mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    for (mask, name) in events(buffer.get(..len).unwrap_or_default()) {
                        gone |= mask & (libc::IN_DELETE_SELF | libc::IN_MOVE_SELF) != 0;
                        changed |= mask & libc::IN_Q_OVERFLOW != 0 || name == self.name || name == "..data";
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context(|| format!("watch {}", self.directory.display())),
            }
        }
        if gone {
            changed = true;
            add(&self.fd, &self.directory).context(|| format!("watch {}", self.directory.display()))?;
        }
        Ok(changed)
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn add(fd: &OwnedFd, directory: &Path) -> io::Result<()> {
    let path = sys::c_string(directory)?;
    // SAFETY: `path` is a C string that lives until the call is over.
    sys::check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), CHANGES | libc::IN_ONLYDIR) }).map(drop)
}

/// Masks and names out of what inotify wrote: `{ wd, mask, cookie, len: u32, name: [u8; len] }`.
fn events(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &OsStr)> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (mask, len) = (word(4)?, word(12)? as usize);
        let name = bytes.get(HEADER..HEADER.checked_add(len)?)?;
        bytes = bytes.get(HEADER + len..)?;
        Some((mask, OsStr::from_bytes(name.split(|b| *b == 0).next().unwrap_or_default())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_bounded() {
        let mut bytes = Vec::new();
        for (mask, name) in [(8u32, &b"config.json\0\0\0\0\0"[..]), (0x400, &b""[..])] {
            for word in [1, mask, 0, name.len() as u32] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(name);
        }
        let seen: Vec<_> = events(&bytes).collect();
        assert_eq!(seen, [(8, OsStr::new("config.json")), (0x400, OsStr::new(""))]);
        assert_eq!(events(&bytes[..20]).count(), 0);
    }
}
