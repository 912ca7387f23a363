//! The laboratory inside a real kernel that has ESP, with this same program as its only task: Debian's user-mode Linux
//! on this machine's files, or a kernel of any architecture that gateways have, under QEMU.

mod arch;
mod cpio;
mod emulated;
mod uml;

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};

pub use arch::Arch;
pub use emulated::Flavour;

use crate::process;
use crate::router::Wan;
use crate::topology::RunDir;

const BEGIN: &str = "@@selvedge-guest begin";
const END: &str = "@@selvedge-guest end ";

const CPU: &str = " s of processor time";

/// The process group of the running guest: it consists of several processes.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Which guest, and how much of it.
#[derive(Clone, Debug, Args)]
#[group(id = "guest")]
pub struct Options {
    /// Architecture to emulate; without one, user-mode Linux.
    #[arg(long, value_enum)]
    pub arch: Option<Arch>,
    /// Seconds after which the guest is killed.
    #[arg(long, default_value_t = 900)]
    pub timeout: u64,
    /// Memory of the guest, such as 768M.
    #[arg(long)]
    pub memory: Option<String>,
    /// What `iptables` is in an emulated guest.
    #[arg(long, value_enum, default_value = "nft")]
    pub iptables: Flavour,
    /// What time limits are multiplied by in the guest: they are meant for real processors. Results show it. Without it,
    /// 2 for an emulated one and 1 for user-mode Linux.
    #[arg(long)]
    pub slower: Option<u32>,
    /// Modules that user-mode Linux is not to find, separated by commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// More for user-mode Linux's command line.
    #[arg(long)]
    boot: Vec<String>,
}

/// A cable between an emulated guest and a laboratory of this machine, and files that the guest gets.
pub struct Wire<'a> {
    /// Where the guest's eth0 is plugged in.
    pub wan: &'a Wan,
    /// A folder here.
    pub delivery: PathBuf,
    /// Its place in the guest, without the first slash.
    pub folder: &'static str,
}

/// Boots, runs `selvedge-lab <arguments>`, streams what it prints and gives back its exit code.
pub fn run(options: &Options, arguments: &[String]) -> Result<ExitCode> {
    run_in(&RunDir::create(false)?, options, arguments, None)
}

/// As [`run`] with its files in a folder; an emulated guest may be wired to this machine.
pub fn run_in(dir: &Path, options: &Options, arguments: &[String], wire: Option<&Wire<'_>>) -> Result<ExitCode> {
    let start = Instant::now();
    let mut command = match options.arch {
        None => uml::command(dir, options, arguments)?,
        Some(arch) => emulated::command(arch, dir, options, arguments, wire)?,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    GROUP.store(child.id().cast_signed(), Ordering::SeqCst);
    let outcome = stream(&mut child, start + Duration::from_secs(options.timeout));
    if let Some(arch) = options.arch {
        let cpu = process::cpu_seconds(&[child.id()]).unwrap_or_default();
        println!("{arch}: {:.0} s, {cpu:.0}{CPU}", start.elapsed().as_secs_f64());
    }
    stop();
    child.wait()?;
    outcome.map(ExitCode::from)
}

/// Ends the guest, if one runs.
pub fn stop() {
    if let Some(group) = Pid::from_raw(GROUP.swap(0, Ordering::SeqCst)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Reads the line with which an emulated guest says how much it took.
pub fn cpu_seconds(line: &str) -> Option<u32> {
    line.strip_suffix(CPU)?.rsplit_once(", ")?.1.parse().ok()
}

/// Prints what the task prints, without the kernel's own lines before and after.
fn stream(child: &mut Child, deadline: Instant) -> Result<u8> {
    let output = BufReader::new(child.stdout.take().context("output of the guest")?);
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in output.split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    let mut before = Vec::new();
    let mut begun = false;
    loop {
        let line = match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("the guest did not end in time\n{}", before.join("\n")),
            Err(RecvTimeoutError::Disconnected) => bail!("the guest ended by itself:\n{}", before.join("\n")),
        };
        if let Some(code) = line.strip_prefix(END) {
            return code.trim().parse().with_context(|| format!("exit code {code:?}"));
        } else if begun {
            println!("{line}");
            let _ = std::io::stdout().flush();
        } else if line == BEGIN {
            begun = true;
        } else {
            before.push(line);
        }
    }
}

/// The part of process 1 that runs the task with limits so much longer, between the marks that [`stream`] looks for, with
/// these variables of the environment.
fn task(program: &str, slower: u32, arguments: &[String], passed: &[&str]) -> String {
    let slower = slower.to_string();
    let command: Vec<String> =
        [program, "--slower", &slower].into_iter().chain(arguments.iter().map(String::as_str)).map(quoted).collect();
    let mut environment = String::new();
    for key in passed {
        if let Ok(value) = std::env::var(key) {
            environment += &format!("export {key}={}\n", quoted(&value));
        }
    }
    if !std::io::stdout().is_terminal() {
        environment += "export NO_COLOR=1\n";
    }
    format!(
        "echo 1 >/proc/sys/kernel/printk
ip link set lo up
cd /run/lab
{environment}echo
echo '{BEGIN}'
{command} </dev/null 2>&1
echo \"{END}$?\"
echo o >/proc/sysrq-trigger
sleep 5
",
        command = command.join(" ")
    )
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
