//! Two nodes, joined by a cable, under odd circumstances.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_linux::file;
use serde_json::{Value, json};

use super::rows::{Reach, Row};
use crate::bench::credentials::Authority;
use crate::bench::link::{End, Link};
use crate::probe;
use crate::process::Daemon;
use crate::programs::{self, wait};

const PATIENCE: Duration = Duration::from_secs(60);

/// What this guest always lacks, and what it always says: no NAT in nftables, no xfrm interfaces, nobody sets its clock.
const USUAL: [&str; 3] = ["nft-kernel", "xfrm-interface", "clock"];

/// Who is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A program that has UDP port 4500.
    Port,
    /// A program that holds the lock of iptables.
    Lock,
}

/// The programs of a row.
struct Site<'a> {
    row: &'a Row,
    link: Link,
    agents: Vec<Daemon>,
}

/// Runs a row from nothing.
pub fn check(row: &Row, dir: &Path) -> Result<String> {
    let link = Link::create("odd", dir)?;
    let port = match row.obstacle {
        Some(Obstacle::Port) => Some(link.a.ns.enter(|| Ok(UdpSocket::bind("0.0.0.0:4500")?))?),
        _ => None,
    };
    let authority = Authority::new()?;
    let mut site = Site { row, link, agents: Vec::new() };
    for end in 0..2 {
        let agent = site.start(end, &authority)?;
        site.agents.push(agent);
    }
    let outcome = site.judge(port).with_context(|| site.log());
    drop(site.agents);
    for (end, _) in site.link.ends() {
        std::fs::remove_dir_all(&end.dir)?;
    }
    outcome
}

impl Site<'_> {
    fn judge(&mut self, port: Option<UdpSocket>) -> Result<String> {
        let a = &self.link.a;
        if port.is_none() {
            self.reach()?;
        }
        let lock = match self.row.obstacle {
            Some(Obstacle::Lock) => Some(Daemon::start(
                self.command(a, "exec flock -o /run/xtables.lock sleep 100", &[]),
                &a.dir.join("lock.log"),
            )?),
            _ => None,
        };
        if lock.is_some() {
            wait("the lock", PATIENCE, || file::lock_holder("/run/xtables.lock")?.context("nobody holds it"))?;
        }
        let status = wait("the status", PATIENCE, || self.status(a).and_then(|s| self.as_expected(s)))?;
        let findings = wait("the doctor's findings", PATIENCE, || self.findings(a))?;
        if let Some(port) = port {
            ensure!(findings.contains("selvedge-lab"), "the holder of the port is not named: {findings}");
            drop(port);
            self.reach()?;
        }
        drop(lock);
        let said = status["kernel"].as_array().map_or(0, Vec::len);
        Ok(format!("{}, {}, {said} lines of status", status["datapath"].as_str().unwrap_or(""), status["firewall"]))
    }

    /// What the status must say, whoever reads it.
    fn as_expected(&self, status: Value) -> Result<Value> {
        let chosen = [status["datapath"].as_str().unwrap_or(""), status["firewall"].as_str().unwrap_or("")];
        ensure!(chosen == [self.row.chosen.0, self.row.chosen.1], "datapath and firewall are {chosen:?}: {status}");
        if self.row.reach != Reach::Nothing && self.row.obstacle != Some(Obstacle::Port) {
            let cipher = status["peers"][0]["cipher"].as_str().unwrap_or("");
            ensure!(cipher == self.row.cipher, "the cipher is {cipher:?}: {status}");
        }
        if !self.row.rule.is_empty() {
            let rules = self.link.a.ns.run("iptables-legacy-save -t nat")?;
            ensure!(rules.lines().any(|line| line == self.row.rule), "no rule {}: {rules}", self.row.rule);
        }
        let problems = status["problems"].as_array().map_or(0, Vec::len);
        let wanted = self.row.findings.iter().any(|(_, id, _)| *id == "problem");
        ensure!((problems > 0) == wanted, "problems: {}", status["problems"]);
        let lines = status["kernel"].to_string();
        for (_, id, remedy) in self.row.findings {
            let lasting = !["problem", "xtables-lock", "udp-4500", "iptables-part"].contains(id);
            ensure!(!lasting || lines.contains(remedy), "status does not say {remedy:?} ({id}): {lines}");
        }
        Ok(status)
    }

    /// Exactly what the row says, and an exit code that fits.
    fn findings(&self, end: &End) -> Result<String> {
        let mut command = self.command(end, &self.agent(end, "doctor")?, &["--json"]);
        let output = command.output().context("run doctor")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let document: Value = serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let all: Vec<&Value> = document["findings"].as_array().context("no findings")?.iter().collect();
        for (level, id, remedy) in self.row.findings {
            let fits = |f: &&Value| {
                f["id"] == *id && f["level"] == *level && f["remedy"].as_str().is_some_and(|r| r.contains(remedy))
            };
            ensure!(all.iter().any(fits), "no {level} {id} with {remedy:?}: {text}");
        }
        let wanted: BTreeSet<&str> = self.row.findings.iter().map(|(_, id, _)| *id).chain(USUAL).collect();
        for found in all.iter().filter(|f| f["level"] != "ok") {
            let id = found["id"].as_str().unwrap_or("");
            let peer = id == "peer" && (self.row.reach == Reach::Nothing || self.row.obstacle == Some(Obstacle::Port));
            ensure!(peer || wanted.contains(id), "found besides: {found}");
        }
        let fails = all.iter().any(|f| f["level"] == "fail");
        ensure!(output.status.code() == Some(i32::from(fails)), "exit code {:?}: {text}", output.status.code());
        Ok(text)
    }

    fn reach(&self) -> Result<()> {
        let (a, b) = (&self.link.a, &self.link.b);
        let ping = |to: &str| probe::ping(&a.ns, to.parse()?, Duration::from_secs(1)).map(drop);
        if self.row.reach == Reach::Nothing {
            // The other node has the address, and the cable is there.
            wait("the guard routes", PATIENCE, || {
                let routes = a.ns.run("ip route show table 220")?;
                ensure!(routes.contains("unreachable 10.2.0.0/24"), "{routes}");
                Ok(())
            })?;
            b.ns.ip("address replace 10.2.0.1/32 dev lo")?;
            a.ns.ip("route replace 10.2.0.0/24 via 192.0.2.2")?;
            ensure!(ping(b.inner).is_err(), "a packet left in clear");
            return Ok(());
        }
        wait("IPv4 through the tunnel", PATIENCE, || ping(b.inner))?;
        if self.row.reach == Reach::Both {
            wait("IPv6 through the tunnel", PATIENCE, || ping("fd00:2::1"))?;
        }
        Ok(())
    }

    fn start(&self, end: usize, authority: &Authority) -> Result<Daemon> {
        let (end, other) = self.link.ends()[end];
        let inner6 = |end: &End| if end.letter == "a" { "fd00:1::/64" } else { "fd00:2::/64" };
        let own = [end.network, inner6(end)];
        let config = json!({
            "version": 1, "generation": 1, "name": format!("odd.{}", end.letter), "node": end.letter, "role": "edge",
            "podCidrs": own, "local": {"prefixes": own},
            "peers": [{
                "name": format!("odd.{}", other.letter), "via": "tunnel", "addresses": [other.outer],
                "initiate": end.letter == "a", "prefixes": [other.network, inner6(other)],
            }],
            "services": {"mode": "kernel", "cidrs": ["10.96.0.0/16"], "list": []},
            "datapath": self.row.datapath,
        });
        std::fs::write(end.dir.join("config.json"), config.to_string())?;
        authority.issue(&format!("odd.{}", end.letter))?.write(&end.dir.join("tls"))?;
        Daemon::start(self.command(end, &self.agent(end, "run")?, &[]), &end.dir.join("agent.log"))
    }

    /// A verb of the program, as the row wants it run.
    fn agent(&self, end: &End, verb: &str) -> Result<String> {
        let program = programs::find("selvedge-agent")?;
        let folder = |option: &str, name: &str| format!("--{option} {}", end.dir.join(name).display());
        let options = [
            folder("config", "config.json"),
            folder("credentials", "tls"),
            folder("run-dir", "run"),
            folder("state-dir", "state"),
            folder("cni-dir", "cni"),
        ];
        Ok(format!("exec {} {} {verb} {}", self.row.under.join(" "), program.display(), options.join(" ")))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.link.a.dir.join("agent.log")).unwrap_or_default()
    }

    fn status(&self, end: &End) -> Result<Value> {
        let output = self.command(end, &self.agent(end, "status")?, &["--json"]).output().context("run status")?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A shell line in the namespaces of a node's programs, as the row prepares them.
    fn command(&self, end: &End, line: &str, arguments: &[&str]) -> Command {
        // The system is to look like OpenWrt, whose packages are the ones to be named.
        let system = "echo ID=openwrt >/run/os-release && mount --bind /run/os-release /etc/os-release";
        let mut command = end.ns.command("sh");
        command.args(["-ec", &format!("{system}\n{}\n{line} \"$@\"", self.row.prepare), "sh"]).args(arguments);
        command
    }
}
