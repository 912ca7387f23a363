//! How often processes wake up, and what memory they have.

use anyhow::{Context, Result};

use crate::netns::Netns;

/// One process of Selvedge.
#[derive(Debug)]
pub struct Usage {
    /// Name and verb.
    pub what: String,
    /// Process id.
    pub pid: u32,
    /// Voluntary context switches of all its threads: each is a wait that began, and so a wake-up.
    pub wake_ups: u64,
    /// Resident memory.
    pub rss_kib: u64,
}

impl Usage {
    /// The programs of Selvedge that run in the namespace, in the order of their ids.
    pub fn of(ns: &Netns) -> Result<Vec<Self>> {
        let mut pids = ns.processes()?;
        pids.sort_unstable();
        pids.into_iter().filter_map(|pid| Self::read(pid).transpose()).collect()
    }

    fn read(pid: u32) -> Result<Option<Self>> {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let [program, verb, ..] = &words[..] else { return Ok(None) };
        let name = program.rsplit('/').next().unwrap_or_default();
        if !matches!(name, "selvedge-agent" | "selvedge-connector") {
            return Ok(None);
        }
        let mut wake_ups = 0;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            wake_ups += field(&std::fs::read_to_string(thread?.path().join("status"))?, "voluntary_ctxt_switches:")?;
        }
        let rss_kib = field(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:")?;
        Ok(Some(Self { what: format!("{name} {verb}"), pid, wake_ups, rss_kib }))
    }
}

fn field(status: &str, name: &str) -> Result<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    value.with_context(|| format!("no {name} in a status"))?.parse().with_context(|| name.to_owned())
}
