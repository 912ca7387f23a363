//! A machine for programs that take one for theirs: the network of a node with mounts, processes and control groups of
//! its own. All that runs on it ends with its first process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::exec;
use crate::node::Node;
use crate::programs::{Program, wait};

const START: Duration = Duration::from_secs(10);
/// Processes of the machine leave their groups some time after they were killed.
const END: Duration = Duration::from_secs(10);
const CGROUPS: &str = "/sys/fs/cgroup";
const INIT: &str = include_str!("machine.sh");
/// Puts itself into the groups before `--`, then becomes what follows.
const JOIN: &str = "while [ \"$1\" != -- ]; do echo $$ >\"$1/cgroup.procs\"; shift; done; shift; exec \"$@\"";

/// A running machine; it ends on drop.
#[derive(Debug)]
pub struct Machine {
    first: Program,
    pid: String,
    groups: Groups,
    dir: PathBuf,
}

/// A group of one name in every hierarchy, beneath those that this program is in.
#[derive(Debug)]
struct Groups(Vec<PathBuf>);

impl Machine {
    /// Starts one in the network of a node. `/var/lib` is on the node's disk, and CNI's leases are the node's.
    pub fn start(node: &Node) -> Result<Self> {
        let (disk, leases) = (node.dir.join("disk/lib"), node.cni_data());
        for folder in [&disk, &leases] {
            std::fs::create_dir_all(folder)?;
        }
        let hierarchies = hierarchies()?;
        let groups = Groups::create(node.ns.name(), &hierarchies)?;
        let mut command = groups.joined();
        command.arg("nsenter").arg(format!("--net={}", node.ns.path().display()));
        command.args(["unshare", "--mount", "--propagation", "private", "--cgroup", "--uts", "--ipc"]);
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", INIT, "sh", &node.name]).arg(&disk).arg(&leases);
        command.args(hierarchies.iter().map(|(name, _)| name));
        let mut first = Program::launch(command, "machine", &node.dir)?;
        wait("the machine", START, || {
            first.check()?;
            ensure!(first.log().ends_with("ready\n"), "{}", first.log_tail());
            Ok(())
        })?;
        let pid = exec::run(Command::new("pgrep").arg("--parent").arg(first.pid().to_string()))?;
        Ok(Self { first, pid: pid.trim().to_owned(), groups, dir: node.dir.clone() })
    }

    /// Starts a program on it that ends with this process, too.
    pub fn launch(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<Program> {
        let mut command = self.entered();
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program).args(arguments);
        Program::launch(command, name, &self.dir)
    }

    /// Runs a short command on it.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        exec::run(self.entered().args(words))
    }

    fn entered(&self) -> Command {
        let mut command = self.groups.joined();
        command.args(["nsenter", "--all", "--target", &self.pid]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Groups can go when nobody is in them.
        let _ = self.first.kill();
    }
}

impl Groups {
    fn create(name: &str, hierarchies: &[(String, PathBuf)]) -> Result<Self> {
        let mut groups = Self(Vec::new());
        for (hierarchy, own) in hierarchies {
            let path = own.join(name);
            std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
            groups.0.push(path.clone());
            if hierarchy == "cpuset" {
                // Nobody can join before these are set.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    std::fs::write(path.join(file), std::fs::read(own.join(file))?)?;
                }
            }
        }
        Ok(groups)
    }

    /// A command in these groups that ends with this process; its words are to be added.
    fn joined(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-ec", JOIN, "sh"]).args(&self.0).arg("--");
        command
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = wait("an empty group", END, || remove(path));
        }
    }
}

/// Removes the groups whose names are such.
pub fn remove_groups(such: impl Fn(&str) -> bool) {
    for (_, own) in hierarchies().unwrap_or_default() {
        for entry in std::fs::read_dir(own).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&such) {
                let _ = wait("an empty group", END, || remove(&entry.path()));
            }
        }
    }
}

/// Every hierarchy of version 1 with the group that this program is in.
pub fn hierarchies() -> Result<Vec<(String, PathBuf)>> {
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(name), Some(group)) = (fields.next(), fields.next()) else { continue };
        let name = name.strip_prefix("name=").unwrap_or(name);
        let folder = Path::new(CGROUPS).join(name);
        if !name.is_empty() && folder.join("cgroup.procs").exists() {
            found.push((name.to_owned(), folder.join(group.trim_start_matches('/'))));
        }
    }
    ensure!(!found.is_empty(), "this machine has no control groups of version 1 in {CGROUPS}");
    Ok(found)
}

/// From the inside out; nothing else than folders can be removed there.
fn remove(group: &Path) -> Result<()> {
    for entry in std::fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(group).with_context(|| format!("remove {}", group.display()))
}
