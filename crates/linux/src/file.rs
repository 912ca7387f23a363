//! Small files that are written whole or not at all, and only when they change.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Context, Result};
use crate::sys;

/// Gives the file at `path` this content and mode (`0o600`, …). Returns whether anything had to be written.
///
/// A reader, or a machine that loses power, sees the old file or the new one. The directory must exist. A symbolic
/// link is replaced, not followed.
pub fn write(path: impl AsRef<Path>, content: &[u8], mode: u32) -> Result<bool> {
    let path = path.as_ref();
    replace(path, content, mode).context(|| format!("write {}", path.display()))
}

/// Removes the file. Returns whether it was there.
pub fn remove(path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).context(|| format!("remove {}", path.display())),
    }
}

/// Who holds a lock (`flock(2)`) on the file, as far as can be seen: the number of the process. A file that is not
/// there is not locked.
pub fn lock_holder(path: impl AsRef<Path>) -> Result<Option<Option<u32>>> {
    use std::os::fd::AsRawFd;
    let path = path.as_ref();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context(|| path.display()),
    };
    // SAFETY: takes no pointers. The lock ends with `file`.
    match sys::check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            let inode = format!(":{}", file.metadata()?.ino());
            let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
            let holder = locks.lines().find_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                // 1: FLOCK ADVISORY WRITE 1234 00:19:567 0 EOF
                let [_, "FLOCK", _, _, pid, file, ..] = words[..] else { return None };
                file.ends_with(&inode).then(|| pid.parse().ok()).flatten()
            });
            Ok(Some(holder))
        }
        Err(e) => Err(e).context(|| path.display()),
    }
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let link = fs::symlink_metadata(path).is_ok_and(|m| !m.is_file());
    if let (false, Ok(old)) = (link, File::open(path)) {
        let data = old.metadata()?;
        if data.len() == content.len() as u64 && fs::read(path)? == content {
            if data.permissions().mode() & 0o7777 == mode {
                return Ok(false);
            }
            old.set_permissions(Permissions::from_mode(mode))?;
            return Ok(true);
        }
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let temporary = directory.join(hidden);
    // One that was left over might belong to somebody else or be a link.
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The new name is safe only when the directory is; some file systems cannot sync one.
    let _ = File::open(directory).and_then(|d| d.sync_all());
    Ok(true)
}
