//! The cloud's end: a control plane on master, its way in through the cloud's router, and what a framework runs there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::binaries;
use super::control_plane::{ControlPlane, Site, command};
use super::framework::{AUTHORIZATION, Framework};
use crate::exec;
use crate::iptables::Iptables;
use crate::netns;
use crate::programs::{Program, wait};
use crate::router::Router;
use crate::topology::Lab;

/// Where the edges find the API server and KubeEdge's cloud hub.
pub const PUBLIC: &str = "203.0.113.100";
/// Of the API server.
pub const PORT: u16 = 6443;
/// KubeEdge's: websockets, and certificates.
pub const HUB: [u16; 2] = [10000, 10002];

/// Time for what starts with a random delay of up to ten seconds.
const START: Duration = Duration::from_secs(120);

/// A control plane on master that edges can reach, until they are cut off.
#[derive(Debug)]
pub struct Cloud {
    /// The API server and what belongs to it.
    pub plane: ControlPlane,
    hub: Option<Program>,
    door: Door,
    dir: PathBuf,
    namespace: String,
}

/// How edges are cut off from the cloud's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every packet is answered by a reset.
    Refused,
    /// No packet is answered.
    Silent,
}

impl Cloud {
    /// Starts the control plane on master and what `framework` needs beside it.
    pub fn start(lab: &Lab, framework: Framework) -> Result<Self> {
        let master = lab.node("master")?;
        let mut addresses = master.addresses.clone();
        addresses.push(PUBLIC.parse()?);
        let dir = lab.dir.join("kube");
        let site = Site { namespace: Some(&master.ns), addresses: &addresses, port: PORT, dir: &dir };
        let plane = ControlPlane::start(&site)?;
        let inside = *addresses.first().context("master has no address")?;
        let door = Door::open(lab, inside)?;
        let mut cloud = Self { plane, hub: None, door, dir, namespace: master.ns.name().to_owned() };
        cloud.install(framework)?;
        Ok(cloud)
    }

    /// Where the nodes of the cloud find the API server.
    pub fn address(&self) -> IpAddr {
        self.door.inside
    }

    /// Applies objects in YAML.
    pub fn apply_text(&self, text: &str) -> Result<()> {
        exec::feed(self.kubectl()?.args(["apply", "--server-side", "-f", "-"]), text).map(drop)
    }

    /// Cuts all edges off; what stands is cut too.
    pub fn cut(&mut self, cut: Cut) -> Result<()> {
        self.door.shut(cut)
    }

    /// The end of that.
    pub fn join(&mut self) -> Result<()> {
        self.door.reopen()
    }

    /// The token by which an edge joins KubeEdge.
    pub fn join_token(&self) -> Result<String> {
        let api = self.plane.admin()?;
        wait("KubeEdge's token", START, || {
            let secret = api.get("/api/v1/namespaces/kubeedge/secrets/tokensecret")?;
            let encoded = secret["data"]["tokendata"].as_str().context("no tokendata")?;
            exec::feed(Command::new("base64").arg("-d"), encoded)
        })
    }

    fn install(&mut self, framework: Framework) -> Result<()> {
        let api = self.plane.admin()?;
        let object = |version: &str, kind: &str, name: &str| -> Value {
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}})
        };
        match framework {
            Framework::Kubeedge | Framework::KubeedgeTls => {
                api.apply(&object("v1", "Namespace", "kubeedge"))?;
                self.apply_folder(&binaries::shared("kubeedge")?)?;
                self.hub = Some(start_hub(framework, &self.namespace, &self.dir, &self.plane)?);
            }
            Framework::Openyurt | Framework::OpenyurtTls => {
                self.apply_folder(&binaries::shared("openyurt")?)?;
                hub_rights().iter().try_for_each(|object| api.apply(object))?;
                api.apply(&cache_agents())?;
            }
            Framework::Superedge | Framework::Kubernetes => {}
        }
        Ok(())
    }

    fn apply_folder(&self, folder: &Path) -> Result<()> {
        exec::run(self.kubectl()?.args(["apply", "--server-side", "--recursive", "-f"]).arg(folder)).map(drop)
    }

    fn kubectl(&self) -> Result<Command> {
        let mut command = command(Some(&self.namespace), &binaries::find("kubectl")?);
        command.arg("--kubeconfig").arg(self.plane.kubeconfig());
        Ok(command)
    }
}

/// What OpenYurt's chart lets nodes read on behalf of yurthub.
fn hub_rights() -> [Value; 2] {
    let watch = ["get", "list", "watch"];
    let (version, meta) = ("rbac.authorization.k8s.io/v1", json!({"name": "yurt-hub"}));
    let role = json!({
        "apiVersion": version, "kind": "ClusterRole", "metadata": meta,
        "rules": [
            {"apiGroups": ["apps.openyurt.io"], "resources": ["nodepools"], "verbs": watch},
            {"apiGroups": [""], "resources": ["configmaps", "endpoints"], "verbs": watch},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
        ],
    });
    let binding = json!({
        "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "yurt-hub"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    });
    [role, binding]
}

/// yurthub keeps only what the agents on its list have asked for.
fn cache_agents() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "yurt-hub-cfg", "namespace": "kube-system",
            "labels": {"openyurt.io/configmap-name": "yurt-hub-cfg"},
        },
        "data": {"cache_agents": "selvedge-agent,selvedge-lab"},
    })
}

fn start_hub(framework: Framework, namespace: &str, dir: &Path, plane: &ControlPlane) -> Result<Program> {
    let [websocket, https] = HUB;
    let pki = dir.join("cloudcore");
    std::fs::create_dir_all(&pki)?;
    let config = json!({
        "apiVersion": "cloudcore.config.kubeedge.io/v1alpha1", "kind": "CloudCore",
        "featureGates": {AUTHORIZATION: framework == Framework::KubeedgeTls},
        "kubeAPIConfig": {"kubeConfig": plane.kubeconfig()},
        "commonConfig": {"monitorServer": {"bindAddress": "127.0.0.1:9091"}},
        "modules": {
            "cloudHub": {
                "advertiseAddress": [PUBLIC],
                "tlsCAFile": pki.join("ca.crt"), "tlsCAKeyFile": pki.join("ca.key"),
                "tlsCertFile": pki.join("server.crt"), "tlsPrivateKeyFile": pki.join("server.key"),
                "https": {"enable": true, "address": "0.0.0.0", "port": https},
                "websocket": {"enable": true, "address": "0.0.0.0", "port": websocket},
                "unixsocket": {"enable": false},
            },
            // Without it MetaServer has nothing but its own store.
            "dynamicController": {"enable": true},
            // It would write rules of its own.
            "iptablesManager": {"enable": false},
        },
    });
    let file = dir.join("cloudcore.json");
    std::fs::write(&file, config.to_string())?;
    let mut command = command(Some(namespace), &binaries::find("cloudcore")?);
    command.arg("--config").arg(&file);
    Program::launch(command, "cloudcore", dir)
}

/// The ports of the cloud's router that lead to the API.
#[derive(Debug)]
struct Door {
    router: String,
    master: String,
    inside: IpAddr,
    iptables: Iptables,
}

impl Door {
    const CHAIN: &str = "API";

    fn open(lab: &Lab, inside: IpAddr) -> Result<Self> {
        let router = lab.routers.first().context("no router of the cloud")?;
        let uplink = Router::UPLINK;
        router.ns.ip(&format!("address add {PUBLIC}/32 dev {uplink}"))?;
        let master = lab.node("master")?.ns.name().to_owned();
        let door = Self { router: router.ns.name().to_owned(), master, inside, iptables: lab.iptables };
        let ports = HUB.iter().chain([&PORT]).map(u16::to_string).collect::<Vec<_>>().join(",");
        let chain = Self::CHAIN;
        // What is for the API is decided first, replies on standing connections included.
        door.load(&format!(
            "*filter
:{chain} - [0:0]
-A {chain} -j ACCEPT
-I FORWARD -i {uplink} -d {inside} -p tcp -m multiport --dports {ports} -j {chain}
-I FORWARD -o {uplink} -s {inside} -p tcp -m multiport --sports {ports} -j {chain}
COMMIT
*nat
-A PREROUTING -i {uplink} -d {PUBLIC} -p tcp -m multiport --dports {ports} -j DNAT --to-destination {inside}
COMMIT
"
        ))?;
        Ok(door)
    }

    fn shut(&self, cut: Cut) -> Result<()> {
        let (chain, uplink) = (Self::CHAIN, Router::UPLINK);
        if cut == Cut::Silent {
            return self.replace(&format!("-A {chain} -j DROP"));
        }
        self.replace(&format!(
            "-A {chain} -i {uplink} -p tcp -j REJECT --reject-with tcp-reset\n-A {chain} -j ACCEPT"
        ))?;
        // Of connections that stand, each end is told, as when the servers end.
        let mut command = Command::new("ss");
        command.args(["--kill", "--tcp", "src", &self.inside.to_string(), "dst", "203.0.113.0/24"]);
        netns::enter(&self.master, || exec::run(&mut command)).map(drop)
    }

    fn reopen(&self) -> Result<()> {
        self.replace(&format!("-A {} -j ACCEPT", Self::CHAIN))
    }

    fn replace(&self, rules: &str) -> Result<()> {
        self.load(&format!("*filter\n-F {}\n{rules}\nCOMMIT\n", Self::CHAIN))
    }

    fn load(&self, rules: &str) -> Result<()> {
        self.iptables.load_named(&self.router, rules).with_context(|| format!("rules towards {}", self.inside))
    }
}
