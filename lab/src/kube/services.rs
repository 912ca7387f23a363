//! What many Services cost a node, beside kube-proxy: `selvedge-lab kube services`. A real API server; endpoints that
//! exist on paper only, but for two of one Service.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::api::Api;
use super::binaries;
use super::control_plane::{ControlPlane, Site, command};
use super::scale::in_parallel;
use crate::bench::report::{Table, median};
use crate::netns::{self, Netns};
use crate::process;
use crate::programs::{self, Program, wait};
use crate::topology::RunDir;

const PORT: u16 = 6443;
const PROBE: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 1);
const PROBE_PORT: u16 = 7;
/// Where the probe's endpoints answer, each with its number.
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 2)];
const PATIENCE: Duration = Duration::from_secs(180);

/// How much of everything.
#[derive(Debug, Args)]
pub struct Options {
    /// Services.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Endpoints of each.
    #[arg(long, default_value_t = 5)]
    endpoints: usize,
    /// Changes of an endpoint, one after the other.
    #[arg(long, default_value_t = 30)]
    changes: usize,
    /// For how many seconds nothing happens.
    #[arg(long, default_value_t = 120)]
    quiet: u64,
    /// Only the programs whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Measure nothing, but see whether agent and kube-proxy live side by side on one node, in all modes.
    #[arg(long)]
    beside: bool,
}

/// Measures all and prints a table.
pub fn run(options: &Options) -> Result<ExitCode> {
    let dir = RunDir::create(false)?;
    let site = Netns::create("api")?;
    site.ip("link add world type veth peer name beyond
             link set beyond up
             link set world arp off up
             route add default dev world")?;
    for address in ENDS {
        site.run(&format!("ip addr add {address}/32 dev world"))?;
    }
    let plane = ControlPlane::start(&Site { namespace: Some(&site), addresses: &[], port: PORT, dir: &dir })?;
    let api = plane.admin()?;
    populate(&api, options)?;
    let _answers = ENDS.map(|address| answer(&site, address)).into_iter().collect::<Result<Vec<_>>>()?;

    if options.beside {
        return beside(&site, &plane, &api, &dir);
    }
    let mut table = Table::new(&[
        "program",
        "start to first answer, s",
        "change to first answer: median, ms",
        "worst, ms",
        "CPU of a change, ms",
        "RSS, MB",
        "CPU while quiet, s/min",
        "programs run while quiet",
    ]);
    let runners = [
        ("agent, nftables", Runner::Agent("nftables")),
        ("agent, iptables", Runner::Agent("iptables")),
        ("kube-proxy, nftables", Runner::Proxy("nftables")),
        ("kube-proxy, iptables", Runner::Proxy("iptables")),
    ];
    for (name, runner) in runners.iter().filter(|(name, _)| name.contains(&options.only)) {
        let mut cells = vec![(*name).to_owned()];
        cells.extend(runner.measure(&site, &plane, &api, &dir, options).with_context(|| (*name).to_owned())?);
        table.push(cells);
        println!("\n{}", table.markdown());
    }
    Ok(ExitCode::SUCCESS)
}

/// The agent takes the endpoint on its node, kube-proxy takes any: who answers tells who is first.
fn beside(site: &Netns, plane: &ControlPlane, api: &Api, dir: &Path) -> Result<ExitCode> {
    let mut slice = slice("zz-probe", "UDP", PROBE_PORT, &ENDS);
    slice["endpoints"][0]["nodeName"] = json!("node-1");
    api.apply(&slice)?;
    let only_here = || answers(site, 40).map(|all| all.iter().all(|answer| answer == "1"));
    let both = || answers(site, 40).map(|all| ["1", "2"].iter().all(|end| all.iter().any(|answer| answer == end)));
    let until = |what: &str, found: &dyn Fn() -> Result<bool>| {
        wait(what, Duration::from_secs(100), || {
            ensure!(found()?, "{:?}", answers(site, 8)?);
            Ok(())
        })
    };
    for (mode, firewalls) in [("iptables", &["nftables", "iptables"][..]), ("nftables", &["nftables"])] {
        for firewall in firewalls {
            let (proxy, agent) = (Runner::Proxy(mode), Runner::Agent(firewall));
            let mut other = proxy.start(site, plane, dir)?;
            until("kube-proxy", &both)?;
            let mut own = agent.start(site, plane, dir)?;
            until("the agent to come first", &only_here)?;
            other.terminate()?;
            proxy.clean(site, dir)?;
            let mut other = proxy.start(site, plane, dir)?;
            let written = || {
                let rules = site.run("nft list tables")? + &site.run("iptables-save")?;
                Ok(rules.contains("kube-proxy") || rules.contains("KUBE-SERVICES"))
            };
            until("kube-proxy to write its rules again", &written)?;
            until("the agent to stay first", &only_here)?;
            own.terminate()?;
            agent.clean(site, dir)?;
            until("kube-proxy alone", &both)?;
            other.terminate()?;
            proxy.clean(site, dir)?;
            println!("ok    kube-proxy by {mode}, agent by {firewall}");
        }
    }
    // Chains of iptables have no place before kube-proxy's table: whoever is made last is first there.
    let (proxy, agent) = (Runner::Proxy("nftables"), Runner::Agent("iptables"));
    let mut other = proxy.start(site, plane, dir)?;
    until("kube-proxy", &both)?;
    let mut own = agent.start(site, plane, dir)?;
    let named = wait("the agent to name kube-proxy", Duration::from_secs(30), || {
        let mut command = site.command(programs::find("selvedge-agent")?);
        let text = crate::exec::run(command.arg("status").arg("--run-dir").arg(dir.join("run")))?;
        let line = text.lines().find(|line| line.contains("kube-proxy serves Services by nftables"));
        Ok(line.context(text.clone())?.trim().to_owned())
    })?;
    own.terminate()?;
    agent.clean(site, dir)?;
    other.terminate()?;
    proxy.clean(site, dir)?;
    println!("ok    kube-proxy by nftables, agent by iptables: {named}");
    Ok(ExitCode::SUCCESS)
}

enum Runner {
    Agent(&'static str),
    Proxy(&'static str),
}

impl Runner {
    fn measure(
        &self,
        site: &Netns,
        plane: &ControlPlane,
        api: &Api,
        dir: &Path,
        options: &Options,
    ) -> Result<Vec<String>> {
        api.apply(&probe_slice(0))?;
        // Who starts beside it waits for a processor.
        plane.settle()?;
        let start = Instant::now();
        let mut program = self.start(site, plane, dir)?;
        until(site, 1, &mut program)?;
        let first = start.elapsed();
        let (mut latencies, before) = (Vec::new(), Usage::of(program.pid())?);
        for number in 0..options.changes {
            let (now, wanted) = (1 - number % 2, 1 + (number + 1) % 2);
            // Whoever changes things once in a while, not all at once.
            std::thread::sleep(Duration::from_millis(700));
            let slice = probe_slice(now);
            api.apply(&slice)?;
            let start = Instant::now();
            until(site, wanted, &mut program)?;
            latencies.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        latencies.sort_by(f64::total_cmp);
        let spent = (Usage::of(program.pid())?.cpu - before.cpu) * 1000.0 / options.changes as f64;
        // One look at what others may have done is due after a change.
        std::thread::sleep(Duration::from_secs(65));
        let before = Usage::of(program.pid())?;
        std::thread::sleep(Duration::from_secs(options.quiet));
        let after = Usage::of(program.pid())?;
        let rss = process::memory(&[program.pid()])?.rss as f64 / 1e6;
        let cpu = (after.cpu - before.cpu) * 60.0 / options.quiet as f64;
        let quiet = if after.faults == before.faults { "none" } else { "some" };
        program.terminate()?;
        self.clean(site, dir)?;
        Ok(vec![
            format!("{:.2}", first.as_secs_f64()),
            format!("{:.0}", median(&latencies)),
            format!("{:.0}", latencies.last().copied().unwrap_or(0.0)),
            format!("{spent:.0}"),
            format!("{rss:.1}"),
            format!("{cpu:.2}"),
            quiet.to_owned(),
        ])
    }

    fn start(&self, site: &Netns, plane: &ControlPlane, dir: &Path) -> Result<Program> {
        let folder = |name: &str| {
            let folder = dir.join(name);
            std::fs::create_dir_all(&folder).map(|()| folder.display().to_string())
        };
        match self {
            Runner::Agent(firewall) => {
                std::fs::write(dir.join("config.json"), config(firewall).to_string())?;
                // The account is there when its controller has seen the namespace.
                let token = wait("a token", Duration::from_secs(30), || plane.token("default", "default"))?;
                std::fs::write(dir.join("token"), token)?;
                let mut command = command(Some(site.name()), &programs::find("selvedge-agent")?);
                command.args(["run", "--config", "config.json", "--credentials", "none"]);
                command.args(["--run-dir", &folder("run")?, "--state-dir", &folder("state")?]);
                command.args(["--server", &format!("https://127.0.0.1:{PORT}"), "--token-file", "token"]);
                command.args(["--ca-file", "pki/ca.crt"]).current_dir(dir);
                Program::launch(command, "selvedge-agent", dir)
            }
            Runner::Proxy(mode) => {
                let mut command = command(Some(site.name()), &binaries::find("kube-proxy")?);
                command.arg("--kubeconfig").arg(plane.kubeconfig());
                command.args(["--hostname-override", "node-1", "--proxy-mode", mode]);
                command.args(["--cluster-cidr", "10.244.0.0/16", "--conntrack-max-per-core", "0"]);
                Program::launch(command, "kube-proxy", dir)
            }
        }
    }

    fn clean(&self, site: &Netns, dir: &Path) -> Result<()> {
        match self {
            Runner::Agent(_) => {
                let mut command = site.command(programs::find("selvedge-agent")?);
                command.arg("clean").arg("--run-dir").arg(dir.join("run")).arg("--state-dir").arg(dir.join("state"));
                crate::exec::run(&mut command).map(drop)
            }
            Runner::Proxy(mode) => {
                let mut command = site.command(binaries::find("kube-proxy")?);
                // It says that it failed where a backend had nothing.
                let _ = crate::exec::run(command.args(["--cleanup", "--proxy-mode", mode]));
                Ok(())
            }
        }
    }
}

/// What a process and those it waited for used.
struct Usage {
    /// Seconds.
    cpu: f64,
    /// Page faults of programs that it ran.
    faults: u64,
}

impl Usage {
    fn of(pid: u32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let number = |i: usize| fields.get(i).and_then(|field| field.parse::<u64>().ok()).context("a field is missing");
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        Ok(Self { cpu: ticks as f64 / rustix::param::clock_ticks_per_second() as f64, faults: number(8)? })
    }
}

/// Who answers, asked so often; nobody is an answer, too.
fn answers(site: &Netns, times: usize) -> Result<Vec<String>> {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut answer = [0; 8];
        let asked = socket.connect((PROBE, PROBE_PORT)).and_then(|()| socket.send(b"?"));
        let length = asked.and_then(|_| socket.recv(&mut answer)).unwrap_or(0);
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    site.enter(|| (0..times).map(|_| ask()).collect())
}

/// Asks the probe again and again until the endpoint of this number answers.
fn until(site: &Netns, number: usize, program: &mut Program) -> Result<()> {
    let wanted = number.to_string();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        program.check()?;
        let found = site.enter(|| {
            // A thread of its own for a hundred questions: entering takes longer than asking.
            for _ in 0..100 {
                // Each question is a connection that the kernel tracks, and that is forgotten when its endpoint goes.
                std::thread::sleep(Duration::from_millis(1));
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.set_read_timeout(Some(Duration::from_millis(2)))?;
                let mut answer = [0; 8];
                let asked = socket.connect((PROBE, PROBE_PORT)).and_then(|()| socket.send(b"?"));
                let Ok(length) = asked.and_then(|_| socket.recv(&mut answer)) else { continue };
                if &answer[..length] == wanted.as_bytes() {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        if found {
            return Ok(());
        }
    }
    anyhow::bail!("endpoint {number} did not answer\n{}", program.log_tail())
}

fn answer(site: &Netns, address: Ipv4Addr) -> Result<()> {
    let number = 1 + ENDS.iter().position(|end| *end == address).unwrap_or(0);
    let socket = netns::enter(site.name(), || Ok(UdpSocket::bind(SocketAddr::from((address, PROBE_PORT)))?))?;
    std::thread::spawn(move || {
        let mut question = [0; 8];
        while let Ok((_, client)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(number.to_string().as_bytes(), client);
        }
    });
    Ok(())
}

fn populate(api: &Api, options: &Options) -> Result<()> {
    let start = Instant::now();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "everything"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    });
    wait("roles", Duration::from_secs(30), || api.apply(&binding))?;
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "status": {"addresses": [{"type": "InternalIP", "address": ENDS[0]}]},
    });
    api.apply(&node)?;
    let mut objects = vec![service("zz-probe", Some(PROBE), "UDP", PROBE_PORT), probe_slice(0)];
    for number in 0..options.services {
        let name = format!("service-{number:04}");
        objects.push(service(&name, None, "TCP", 80));
        let address = |which: usize| Ipv4Addr::from(0x0af4_0000 + (number * options.endpoints + which) as u32 + 1);
        let endpoints: Vec<Ipv4Addr> = (0..options.endpoints).map(address).collect();
        objects.push(slice(&name, "TCP", 8080, &endpoints));
    }
    in_parallel(&objects, |object| api.apply(object))?;
    println!("{} Services made in {:.0} s", options.services, start.elapsed().as_secs_f64());
    ensure!(options.endpoints > 0, "no endpoints");
    Ok(())
}

fn config(firewall: &str) -> Value {
    json!({
        "version": 1, "generation": 1, "name": "lab.node-1", "node": "node-1", "role": "cloud", "podCidrs": [],
        "local": {"prefixes": []}, "peers": [], "firewall": firewall,
        "services": {"mode": "kernel", "source": "api", "cidrs": ["10.96.0.0/16"]},
    })
}

fn service(name: &str, ip: Option<Ipv4Addr>, protocol: &str, port: u16) -> Value {
    let mut spec = json!({"ports": [{"name": "main", "port": port, "protocol": protocol}]});
    if let Some(ip) = ip {
        spec["clusterIP"] = json!(ip);
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

fn probe_slice(end: usize) -> Value {
    slice("zz-probe", "UDP", PROBE_PORT, &[ENDS[end]])
}

fn slice(service: &str, protocol: &str, port: u16, addresses: &[Ipv4Addr]) -> Value {
    let endpoint =
        |address: &Ipv4Addr| json!({"addresses": [address], "nodeName": "node-2", "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "main", "port": port, "protocol": protocol}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    })
}
