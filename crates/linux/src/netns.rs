//! Network namespaces, named as `ip netns` names them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::sys;

/// Where `ip netns` keeps the names.
const DIRECTORY: &str = "/run/netns";

/// A network namespace held open; it lives as long as this or anything else in it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Moves the current thread into this namespace. Sockets already open stay where they were made.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: takes no pointers.
        sys::check(unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) }).context(|| "enter namespace")?;
        Ok(())
    }
}

/// The namespace of the current thread.
pub fn current() -> Result<Namespace> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map(Namespace).context(|| path)
}

/// The namespace called `name`.
pub fn open(name: &str) -> Result<Namespace> {
    File::open(path(name)?).map(Namespace).context(|| format!("open namespace {name}"))
}

/// Moves the current thread into the namespace called `name`.
pub fn enter(name: &str) -> Result<()> {
    open(name)?.enter().map_err(|e| e.context(name))
}

/// Moves the current thread into a new namespace without a name, which ends with its last user.
pub fn unshare() -> Result<()> {
    // SAFETY: takes no pointers.
    sys::check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).context(|| "make a network namespace")?;
    Ok(())
}

/// Makes a namespace called `name`, as `ip netns add`; one of that name must not exist.
pub fn create(name: &str) -> Result<()> {
    let path = path(name)?;
    let make = || -> Result<()> {
        fs::create_dir_all(DIRECTORY)?;
        share_directory()?;
        File::options().write(true).create_new(true).open(&path)?;
        // A thread of its own, because there is no namespace without somebody in it.
        let bound = std::thread::scope(|scope| {
            scope.spawn(|| unshare().and_then(|()| bind("/proc/thread-self/ns/net", &path))).join()
        });
        bound.unwrap_or_else(|_| Err(Error::new("thread failed"))).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    };
    make().context(|| format!("create namespace {name}"))
}

/// Takes the name away, as `ip netns delete`. Returns whether it was there. The namespace ends with its last user.
pub fn delete(name: &str) -> Result<bool> {
    let path = path(name)?;
    if !path.exists() {
        return Ok(false);
    }
    let raw = sys::c_string(&path)?;
    // SAFETY: `raw` is a C string that lives until the call is over. A name that is no mount is just a file.
    unsafe { libc::umount2(raw.as_ptr(), libc::MNT_DETACH) };
    fs::remove_file(&path).context(|| format!("delete namespace {name}"))?;
    Ok(true)
}

fn path(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(Error::new(format!("{name:?} is not a namespace name")));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

/// Makes the directory a shared mount, so that other mount namespaces see names made and taken away here.
fn share_directory() -> Result<()> {
    let share = || mount(None, DIRECTORY, libc::MS_SHARED | libc::MS_REC);
    if share().is_err() {
        mount(Some(DIRECTORY), DIRECTORY, libc::MS_BIND | libc::MS_REC)?;
        share()?;
    }
    Ok(())
}

fn bind(source: &str, target: &Path) -> Result<()> {
    Ok(mount(Some(source), target, libc::MS_BIND)?)
}

fn mount(source: Option<&str>, target: impl AsRef<Path>, flags: libc::c_ulong) -> io::Result<()> {
    let source = sys::c_string(source.unwrap_or("none"))?;
    let target = sys::c_string(target.as_ref())?;
    let null = std::ptr::null();
    // SAFETY: both paths are C strings that live until the call is over; type and data may be null for these flags.
    sys::check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), null, flags, null.cast()) }).map(drop)
}
