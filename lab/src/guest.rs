//! The laboratory inside a real kernel that has ESP: Debian's user-mode Linux with this machine's files as its root,
//! read-only, and this same program as its only task.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::topology::RunDir;

const KERNEL: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";
const BEGIN: &str = "@@selvedge-guest begin";
const END: &str = "@@selvedge-guest end ";

/// The process group of the running guest: it consists of several processes.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// How the guest is to be.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Seconds after which the guest is killed.
    #[arg(long, default_value_t = 900)]
    timeout: u64,
    /// Memory of the guest.
    #[arg(long, default_value = "768M")]
    memory: String,
    /// Modules that the kernel is not to find, separated by commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// More for the kernel's command line.
    #[arg(long)]
    boot: Vec<String>,
}

/// Boots, runs `selvedge-lab <arguments>`, streams what it prints and gives back its exit code.
pub fn run(arguments: &[String], options: &Options) -> Result<ExitCode> {
    let timeout = Duration::from_secs(options.timeout);
    let dir = RunDir::create(false)?;
    let init = dir.join("init.sh");
    std::fs::write(&init, script(arguments, &options.without)?)?;
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut child = Command::new(KERNEL)
        .args(["rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=null,fd:1", "quiet"])
        .arg(format!("mem={}", options.memory))
        .args(&options.boot)
        .arg(format!("init={}", init.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {KERNEL} (Debian package user-mode-linux)"))?;
    GROUP.store(child.id().cast_signed(), Ordering::SeqCst);
    let outcome = stream(&mut child, Instant::now() + timeout);
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
            Err(RecvTimeoutError::Timeout) => bail!("the guest did not end in time"),
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

/// Process 1 of the guest. /run is the only place that can be written; the kernel loads modules by itself through a
/// modprobe that knows where user-mode Linux has them, br_netfilter and tun apart, which nothing asks for.
fn script(arguments: &[String], without: &[String]) -> Result<String> {
    let program = std::env::current_exe()?;
    let command: Vec<String> =
        std::iter::once(program.display().to_string()).chain(arguments.iter().cloned()).map(|a| quoted(&a)).collect();
    let withheld: String = without.iter().map(|module| format!("install {module} /bin/false\n")).collect();
    let mut environment = String::new();
    for key in ["RUST_LOG", "SELVEDGE_BIN_DIR"] {
        if let Ok(value) = std::env::var(key) {
            environment += &format!("export {key}={}\n", quoted(&value));
        }
    }
    if !std::io::stdout().is_terminal() {
        environment += "export NO_COLOR=1\n";
    }
    Ok(format!(
        "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run/lab
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755 run /run
mkdir -p /run/lab /run/kmod/lib/modules
ln -s {MODULES}/$(uname -r) /run/kmod/lib/modules/
printf '{withheld}' >/run/modprobe.conf
printf '#!/bin/sh\\nexec /sbin/modprobe -C /run/modprobe.conf -d /run/kmod \"$@\"\\n' >/run/modprobe
chmod 0755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
echo 1 >/proc/sys/kernel/printk
/run/modprobe -a tun br_netfilter
ip link set lo up
cd /run/lab
{environment}echo
echo '{BEGIN}'
{command} </dev/null 2>&1
echo \"{END}$?\"
echo o >/proc/sysrq-trigger
sleep 5
",
        withheld = withheld.replace('\n', "\\n"),
        command = command.join(" ")
    ))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
