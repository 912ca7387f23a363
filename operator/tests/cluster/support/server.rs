//! A real etcd and a real kube-apiserver, in a directory that is removed with them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Both servers, until this is dropped.
pub(crate) struct Server {
    directory: TempDir,
    port: u16,
    etcd_port: u16,
    etcd: Child,
    apiserver: Option<Child>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        make_keys(directory.path());
        let [port, etcd_port, peer_port] = free_ports();
        let url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = Command::new(binary("etcd"))
            .arg("--data-dir")
            .arg(directory.path().join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("etcd.log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Server { directory, port, etcd_port, etcd, apiserver: None };
        server.resume().await;
        server
    }

    /// Starts the API server, again if it was stopped.
    pub(crate) async fn resume(&mut self) {
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        let child = Command::new(binary("kube-apiserver"))
            .args([
                format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", self.port),
                "--advertise-address=127.0.0.1".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--tls-cert-file={}", file("server.crt")),
                format!("--tls-private-key-file={}", file("server.key")),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--service-account-key-file={}", file("server.crt")),
                format!("--service-account-signing-key-file={}", file("server.key")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--api-audiences=https://kubernetes.default.svc".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--authorization-mode=Node,RBAC".to_owned(),
            ])
            .stdout(Stdio::null())
            .stderr(File::create(file("apiserver.log")).unwrap())
            .spawn()
            .unwrap();
        let log = file("apiserver.log");
        self.apiserver = Some(child);
        let client = self.client().await;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let request = axum::http::Request::get("/readyz").body(Vec::new()).unwrap();
            if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                return;
            }
            let child = self.apiserver.as_mut().unwrap();
            let alive = child.try_wait().unwrap().is_none() && self.etcd.try_wait().unwrap().is_none();
            let logs = || [file("etcd.log"), log.clone()].map(|log| fs::read_to_string(log).unwrap()).concat();
            assert!(alive && Instant::now() < deadline, "{}", logs());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops the API server; what it stored stays.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.apiserver.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// As an administrator.
    pub(crate) async fn client(&self) -> Client {
        self.client_as("").await
    }

    /// As the program of a ServiceAccount, of whom an administrator may take the place.
    pub(crate) async fn client_of(&self, account: &str) -> Client {
        self.client_as(&format!(", as: 'system:serviceaccount:{account}'")).await
    }

    async fn client_as(&self, user: &str) -> Client {
        let file = |name: &str| self.directory.path().join(name);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: {}}}}}]\n\
             users: [{{name: u, user: {{client-certificate: {}, client-key: {}{user}}}}}]\n",
            self.port,
            file("ca.crt").display(),
            file("admin.crt").display(),
            file("admin.key").display()
        );
        let config = Kubeconfig::from_yaml(&text).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

/// Where `lab/tools/kube/build` puts them.
pub(crate) fn binary(name: &str) -> PathBuf {
    let made = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kube/bin");
    let path = std::env::var_os("SELVEDGE_KUBE_BIN").map_or_else(made, PathBuf::from).join(name);
    assert!(
        path.exists(),
        "there is no {}: `make test-kube` makes it, or SELVEDGE_KUBE_BIN names its directory",
        path.display()
    );
    path
}

/// From outside the range that the kernel gives to outgoing connections, each one only once in this process.
fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u32 = 21_000;
    const COUNT: u32 = 1_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() * 30;
    let mut ports = (0..COUNT).map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    [(); N].map(|()| {
        let free = |port: u32| {
            let port = u16::try_from(port).unwrap();
            TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
        };
        ports.find_map(free).unwrap()
    })
}

/// An authority, the server and an administrator.
fn make_keys(directory: &Path) {
    let write = |name: &str, end: &str, pem: String| fs::write(directory.join(format!("{name}.{end}")), pem).unwrap();
    let params = |common_name: &str, organisation: &str| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    };
    let key = KeyPair::generate().unwrap();
    let mut authority = params("authority", "test");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).unwrap();
    write("ca", "crt", certificate.pem());
    let issuer = Issuer::new(authority, key);
    for (name, common_name, organisation) in
        [("server", "kube-apiserver", "test"), ("admin", "admin", "system:masters")]
    {
        let key = KeyPair::generate().unwrap();
        write(name, "crt", params(common_name, organisation).signed_by(&key, &issuer).unwrap().pem());
        write(name, "key", key.serialize_pem());
    }
}
