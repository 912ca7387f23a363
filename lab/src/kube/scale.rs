//! How the operator does with many nodes: `make bench-operator`. A real API server, nodes that exist on paper only.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::api::Api;
use super::binaries;
use super::control_plane::{ControlPlane, Site, command};
use crate::bench::report::{Table, median};
use crate::exec;
use crate::programs::{self, Program, wait};
use crate::topology::RunDir;

const NAMESPACE: &str = "selvedge";
const CONFIGS: &str = "/api/v1/namespaces/selvedge/configmaps";
/// Requests side by side that make objects.
const HANDS: usize = 8;
const ENDPOINTS: usize = 5;

/// How many of everything.
#[derive(Debug, Args)]
pub struct Options {
    /// Edge nodes, one run for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000])]
    nodes: Vec<usize>,
    /// Communities; every edge node is in one of them.
    #[arg(long, default_value_t = 50)]
    communities: usize,
    /// Services with five endpoints each.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Communities changed one after the other.
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// For how many seconds nothing but heartbeats happens.
    #[arg(long, default_value_t = 30)]
    quiet: u64,
    /// Of the API server; the next ones are used too.
    #[arg(long, default_value_t = 6443)]
    port: u16,
}

/// Runs all sizes and prints a table.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut table = Table::new(&[
        "edge nodes",
        "cold start to all written, s",
        "longest configuration, kB",
        "ConfigMaps per change",
        "change to last ConfigMap: median, s",
        "p99, s",
        "writes per change",
        "writes while quiet",
        "heartbeats meanwhile",
        "one compilation, s",
        "RSS, MB",
        "at most, MB",
    ]);
    for nodes in &options.nodes {
        let size = Size { nodes: *nodes, members: nodes.div_ceil(options.communities), options };
        table.push(size.run().with_context(|| format!("{nodes} nodes"))?);
        println!("\n{}", table.markdown());
    }
    Ok(ExitCode::SUCCESS)
}

struct Size<'a> {
    nodes: usize,
    /// Of each community.
    members: usize,
    options: &'a Options,
}

impl Size<'_> {
    fn run(&self) -> Result<Vec<String>> {
        let dir = RunDir::create(false)?;
        let port = self.options.port;
        let plane = ControlPlane::start(&Site { namespace: None, addresses: &[], port, dir: &dir })?;
        let api = plane.admin()?;
        self.populate(&plane, &api, &dir)?;

        let start = Instant::now();
        let mut operator = start_operator(&plane, port + 4, &dir)?;
        let all = self.nodes + 1;
        let patience = Duration::from_secs(1200);
        let mut told = 0;
        let labelled = |kind: &str| {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/{kind}?limit=1");
            api.get(&path).map(|list| list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize + 1)
        };
        wait("all configurations", patience, || {
            operator.check()?;
            let (configs, secrets) = (labelled("configmaps")?, labelled("secrets")?);
            if configs / 1000 > told {
                told = configs / 1000;
                println!("{:>6.1} s  {configs} ConfigMaps, {secrets} Secrets", start.elapsed().as_secs_f64());
            }
            ensure!(configs > all && secrets > all, "{configs} ConfigMaps and {secrets} Secrets of {all}");
            Ok(())
        })?;
        let cold = start.elapsed();
        println!("{:>6.1} s  all written", cold.as_secs_f64());

        let metrics = Metrics { url: format!("http://127.0.0.1:{}", port + 4) };
        metrics.settle()?;
        let before = metrics.writes()?;
        let mut latencies = Vec::new();
        for number in 0..self.options.changes {
            latencies.push(self.change(&api, number)?);
        }
        metrics.settle()?;
        let per_change = (metrics.writes()? - before) / self.options.changes as f64;

        let before = metrics.writes()?;
        let beats = self.heartbeats(&api)?;
        let quiet = metrics.writes()? - before;
        operator.check()?;

        latencies.sort_by(f64::total_cmp);
        let p99 = latencies[(latencies.len() * 99).div_ceil(100) - 1];
        let megabytes = |key: &str| memory(operator.pid(), key).map(|kb| format!("{:.0}", kb / 1000.0));
        Ok(vec![
            self.nodes.to_string(),
            format!("{:.1}", cold.as_secs_f64()),
            format!("{:.0}", metrics.value("selvedge_operator_longest_configuration_bytes")? / 1000.0),
            self.members.to_string(),
            format!("{:.2}", median(&latencies)),
            format!("{p99:.2}"),
            format!("{per_change:.1}"),
            format!("{quiet:.0}"),
            beats.to_string(),
            format!("{:.2}", metrics.mean("selvedge_operator_compile_seconds")?),
            megabytes("VmRSS")?,
            megabytes("VmHWM")?,
        ])
    }

    fn populate(&self, plane: &ControlPlane, api: &Api, dir: &Path) -> Result<()> {
        let start = Instant::now();
        let crds = dir.join("crds.yaml");
        std::fs::write(&crds, exec::run(Command::new(programs::find("selvedge-operator")?).arg("crds"))?)?;
        let mut kubectl = command(None, &binaries::find("kubectl")?);
        kubectl.arg("--kubeconfig").arg(plane.kubeconfig()).args(["apply", "--server-side", "-f"]).arg(&crds);
        exec::run(&mut kubectl)?;
        api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))?;
        let mut objects = vec![node("cloud-1", "connector", [172, 16, 0, 11].into(), Some("10.244.1.0/24"))];
        objects.extend((0..self.nodes).map(|number| {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 0, 0)) + number as u32 + 2);
            node(&edge(number), "edge", address, None)
        }));
        objects.extend((0..self.options.services).flat_map(|number| [service(number), slice(number, self.nodes)]));
        in_parallel(&objects, |object| api.apply(object))?;
        wait("our kinds", Duration::from_secs(30), || api.apply(&cluster()))?;
        let communities: Vec<Value> = (0..self.options.communities).map(|number| self.community(number, 0)).collect();
        in_parallel(&communities, |object| api.apply(object))?;
        println!(
            "{} nodes and {} Services made in {:.0} s",
            self.nodes,
            self.options.services,
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// A community without its first `left` members.
    fn community(&self, number: usize, left: usize) -> Value {
        let members = self.members_of(number).skip(left).map(|name| format!("scale.{name}")).collect::<Vec<_>>();
        json!({
            "apiVersion": "selvedge.dev/v1alpha1", "kind": "Community",
            "metadata": {"name": format!("community-{number}")}, "spec": {"members": members},
        })
    }

    fn members_of(&self, number: usize) -> impl Iterator<Item = String> {
        let first = number * self.members;
        (first..(first + self.members).min(self.nodes)).map(edge)
    }

    /// Takes the first member out of a community, or puts it back; how many seconds until the last of its members has
    /// the new configuration.
    fn change(&self, api: &Api, number: usize) -> Result<f64> {
        let (community, turn) = (number % self.options.communities, number / self.options.communities);
        let list = api.get(&format!("{CONFIGS}?limit=1"))?;
        let version = list["metadata"]["resourceVersion"].as_str().context("a list without a version")?;
        let changed = follow(api, &format!("{CONFIGS}?watch=1&resourceVersion={version}&timeoutSeconds=120"))?;
        let mut awaited: BTreeSet<String> =
            self.members_of(community).map(|node| format!("selvedge-node-{node}")).collect();
        let start = Instant::now();
        api.apply(&self.community(community, 1 - turn % 2))?;
        while !awaited.is_empty() {
            let (name, at) = changed
                .recv_timeout(Duration::from_secs(120))
                .with_context(|| format!("{} configurations of community-{community} did not change", awaited.len()))?;
            awaited.remove(&name);
            if awaited.is_empty() {
                return Ok((at - start).as_secs_f64());
            }
        }
        bail!("community-{community} has no members")
    }

    /// What kubelets do all the time; how many there were.
    fn heartbeats(&self, api: &Api) -> Result<usize> {
        let end = Instant::now() + Duration::from_secs(self.options.quiet);
        let mut beats = 0;
        while Instant::now() < end {
            let name = edge(beats % self.nodes);
            let condition = json!({"type": "Ready", "status": "True", "reason": format!("Beat{beats}")});
            let patch = json!({"status": {"conditions": [condition]}}).to_string();
            let path = format!("/api/v1/nodes/{name}/status");
            let content = "application/strategic-merge-patch+json";
            ensure!(api.ask("PATCH", &path, Some((content, &patch)))?.status == 200, "a heartbeat of {name}");
            beats += 1;
        }
        Ok(beats)
    }
}

fn edge(number: usize) -> String {
    format!("edge-{number:05}")
}

fn cluster() -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "scale"},
        "spec": {
            "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"], "edgePodCIDRs": ["10.128.0.0/10"],
            "edgeMaskSize": 26, "connector": {"addresses": ["203.0.113.10"]},
        },
    })
}

fn node(name: &str, role: &str, address: Ipv4Addr, pods: Option<&str>) -> Value {
    let spec = pods.map_or(json!({}), |pods| json!({"podCIDR": pods, "podCIDRs": [pods]}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {format!("node-role.kubernetes.io/{role}"): ""}}, "spec": spec,
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{number}"), "namespace": "default"},
        "spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]},
    })
}

fn slice(number: usize, nodes: usize) -> Value {
    let endpoint = |which: usize| {
        let [a, b] = ((number * ENDPOINTS + which) as u16).to_be_bytes();
        json!({"addresses": [Ipv4Addr::new(10, 244, a, b)], "nodeName": edge(number % nodes), "conditions": {"ready": true}})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("service-{number}-1"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": format!("service-{number}")}},
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    })
}

pub(super) fn in_parallel(objects: &[Value], make: impl Fn(&Value) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let hands: Vec<_> = objects
            .chunks(objects.len().div_ceil(HANDS).max(1))
            .map(|part| scope.spawn(|| part.iter().try_for_each(&make)))
            .collect();
        hands.into_iter().try_for_each(|hand| hand.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

fn start_operator(plane: &ControlPlane, port: u16, dir: &Path) -> Result<Program> {
    let mut command = command(None, &programs::find("selvedge-operator")?);
    command.arg("serve").arg("--kubeconfig").arg(plane.kubeconfig());
    command.args(["--metrics-listen", &format!("127.0.0.1:{port}")]);
    Program::launch(command, "selvedge-operator", dir)
}

/// Names of objects and when a watch told of their change.
fn follow(api: &Api, path: &str) -> Result<Receiver<(String, Instant)>> {
    let lines = api.stream(path)?;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let now = Instant::now();
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if tell.send((name, now)).is_err() {
                return;
            }
        }
    });
    Ok(told)
}

/// What the operator tells of itself.
struct Metrics {
    url: String,
}

impl Metrics {
    fn text(&self) -> Result<String> {
        Ok(ureq::get(format!("{}/metrics", self.url)).call()?.body_mut().read_to_string()?)
    }

    /// The sum of all lines of this name.
    fn value(&self, name: &str) -> Result<f64> {
        let text = self.text()?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let of_name = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
        of_name.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
    }

    fn writes(&self) -> Result<f64> {
        self.value("selvedge_operator_writes_total")
    }

    /// Of a histogram.
    fn mean(&self, name: &str) -> Result<f64> {
        Ok(self.value(&format!("{name}_sum"))? / self.value(&format!("{name}_count"))?.max(1.0))
    }

    /// Waits until nothing was written for three seconds.
    fn settle(&self) -> Result<()> {
        let mut last = (self.writes()?, Instant::now());
        wait("an end of writing", Duration::from_secs(300), || {
            let writes = self.writes()?;
            if writes != last.0 {
                last = (writes, Instant::now());
            }
            ensure!(last.1.elapsed() > Duration::from_secs(3), "{writes} writes");
            Ok(())
        })
    }
}

/// A line of `/proc/PID/status`, in kB.
fn memory(pid: u32, key: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {key}"))?;
    Ok(number.parse()?)
}
