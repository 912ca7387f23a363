//! etcd, kube-apiserver and kube-controller-manager, started from nothing and gone without a trace.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::api::{Api, Identity};
use super::binaries;
use super::pki::{Pki, Subject};
use crate::netns::Netns;
use crate::process;
use crate::programs::{Program, wait};

/// Five seconds on an idle machine, half a minute on one that builds beside it.
const START: Duration = Duration::from_secs(120);
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// What is switched off in the controller manager: nobody sends heartbeats here, and the nodes have their addresses.
const CONTROLLERS: &str = "*,-node-lifecycle-controller,-taint-eviction-controller,-node-ipam-controller";

/// Where a control plane is.
#[derive(Debug)]
pub struct Site<'a> {
    /// A network namespace, or that of this machine.
    pub namespace: Option<&'a Netns>,
    /// Addresses it is called by beside the loopback; the first is advertised.
    pub addresses: &'a [IpAddr],
    /// Of the API server; etcd and the controller manager take the next three.
    pub port: u16,
    /// Certificates, data and logs.
    pub dir: &'a Path,
}

/// A running control plane; it ends on drop.
#[derive(Debug)]
pub struct ControlPlane {
    /// Certificates and keys.
    pub pki: Pki,
    namespace: Option<String>,
    port: u16,
    dir: PathBuf,
    /// In the order in which they end.
    manager: Option<Program>,
    server: Program,
    store: Program,
}

impl ControlPlane {
    /// Starts all three and waits until the API server is ready.
    pub fn start(site: &Site<'_>) -> Result<Self> {
        std::fs::create_dir_all(site.dir)?;
        let dir = site.dir.canonicalize()?;
        let pki = Pki::create(&dir.join("pki"))?;
        let addresses = ["127.0.0.1", "10.96.0.1"].map(str::to_owned).into_iter();
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let server: Vec<String> = addresses.chain(site.addresses.iter().map(IpAddr::to_string)).chain(names).collect();
        pki.issue("apiserver", &Subject { name: "kube-apiserver", server: &server, ..Subject::default() })?;
        pki.issue("admin", &Subject { name: "admin", group: Some("system:masters"), ..Subject::default() })?;
        pki.issue("manager", &Subject { name: "system:kube-controller-manager", ..Subject::default() })?;
        let namespace = site.namespace.map(|ns| ns.name().to_owned());
        for user in ["admin", "manager"] {
            let config = kubeconfig(&format!("https://127.0.0.1:{}", site.port), &pki, user)?;
            std::fs::write(dir.join(format!("{user}.kubeconfig")), config)?;
        }
        let store = start_store(namespace.as_deref(), &dir, site.port)?;
        let server = start_server(namespace.as_deref(), &dir, site)?;
        let mut plane = Self { pki, namespace, port: site.port, dir, manager: None, server, store };
        plane.await_ready()?;
        // It ends where the roles are not there yet.
        plane.manager = Some(start_manager(plane.namespace.as_deref(), &plane.dir, site.port)?);
        Ok(plane)
    }

    /// For `kubectl` and others that run where the API server is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A kubeconfig for one who calls the server by this URL, with the certificate of this file name.
    pub fn kubeconfig_for(&self, server: &str, user: &str) -> Result<String> {
        kubeconfig(server, &self.pki, user)
    }

    /// The API as the cluster's administrator.
    pub fn admin(&self) -> Result<Api> {
        let (authority, certificate, key) =
            (self.pki.authority(), self.pki.read("admin.crt")?, self.pki.read("admin.key")?);
        let identity =
            Identity { authority: Some(&authority), certificate: Some((&certificate, &key)), ..Identity::default() };
        Api::new(&format!("https://127.0.0.1:{}", self.port), self.namespace.as_deref(), &identity)
    }

    /// A token of a service account, as a pod has it.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = self.admin()?.post(&path, &request)?;
        answer["status"]["token"].as_str().map(str::to_owned).context("no token in the answer")
    }

    /// Whether all of it still runs; if not, why not.
    pub fn check(&mut self) -> Result<()> {
        self.store.check()?;
        self.server.check()?;
        self.manager.as_mut().map_or(Ok(()), Program::check)
    }

    /// Waits until it has done what follows from what it was told last: its controllers look at every object.
    pub fn settle(&self) -> Result<()> {
        const BUSY: f64 = 0.2;
        let programs = self.manager.iter().chain([&self.server, &self.store]);
        let pids: Vec<u32> = programs.map(Program::pid).collect();
        wait("the control plane to be quiet", START, || {
            let before = process::cpu_seconds(&pids)?;
            std::thread::sleep(Duration::from_secs(1));
            let busy = process::cpu_seconds(&pids)? - before;
            ensure!(busy < BUSY, "{busy:.2} s of CPU time in a second");
            Ok(())
        })
    }

    fn await_ready(&mut self) -> Result<()> {
        let api = self.admin()?;
        wait("the API server", START, || {
            self.check()?;
            let answer = api.ask("GET", "/readyz", None)?;
            ensure!(answer.status == 200, "{}", answer.said());
            Ok(())
        })
    }
}

/// A command in a namespace, or in that of this machine, that ends with this process however that ends.
pub fn command(namespace: Option<&str>, program: &Path) -> Command {
    let mut command = Command::new(if namespace.is_some() { "ip" } else { "setpriv" });
    if let Some(name) = namespace {
        command.args(["netns", "exec", name, "setpriv"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn kubeconfig(server: &str, pki: &Pki, user: &str) -> Result<String> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": pki.path("ca.crt")}}],
        "users": [{"name": user, "user": {
            "client-certificate": pki.path(&format!("{user}.crt")), "client-key": pki.path(&format!("{user}.key")),
        }}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn start_store(namespace: Option<&str>, dir: &Path, port: u16) -> Result<Program> {
    let (clients, peers) = (format!("http://127.0.0.1:{}", port + 1), format!("http://127.0.0.1:{}", port + 2));
    let mut command = command(namespace, &binaries::find("etcd")?);
    command.arg("--data-dir").arg(dir.join("etcd")).arg("--unsafe-no-fsync");
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("default={peers}"), "--log-level", "warn"]);
    Program::launch(command, "etcd", dir)
}

fn start_server(namespace: Option<&str>, dir: &Path, site: &Site<'_>) -> Result<Program> {
    let pki = |file: &str| dir.join("pki").join(file);
    let mut command = command(namespace, &binaries::find("kube-apiserver")?);
    command.arg(format!("--etcd-servers=http://127.0.0.1:{}", site.port + 1));
    command.arg(format!("--secure-port={}", site.port));
    match site.addresses.first() {
        Some(address) => command.arg("--bind-address=0.0.0.0").arg(format!("--advertise-address={address}")),
        // No Endpoints may name a loopback address.
        None => command
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg("--endpoint-reconciler-type=none"),
    };
    for (flag, file) in [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
    ] {
        command.arg(format!("--{flag}={}", pki(file).display()));
    }
    command.arg(format!("--service-account-issuer={ISSUER}"));
    command.args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"]);
    command.args(["--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112", "--allow-privileged=true"]);
    Program::launch(command, "kube-apiserver", dir)
}

fn start_manager(namespace: Option<&str>, dir: &Path, port: u16) -> Result<Program> {
    let pki = |file: &str| dir.join("pki").join(file);
    let mut command = command(namespace, &binaries::find("kube-controller-manager")?);
    let config = dir.join("manager.kubeconfig");
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        command.arg(format!("--{flag}={}", config.display()));
    }
    for (flag, file) in [
        ("service-account-private-key-file", "sa.key"),
        ("root-ca-file", "ca.crt"),
        ("cluster-signing-cert-file", "ca.crt"),
        ("cluster-signing-key-file", "ca.key"),
    ] {
        command.arg(format!("--{flag}={}", pki(file).display()));
    }
    command.args(["--use-service-account-credentials=true", "--leader-elect=false", "--bind-address=127.0.0.1"]);
    command.arg(format!("--secure-port={}", port + 3)).arg(format!("--controllers={CONTROLLERS}"));
    Program::launch(command, "kube-controller-manager", dir)
}
