//! Named network namespaces, as `ip netns` keeps them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_linux::{netns, sysctl};

use crate::exec;

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "sv";

static STOPPING: AtomicBool = AtomicBool::new(false);

/// A network namespace; with everything that runs in it, it ends on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes `sv<pid>-<role>` with the loopback device up and the sysctl defaults that a systemd distribution has.
    pub fn create(role: &str) -> Result<Self> {
        if STOPPING.load(Ordering::SeqCst) {
            bail!("the laboratory is being taken down");
        }
        let ns = Self { name: format!("{PREFIX}{}-{role}", std::process::id()) };
        netns::create(&ns.name)?;
        ns.sysctl(&[("net/ipv4/conf/all/rp_filter", "2"), ("net/ipv4/conf/default/rp_filter", "2")])?;
        // A kernel may be told to have no IPv6.
        if ns.has_sysctl("net/ipv6/conf/all/accept_dad")? {
            // Duplicate address detection would cost a second per address and finds nothing here.
            ns.sysctl(&[("net/ipv6/conf/all/accept_dad", "0"), ("net/ipv6/conf/default/accept_dad", "0")])?;
        }
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// As `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs `job` in a thread inside the namespace; sockets made there stay there, children start there.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        enter(&self.name, job)
    }

    /// A command that will run inside, with a /sys of the namespace: for programs that stay.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a short command inside, given as one line without quoting.
    pub fn run(&self, line: &str) -> Result<String> {
        self.feed(line, "")
    }

    /// As [`Netns::run`], with text on standard input.
    pub fn feed(&self, line: &str, input: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        self.enter(|| exec::feed(&mut command, input)).with_context(|| format!("in {}", self.name))
    }

    /// Runs several `ip` commands, one per line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let text: Vec<&str> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let fed = text.join("\n") + "\n";
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        exec::feed(&mut command, &fed).map(drop).map_err(|error| {
            let said = error.to_string();
            let failed = said
                .rsplit_once("Command failed -:")
                .and_then(|(_, number)| number.trim().parse::<usize>().ok())
                .and_then(|number| text.get(number.checked_sub(1)?));
            error.context(format!("in {}: ip {}", self.name, failed.copied().unwrap_or("-batch")))
        })
    }

    /// What runs inside.
    pub fn processes(&self) -> Result<Vec<u32>> {
        processes(&self.name)
    }

    /// Writes sysctl keys (with slashes) of the namespace; a key that this kernel does not have is an error.
    pub fn sysctl(&self, keys: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in keys {
                sysctl::set(key, value)?;
            }
            Ok(())
        })
        .with_context(|| format!("in {}", self.name))
    }

    /// Whether this kernel has the key in the namespace.
    pub fn has_sysctl(&self, key: &str) -> Result<bool> {
        self.enter(|| Ok(sysctl::get(key).is_ok()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Runs `job` in a thread inside the namespace of this name.
pub fn enter<T: Send>(name: &str, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            netns::enter(name)?;
            job()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Joins two namespaces by a pair of Ethernet devices.
pub fn join(a: &Netns, device_a: &str, b: &Netns, device_b: &str) -> Result<()> {
    let line = format!("link add {device_a} netns {} type veth peer name {device_b} netns {}", a.name, b.name);
    exec::run(Command::new("ip").args(line.split_whitespace())).map(drop)
}

/// Removes what this run made, from whatever thread; nothing can be made afterwards.
pub fn stop() {
    STOPPING.store(true, Ordering::SeqCst);
    listed().iter().filter(|name| is_own(name)).for_each(|name| remove(name));
}

/// Whether this is the name of a namespace of this run.
pub fn is_own(name: &str) -> bool {
    owner(name) == Some(std::process::id())
}

/// Removes namespaces of runs that are no more; their names.
pub fn remove_leftovers() -> Vec<String> {
    let dead: Vec<String> = listed().into_iter().filter(|name| is_leftover(name)).collect();
    dead.iter().for_each(|name| remove(name));
    dead
}

/// Whether this is the name of a namespace of a run that is no more.
pub fn is_leftover(name: &str) -> bool {
    owner(name).is_some_and(|pid| !alive(pid))
}

/// Whether the laboratory of this process id is still at work.
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "selvedge-lab")
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn listed() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(FOLDER) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn remove(name: &str) {
    // Sockets and devices of a process keep the namespace alive after its name is gone.
    processes(name).unwrap_or_default().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    let _ = netns::delete(name);
}

fn processes(name: &str) -> Result<Vec<u32>> {
    let pids = exec::run(Command::new("ip").args(["netns", "pids", name]))?;
    Ok(pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Sends a signal to one process.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
