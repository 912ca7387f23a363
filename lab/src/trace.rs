//! What processes do to files, seen by `strace`.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::netns::kill;

/// A running trace of processes and their children.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    stderr: BufReader<ChildStderr>,
    path: PathBuf,
}

impl Trace {
    /// Attaches to the processes and waits until it has.
    pub fn start(pids: &[u32], path: &Path) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=%file,ftruncate,?ftruncate64,fallocate", "-s", "300", "-o"]).arg(path);
        command.args(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("start strace")?;
        let mut stderr = BufReader::new(child.stderr.take().context("standard error of strace")?);
        for _ in pids {
            let mut said = String::new();
            if stderr.read_line(&mut said)? == 0 || !said.contains("attached") {
                bail!("strace: {}", said.trim());
            }
        }
        Ok(Self { child, stderr, path: path.to_owned() })
    }

    /// Detaches. What was done: how many calls, and those that change files outside the folder and the kernel's own.
    pub fn stop(mut self, allowed: &Path) -> Result<(usize, Vec<String>)> {
        kill(self.child.id(), Signal::INT);
        self.stderr.read_to_end(&mut Vec::new())?;
        self.child.wait()?;
        let text = std::fs::read_to_string(&self.path)?;
        let allowed = allowed.to_string_lossy();
        let changes = text.lines().filter(|line| changes(line, &allowed)).map(str::to_owned).collect();
        Ok((text.lines().count(), changes))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Killed, it would leave its processes stopped.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(self.child.id(), Signal::INT);
            let _ = self.child.wait();
        }
    }
}

/// Whether a line of strace is a call that changes a file that is not within `allowed`.
fn changes(line: &str, allowed: &str) -> bool {
    const READ: [&str; 21] = [
        "access",
        "chdir",
        "execve",
        "execveat",
        "faccessat",
        "faccessat2",
        "fchdir",
        "fstatat64",
        "getcwd",
        "inotify_add_watch",
        "lstat",
        "lstat64",
        "name_to_handle_at",
        "newfstatat",
        "readlink",
        "readlinkat",
        "stat",
        "stat64",
        "statfs",
        "statfs64",
        "statx",
    ];
    let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
    let Some((name, rest)) = call.split_once('(') else { return false };
    // Its beginning was a line, too; and what failed has changed nothing.
    if name.starts_with("<...") || READ.contains(&name) || rest.contains(" = -1 ") {
        return false;
    }
    let opens = matches!(name, "open" | "openat" | "openat2");
    if opens && !["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| rest.contains(flag)) {
        return false;
    }
    let mut paths = rest.split('"').skip(1).step_by(2).peekable();
    let harmless =
        |path: &str| path.starts_with(allowed) || ["/proc/", "/sys/", "/dev/"].iter().any(|p| path.starts_with(p));
    paths.peek().is_none() || !paths.all(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_files_is_found() {
        for (call, expected) in [
            ("openat(AT_FDCWD, \"/etc/x\", O_RDONLY|O_CLOEXEC) = 3", false),
            ("openat(AT_FDCWD, \"/etc/x\", O_WRONLY|O_CREAT|O_CLOEXEC, 0600) = 3", true),
            ("openat(AT_FDCWD, \"/etc/x\", O_RDWR <unfinished ...>", true),
            ("<... openat resumed>) = 3", false),
            ("openat(AT_FDCWD, \"/run/a/x\", O_WRONLY|O_CREAT, 0600) = 3", false),
            ("openat(AT_FDCWD, \"/proc/sys/net/x\", O_WRONLY|O_TRUNC) = 3", false),
            ("rename(\"/run/a/x\", \"/etc/x\") = 0", true),
            ("unlink(\"/run/a/x\") = 0", false),
            ("mkdir(\"/var/lib/x\", 0700) = -1 EEXIST (File exists)", false),
            ("mkdir(\"/var/lib/x\", 0700) = 0", true),
            ("ftruncate(5, 0) = 0", true),
            ("ftruncate64(5, 0) = 0", true),
            ("fstatat64(AT_FDCWD, \"/etc/x\", {st_mode=S_IFREG|0644}, 0) = 0", false),
            ("execve(\"/usr/sbin/nft\", [\"nft\"], 0x1 /* 2 vars */) = 0", false),
            ("+++ exited with 0 +++", false),
        ] {
            assert_eq!(changes(&format!("123   {call}"), "/run/a"), expected, "{call}");
        }
    }
}
