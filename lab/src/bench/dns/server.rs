//! The servers: each knows the same names, and has an address of its own on the node.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::load::{self, name, question};
use crate::bench::credentials::Authority;
use crate::kube::binaries;
use crate::netns::Netns;
use crate::process::{self, Daemon};
use crate::programs::{find, wait};

/// How long a start may take.
const STEP: Duration = Duration::from_secs(30);

/// A server that runs.
pub struct Server {
    pub name: &'static str,
    /// How it was set up, for the reader.
    pub how: String,
    pub address: SocketAddr,
    pub pid: u32,
    /// Ends with it.
    _daemon: Daemon,
}

/// Where a Service is.
fn cluster_ip(service: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + service as u32)
}

/// All that are on this machine; of the others, why not.
pub fn start_all(ns: &Netns, dir: &Path, services: usize) -> Result<(Vec<Server>, Vec<String>)> {
    let mut servers = vec![selvedge(ns, dir, services)?];
    let mut skipped = Vec::new();
    type Start = fn(&Netns, &Path, usize) -> Result<Server>;
    let others: [(&str, Start); 3] = [("CoreDNS", coredns), ("unbound", unbound), ("dnsmasq", dnsmasq)];
    for (name, start) in others {
        match start(ns, dir, services) {
            Ok(server) => servers.push(server),
            Err(error) => skipped.push(format!("{name}: {error:#}")),
        }
    }
    Ok((servers, skipped))
}

/// Whether it knows a Service, and knows that another is none.
pub fn check(ns: &Netns, server: &Server, services: usize) -> Result<()> {
    let ask = |question: Vec<u8>| {
        ns.enter(|| {
            let socket = load::socket(server.address, Duration::from_secs(2))?;
            socket.send(&question)?;
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer)?;
            Ok(buffer[..length].to_vec())
        })
    };
    let service = services / 2;
    let answer = ask(question(&name(service), 1))?;
    ensure!(
        answer[3] & 0xf == 0 && answer[7] == 1 && answer.windows(4).any(|part| part == cluster_ip(service).octets()),
        "{answer:?}"
    );
    let answer = ask(question("nobody.ns-1.svc.cluster.local", 1))?;
    ensure!(answer[3] & 0xf == 3, "{answer:?}");
    Ok(())
}

fn selvedge(ns: &Netns, dir: &Path, services: usize) -> Result<Server> {
    let endpoint = |service: usize, i: usize| {
        let number = (service * 5 + i) as u32;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 234, 0, 1)) + number);
        json!({"address": address, "port": 8080, "node": format!("edge-{i}")})
    };
    let list: Vec<_> = (0..services)
        .map(|service| {
            let endpoints: Vec<_> = (0..5).map(|i| endpoint(service, i)).collect();
            let mut words = name(service);
            let end = words.find(".svc").unwrap_or(words.len());
            words.truncate(end);
            let (name, namespace) = words.split_once('.').unwrap_or_default();
            json!({"namespace": namespace, "name": name, "clusterIps": [cluster_ip(service)],
                   "ports": [{"name": "http", "protocol": "tcp", "port": 80, "endpoints": endpoints}]})
        })
        .collect();
    let config = json!({
        "version": 1, "generation": 1, "name": "bench.edge", "node": "edge", "role": "edge",
        "podCidrs": ["10.235.0.0/24"], "local": {"prefixes": ["10.235.0.0/24"]},
        "peers": [{"name": "bench.connector", "via": "tunnel", "prefixes": ["10.96.0.0/12"]}],
        "services": {"mode": "off", "cidrs": ["10.96.0.0/12"], "list": list}, "dns": {"upstreams": ["192.0.2.200"]},
    });
    let file = dir.join("config.json");
    std::fs::write(&file, config.to_string())?;
    Authority::new()?.issue("bench.edge")?.write(&dir.join("tls"))?;
    let mut command = ns.command(find("selvedge-agent")?);
    command.arg("run").arg("--config").arg(&file).arg("--credentials").arg(dir.join("tls"));
    for folder in ["run", "state", "cni"] {
        command.arg(format!("--{folder}-dir")).arg(dir.join(folder));
    }
    let address = "169.254.25.10:53".parse()?;
    let how = "the agent as a node has it, its tunnels, firewall and the configuration of all Services included in its memory";
    let server = await_answer(
        ns,
        "Selvedge",
        how.to_owned(),
        address,
        Daemon::start(command, &dir.join("agent.log"))?,
        "selvedge-agent",
    )?;
    // The keeper has the same name.
    let program = process::processes(ns, "selvedge-agent")?.into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"run")
    });
    Ok(Server { pid: program.context("no agent runs")?, ..server })
}

fn coredns(ns: &Netns, dir: &Path, services: usize) -> Result<Server> {
    let zone = dir.join("zone");
    let mut text =
        "$ORIGIN cluster.local.\n@ 5 IN SOA ns hostmaster 1 7200 1800 86400 5\n@ 5 IN NS ns\nns 5 IN A 192.0.2.11\n"
            .to_owned();
    for service in 0..services {
        let _ = writeln!(text, "{}. 5 IN A {}", name(service), cluster_ip(service));
    }
    std::fs::write(&zone, text)?;
    let address = own(ns, 11)?;
    let file = dir.join("Corefile");
    std::fs::write(&file, format!(".:53 {{\n  bind {}\n  file {} cluster.local\n}}\n", address.ip(), zone.display()))?;
    let mut command = ns.command(binaries::find("coredns")?);
    command.arg("-conf").arg(&file);
    let how = format!(
        "{}, plugin `file` with the same names (`kubernetes` needs an API server, and more memory)",
        version(binaries::find("coredns")?.to_str().unwrap_or_default(), "-version")
    );
    await_answer(ns, "CoreDNS", how, address, Daemon::start(command, &dir.join("coredns.log"))?, "coredns")
}

fn unbound(ns: &Netns, dir: &Path, services: usize) -> Result<Server> {
    let address = own(ns, 12)?;
    let mut text = format!(
        "server:\n interface: {}\n access-control: 0.0.0.0/0 allow\n num-threads: 1\n chroot: \"\"\n username: \"\"\n directory: \"{}\"\n \
         pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n module-config: \"iterator\"\n local-zone: \"cluster.local.\" static\n \
         local-data: \"cluster.local. 5 IN SOA ns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\"\n",
        address.ip(),
        dir.display()
    );
    for service in 0..services {
        let _ = writeln!(text, " local-data: \"{}. 5 IN A {}\"", name(service), cluster_ip(service));
    }
    text += "remote-control:\n control-enable: no\n";
    let file = dir.join("unbound.conf");
    std::fs::write(&file, text)?;
    let program = debian("unbound")?;
    let mut command = ns.command(&program);
    command.arg("-d").arg("-c").arg(&file);
    let how = format!("{}, `local-data`, one thread", version(&program, "-V"));
    await_answer(ns, "unbound", how, address, Daemon::start(command, &dir.join("unbound.log"))?, "unbound")
}

fn dnsmasq(ns: &Netns, dir: &Path, services: usize) -> Result<Server> {
    let address = own(ns, 13)?;
    let text = (0..services).fold(String::new(), |mut text, service| {
        let _ = writeln!(text, "{} {}", cluster_ip(service), name(service));
        text
    });
    let file = dir.join("hosts");
    std::fs::write(&file, text)?;
    let program = debian("dnsmasq")?;
    let mut command = ns.command(&program);
    command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
    // An empty one: without it the machine's own is read.
    let none = dir.join("dnsmasq.conf");
    std::fs::write(&none, "")?;
    command.arg(format!("--conf-file={}", none.display()));
    command.args(["--local=/cluster.local/", "--local-ttl=5", "--user=root", "--pid-file="]);
    command.arg(format!("--listen-address={}", address.ip())).arg(format!("--addn-hosts={}", file.display()));
    let how = format!("{}, `--addn-hosts`", version(&program, "--version"));
    await_answer(ns, "dnsmasq", how, address, Daemon::start(command, &dir.join("dnsmasq.log"))?, "dnsmasq")
}

/// An address of the node for one server.
fn own(ns: &Netns, last: u8) -> Result<SocketAddr> {
    ns.ip(&format!("address add 192.0.2.{last}/32 dev lo"))?;
    Ok(SocketAddr::from(([192, 0, 2, last], 53)))
}

fn await_answer(
    ns: &Netns,
    name: &'static str,
    how: String,
    address: SocketAddr,
    mut daemon: Daemon,
    process: &str,
) -> Result<Server> {
    wait(name, STEP, || {
        daemon.check()?;
        load::one_by_one(ns, address, &[question(&load::name(1), 1)], 1)
    })?;
    let pid = process::processes(ns, process)?.first().copied().context("it does not run")?;
    Ok(Server { name, how, address, pid, _daemon: daemon })
}

fn debian(program: &str) -> Result<String> {
    let path = format!("/usr/sbin/{program}");
    if !Path::new(&path).exists() {
        bail!("{path} is not there: run lab/tools/setup dns");
    }
    Ok(path)
}

/// The first line of what it says about itself.
fn version(program: &str, option: &str) -> String {
    let output = Command::new(program).arg(option).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().split(" Copyright").next().unwrap_or_default().trim().to_owned()
}
