//! What else is on this machine: others that want the same ports, tables and locks.

use std::time::Duration;

use selvedge_linux::{Family, file, process};

use super::finding::{Finding, Level};
use crate::Options;

/// The oldest kernel whose history was looked through: docs/kernels.md.
const OLDEST: (u32, u32) = (4, 9);

/// Programs that do on a node what we do, and what comes of both.
const NEIGHBOURS: [(&str, &str); 9] = [
    ("charon", IKE),
    ("charon-systemd", IKE),
    ("pluto", IKE),
    ("racoon", IKE),
    ("fabedge-agent", "it tunnels the same networks, with table 220 too: stop it before Selvedge runs"),
    ("fabedge-connect", "it tunnels the same networks, with table 220 too: stop it before Selvedge runs"),
    ("kube-proxy", "it serves Services too: leave them to one, by the node's \"services\" setting"),
    ("edgemesh-agent", "it serves Services too: leave them to one, by the node's \"services\" setting"),
    ("tailscaled", "its routes come before ours (rule 5210 aside, both have tables of their own): usually harmless"),
];

const IKE: &str = "it wants UDP 500 and 4500 too, and strongSwan's table 220 is ours: run one of both";

/// The kernel, from `/proc/version`.
pub(super) fn system(version: &str) -> Finding {
    let release = version.split_whitespace().nth(2).unwrap_or("unknown");
    let text = format!("Linux {release} on {}", std::env::consts::ARCH);
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            let text = format!("{text}: older than {}.{}, nobody knows what works", OLDEST.0, OLDEST.1);
            Finding::new(Level::Warn, "system", text)
        }
        _ => Finding::new(Level::Ok, "system", text),
    }
}

pub(super) fn findings(options: &Options) -> Vec<Finding> {
    let mut out = ports(options);
    let running = process::list();
    for (name, meaning) in NEIGHBOURS {
        if let Some((pid, _)) = running.iter().find(|(_, found)| found == name) {
            let text = format!("{name} runs here (process {pid})");
            out.push(Finding::new(Level::Warn, "neighbour", text).remedy(meaning));
        }
    }
    out
}

fn ports(options: &Options) -> Vec<Finding> {
    let mut out = Vec::new();
    for (port, level, meaning) in [
        (4500, Level::Fail, "no tunnel can be up"),
        (500, Level::Warn, "peers that call on port 500, as other vendors' do, are not heard"),
    ] {
        for family in [Family::V4, Family::V6] {
            let Some(holder) = process::udp_holder(port, family) else { continue };
            let holder = holder.as_ref();
            if holder.is_some_and(|(pid, _)| is_keeper(*pid, options)) {
                continue;
            }
            let name = holder.map_or("a process that cannot be seen from here".to_owned(), |(pid, name)| {
                format!("{name} (process {pid})")
            });
            let text = format!("UDP port {port} ({family}) is held by {name}: {meaning}");
            out.push(Finding::new(level, &format!("udp-{port}"), text).remedy("stop that program"));
        }
    }
    out
}

/// Ours: it was given our folder.
fn is_keeper(pid: u32, options: &Options) -> bool {
    let words = process::command_line(pid);
    words.get(1).is_some_and(|word| word == "keeper") && words.get(2).is_some_and(|dir| options.run_dir == *dir)
}

/// The lock that every iptables takes. Others hold it for a moment all the time; not for a second.
pub(super) fn lock() -> Option<Finding> {
    const ATTEMPTS: u32 = 10;
    let mut holder = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        holder = file::lock_holder("/run/xtables.lock").ok().flatten();
        holder?;
    }
    let named = |pid: u32| process::list().into_iter().find(|(found, _)| *found == pid);
    let holder = match holder.flatten().and_then(named) {
        Some((pid, name)) => format!("{name} (process {pid})"),
        None => "another program".to_owned(),
    };
    let text = format!("the lock of iptables is held by {holder}: no rule can be written");
    Some(Finding::new(Level::Fail, "xtables-lock", text).remedy("end that process if it hangs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_named() {
        let level = |release: &str| system(&format!("Linux version {release} (x) #1")).level;
        assert_eq!(level("4.4.302"), "warn");
        assert_eq!(level("3.18-rc1"), "warn");
        for new in ["4.9.1", "4.14.0-x", "6.18.44-fc-v657", "5.15"] {
            assert_eq!(level(new), "ok", "{new}");
        }
        assert_eq!(system("").level, "ok");
    }
}
