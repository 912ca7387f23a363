//! Everything a program could have left on a node, as text: to compare before and after.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::exec;
use crate::netns::Netns;

/// What is asked, without counters and without what changes by itself.
const QUESTIONS: [(&str, &str); 14] = [
    ("rules", "ip rule"),
    ("rules of IPv6", "ip -6 rule"),
    ("routes", "ip route show table all"),
    ("routes of IPv6", "ip -6 route show table all"),
    ("devices", "ip -o link"),
    ("addresses", "ip -o address"),
    ("xfrm states", "ip xfrm state list nokeys"),
    ("xfrm policies", "ip xfrm policy"),
    ("nftables", "nft -s list ruleset"),
    ("iptables", "iptables-save"),
    ("iptables of IPv6", "ip6tables-save"),
    ("legacy iptables", "iptables-legacy-save"),
    ("legacy iptables of IPv6", "ip6tables-legacy-save"),
    ("ipset", "ipset save"),
];

/// Lines by question, and files by path.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, Vec<String>>);

impl Snapshot {
    /// Of a namespace, and of the files below some folders.
    pub fn take(ns: &Netns, folders: &[&Path]) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (name, question) in QUESTIONS {
            let mut words = question.split_whitespace();
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            let text = ns.enter(|| exec::run(&mut command))?;
            let lines = if name == "nftables" { own_tables(&text) } else { text.lines().map(tidy).collect() };
            let mut lines: Vec<String> = lines.into_iter().filter(|line| matters(line)).collect();
            if name.contains("routes") || name.contains("ipset") {
                lines.sort();
            }
            all.insert(name.to_owned(), lines);
        }
        for folder in folders {
            files(folder, &mut all)?;
        }
        Ok(Self(all))
    }

    /// Every line.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.values().flatten().map(String::as_str)
    }

    /// Lines that are only here, and lines that are only there.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            let empty = Vec::new();
            let (here, there) = (self.0.get(name).unwrap_or(&empty), other.0.get(name).unwrap_or(&empty));
            lines.extend(here.iter().filter(|l| !there.contains(l)).map(|l| format!("gone from {name}: {l}")));
            lines.extend(there.iter().filter(|l| !here.contains(l)).map(|l| format!("left in {name}: {l}")));
            if here != there && lines.is_empty() {
                lines.push(format!("another order in {name}"));
            }
        }
        lines
    }
}

/// Tables that the nft flavour of iptables keeps are seen by iptables-save.
fn own_tables(text: &str) -> Vec<String> {
    let mut foreign = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(table) = line.strip_prefix("table ") {
            let words: Vec<&str> = table.split_whitespace().collect();
            foreign = matches!(words.first(), Some(&("ip" | "ip6")))
                && matches!(words.get(1), Some(&("filter" | "nat" | "mangle" | "raw" | "security")));
        }
        if !foreign {
            lines.push(line.trim().to_owned());
        }
    }
    lines
}

/// Without packet counters, ages, and whether a device has a carrier at the moment.
fn tidy(line: &str) -> String {
    let words = line.split_whitespace().filter(|word| !word.starts_with('['));
    let mut kept = Vec::new();
    let mut skip = 0;
    for word in words {
        match word {
            "expires" | "valid_lft" | "preferred_lft" | "qlen" | "state" => skip = 1,
            "linkdown" | "tentative" => {}
            _ if word.starts_with('<') => {}
            _ if skip > 0 => skip -= 1,
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

/// Tables, their ends and empty chains of the system stay when rules were once there.
fn matters(line: &str) -> bool {
    let builtin = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let is_builtin = line.strip_prefix(':').is_some_and(|rest| {
        let mut words = rest.split_whitespace();
        words.next().is_some_and(|chain| builtin.contains(&chain)) && words.next() == Some("ACCEPT")
    });
    !line.is_empty() && !line.starts_with(['#', '*']) && line != "COMMIT" && !is_builtin
}

fn files(folder: &Path, all: &mut BTreeMap<String, Vec<String>>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, all)?;
        } else {
            let lines = std::fs::read_to_string(&path).unwrap_or_else(|_| "not text".to_owned());
            all.insert(path.display().to_string(), lines.lines().map(str::to_owned).collect());
        }
    }
    Ok(())
}
