//! Users of this machine, and what belongs to them.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::sys;

/// Folders within folders that [`User::take`] goes into.
const DEPTH: u32 = 4;

/// One line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the user's own group.
    pub gid: u32,
}

/// What a user may do with a file or folder by its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read the file, or list and enter the folder.
    Read,
    /// Also add files to the folder, and change and remove the own ones (sticky bit), but not those of others.
    Add,
}

impl User {
    /// Number 0.
    pub fn root() -> Self {
        Self { name: "root".to_owned(), uid: 0, gid: 0 }
    }

    /// Whether this program runs as root, with whatever capabilities.
    pub fn is_root() -> bool {
        // SAFETY: takes no arguments and cannot fail.
        unsafe { libc::geteuid() == 0 }
    }

    /// The user whom this program runs as; the name is the number for one that is not in `/etc/passwd`.
    pub fn current() -> Self {
        // SAFETY: these take no arguments and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let name = find(|user| user.uid == uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        Self { name, uid, gid }
    }

    /// The user called `name` in `/etc/passwd`.
    pub fn named(name: &str) -> Result<Self> {
        find(|user| user.name == name)?.ok_or_else(|| Error::new(format!("there is no user {name} in /etc/passwd")))
    }

    /// Makes a file, or a folder with all that is in it, belong to this user. Symbolic links are not followed.
    ///
    /// Safe for root even if somebody else changes the folder meanwhile: a file that has a second name, which may stand
    /// anywhere, is an error.
    pub fn take(&self, path: &Path) -> Result<()> {
        self.take_below(path, DEPTH).context(|| format!("give {} to user {}", path.display(), self.name))
    }

    /// Lets this user use what is at `path` through the user's group, if it may not yet.
    ///
    /// What is a symbolic link, or has a second name, is left alone: it may stand for anything.
    pub fn share(&self, path: &Path, right: Right) -> Result<()> {
        self.allow(path, right).context(|| format!("let user {} use {}", self.name, path.display()))
    }

    /// Lets this user read a folder and all that is in it, if the folder is root's: who else may change it could lead
    /// us to any file.
    pub fn share_all(&self, folder: &Path) -> Result<()> {
        self.allow_below(folder, DEPTH).context(|| format!("let user {} read {}", self.name, folder.display()))
    }

    /// Becomes this user, in no group but its own.
    pub(crate) fn assume(&self) -> Result<()> {
        // SAFETY: with a length of zero no list is read.
        sys::check(unsafe { libc::setgroups(0, std::ptr::null()) })
            // SAFETY: takes no pointers.
            .and_then(|_| sys::check(unsafe { libc::setresgid(self.gid, self.gid, self.gid) }))
            // SAFETY: takes no pointers.
            .and_then(|_| sys::check(unsafe { libc::setresuid(self.uid, self.uid, self.uid) }))
            .context(|| format!("become user {}", self.name))?;
        Ok(())
    }

    fn take_below(&self, path: &Path, depth: u32) -> Result<()> {
        // All goes by this descriptor, because a name could be another file a moment later.
        let entry = sys::open_path(path, libc::O_NOFOLLOW)?;
        let data = entry.metadata()?;
        if (data.uid(), data.gid()) != (self.uid, self.gid) {
            if !data.is_dir() && data.nlink() > 1 {
                return Err(Error::new(format!("{} has a second name", path.display())));
            }
            let (fd, flag) = (entry.as_raw_fd(), libc::AT_EMPTY_PATH);
            // SAFETY: the path is a C string.
            sys::check(unsafe { libc::fchownat(fd, c"".as_ptr(), self.uid, self.gid, flag) })?;
        }
        if data.is_dir() && depth > 0 {
            for entry in std::fs::read_dir(format!("/proc/self/fd/{}", entry.as_raw_fd()))? {
                self.take_below(&entry?.path(), depth - 1)?;
            }
        }
        Ok(())
    }

    fn allow_below(&self, path: &Path, depth: u32) -> io::Result<()> {
        self.allow(path, Right::Read)?;
        let data = std::fs::symlink_metadata(path)?;
        if data.is_dir() && data.uid() == 0 && depth > 0 {
            for entry in std::fs::read_dir(path)? {
                self.allow_below(&entry?.path(), depth - 1)?;
            }
        }
        Ok(())
    }

    fn allow(&self, path: &Path, right: Right) -> io::Result<()> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(()),
            file => file?,
        };
        let data = file.metadata()?;
        if !data.is_dir() && data.nlink() > 1 {
            return Ok(());
        }
        let needed = match right {
            Right::Read if data.is_dir() => 0o5,
            Right::Read => 0o4,
            Right::Add => 0o7,
        };
        let mode = data.mode() & 0o7777;
        let own = match (data.uid() == self.uid, data.gid() == self.gid) {
            (true, _) => mode >> 6,
            (false, true) => mode >> 3,
            (false, false) => mode,
        };
        // What root adds to a shared folder later is the group's, too.
        let inherit = if data.is_dir() && right == Right::Read { 0o2000 } else { 0 };
        let kept = data.uid() == self.uid || inherit == 0 || (data.gid() == self.gid && mode & inherit != 0);
        if own & needed == needed && kept {
            return Ok(());
        }
        std::os::unix::fs::fchown(&file, None, Some(self.gid))?;
        let sticky = if right == Right::Add { 0o1000 } else { 0 };
        file.set_permissions(Permissions::from_mode(mode | needed << 3 | sticky | inherit))
    }
}

fn find(wanted: impl Fn(&User) -> bool) -> Result<Option<User>> {
    let path = "/etc/passwd";
    let text = std::fs::read_to_string(path).context(|| path)?;
    Ok(text.lines().filter_map(line).find(wanted))
}

/// `name:password:uid:gid:…`
fn line(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let _password = fields.next()?;
    Some(User { name, uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_passwd() {
        let user = line("selvedge:x:990:991:Selvedge:/nonexistent:/usr/sbin/nologin").unwrap();
        assert_eq!(user, User { name: "selvedge".into(), uid: 990, gid: 991 });
        for bad in ["", "a", "a:x", "a:x:1", "a:x:-1:2", "a:x:1:", ":x:1:2", "+::::::"] {
            assert_eq!(line(bad), None, "{bad}");
        }
        assert_eq!(User::named("root").unwrap(), User::root());
        let error = User::named("no-such-user").unwrap_err().to_string();
        assert_eq!(error, "there is no user no-such-user in /etc/passwd");
    }
}
