//! Programs that are measured: started, found again with their children, asked for their CPU time and memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::exec;
use crate::netns::Netns;

/// A process that ends on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command with its output in a file.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let what = exec::describe(&command);
        let child = command.spawn().with_context(|| format!("start {what}"))?;
        Ok(Self { child, what, log: log.to_owned() })
    }

    /// Whether it still runs; if not, what it said.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{}: {status}: {}", self.what, said.trim())
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory of one or more processes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident set.
    pub rss: u64,
    /// Of that, pages shared with others counted in part.
    pub pss: u64,
    /// Of the resident set, what is in no file.
    pub anonymous: u64,
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rss: self.rss + other.rss, pss: self.pss + other.pss, anonymous: self.anonymous + other.anonymous }
    }
}

/// In three columns, KiB.
impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9} {:>9} {:>9}", self.rss / 1024, self.pss / 1024, self.anonymous / 1024)
    }
}

/// The processes of a namespace whose name begins so (names are cut after 15 bytes).
pub fn processes(ns: &Netns, name: &str) -> Result<Vec<u32>> {
    let pids = exec::run(Command::new("ip").args(["netns", "pids", ns.name()]))?;
    let pids = pids.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    let wanted: String = name.chars().take(15).collect();
    let found: Vec<u32> = pids
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == wanted))
        .collect();
    if found.is_empty() {
        bail!("no process {wanted} runs in {}", ns.name());
    }
    Ok(found)
}

/// User and system time so far, in seconds.
pub fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        // The name in parentheses may hold spaces.
        let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory now.
pub fn memory(pids: &[u32]) -> Result<Memory> {
    let mut memory = Memory::default();
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        memory =
            memory + Memory { rss: kib("Rss:") * 1024, pss: kib("Pss:") * 1024, anonymous: kib("Anonymous:") * 1024 };
    }
    Ok(memory)
}

/// Bytes of memory that these processes hold together, each page counted once: processes of one program share its code.
pub fn resident_once(pids: &[u32]) -> Result<u64> {
    const PAGE: u64 = 4096;
    let mut frames = BTreeSet::new();
    for pid in pids {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).with_context(|| format!("process {pid}"))?;
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        for line in maps.lines().filter(|line| !line.ends_with("[vsyscall]")) {
            let range = line.split(' ').next().and_then(|range| range.split_once('-')).context("a line of maps")?;
            let (from, to) = (u64::from_str_radix(range.0, 16)?, u64::from_str_radix(range.1, 16)?);
            let mut entries = vec![0; usize::try_from((to - from) / PAGE)? * 8];
            // It ends with what the process may write to: nothing follows for the vectors of armv7.
            let length = pagemap.read_at(&mut entries, from / PAGE * 8)?;
            for entry in entries[..length].chunks_exact(8) {
                let entry = u64::from_ne_bytes(entry.try_into()?);
                // Present, and the number of the frame, which is 0 for whoever may not know it.
                if entry >> 63 == 1 {
                    frames.insert(entry & ((1 << 55) - 1));
                }
            }
        }
    }
    ensure!(!frames.contains(&0), "the kernel does not tell which pages are shared");
    Ok(frames.len() as u64 * PAGE)
}
