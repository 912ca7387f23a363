//! Files that a reader sees whole, old or new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces a file unless it has this content already, and gives it this mode.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return set_mode(path, mode);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let temporary = parent.join(format!(".{}.tmp", name.to_string_lossy()));
    create(&temporary, content, mode)?;
    fs::rename(&temporary, path)?;
    sync_directory(parent)
}

/// Writes a file with exactly this mode and makes it last. What was there before is gone.
pub(super) fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Created anew, so that nobody has it open who could read what comes.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a directory with exactly this mode, or gives it that mode.
pub(super) fn directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        result => result?,
    }
    set_mode(path, mode)
}

/// Gives a file or directory exactly this mode.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Makes renames within the directory last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
