//! The programs under test: started in a node's namespace, asked for their status, killed.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use selvedge_linux::user::User;
use serde::Deserialize;

use crate::exec;
use crate::netns::{Netns, kill};
use crate::node::{Node, Role};
use crate::pace;

/// A running program with its log.
#[derive(Debug)]
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts `program` in the namespace with its output appended to `<dir>/<program>.log`.
    pub fn start(ns: &Netns, dir: &Path, program: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_by(&[], &find(program)?, ns, dir, arguments)
    }

    /// As [`Program::start`], as another user from the beginning.
    pub fn start_as(user: &str, ns: &Netns, dir: &Path, program: &str, arguments: &[&str]) -> Result<Self> {
        let gid = User::named(user)?.gid;
        let become_user = ["setpriv", &format!("--reuid={user}"), &format!("--regid={gid}"), "--clear-groups"];
        Self::start_by(&become_user.map(OsString::from), &reachable(dir, program)?, ns, dir, arguments)
    }

    /// `prefix`: the words of a program that starts it.
    fn start_by(prefix: &[OsString], file: &Path, ns: &Netns, dir: &Path, arguments: &[&str]) -> Result<Self> {
        let mut words = prefix.iter().map(OsString::as_os_str).chain([file.as_os_str()]);
        let mut command = ns.command(words.next().context("no program")?);
        command.args(words).args(arguments);
        Self::launch(command, &file.file_name().unwrap_or_default().to_string_lossy(), dir)
    }

    /// Starts a command with its output appended to `<dir>/<name>.log`.
    pub fn launch(mut command: Command, name: &str, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| exec::describe(&command))?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    /// Whether it still runs; if not, why not.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.log_tail()),
        }
    }

    /// Asks it to end and waits.
    pub fn terminate(&mut self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Waits until it has ended by itself, without an error.
    pub fn wait(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended: {status}\n{}", self.name, self.log_tail());
        Ok(())
    }

    /// Kills it and waits.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// All it ever wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines it wrote.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        format!("last lines of {}:\n  {}", self.log.display(), tail.join("\n  "))
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill(self.child.id(), signal);
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What `status --json` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `kernel` or `user`.
    pub datapath: String,
    /// `nftables` or `iptables`.
    pub firewall: String,
    /// User, capabilities and Landlock, in words.
    pub confinement: String,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// The other ends.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// Callers that were turned away.
    #[serde(default)]
    pub refused: Vec<Refusal>,
    /// Packets dropped for a reason that concerns no single peer.
    #[serde(default)]
    pub drops: Vec<Drops>,
    /// What could not be done.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The edge gateway, if there is one.
    pub gateway: Option<GatewayStatus>,
    /// When the node's certificate ends, in seconds since 1970.
    pub certificate_not_after: Option<u64>,
    /// What time it is.
    pub clock: Clock,
    /// The API that is asked, if any is.
    pub source: Option<Source>,
    /// Endpoints that do not answer, or may not.
    #[serde(default)]
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint that does not answer, or may not.
#[derive(Debug, Deserialize)]
pub struct EndpointStatus {
    /// Where.
    pub address: std::net::IpAddr,
    /// `suspect` or `out`.
    pub state: String,
    /// What it answered, in words.
    pub reason: String,
}

/// The API that delivers configuration, Services or both.
#[derive(Debug, Deserialize)]
pub struct Source {
    /// `kubeedge`, `superedge`, `openyurt`, `kubernetes` or `operator`.
    pub kind: String,
    /// `online`, `offline` or `unknown`.
    pub reach: String,
    /// What cannot be read, and why.
    pub errors: Vec<String>,
}

/// The calendar as a program goes by it.
#[derive(Debug, Deserialize)]
pub struct Clock {
    /// Seconds since 1970; it may be later unless `set`.
    pub time: u64,
    /// Whether somebody vouches for it.
    pub set: bool,
}

impl Status {
    /// One other end.
    pub fn peer(&self, name: &str) -> Result<&PeerStatus> {
        self.peers.iter().find(|peer| peer.name == name).with_context(|| format!("no peer {name}"))
    }

    /// The other ends of tunnels.
    pub fn tunnels(&self) -> impl Iterator<Item = &PeerStatus> {
        self.peers.iter().filter(|peer| peer.via == "tunnel")
    }
}

/// A counter of dropped packets.
#[derive(Debug, Deserialize)]
pub struct Drops {
    /// Why, in words.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// The edge gateway of a node.
#[derive(Debug, Deserialize)]
pub struct GatewayStatus {
    /// Its listeners.
    pub listeners: Vec<ListenerStatus>,
}

/// A listener of an edge gateway.
#[derive(Debug, Deserialize)]
pub struct ListenerStatus {
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// The configuration in force, and what was wrong with the newest one.
#[derive(Debug, Deserialize)]
pub struct ConfigStatus {
    /// As the operator counts.
    pub generation: u64,
    /// Field and reason.
    pub error: Option<String>,
}

/// One other end.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// `<cluster>.<node>`.
    pub name: String,
    /// `tunnel` or `lan`.
    pub via: String,
    /// `up`, `connecting`, `down` or `refused`.
    pub state: String,
    /// Cipher of the pair in use; absent if an earlier run of the program keyed it.
    pub cipher: Option<String>,
    /// Packets dropped because they were not from the peer's networks.
    #[serde(default)]
    pub dropped_in: u64,
    /// Why it is not up.
    pub last_error: Option<String>,
}

/// A caller that was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// Its address.
    pub remote: String,
    /// Who it said it was.
    pub claimed: Option<String>,
    /// Why.
    pub reason: String,
}

/// The folders of a node's program.
#[derive(Clone, Debug)]
pub struct Folders {
    /// `config.json`.
    pub config: PathBuf,
    /// `ca.crt`, `tls.crt`, `tls.key`.
    pub credentials: PathBuf,
    /// Sockets, and the log of the keeper.
    pub run: PathBuf,
    /// What is kept over a boot.
    pub state: PathBuf,
    cni: PathBuf,
    /// A file with the time that the program is to take for the present, instead of the system's clock.
    pub clock: Option<PathBuf>,
    /// The options that tell of another source than files.
    pub source: Vec<String>,
}

impl Folders {
    /// With configuration and credentials where the operator puts them.
    pub fn of(node: &Node, operator_output: &Path) -> Self {
        let output = operator_output.join(&node.name);
        Self {
            config: output.join("config.json"),
            credentials: output.join("tls"),
            run: node.dir.join("run"),
            state: node.dir.join("state"),
            cni: node.cni_dir(),
            clock: None,
            source: Vec::new(),
        }
    }
}

/// Starts the program of a node: connector or agent.
pub fn start(node: &Node, folders: &Folders) -> Result<Program> {
    start_in(node, folders, ":")
}

/// As [`start`], after a shell script in the program's own mount namespace and environment.
pub fn start_in(node: &Node, folders: &Folders, script: &str) -> Result<Program> {
    let [config, credentials, run, state, cni] =
        [&folders.config, &folders.credentials, &folders.run, &folders.state, &folders.cni]
            .map(|p| p.to_string_lossy());
    let mut arguments = vec!["run", "--config", &config, "--credentials", &credentials];
    arguments.extend(["--run-dir", &run, "--state-dir", &state]);
    arguments.extend(folders.source.iter().map(String::as_str));
    if node.role != Role::Connector {
        arguments.extend(["--cni-dir", &cni]);
    }
    std::fs::create_dir_all(&folders.cni)?;
    let mut file = find(program_of(node))?;
    if let Some(user) = &node.user {
        arguments.extend(["--user", user]);
        file = reachable(&node.dir, program_of(node))?;
    }
    let clock = folders.clock.as_deref().map(faked_clock).unwrap_or_default();
    if !clock.is_empty() {
        // The library has files of its own.
        arguments.push("--no-landlock");
    }
    let script = format!("{script}\nexec \"$@\"");
    let shell = ["sh", "-ec", &script, "sh"].map(OsString::from);
    let prefix: Vec<OsString> = shell.into_iter().chain(clock).collect();
    Program::start_by(&prefix, &file, &node.ns, &node.dir, &arguments)
}

/// Starts a program whose calendar stands at the time in a file (libfaketime).
fn faked_clock(file: &Path) -> Vec<OsString> {
    let mut file_option = OsString::from("FAKETIME_TIMESTAMP_FILE=");
    file_option.push(file);
    // The loader puts the folder of this architecture's libraries for `$LIB`.
    let words = ["env", "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1", "FAKETIME_NO_CACHE=1"];
    let mut words: Vec<OsString> = words.map(OsString::from).to_vec();
    words.extend(["FAKETIME_DONT_FAKE_MONOTONIC=1", "TZ=UTC"].map(OsString::from));
    words.push(file_option);
    words
}

/// Whether a library can be put before what a program calls: not if it is static.
pub fn takes_libraries(program: &str) -> Result<bool> {
    const LIBC: &[u8] = b"libc.so.6\0";
    Ok(std::fs::read(find(program)?)?.windows(LIBC.len()).any(|bytes| bytes == LIBC))
}

/// A copy of the program where every user can start it.
fn reachable(dir: &Path, program: &str) -> Result<PathBuf> {
    let copy = dir.join("bin").join(program);
    if !copy.exists() {
        std::fs::create_dir_all(dir.join("bin"))?;
        std::fs::copy(find(program)?, &copy)?;
    }
    Ok(copy)
}

/// What the program of a node says about itself.
pub fn status(node: &Node, folders: &Folders) -> Result<Status> {
    let mut command = Command::new(find(program_of(node))?);
    command.args(["status", "--json", "--run-dir"]).arg(&folders.run);
    let text = node.ns.enter(|| exec::run(&mut command))?;
    serde_json::from_str(&text).with_context(|| format!("status of {}: {text}", node.name))
}

/// What another verb of a node's program prints, given this on standard input.
pub fn verb(node: &Node, folders: &Folders, words: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(find(program_of(node))?);
    command.args(words).arg("--run-dir").arg(&folders.run).arg("--config").arg(&folders.config);
    node.ns.enter(|| exec::feed(&mut command, input))
}

/// Removes everything the program of a node ever made.
pub fn clean(node: &Node, folders: &Folders) -> Result<String> {
    let mut command = Command::new(find(program_of(node))?);
    command.arg("clean").arg("--run-dir").arg(&folders.run).arg("--state-dir").arg(&folders.state);
    if node.role != Role::Connector {
        command.arg("--cni-dir").arg(&folders.cni);
    }
    node.ns.enter(|| exec::run(&mut command))
}

/// Tries until it is there or the time is over; the error is the last one.
pub fn wait<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + pace::limit(deadline);
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("{what}: not within {}", pace::words(deadline))));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The program beside this one, or in `$SELVEDGE_BIN_DIR`.
pub fn find(program: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("SELVEDGE_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?.parent().context("folder of this program")?.to_owned(),
    };
    let path = folder.join(program);
    if !path.exists() {
        bail!("{} is not there: build the workspace, or set SELVEDGE_BIN_DIR", path.display());
    }
    Ok(path)
}

fn program_of(node: &Node) -> &'static str {
    if node.role == Role::Connector { "selvedge-connector" } else { "selvedge-agent" }
}
