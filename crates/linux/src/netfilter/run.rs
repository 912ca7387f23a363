//! Running one tool.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::error::{Context, Error, Result};
use crate::sys;

/// Where system tools are, even if `PATH` does not say so.
const PLACES: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// The most of a tool's complaint that goes into an error.
const COMPLAINT: usize = 1000;

/// The first executable of this name in `PATH` and the usual places.
pub(super) fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Error::new(format!("{name} is not installed")))
}

/// Runs `program` with `input` and returns its standard output; fails with its standard error.
pub(super) fn run(program: &Path, args: &[&str], input: &str) -> Result<String> {
    let what = || {
        [&[program.display().to_string()], &*args.iter().map(ToString::to_string).collect::<Vec<_>>()]
            .concat()
            .join(" ")
    };
    log::debug!("run {}", what());
    let (status, stdout, stderr) = execute(program, args, input).context(what)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(Error::new(complaint(&stderr, status)).context(what()))
}

/// Files in memory instead of pipes: these would need a second thread to fill one while another is read, and wake this
/// process for each line that the tool writes.
fn execute(program: &Path, args: &[&str], input: &str) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, mut stdout, mut stderr) = (memory_file(input)?, memory_file("")?, memory_file("")?);
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C");
    command.stdin(stdin).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let status = command.status()?;
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    Ok((status, read(&mut stdout)?, read(&mut stderr)?))
}

fn complaint(stderr: &[u8], status: ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut words = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    if let Some((end, _)) = words.char_indices().nth(COMPLAINT) {
        words.truncate(end);
    }
    match (words.is_empty(), status.signal()) {
        (_, Some(signal)) => format!("killed by signal {signal} {words}").trim_end().to_owned(),
        (true, None) => format!("failed with status {}", status.code().unwrap_or(-1)),
        (false, None) => words,
    }
}

fn memory_file(content: &str) -> io::Result<File> {
    // SAFETY: the name is a C string.
    let fd = sys::check(unsafe { libc::memfd_create(c"tool".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_output_and_complaint() {
        let sh = find("sh").unwrap();
        let long = "x".repeat(300_000);
        assert_eq!(run(&sh, &["-c", "cat"], &long).unwrap(), long);
        let error = run(&sh, &["-c", "echo one >&2; echo two >&2; exit 3"], "").unwrap_err().to_string();
        assert!(error.ends_with("exit 3: one; two"), "{error}");
        let error = run(&sh, &["-c", "exit 3"], "").unwrap_err().to_string();
        assert!(error.ends_with("failed with status 3"), "{error}");
        let error = run(&sh, &["-c", "kill -9 $$"], "").unwrap_err().to_string();
        assert!(error.ends_with("killed by signal 9"), "{error}");
    }

    #[test]
    fn unknown_tool_is_named() {
        assert_eq!(find("no-such-tool").unwrap_err().to_string(), "no-such-tool is not installed");
    }
}
