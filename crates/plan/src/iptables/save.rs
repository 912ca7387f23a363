//! From the text of `iptables-save` to the least text that makes it right.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{PREFIX, Table, Tables};

/// The tables that hold rules of ours.
pub const TABLES: [&str; 4] = ["raw", "mangle", "nat", "filter"];

/// Text for `iptables-restore --noflush` that turns what `save` shows (all tables, without counters) into what is
/// wanted; `None` if it is so already. Each table changes in one step. Chains that are right are left alone, and with
/// them their counters.
pub fn update(save: &str, wanted: &Tables) -> Option<String> {
    let saved = parse(save);
    let nothing = (Saved::default(), Table::default());
    let mut text = String::new();
    for name in TABLES {
        let before = saved.get(name).unwrap_or(&nothing.0);
        let lines = table_update(before, wanted.get(name).unwrap_or(&nothing.1));
        if !lines.is_empty() {
            let _ = writeln!(text, "*{name}\n{}COMMIT", lines);
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Text for `iptables-restore --noflush` that removes all that is ours and nothing else; `None` if there is nothing.
pub fn remove(save: &str) -> Option<String> {
    update(save, &Tables::new())
}

/// One table as saved: the rules of every chain, as they follow `-A <chain> `.
#[derive(Default)]
struct Saved<'a> {
    chains: BTreeMap<&'a str, Vec<&'a str>>,
}

fn parse(save: &str) -> BTreeMap<&str, Saved<'_>> {
    let mut tables: BTreeMap<&str, Saved<'_>> = BTreeMap::new();
    let mut current = None;
    for line in save.lines() {
        if let Some(name) = line.strip_prefix('*') {
            current = Some(name);
        } else if let Some(table) = current.map(|name| tables.entry(name).or_default()) {
            if let Some(chain) = line.strip_prefix(':').and_then(|l| l.split(' ').next()) {
                table.chains.entry(chain).or_default();
            } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' ')) {
                table.chains.entry(chain).or_default().push(rule);
            }
        }
    }
    tables
}

fn table_update(saved: &Saved<'_>, wanted: &Table) -> String {
    let (mut declared, mut filled, mut moved, mut deleted) =
        (String::new(), String::new(), String::new(), String::new());
    for (name, rules) in &wanted.chains {
        if !saved.chains.get(name.as_str()).is_some_and(|found| is_right(name, found, rules)) {
            let _ = writeln!(declared, ":{name} - [0:0]");
            for rule in rules {
                let _ = writeln!(filled, "-A {name} {rule}");
            }
        }
    }
    for (chain, rules) in &saved.chains {
        if chain.starts_with(PREFIX) {
            if !wanted.chains.contains_key(*chain) {
                let _ = writeln!(declared, ":{chain} - [0:0]");
                let _ = writeln!(deleted, "-X {chain}");
            }
            continue;
        }
        let jumps: Vec<&str> = rules.iter().copied().filter(|rule| jumps_to_us(rule)).collect();
        let jump = wanted.jumps.get(chain).map(|target| format!("-j {target}"));
        let right = match &jump {
            Some(jump) => jumps == [jump] && rules.first() == jumps.first(),
            None => jumps.is_empty(),
        };
        if !right {
            for rule in jumps {
                let _ = writeln!(moved, "-D {chain} {rule}");
            }
            if let Some(jump) = jump {
                let _ = writeln!(moved, "-I {chain} 1 {jump}");
            }
        }
    }
    // A table that was never used shows no base chains.
    for (chain, target) in wanted.jumps.iter().filter(|(chain, _)| !saved.chains.contains_key(*chain)) {
        let _ = writeln!(moved, "-I {chain} 1 -j {target}");
    }
    declared + &filled + &moved + &deleted
}

fn jumps_to_us(rule: &str) -> bool {
    let words: Vec<&str> = rule.split(' ').collect();
    words.windows(2).any(|pair| matches!(pair[0], "-j" | "-g") && pair[1].starts_with(PREFIX))
}

#[cfg(not(feature = "services"))]
fn is_right(_: &str, found: &[&str], wanted: &[String]) -> bool {
    same(found, wanted)
}

/// Where order means nothing, what was added later came first.
#[cfg(feature = "services")]
fn is_right(chain: &str, found: &[&str], wanted: &[String]) -> bool {
    if !super::services::UNORDERED.contains(&chain) {
        return same(found, wanted);
    }
    let (mut found, mut wanted) = (found.to_vec(), Vec::from_iter(wanted.iter().map(String::as_str)));
    found.sort_unstable();
    wanted.sort_unstable();
    found == wanted
}

fn same(found: &[&str], wanted: &[String]) -> bool {
    found.len() == wanted.len()
        && found.iter().zip(wanted).all(|(a, b)| a == b || same_but_rounded(a, b) || same_but_masked(a, b))
}

#[cfg(not(feature = "services"))]
fn same_but_masked(_: &str, _: &str) -> bool {
    false
}

/// The match `cluster` is saved with a mask, and in another order than it was written.
#[cfg(feature = "services")]
fn same_but_masked(found: &str, wanted: &str) -> bool {
    let written = || {
        let (before, rest) = found.split_once("--cluster-local-nodemask 0x")?;
        let (mask, rest) = rest.split_once(" --cluster-total-nodes ")?;
        let (total, after) = rest.split_once(' ')?;
        let number = u32::from_str_radix(mask, 16).ok().filter(|mask| mask.is_power_of_two())?.trailing_zeros() + 1;
        Some(format!("{before}--cluster-total-nodes {total} --cluster-local-node {number} {after}"))
    };
    written().is_some_and(|written| written == wanted)
}

/// Kernels keep a probability in 31 bits, and the flavours of iptables print the rest differently.
fn same_but_rounded(found: &str, wanted: &str) -> bool {
    const OPTION: &str = "--probability ";
    let cut = |rule: &str| -> Option<(String, u32)> {
        let (before, rest) = rule.split_once(OPTION)?;
        let (number, after) = rest.split_once(' ')?;
        Some((format!("{before}{after}"), billionths(number)?))
    };
    match (cut(found), cut(wanted)) {
        (Some((a, p)), Some((b, q))) => a == b && p.abs_diff(q) < 1000,
        _ => false,
    }
}

/// A decimal number below 1. Without floating point: its conversions are 30 KB that nothing else here needs.
fn billionths(number: &str) -> Option<u32> {
    let digits = number.strip_prefix("0.")?;
    let digits = digits.get(..digits.len().min(9))?;
    let scale = 10_u32.pow(9 - u32::try_from(digits.len()).ok()?);
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u32>().ok())?.map(|n| n * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_rounded_is_the_same() {
        let rule = |p: &str| format!("-p tcp -m statistic --mode random --probability {p} -j DNAT");
        let same = |a: &str, b: &str| same_but_rounded(&rule(a), &rule(b));
        assert!(same("0.33333333302", "0.33333333333"));
        assert!(same("0.333333", "0.33333333333"));
        assert!(same("0.5", "0.50000000000"));
        assert!(!same("0.33333333302", "0.25000000000"));
        assert!(!same("0.333", "0.33333333333"));
        for wrong in ["", "0.", "1", ".5", "-0.5", "0.+5", "0.12345678é", "0.x"] {
            assert!(!same(wrong, "0.50000000000"), "{wrong}");
        }
        assert!(!same_but_rounded(&rule("0.5").replace("tcp", "udp"), &rule("0.5")));
    }
}
