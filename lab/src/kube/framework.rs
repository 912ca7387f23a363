//! What stands for the API server on an edge: KubeEdge's MetaServer, SuperEdge's lite-apiserver, OpenYurt's yurthub, or
//! nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::process::Signal;
use serde_json::json;

use super::api::{Api, Identity};
use super::binaries;
use super::cloud::{Cloud, HUB, PORT, PUBLIC};
use super::control_plane::command;
use super::pki::Subject;
use crate::manifests::word;
use crate::netns::kill;
use crate::node::Node;
use crate::programs::{Program, wait};

/// KubeEdge's feature gate.
pub const AUTHORIZATION: &str = "requireAuthorization";

const START: Duration = Duration::from_secs(120);

/// Whose edges they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Framework {
    /// MetaServer, in the clear on the loopback.
    Kubeedge,
    /// MetaServer with its feature gate `requireAuthorization`: TLS and tokens.
    KubeedgeTls,
    /// lite-apiserver, with TLS and tokens.
    Superedge,
    /// yurthub, in the clear on the loopback.
    Openyurt,
    /// yurthub's port for pods: TLS and tokens.
    OpenyurtTls,
    /// The API server itself, over the WAN.
    Kubernetes,
}

impl Framework {
    /// As the agent's option has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kubeedge | Self::KubeedgeTls => "kubeedge",
            Self::Superedge => "superedge",
            Self::Openyurt | Self::OpenyurtTls => "openyurt",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// As the laboratory's option has it.
    pub fn name(self) -> String {
        word(&self).unwrap_or_default()
    }

    /// Whether it speaks TLS and wants tokens.
    pub fn is_secure(self) -> bool {
        !matches!(self, Self::Kubeedge | Self::Openyurt)
    }
}

/// What stands for the API server on one edge; it ends on drop.
#[derive(Debug)]
pub struct EdgeApi {
    framework: Framework,
    namespace: String,
    dir: PathBuf,
    program: Option<Program>,
    file: &'static str,
    arguments: Vec<String>,
    authority: Option<String>,
}

impl EdgeApi {
    /// Starts it on a node and waits until it answers.
    pub fn start(framework: Framework, cloud: &Cloud, node: &Node) -> Result<Self> {
        let disk = node.dir.join("disk");
        for folder in ["etc", "lib"] {
            std::fs::create_dir_all(disk.join(folder))?;
        }
        let (file, arguments) = match framework {
            Framework::Kubeedge | Framework::KubeedgeTls => edgecore(framework, cloud, node)?,
            Framework::Superedge => lite_apiserver(cloud, node, &disk)?,
            Framework::Openyurt | Framework::OpenyurtTls => yurthub(cloud, node, &disk)?,
            Framework::Kubernetes => ("", Vec::new()),
        };
        let mut edge = Self {
            framework,
            namespace: node.ns.name().to_owned(),
            dir: node.dir.clone(),
            program: None,
            file,
            arguments,
            authority: framework.is_secure().then(|| cloud.plane.pki.authority()),
        };
        edge.launch()?;
        edge.await_answer()?;
        Ok(edge)
    }

    /// Its URL on the node.
    pub fn url(&self) -> String {
        match self.framework {
            Framework::Kubeedge => "http://127.0.0.1:10550".to_owned(),
            Framework::KubeedgeTls => "https://127.0.0.1:10550".to_owned(),
            Framework::Superedge => "https://127.0.0.1:51003".to_owned(),
            Framework::Openyurt => "http://127.0.0.1:10261".to_owned(),
            Framework::OpenyurtTls => "https://127.0.0.1:10268".to_owned(),
            Framework::Kubernetes => format!("https://{PUBLIC}:{PORT}"),
        }
    }

    /// A client on the node.
    pub fn api(&self, user_agent: &str, token: Option<&str>) -> Result<Api> {
        let identity = Identity { authority: self.authority.as_deref(), token, user_agent, ..Identity::default() };
        Api::new(&self.url(), Some(&self.namespace), &identity)
    }

    /// Kills it and starts it again, as after a power cut.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(mut program) = self.program.take() {
            program.kill()?;
        }
        self.launch()?;
        self.await_answer()
    }

    /// Stops it in its tracks, so that its port accepts and nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// The end of that.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// What it wrote last.
    pub fn log_tail(&self) -> String {
        self.program.as_ref().map(Program::log_tail).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if let Some(program) = &self.program {
            kill(program.pid(), signal);
        }
    }

    fn launch(&mut self) -> Result<()> {
        if self.file.is_empty() {
            return Ok(());
        }
        // Its own disk: these programs write where their packages do.
        let disk = self.dir.join("disk");
        let script = "mount --bind \"$1/etc\" /etc; mount --bind \"$1/lib\" /var/lib; shift; exec \"$@\"";
        let mut command = command(Some(&self.namespace), Path::new("sh"));
        command.args(["-ec", script, "sh"]).arg(&disk).arg(binaries::find(self.file)?).args(&self.arguments);
        self.program = Some(Program::launch(command, self.file, &self.dir)?);
        Ok(())
    }

    fn await_answer(&mut self) -> Result<()> {
        let api = self.api("", None)?;
        let (program, framework) = (&mut self.program, self.framework);
        wait(&format!("{framework:?}'s API"), START, || {
            program.as_mut().map_or(Ok(()), Program::check)?;
            // Without a token, or without the cloud, it may say no.
            api.ask("GET", "/version", None).map(drop)
        })
    }
}

impl Drop for EdgeApi {
    fn drop(&mut self) {
        // One that stands still would not end.
        self.thaw();
    }
}

type Launch = (&'static str, Vec<String>);

fn edgecore(framework: Framework, cloud: &Cloud, node: &Node) -> Result<Launch> {
    let [websocket, https] = HUB;
    let kept = "/var/lib/kubeedge";
    let authorized = framework == Framework::KubeedgeTls;
    if authorized {
        // It would make a dummy device of this name, which not every kernel has.
        node.ns.ip("link add edge-dummy0 type bridge\nlink set edge-dummy0 up")?;
    }
    let config = json!({
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2", "kind": "EdgeCore",
        "database": {"dataSource": format!("{kept}/edgecore.db")},
        "featureGates": {AUTHORIZATION: authorized},
        "modules": {
            // Without it no container runtime is needed, and nobody registers the node.
            "edged": {"enable": false, "hostnameOverride": node.name},
            "edgeHub": {
                "httpServer": format!("https://{PUBLIC}:{https}"),
                "websocket": {"enable": true, "server": format!("{PUBLIC}:{websocket}")},
                "token": cloud.join_token()?,
                "tlsCaFile": format!("{kept}/ca.crt"), "tlsCertFile": format!("{kept}/edge.crt"),
                "tlsPrivateKeyFile": format!("{kept}/edge.key"),
            },
            "eventBus": {"enable": false}, "deviceTwin": {"enable": false},
            "metaManager": {"metaServer": {
                "enable": true, "server": "127.0.0.1:10550",
                // Without these it knows only the tokens that its own pods were given.
                "serviceAccountKeyFiles": [cloud.plane.pki.path("sa.pub")],
            }},
        },
    });
    std::fs::create_dir_all(node.dir.join("disk/lib/kubeedge"))?;
    let file = node.dir.join("edgecore.json");
    std::fs::write(&file, config.to_string())?;
    Ok(("edgecore", vec!["--config".to_owned(), file.display().to_string()]))
}

/// The kubelet's certificate, by which it and whatever stands for it speak to the API server.
pub fn kubelet(cloud: &Cloud, node: &Node) -> Result<String> {
    let file = format!("kubelet-{}", node.name);
    let name = format!("system:node:{}", node.name);
    cloud.plane.pki.issue(&file, &Subject { name: &name, group: Some("system:nodes"), ..Subject::default() })?;
    Ok(file)
}

fn lite_apiserver(cloud: &Cloud, node: &Node, disk: &Path) -> Result<Launch> {
    let pki = &cloud.plane.pki;
    let (kubelet, server) = (kubelet(cloud, node)?, format!("lite-{}", node.name));
    let names = ["127.0.0.1".to_owned()];
    pki.issue(&server, &Subject { name: "lite-apiserver", server: &names, ..Subject::default() })?;
    let pairs = json!([{
        "cert": pki.path(&format!("{kubelet}.crt")), "key": pki.path(&format!("{kubelet}.key")),
    }]);
    let tls = node.dir.join("tls.json");
    std::fs::write(&tls, pairs.to_string())?;
    let path = |file: &str| pki.path(file).display().to_string();
    let arguments = [
        ("ca-file", path("ca.crt")),
        ("apiserver-ca-file", path("ca.crt")),
        ("tls-cert-file", path(&format!("{server}.crt"))),
        ("tls-private-key-file", path(&format!("{server}.key"))),
        ("tls-config-file", tls.display().to_string()),
        ("kube-apiserver-url", PUBLIC.to_owned()),
        ("kube-apiserver-port", PORT.to_string()),
        ("file-cache-path", disk.join("cache").display().to_string()),
        ("timeout", "3".to_owned()),
    ];
    Ok(("lite-apiserver", arguments.map(|(flag, value)| format!("--{flag}={value}")).to_vec()))
}

fn yurthub(cloud: &Cloud, node: &Node, disk: &Path) -> Result<Launch> {
    let pki = &cloud.plane.pki;
    let kubelet = kubelet(cloud, node)?;
    let pair = |name: &str| -> Result<String> {
        Ok(format!("{}{}", pki.read(&format!("{name}.crt"))?, pki.read(&format!("{name}.key"))?))
    };
    let server = format!("yurthub-{}", node.name);
    let address = node.addresses.first().context("a node without address")?.to_string();
    let names: Vec<String> =
        ["10.96.0.1", "169.254.2.1", "127.0.0.1", &address, "kubernetes"].map(str::to_owned).to_vec();
    let name = format!("system:node:{}", node.name);
    pki.issue(&server, &Subject { name: &name, group: Some("system:nodes"), server: &names })?;
    for (path, text) in [
        ("etc/kubernetes/kubelet.conf", cloud.plane.kubeconfig_for(&format!("https://{PUBLIC}:{PORT}"), &kubelet)?),
        ("etc/kubernetes/pki/ca.crt", pki.authority()),
        ("lib/kubelet/pki/kubelet-client-current.pem", pair(&kubelet)?),
        // As it would be after the cloud has signed it.
        ("lib/yurthub/pki/yurthub-server-current.pem", pair(&server)?),
    ] {
        let file = disk.join(path);
        file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(file, text)?;
    }
    let arguments = [
        ("server-addr", format!("https://{PUBLIC}:{PORT}")),
        ("node-name", node.name.clone()),
        ("node-ip", address),
        ("nodepool-name", "workshop".to_owned()),
        ("bootstrap-mode", "kubeletcertificate".to_owned()),
        ("namespace", "kube-system".to_owned()),
        ("working-mode", "edge".to_owned()),
        // Not every kernel has one.
        ("enable-dummy-if", "false".to_owned()),
    ];
    Ok(("yurthub", arguments.map(|(flag, value)| format!("--{flag}={value}")).to_vec()))
}
