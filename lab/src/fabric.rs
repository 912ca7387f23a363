//! Selvedge on the laboratory: operator, connector and agents, brought up from nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::process::Signal;
use selvedge_linux::user::User;
use serde_json::Value;

use crate::kube::cluster::Cluster;
use crate::kube::framework::Framework;
use crate::manifests::{Datapath, Firewall, Manifests, SERVICE_PORT, SERVICES, Service};
use crate::netns::kill;
use crate::node::{Node, Role};
use crate::pace;
use crate::probe;
use crate::programs::{self, Folders, Program, Status, wait};
use crate::router::LinkQuality;
use crate::table::Report;
use crate::topology::{Lab, Net};
use crate::traffic::Traffic;

const STEP: Duration = Duration::from_secs(30);
/// For one question to a Service that may not be there yet.
const ATTEMPT: Duration = Duration::from_secs(2);
/// From one ping to the next.
const INTERVAL: Duration = Duration::from_millis(10);

/// How the laboratory is to be set up.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How ESP is done.
    #[arg(long, value_enum, default_value = "auto")]
    pub datapath: Datapath,
    /// What the firewall rules are written for.
    #[arg(long, value_enum, default_value = "auto")]
    pub firewall: Firewall,
    /// One-way delay of every site's uplink, in milliseconds (needs netem in the kernel).
    #[arg(long, default_value_t = 0)]
    pub delay: u32,
    /// Loss of every site's uplink, in percent (needs netem in the kernel).
    #[arg(long, default_value_t = 0.0)]
    pub loss: f32,
    /// Whom connector and agents are to become.
    #[arg(long)]
    pub user: Option<String>,
    /// The edges pay for every byte.
    #[arg(long)]
    pub metered: bool,
    /// Leave configurations, logs and captures behind.
    #[arg(long)]
    pub keep: bool,
}

/// The laboratory with everything running.
#[derive(Debug)]
pub struct Fabric {
    /// The program of each node, by node name.
    pub programs: BTreeMap<String, Program>,
    /// The operator; it lives in master's namespace.
    pub operator: Program,
    /// What the operator reads.
    pub manifests: Manifests,
    /// What it writes.
    pub output: PathBuf,
    /// Whom all programs were to become.
    user: Option<String>,
    /// The Kubernetes that delivers what the operator writes, if that is not done by files.
    pub cluster: Option<Cluster>,
    /// How long each tunnel took from the start of the programs: node, peer, time.
    pub set_up: Vec<(String, String, Duration)>,
    /// Namespaces and links; ends last.
    pub lab: Lab,
}

impl Fabric {
    /// Builds the laboratory and starts everything, up to Services with endpoints and tunnels that stand.
    pub fn start(options: &Options, report: &Report) -> Result<Self> {
        Self::build(options, None, report)
    }

    /// The same in a Kubernetes whose edges are this framework's.
    pub fn start_on(framework: Framework, options: &Options, report: &Report) -> Result<Self> {
        Self::build(options, Some(framework), report)
    }

    fn build(options: &Options, framework: Option<Framework>, report: &Report) -> Result<Self> {
        let Options { delay, loss, .. } = *options;
        let quality = LinkQuality { delay_ms: delay, loss_percent: loss };
        let degraded = delay > 0 || loss > 0.0;
        let mut lab = Lab::build(degraded.then_some(&quality), options.keep)?;
        lab.nodes.iter_mut().for_each(|node| node.user.clone_from(&options.user));
        report.progress("5 nodes, 3 NAT routers, WAN and the cloud's VXLAN stand");
        let mut cluster = framework.map(|framework| Cluster::start(&lab, framework)).transpose()?;
        if cluster.is_some() {
            report.progress("the API server is ready");
        }
        let manifests = Manifests::create(&lab, options, cluster.as_ref().map(|cluster| cluster.admin.clone()))?;
        let output = lab.dir.join("out");
        let mut operator = operate(&lab, &manifests, &output, options.user.as_deref(), cluster.as_ref())?;
        for node in &lab.nodes {
            wait(&format!("configuration of {}", node.name), STEP, || {
                operator.check()?;
                written(cluster.as_ref(), node, &output).map(drop).with_context(|| operator.log_tail())
            })?;
        }
        report.progress("the operator has compiled a configuration and a certificate for each node");
        if let Some(cluster) = &mut cluster {
            cluster.start_edges(&lab)?;
            report.progress("the edges have their own API");
        }
        let started = Instant::now();
        let mut all = BTreeMap::new();
        for node in &lab.nodes {
            all.insert(node.name.clone(), programs::start(node, &folders(cluster.as_ref(), node, &output))?);
        }
        report.progress("connector and agents started");
        lab.start_cloud_pods()?;
        for node in lab.nodes.iter().filter(|node| node.role == Role::Edge) {
            wait(&format!("CNI network of {}", node.name), STEP, || {
                all.values_mut().try_for_each(Program::check)?;
                crate::cni::Network::find(&node.cni_dir(), &node.cni_data())
            })?;
        }
        lab.start_edge_pods()?;
        report.progress("pods run on the CNI networks of flannel and of the agents");
        let user = options.user.clone();
        let mut fabric = Self { programs: all, operator, manifests, output, user, cluster, set_up: Vec::new(), lab };
        fabric.await_tunnels(started, report)?;
        fabric.manifests.write_services(&fabric.lab, &SERVICES)?;
        fabric.await_services().with_context(|| fabric.logs())?;
        report.progress("Services have their endpoints on every node");
        Ok(fabric)
    }

    /// The folders of a node's program.
    pub fn folders(&self, node: &Node) -> Folders {
        folders(self.cluster.as_ref(), node, &self.output)
    }

    /// The newest configuration that the operator has written for a node.
    pub fn written(&self, node: &Node) -> Result<Value> {
        written(self.cluster.as_ref(), node, &self.output)
    }

    /// What the program of a node says about itself.
    pub fn status(&self, node_name: &str) -> Result<Status> {
        let node = self.lab.node(node_name)?;
        programs::status(node, &self.folders(node))
    }

    /// Waits until the status of a node's program is as `check` wants it.
    pub fn await_status<T>(&self, node_name: &str, what: &str, check: impl Fn(&Status) -> Result<T>) -> Result<T> {
        wait(&format!("{node_name}: {what}"), STEP, || check(&self.status(node_name)?))
    }

    /// Kills a node's program without a word.
    pub fn kill(&mut self, node_name: &str) -> Result<()> {
        self.programs.get_mut(node_name).with_context(|| format!("nothing runs on {node_name}"))?.kill()
    }

    /// Has a node's program end and remove all it made.
    pub fn clean(&mut self, node_name: &str) -> Result<()> {
        let mut program = self.programs.remove(node_name).with_context(|| format!("nothing runs on {node_name}"))?;
        let node = self.lab.node(node_name)?;
        programs::clean(node, &self.folders(node))?;
        program.wait()
    }

    /// The same in two steps, as a package manager does: its peers are not told.
    pub fn stop_and_clean(&mut self, node_name: &str) -> Result<()> {
        self.programs.remove(node_name).with_context(|| format!("nothing runs on {node_name}"))?.terminate()?;
        let node = self.lab.node(node_name)?;
        programs::clean(node, &self.folders(node)).map(drop)
    }

    /// Starts a node's program (again).
    pub fn start_program(&mut self, node_name: &str) -> Result<()> {
        let node = self.lab.node(node_name)?;
        let folders = self.folders(node);
        self.start_program_with(node_name, &folders)
    }

    /// As [`Fabric::start_program`], with configuration or credentials from elsewhere.
    pub fn start_program_with(&mut self, node_name: &str, folders: &Folders) -> Result<()> {
        let program = programs::start(self.lab.node(node_name)?, folders)?;
        self.programs.insert(node_name.to_owned(), program);
        Ok(())
    }

    /// As [`Fabric::start_program`], after a shell script in the program's own mount namespace and environment.
    pub fn start_program_in(&mut self, node_name: &str, script: &str) -> Result<()> {
        let node = self.lab.node(node_name)?;
        let program = programs::start_in(node, &self.folders(node), script)?;
        self.programs.insert(node_name.to_owned(), program);
        Ok(())
    }

    /// Kills the process that holds a node's sockets and user-space tunnels.
    pub fn kill_keeper(&self, node_name: &str) -> Result<()> {
        kill(self.process(node_name, "keeper")?, Signal::KILL);
        Ok(())
    }

    /// The process of ours on a node that runs this verb.
    pub fn process(&self, node_name: &str, verb: &str) -> Result<u32> {
        let runs = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.next().is_some_and(|program| String::from_utf8_lossy(program).contains("selvedge-"))
                && words.next() == Some(verb.as_bytes())
        };
        let found = self.lab.node(node_name)?.ns.processes()?.into_iter().find(runs);
        found.with_context(|| format!("no {verb} on {node_name}"))
    }

    /// Changes whom a node's program is to become when it is started the next time.
    pub fn set_user(&mut self, node_name: &str, user: Option<&str>) -> Result<()> {
        let node = self.lab.nodes.iter_mut().find(|node| node.name == node_name);
        node.with_context(|| format!("no node {node_name}"))?.user = user.map(str::to_owned);
        Ok(())
    }

    /// Starts the operator (again).
    pub fn start_operator(&mut self) -> Result<()> {
        self.operator = operate(&self.lab, &self.manifests, &self.output, self.user.as_deref(), self.cluster.as_ref())?;
        Ok(())
    }

    /// Waits until all tunnels of a node are up, by keys that its present program has negotiated.
    pub fn await_keyed(&self, node_name: &str) -> Result<()> {
        self.await_status(node_name, "tunnels with new keys", |status| {
            for peer in status.tunnels() {
                let reason = peer.last_error.as_deref().unwrap_or("no reason given");
                ensure!(peer.state == "up" && peer.cipher.is_some(), "{} is {}: {reason}", peer.name, peer.state);
            }
            Ok(())
        })
    }

    /// Waits until every program runs on the newest configuration and every tunnel is up.
    pub fn await_calm(&mut self) -> Result<()> {
        self.operator.check()?;
        for node in &self.lab.nodes {
            let program = self.programs.get_mut(&node.name);
            program.with_context(|| format!("nothing runs on {}", node.name))?.check()?;
            self.await_status(&node.name, "the newest configuration", |status| in_force(&self.written(node)?, status))?;
            self.await_keyed(&node.name)?;
        }
        Ok(())
    }

    /// Pings every 10 ms, less often on a slower machine, from the first pod of a node to that of another.
    pub fn traffic(&self, from: &str, to: &str) -> Result<Traffic> {
        let (from, to) = (self.lab.place(Net::Pod, from)?, self.lab.place(Net::Pod, to)?);
        Traffic::start(from.ns, to.address(true)?, pace::limit(INTERVAL))
    }

    /// As [`Fabric::traffic`], whether anybody answers or not.
    pub fn attempts(&self, from: &str, to: &str) -> Result<Traffic> {
        let (from, to) = (self.lab.place(Net::Pod, from)?, self.lab.place(Net::Pod, to)?);
        Traffic::attempt(from.ns, to.address(true)?, pace::limit(INTERVAL))
    }

    /// Waits until every tunnel is up on both ends and notes how long each took since `started`.
    pub fn await_tunnels(&mut self, started: Instant, report: &Report) -> Result<()> {
        let ends = [("edge-1", 2), ("edge-2", 2), ("cloud-1", 2)];
        let mut up: BTreeMap<(String, String), Duration> = BTreeMap::new();
        wait("tunnels", STEP, || {
            self.programs.values_mut().try_for_each(Program::check)?;
            let mut missing = Vec::new();
            for (node, expected) in ends {
                if up.keys().filter(|(name, _)| name == node).count() == expected {
                    continue;
                }
                let status = self.status(node)?;
                for peer in status.peers.iter().filter(|peer| peer.via == "tunnel") {
                    let key = (node.to_owned(), peer.name.clone());
                    if peer.state != "up" {
                        let reason = peer.last_error.as_deref().unwrap_or("no reason given");
                        missing.push(format!("{node} to {}: {}, {reason}", peer.name, peer.state));
                    } else if let Entry::Vacant(entry) = up.entry(key) {
                        report.progress(&format!("tunnel up: {node} - {}", peer.name));
                        entry.insert(started.elapsed());
                    }
                }
            }
            let total: usize = ends.iter().map(|(_, count)| count).sum();
            ensure!(up.len() == total, "{} of {total} ends up; {}", up.len(), missing.join("; "));
            Ok(())
        })
        .with_context(|| self.logs())?;
        self.set_up = up.into_iter().map(|((node, peer), time)| (node, peer, time)).collect();
        Ok(())
    }

    /// Waits until each node's program runs with the endpoints that were written.
    pub fn await_services(&mut self) -> Result<()> {
        let expected = SERVICES.iter().filter(|service| !service.nodes.is_empty()).count();
        for node in &self.lab.nodes {
            let (folders, cluster) = (folders(self.cluster.as_ref(), node, &self.output), self.cluster.as_ref());
            wait(&format!("Services on {}", node.name), STEP, || {
                self.operator.check()?;
                self.programs.values_mut().try_for_each(Program::check)?;
                let config = written(cluster, node, &self.output)?;
                if config["services"]["source"] == "api" {
                    return served(&self.lab, node, &SERVICES);
                }
                let services = config["services"]["list"].as_array().into_iter().flatten();
                let served = |s: &&Value| s["ports"][0]["endpoints"].as_array().is_some_and(|e| !e.is_empty());
                let count = services.filter(served).count();
                ensure!(count == expected, "{count} of {expected} Services have endpoints in the configuration");
                in_force(&config, &programs::status(node, &folders)?)
            })?;
        }
        Ok(())
    }

    /// The last lines of every log.
    pub fn logs(&self) -> String {
        let programs = self.programs.values().map(Program::log_tail);
        std::iter::once(self.operator.log_tail()).chain(programs).collect::<Vec<_>>().join("\n")
    }
}

/// The folders of a node's program, and its source if there is a cluster.
fn folders(cluster: Option<&Cluster>, node: &Node, output: &Path) -> Folders {
    let mut folders = Folders::of(node, output);
    folders.source = cluster.map(|cluster| cluster.source(node)).unwrap_or_default();
    folders
}

/// The newest configuration that the operator has written for a node.
fn written(cluster: Option<&Cluster>, node: &Node, output: &Path) -> Result<Value> {
    if let Some(cluster) = cluster {
        return cluster.configuration(&node.name);
    }
    let path = Folders::of(node, output).config;
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Whether every Service with endpoints answers on a node, by the right ones. Only through a tunnel of its own does a node
/// reach the host networks of the other side.
pub fn served(lab: &Lab, node: &Node, services: &[Service]) -> Result<()> {
    let from = lab.place(if node.pods.is_empty() { Net::Host } else { Net::Pod }, &node.name)?;
    let asked = |service: &&Service| !service.nodes.is_empty() && (node.role != Role::Cloud || service.net == Net::Pod);
    for service in services.iter().filter(asked) {
        let target = SocketAddr::new(service.cluster_ip(true), SERVICE_PORT);
        let answer = probe::who_tcp(from.ns, target, ATTEMPT).with_context(|| format!("Service {}", service.name))?;
        let right = service.nodes.contains(&answer.node.as_str());
        ensure!(right, "{} answered for Service {}", answer.name, service.name);
    }
    Ok(())
}

/// What the operator of another user writes, programs of that user can read.
fn operate(
    lab: &Lab,
    manifests: &Manifests,
    output: &Path,
    user: Option<&str>,
    cluster: Option<&Cluster>,
) -> Result<Program> {
    let ns = &lab.node("master")?.ns;
    if let Some(cluster) = cluster {
        let config = cluster.cloud.plane.kubeconfig();
        let arguments = ["serve", "--kubeconfig", &config.to_string_lossy(), "--metrics-listen", "127.0.0.1:9090"];
        return Program::start(ns, &lab.dir, "selvedge-operator", &arguments);
    }
    let [from, to] = [&manifests.dir, output].map(Path::to_string_lossy);
    let arguments = ["run", "--manifests", &from, "--out", &to];
    let Some(user) = user else { return Program::start(ns, &lab.dir, "selvedge-operator", &arguments) };
    std::fs::create_dir_all(output)?;
    User::named(user)?.take(output)?;
    Program::start_as(user, ns, &lab.dir, "selvedge-operator", &arguments)
}

fn in_force(config: &Value, status: &Status) -> Result<()> {
    if let Some(error) = &status.config.error {
        bail!("{error}");
    }
    let (written, read) = (config["generation"].as_u64(), status.config.generation);
    ensure!(written == Some(read), "generation {written:?} is written, {read} is in force");
    Ok(())
}
