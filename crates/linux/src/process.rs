//! Processes: helpers that outlive us, and how much memory we use.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Family;
use crate::error::{Context, Error, Result};
use crate::sys;

/// Starts `program` with `args` as a session of its own, child of init: it lives on when we end, holds none of our
/// descriptors and gets no signal meant for us.
///
/// Its standard output and error are appended to `log` (`None`: thrown away). Returns when the program is running;
/// a program that cannot be started is an error.
///
/// What ends every process of a control group (systemd's default `KillMode`, the end of a container) ends it too.
pub fn spawn_detached(program: &Path, args: &[impl AsRef<OsStr>], log: Option<&Path>) -> Result<()> {
    let what = || format!("start {}", program.display());
    let (out, err) = match log {
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            let file = file.context(|| path.display()).context(what)?;
            (Stdio::from(file.try_clone().context(what)?), Stdio::from(file))
        }
        None => (Stdio::null(), Stdio::null()),
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(out).stderr(err).current_dir("/");
    // SAFETY: between fork and exec only async-signal-safe calls are made.
    unsafe { command.pre_exec(detach) };
    let mut intermediate = command.spawn().context(what)?;
    intermediate.wait().context(what)?;
    Ok(())
}

/// Asks for kernel modules that are not there yet; what this kernel does not have is passed over.
pub fn load_modules(names: &[&str]) {
    let missing: Vec<_> = names.iter().filter(|name| !Path::new("/sys/module").join(name).exists()).collect();
    if missing.is_empty() {
        return;
    }
    // The kernel and the firewall tools ask this program, too.
    let program = std::fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    let program = if program.trim().is_empty() { "/sbin/modprobe" } else { program.trim() };
    let mut command = Command::new(program);
    command.arg("-aq").args(&missing).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) => log::debug!("{program} {missing:?}: {status}"),
        Err(error) => log::debug!("{program} {missing:?}: {error}"),
    }
}

/// Keeps the memory of this process from debuggers of the same user and from core dumps.
pub fn forbid_dumps() -> Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: this option takes integers only.
    sys::check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, none, none, none, none) })
        .context(|| "keep the memory from being dumped")?;
    Ok(())
}

/// Lets this process have so many files and sockets open, or as many as it may; how many that is now.
pub fn allow_files(wanted: u32) -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is written to a structure of its kind.
    if sys::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }).is_err() {
        return 0;
    }
    let more = libc::rlimit { rlim_cur: limit.rlim_max.min(wanted.into()), ..limit };
    // SAFETY: the limit is read from a structure of its kind.
    let allow = || sys::check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) });
    if limit.rlim_cur < more.rlim_cur && allow().is_ok() {
        limit = more;
    }
    u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX)
}

/// Has this process, and what it starts, use no huge pages: one of 2 MiB is more than all our memory together. A kernel
/// without them does not know the option, which is as good.
pub fn forbid_huge_pages() {
    let (yes, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option takes integers only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, yes, none, none, none) };
}

/// Gives memory that is free back to the kernel. Only glibc keeps so much that it must be asked to.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory of this process in KiB, exact also where the kernel counts per thread.
pub fn rss() -> Result<u64> {
    for (path, label) in [("/proc/self/smaps_rollup", "Rss:"), ("/proc/self/status", "VmRSS:")] {
        if let Some(kib) = std::fs::read_to_string(path).ok().and_then(|text| kib_of(&text, label)) {
            return Ok(kib);
        }
    }
    Err(Error::new("read the resident memory: neither smaps_rollup nor status gives it"))
}

/// All memory of this machine in KiB.
pub fn total_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context(|| "read /proc/meminfo")?;
    kib_of(&text, "MemTotal:").ok_or_else(|| Error::new("/proc/meminfo does not say MemTotal"))
}

/// The processes that run, by number and name (at most 15 octets of it); those that end meanwhile are left out.
pub fn list() -> Vec<(u32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let named =
        |pid: u32| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()));
    entries.flatten().filter_map(number).filter_map(named).collect()
}

/// The words with which a process was started.
pub fn command_line(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Whether a UDP port of this network namespace is bound, on any address of the family; and by which process, if that
/// can be seen.
pub fn udp_holder(port: u16, family: Family) -> Option<Option<(u32, String)>> {
    let table = if family == Family::V4 { "udp" } else { "udp6" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok()?;
    let inode = text.lines().find_map(|line| inode_of(line, port))?;
    let socket = format!("socket:[{inode}]");
    let holds = |(pid, _): &(u32, String)| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
    };
    Some(list().into_iter().find(holds))
}

/// The inode in a line of `/proc/net/udp`, if it is about this local port.
fn inode_of(line: &str, port: u16) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (_, local) = words.nth(1)?.rsplit_once(':')?;
    (u16::from_str_radix(local, 16) == Ok(port)).then(|| words.nth(7)?.parse().ok()).flatten()
}

fn kib_of(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}

/// Leaves the session and the parent, and marks every descriptor but the standard ones close-on-exec.
fn detach() -> io::Result<()> {
    // SAFETY: setsid, fork and _exit take no pointers, and no handler is installed; _exit runs no destructors.
    unsafe {
        sys::check(libc::setsid())?;
        // `killall -HUP` means the program that reads its configuration again.
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        if sys::check(libc::fork())? > 0 {
            libc::_exit(0);
        }
    }
    close_on_exec_from(3)
}

fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes no pointers.
    if unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) } == 0 {
        return Ok(());
    }
    // Before Linux 5.11. Reading /proc/self/fd would allocate, which is not allowed after a fork.
    // SAFETY: sysconf and fcntl with these arguments take no pointers.
    unsafe {
        let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 65_536) as libc::c_int;
        for fd in first as libc::c_int..limit {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let (pid, name) = udp_holder(port, Family::V4).unwrap().unwrap();
        assert_eq!(pid, std::process::id());
        assert!(list().contains(&(pid, name)));
        assert!(command_line(pid).len() > 1);
        assert_eq!(udp_holder(port, Family::V6), None);
        let line =
            "  10: 00000000:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77 2 0 0";
        assert_eq!((inode_of(line, 4500), inode_of(line, 500)), (Some(77), None));
        assert_eq!(inode_of("  sl  local_address rem_address", 4500), None);
    }

    #[test]
    fn resident_memory_is_read() {
        assert!(rss().unwrap() > 100);
        assert_eq!(kib_of("a\nRss:    1234 kB\nPss: 1 kB", "Rss:"), Some(1234));
        assert_eq!(kib_of("Rss:\n", "Rss:"), None);
    }
}
