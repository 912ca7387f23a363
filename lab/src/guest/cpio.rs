//! The archive that a kernel unpacks as its first root: "newc", Documentation/driver-api/early-userspace/buffer-format.rst.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written. Everything in it belongs to root.
pub struct Archive<W: Write> {
    out: W,
    entries: u32,
}

impl Archive<BufWriter<fs::File>> {
    /// At this path.
    pub fn create(path: &Path) -> Result<Self> {
        let file = fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Archive<W> {
    /// Onto anything.
    pub fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// A folder; the one above it has to stand before it.
    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name.as_bytes(), FOLDER | 0o755, (0, 0), &[])
    }

    /// A file with these permissions.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name.as_bytes(), FILE | permissions, (0, 0), content)
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name.as_bytes(), LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device by major and minor number.
    pub fn device(&mut self, name: &str, numbers: (u32, u32)) -> io::Result<()> {
        self.entry(name.as_bytes(), CHARACTER_DEVICE | 0o600, numbers, &[])
    }

    /// Folders, files and links below a folder.
    pub fn tree(&mut self, top: &Path) -> Result<()> {
        self.tree_at(top, "")
    }

    /// As [`Archive::tree`], within a folder of the archive.
    pub fn tree_at(&mut self, top: &Path, name: &str) -> Result<()> {
        self.below(top, Path::new(name))
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry(b"TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn below(&mut self, folder: &Path, within: &Path) -> Result<()> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            paths.push(entry?.path());
        }
        paths.sort();
        for path in paths {
            let place = within.join(path.file_name().unwrap_or_default());
            let name = place.as_os_str().as_bytes();
            let meta = path.symlink_metadata()?;
            let permissions = meta.permissions().mode() & 0o7777;
            if meta.is_symlink() {
                self.entry(name, LINK | 0o777, (0, 0), fs::read_link(&path)?.as_os_str().as_bytes())?;
            } else if meta.is_dir() {
                self.entry(name, FOLDER | permissions, (0, 0), &[])?;
                self.below(&path, &place)?;
            } else if meta.is_file() {
                self.entry(name, FILE | permissions, (0, 0), &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        let (owner, links, time, check) = (0, 1, 0, 0);
        self.out.write_all(b"070701")?;
        for field in [self.entries, mode, owner, owner, links, time, size, 0, 0, device.0, device.1, name_size, check] {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name)?;
        self.out.write_all(b"\0")?;
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents_of_every_length_are_found_again() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.folder("d").unwrap();
        archive.file("d/a", 0o755, b"12345").unwrap();
        archive.file("d/bb", 0o600, b"").unwrap();
        archive.link("ccc", "d/a").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut names = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let field = |number: usize| {
                let digits = std::str::from_utf8(&rest[6 + number * 8..14 + number * 8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&rest[..6], b"070701");
            let (size, name_size) = (field(6), field(11));
            let content = (110 + name_size).next_multiple_of(4);
            let name = String::from_utf8(rest[110..110 + name_size - 1].to_vec()).unwrap();
            names.push((name, field(1), rest[content..content + size].to_vec()));
            rest = &rest[(content + size).next_multiple_of(4)..];
        }
        let expected = [
            ("d", FOLDER | 0o755, &b""[..]),
            ("d/a", FILE | 0o755, b"12345"),
            ("d/bb", FILE | 0o600, b""),
            ("ccc", LINK | 0o777, b"d/a"),
            ("TRAILER!!!", 0, b""),
        ];
        let expected: Vec<_> =
            expected.map(|(name, mode, content)| (name.to_owned(), mode as usize, content.to_vec())).into();
        assert_eq!(names, expected);
    }
}
