//! Who brings the Services of a [`Site`], each as its makers start it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::site::{ECHO_PORT, Site, WEB_PORT, WHERE, Where, objects, services};
use crate::bench::credentials::Authority;
use crate::bench::link::End;
use crate::bench::tunnel::start_node;
use crate::kube::binaries;
use crate::kube::control_plane::{ControlPlane, Site as PlaneSite};
use crate::netns::{self, Netns};
use crate::probe;
use crate::process::{self, Daemon};
use crate::programs::wait;

/// EdgeMesh waits for its relays, and for what it discovers.
const PATIENCE: Duration = Duration::from_secs(120);
const API: &str = "198.18.0.1";
const API_PORT: u16 = 6443;

/// A way to reach a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None: the pods themselves are called.
    Direct,
    /// Two agents whose rules are written for this firewall.
    Selvedge(&'static str),
    /// In this mode.
    KubeProxy(&'static str),
    /// Its agents, by this program.
    EdgeMesh(PathBuf),
}

/// A site with its proxy running.
pub struct Proxy {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub site: Site,
    /// Its processes on both nodes.
    pub pids: Vec<u32>,
    _daemons: Vec<Daemon>,
}

/// The API server that kube-proxy and EdgeMesh ask, on a network of its own.
pub struct Cluster {
    plane: ControlPlane,
    ns: Netns,
    plugged: u8,
}

impl Kind {
    /// As the table names it.
    pub fn title(&self) -> String {
        match self {
            Kind::Direct => "none: the pod is called".to_owned(),
            Kind::Selvedge(firewall) => format!("Selvedge, {firewall}"),
            Kind::KubeProxy(mode) => format!("kube-proxy, {mode}"),
            Kind::EdgeMesh(_) => "EdgeMesh".to_owned(),
        }
    }

    /// What is called.
    pub fn target(&self, place: Where) -> std::net::Ipv4Addr {
        if *self == Kind::Direct { place.pod() } else { place.cluster_ip() }
    }

    /// Whether traffic between the nodes is encrypted.
    pub fn encrypts(&self) -> bool {
        matches!(self, Kind::Selvedge(_) | Kind::EdgeMesh(_))
    }

    fn short(&self) -> &'static str {
        match self {
            Kind::Direct => "d",
            Kind::Selvedge("nftables") => "sn",
            Kind::Selvedge(_) => "si",
            Kind::KubeProxy("nftables") => "kn",
            Kind::KubeProxy(_) => "ki",
            Kind::EdgeMesh(_) => "em",
        }
    }
}

impl Proxy {
    /// Starts it and waits until both Services answer.
    pub fn start(kind: Kind, cluster: Option<&mut Cluster>, authority: &Authority, dir: &Path) -> Result<Self> {
        let site = Site::create(kind.short(), dir)?;
        let mut daemons = Vec::new();
        if !matches!(kind, Kind::Selvedge(_)) {
            site.route()?;
        }
        match &kind {
            Kind::Direct => {}
            Kind::Selvedge(firewall) => {
                for (end, other) in site.link.ends() {
                    daemons.push(agent(end, other, firewall, authority)?);
                }
            }
            Kind::KubeProxy(mode) => {
                let cluster = cluster.context("no API server")?;
                for (end, _) in site.link.ends() {
                    cluster.plug(&end.ns)?;
                    daemons.push(kube_proxy(end, mode, cluster)?);
                }
            }
            Kind::EdgeMesh(program) => {
                let cluster = cluster.context("no API server")?;
                for (end, _) in site.link.ends() {
                    cluster.plug(&end.ns)?;
                    daemons.push(edgemesh(end, program, cluster)?);
                }
            }
        }
        let mut answers = |place: Where| {
            daemons.iter_mut().try_for_each(Daemon::check)?;
            let to = std::net::IpAddr::V4(kind.target(place));
            probe::connect(&site.client, (to, WEB_PORT).into(), Duration::from_secs(5))?;
            probe::echo(&site.client, (to, ECHO_PORT).into(), Duration::from_secs(2))
        };
        for place in WHERE {
            wait(&format!("{}, {}", kind.title(), place.name()), PATIENCE, || answers(place))?;
        }
        let name = match &kind {
            Kind::Direct => None,
            Kind::Selvedge(_) => Some("selvedge-agent"),
            Kind::KubeProxy(_) => Some("kube-proxy"),
            Kind::EdgeMesh(program) => program.file_name().and_then(|name| name.to_str()),
        };
        let mut pids = Vec::new();
        for (end, _) in site.link.ends() {
            pids.extend(name.map(|name| process::processes(&end.ns, name)).transpose()?.into_iter().flatten());
        }
        Ok(Self { kind, site, pids, _daemons: daemons })
    }
}

impl Cluster {
    /// Starts it with the Services, their endpoints and both nodes in it.
    pub fn start(dir: &Path) -> Result<Self> {
        let ns = Netns::create("api")?;
        ns.ip(&format!(
            "link add ports type bridge
             link set ports up
             address add {API}/24 dev ports"
        ))?;
        let site =
            PlaneSite { namespace: Some(&ns), addresses: &[API.parse()?], port: API_PORT, dir: &dir.join("api") };
        let plane = ControlPlane::start(&site)?;
        let api = plane.admin()?;
        for (name, address) in [("a", "192.0.2.1"), ("b", "192.0.2.2")] {
            let addresses = [json!({"type": "InternalIP", "address": address})];
            let metadata = json!({"name": name});
            api.apply(&json!({
                "apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": addresses},
            }))?;
        }
        objects().iter().try_for_each(|object| api.apply(object))?;
        Ok(Self { plane, ns, plugged: 0 })
    }

    fn plug(&mut self, node: &Netns) -> Result<()> {
        self.plugged += 1;
        let number = self.plugged;
        netns::join(node, "api", &self.ns, &format!("n{number}"))?;
        self.ns.ip(&format!("link set n{number} up master ports"))?;
        node.ip(&format!(
            "link set api up
             address add 198.18.0.{}/24 dev api",
            number + 1
        ))
    }

    fn kubeconfig(&self, end: &End) -> Result<PathBuf> {
        let path = end.dir.join("kubeconfig.yaml");
        std::fs::write(&path, self.plane.kubeconfig_for(&format!("https://{API}:{API_PORT}"), "admin")?)?;
        Ok(path)
    }
}

fn agent(end: &End, other: &End, firewall: &str, authority: &Authority) -> Result<Daemon> {
    let config = json!({
        "version": 1, "generation": 1, "name": format!("bench.{}", end.letter), "node": end.letter, "role": "edge",
        "podCidrs": [end.network], "local": {"prefixes": [end.network]},
        "peers": [{
            "name": format!("bench.{}", other.letter), "via": "tunnel", "addresses": [other.outer],
            "initiate": end.letter == "a", "prefixes": [other.network],
        }],
        "services": services(), "datapath": "user", "firewall": firewall,
    });
    start_node("selvedge-agent", end, &config, &authority.issue(&format!("bench.{}", end.letter))?, None)
}

fn kube_proxy(end: &End, mode: &str, cluster: &Cluster) -> Result<Daemon> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode,
        "clientConnection": {"kubeconfig": cluster.kubeconfig(end)?}, "hostnameOverride": end.letter,
        "clusterCIDR": "10.0.0.0/14", "conntrack": {"maxPerCore": 0, "min": 0}, "nodePortAddresses": ["127.0.0.0/8"],
    });
    let path = write(end, "kube-proxy.yaml", &config)?;
    let mut command = end.ns.command(binaries::find("kube-proxy")?);
    command.arg("--config").arg(path);
    Daemon::start(command, &end.dir.join("kube-proxy.log"))
}

fn edgemesh(end: &End, program: &Path, cluster: &Cluster) -> Result<Daemon> {
    let psk = end.dir.join("psk");
    std::fs::write(&psk, "a secret of this benchmark")?;
    let config = json!({
        "apiVersion": "agent.edgemesh.config.kubeedge.io/v1alpha1", "kind": "EdgeMeshAgent",
        "kubeAPIConfig": {"kubeConfig": cluster.kubeconfig(end)?},
        "modules": {
            "edgeDNS": {"enable": false},
            "edgeProxy": {"enable": true},
            "edgeTunnel": {"enable": true, "listenInterfaces": "eth0", "psk": {"enable": true, "path": psk}},
        },
    });
    let path = write(end, "edgemesh.yaml", &config)?;
    ensure!(program.exists(), "{} is not there", program.display());
    let mut command = end.ns.command(program);
    command.arg("--config-file").arg(path).current_dir(&end.dir);
    command.env("NODE_NAME", end.letter).env("NAMESPACE", "default");
    Daemon::start(command, &end.dir.join("edgemesh.log"))
}

/// JSON is YAML.
fn write(end: &End, name: &str, config: &Value) -> Result<PathBuf> {
    let path = end.dir.join(name);
    std::fs::write(&path, serde_json::to_string_pretty(config)?)?;
    Ok(path)
}
