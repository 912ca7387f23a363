//! The firewall tools of the system, run with text on their standard input.
//!
//! They act on the network namespace of the current thread. One run is one transaction per table: all of the text or
//! nothing of it. What a tool wrote to its standard error is in the error.

mod generation;
mod probe;
mod run;

use std::path::{Path, PathBuf};

use crate::Family;
use crate::error::Result;
use run::{find, run};

pub(crate) use generation::request;
pub use generation::{Generation, has_chain};
pub use probe::{Missing, probe_ipset, probe_iptables, probe_nft, probe_rule};

/// Seconds to wait for another program's lock.
const LOCK_WAIT: &str = "10";

/// `nft`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nft {
    program: PathBuf,
}

/// `iptables` or `ip6tables`, in the flavour that works here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iptables {
    restore: PathBuf,
    save: PathBuf,
}

/// `ipset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipset {
    program: PathBuf,
}

impl Nft {
    /// The `nft` of this system, untried.
    pub fn find() -> Result<Self> {
        Ok(Self { program: find("nft")? })
    }

    /// Applies commands (`nft -f -`).
    pub fn apply(&self, text: &str) -> Result<()> {
        run(&self.program, &["-f", "-"], text).map(drop)
    }

    /// Checks commands against the kernel and applies none of them (`nft -c -f -`).
    pub fn check(&self, text: &str) -> Result<()> {
        run(&self.program, &["-c", "-f", "-"], text).map(drop)
    }

    /// A table as text, such as family `inet` and name `selvedge`; `None` when it is not there.
    pub fn list_table(&self, family: &str, name: &str) -> Result<Option<String>> {
        match run(&self.program, &["list", "table", family, name], "") {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.to_string().contains("No such file or directory") => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Iptables {
    /// The flavours of the tools for `family` on this system, untried: the system's choice, legacy, nft.
    pub fn candidates(family: Family) -> Vec<Self> {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let pair = |flavour: &str| {
            let restore = find(&format!("{base}{flavour}-restore")).ok()?;
            Some(Self { restore, save: find(&format!("{base}{flavour}-save")).ok()? })
        };
        ["", "-legacy", "-nft"].into_iter().filter_map(pair).collect()
    }

    /// Applies `iptables-restore` text and leaves chains it does not name as they are.
    pub fn restore(&self, text: &str) -> Result<()> {
        match run(&self.restore, &["-w", LOCK_WAIT, "--noflush"], text) {
            // Before 1.6.2 it knows of no lock.
            Err(e) if e.to_string().contains("invalid option") => run(&self.restore, &["--noflush"], text).map(drop),
            other => other.map(drop),
        }
    }

    /// Whether its rules are in the kernel's own tables, and not in nftables.
    pub fn is_legacy(&self) -> bool {
        let program = self.restore.canonicalize().unwrap_or_else(|_| self.restore.clone());
        !program.file_name().is_some_and(|name| name.to_string_lossy().contains("nft"))
    }

    /// A table (`filter`, `nat`, `mangle`, `raw`) in the form of `iptables-save`.
    pub fn save(&self, table: &str) -> Result<String> {
        run(&self.save, &["-t", table], "")
    }

    /// All tables that the kernel has loaded, in the form of `iptables-save`; where only root may ask which those are
    /// (the legacy flavour, whatever the capabilities), `tables` as far as this kernel has them.
    pub fn save_all(&self, tables: &[&str]) -> Result<String> {
        run(&self.save, &[], "").or_else(|error| {
            let each: String = tables.iter().filter_map(|table| self.save(table).ok()).collect();
            if each.is_empty() { Err(error) } else { Ok(each) }
        })
    }
}

/// Those of `tables` that the kernel has loaded for the legacy flavour of `family`; asking for one would load it.
pub fn legacy_tables<'a>(family: Family, tables: &[&'a str]) -> Vec<&'a str> {
    let prefix = match family {
        Family::V4 => "iptable",
        Family::V6 => "ip6table",
    };
    let loaded = |table: &&str| Path::new(&format!("/sys/module/{prefix}_{table}")).exists();
    tables.iter().copied().filter(loaded).collect()
}

impl Ipset {
    /// The `ipset` of this system, untried.
    pub fn find() -> Result<Self> {
        Ok(Self { program: find("ipset")? })
    }

    /// Applies commands; sets and members that are there already, or not there, are no errors.
    pub fn restore(&self, text: &str) -> Result<()> {
        run(&self.program, &["restore", "-exist"], text).map(drop)
    }

    /// A set with its members in the form of `ipset save`; `None` when it is not there.
    pub fn save(&self, name: &str) -> Result<Option<String>> {
        match run(&self.program, &["save", name], "") {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.to_string().contains("does not exist") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All sets with their members in the form of `ipset save`.
    pub fn save_all(&self) -> Result<String> {
        run(&self.program, &["save"], "")
    }

    /// The names of all sets.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(run(&self.program, &["list", "-name"], "")?.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_knows_of_no_lock_is_run_without() {
        let dir = std::env::temp_dir().join(format!("selvedge-old-iptables-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (restore, seen) = (dir.join("restore"), dir.join("seen"));
        // As iptables-restore 1.6.0 says it.
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = -w ]; then echo \"$0: invalid option -- 'w'\" >&2; exit 1; fi\n\
             echo \"$@\" >{0}\ncat >>{0}\n",
            seen.display()
        );
        // Written by another process: one that a test beside this starts could hold it open for writing.
        let write = ["-c", "cat >\"$0\" && chmod 755 \"$0\"", &restore.display().to_string()];
        run(&find("sh").unwrap(), &write, &script).unwrap();
        let old = Iptables { save: restore.clone(), restore };
        old.restore("*nat\n").unwrap();
        assert_eq!(std::fs::read_to_string(&seen).unwrap(), "--noflush\n*nat\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
