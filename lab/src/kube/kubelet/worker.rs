//! An edge that runs pods as they are run elsewhere: containerd and a kubelet, on a machine of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::image;
use super::machine::Machine;
use crate::kube::binaries;
use crate::kube::cloud::{Cloud, PORT, PUBLIC};
use crate::kube::framework;
use crate::node::Node;
use crate::programs::{Program, wait};

const START: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/containerd/containerd.sock";
const CTR: [&str; 5] = ["ctr", "--address", SOCKET, "--namespace", "k8s.io"];
const PLUGINS: &str = "/usr/lib/cni";

/// The programs that run a node's pods; they and all pods end on drop.
#[derive(Debug)]
pub struct Worker {
    kubelet: Program,
    containerd: Program,
    machine: Machine,
    dir: PathBuf,
    arguments: Vec<String>,
}

impl Worker {
    /// Starts both on a node of which the API server knows.
    pub fn start(cloud: &Cloud, node: &Node) -> Result<Self> {
        let dir = node.dir.join("worker");
        std::fs::create_dir_all(&dir)?;
        let machine = Machine::start(node)?;
        std::fs::write(dir.join("containerd.toml"), runtime_config(node))?;
        let mut containerd = launch_runtime(&machine, &dir)?;
        let image = image::write(&dir)?.display().to_string();
        wait("containerd", START, || {
            containerd.check()?;
            machine.run(&[&CTR[..], &["images", "import", &image]].concat())
        })?;
        let user = framework::kubelet(cloud, node)?;
        let kubeconfig = dir.join("kubeconfig");
        std::fs::write(&kubeconfig, cloud.plane.kubeconfig_for(&format!("https://{PUBLIC}:{PORT}"), &user)?)?;
        let config = dir.join("kubelet.json");
        std::fs::write(&config, kubelet_config(cloud).to_string())?;
        let address = node.addresses.first().context("a node without address")?;
        let arguments = [
            ("config", config.display().to_string()),
            ("kubeconfig", kubeconfig.display().to_string()),
            ("hostname-override", node.name.clone()),
            ("node-ip", address.to_string()),
        ];
        let arguments = arguments.map(|(flag, value)| format!("--{flag}={value}")).to_vec();
        let kubelet = launch_kubelet(&machine, &arguments)?;
        Ok(Self { kubelet, containerd, machine, dir, arguments })
    }

    /// Whether both still run; if not, why not.
    pub fn check(&mut self) -> Result<()> {
        self.containerd.check()?;
        self.kubelet.check()
    }

    /// Kills the kubelet and starts it again.
    pub fn restart_kubelet(&mut self) -> Result<()> {
        self.kubelet.kill()?;
        self.kubelet = launch_kubelet(&self.machine, &self.arguments)?;
        Ok(())
    }

    /// The same with containerd; what it started goes on.
    pub fn restart_runtime(&mut self) -> Result<()> {
        self.containerd.kill()?;
        self.containerd = launch_runtime(&self.machine, &self.dir)?;
        Ok(())
    }

    /// Runs a line of shell in a container; what it printed.
    pub fn shell(&self, container: &str, line: &str) -> Result<String> {
        let exec = ["tasks", "exec", "--exec-id", "lab", container, "/bin/sh", "-ec", line];
        self.machine.run(&[&CTR[..], &exec].concat())
    }

    /// What both wrote last.
    pub fn log_tail(&self) -> String {
        format!("{}\n{}", self.containerd.log_tail(), self.kubelet.log_tail())
    }
}

fn launch_runtime(machine: &Machine, dir: &Path) -> Result<Program> {
    let config = dir.join("containerd.toml").display().to_string();
    machine.launch("containerd", Path::new("containerd"), &["--config", &config])
}

fn launch_kubelet(machine: &Machine, arguments: &[String]) -> Result<Program> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    machine.launch("kubelet", &binaries::find("kubelet")?, &arguments)
}

/// The CNI network is the agent's. The snapshotter that copies works on every file system, and whoever may not protect
/// processes from the kernel's memory killer can run pods too.
fn runtime_config(node: &Node) -> String {
    format!(
        r#"version = 2
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"#,
        image = image::NAME,
        networks = node.cni_dir().display(),
    )
}

fn kubelet_config(cloud: &Cloud) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": cloud.plane.pki.path("ca.crt")}},
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs", "cgroupRoot": "/", "failCgroupV1": false,
        "failSwapOn": false,
        // Whatever else fills this machine's disk and memory is no reason to end pods.
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "0%"},
        "imageGCHighThresholdPercent": 100, "localStorageCapacityIsolation": false,
        // No other's rules beside the agent's.
        "makeIPTablesUtilChains": false,
    })
}
