//! A real API server, an operator under test, and a way to look at what it does.

mod proxy;
mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub(crate) use proxy::{Answer, Proxy};
use server::Server;
pub(crate) use server::binary;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster of one connector and three edges, with our definitions and the namespace.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) client: Client,
}

/// A running operator.
pub(crate) struct Operator {
    child: Child,
    log: PathBuf,
    kubeconfig: PathBuf,
}

impl World {
    pub(crate) async fn new() -> World {
        let server = Server::start().await;
        let client = server.client().await;
        let world = World { server, client };
        let crds = Command::new(env!("CARGO_BIN_EXE_selvedge-operator")).arg("crds").output().unwrap();
        for document in String::from_utf8(crds.stdout).unwrap().split("---\n").filter(|text| !text.is_empty()) {
            world.apply(serde_saphyr::from_str(document).unwrap()).await;
        }
        world.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "selvedge"}})).await;
        world.apply(cluster()).await;
        world.apply(node("cloud-1", "connector", "172.16.0.11", &["10.244.1.0/24"])).await;
        for i in 1..=3 {
            world.apply(node(&format!("edge-{i}"), "edge", &format!("192.168.1{i}.2"), &[])).await;
        }
        world
    }

    /// Starts an operator that speaks to the API server through the proxy.
    pub(crate) fn operator(&self, name: &str, proxy: &Proxy) -> Operator {
        self.operator_with(name, proxy, &[])
    }

    /// As [`World::operator`], with more arguments.
    pub(crate) fn operator_with(&self, name: &str, proxy: &Proxy, arguments: &[&str]) -> Operator {
        let kubeconfig = self.server.directory().join(format!("{name}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
            proxy.address
        );
        fs::write(&kubeconfig, text).unwrap();
        let log = self.server.directory().join(format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_selvedge-operator"))
            .args(["serve", "--metrics-listen", "127.0.0.1:0", "--identity", name, "--kubeconfig"])
            .arg(&kubeconfig)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Operator { child, log, kubeconfig }
    }

    /// Creates or changes an object; its status too, if there is one.
    pub(crate) async fn apply(&self, value: Value) -> DynamicObject {
        self.try_apply(value).await.unwrap()
    }

    pub(crate) async fn try_apply(&self, value: Value) -> kube::Result<DynamicObject> {
        let (api, name) = self.api(&value);
        let params = PatchParams::apply("test").force();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match api.patch(&name, &params, &Patch::Apply(&value)).await {
                // A definition takes a moment until it serves.
                Err(kube::Error::Api(status)) if status.code == 404 && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                Ok(_) if value["kind"] == "Node" => {
                    return api.patch_status(&name, &params, &Patch::Apply(&value)).await;
                }
                result => return result,
            }
        }
    }

    pub(crate) async fn delete(&self, value: &Value) {
        let (api, name) = self.api(value);
        api.delete(&name, &Default::default()).await.unwrap();
    }

    pub(crate) async fn get(&self, value: &Value) -> Option<Value> {
        let (api, name) = self.api(value);
        api.get_opt(&name).await.unwrap().map(|object| serde_json::to_value(object).unwrap())
    }

    fn api(&self, value: &Value) -> (Api<DynamicObject>, String) {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
        let api = match text("/metadata/namespace") {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        (api, text("/metadata/name").to_owned())
    }

    pub(crate) fn configs(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "selvedge")
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), "selvedge")
    }

    /// A node's configuration.
    pub(crate) async fn config(&self, node: &str) -> Option<Value> {
        let object = self.configs().get_opt(&format!("selvedge-node-{node}")).await.unwrap()?;
        Some(serde_json::from_str(&object.data?["config.json"]).unwrap())
    }

    /// The names of a node's peers once they are these.
    pub(crate) async fn peers_become(&self, node: &str, peers: &[&str]) {
        eventually(&format!("peers of {node}"), async || {
            let config = self.config(node).await.ok_or("no configuration")?;
            let names: Vec<&str> =
                config["peers"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
            if names == peers { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
    }

    /// Until every node of the world has what it needs.
    pub(crate) async fn settled(&self) {
        for node in ["cloud-1", "edge-1", "edge-2", "edge-3"] {
            eventually(&format!("what {node} needs"), async || {
                self.config(node).await.ok_or("no configuration")?;
                let secret = self.secrets().get_opt(&format!("selvedge-node-{node}")).await.unwrap();
                secret.map(drop).ok_or("no Secret".to_owned())
            })
            .await;
        }
        eventually("status of the cluster", async || {
            let condition = self.condition(&cluster(), "Ready").await;
            if condition.starts_with("True Configured") { Ok(()) } else { Err(condition) }
        })
        .await;
    }

    /// `True Reason: message`, or nothing.
    pub(crate) async fn condition(&self, object: &Value, kind: &str) -> String {
        let object = self.get(object).await.unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        found.map_or(String::new(), |c| format!("{} {}: {}", text(c, "status"), text(c, "reason"), text(c, "message")))
    }

    pub(crate) async fn condition_becomes(&self, object: &Value, kind: &str, expected: &str) {
        eventually(&format!("{kind} of {}", object["metadata"]["name"]), async || {
            let condition = self.condition(object, kind).await;
            if condition == expected { Ok(()) } else { Err(condition) }
        })
        .await;
    }

    /// `Kind name Type Reason: message` of all Events.
    pub(crate) async fn events(&self) -> Vec<String> {
        let api: Api<Event> = Api::all(self.client.clone());
        let mut events: Vec<String> = Vec::new();
        for event in api.list(&ListParams::default()).await.unwrap() {
            let (object, text) = (event.involved_object, |text: Option<String>| text.unwrap_or_default());
            let (kind, name) = (text(object.kind), text(object.name));
            events.push(format!("{kind} {name} {} {}: {}", text(event.type_), text(event.reason), text(event.message)));
        }
        events.sort();
        events
    }
}

impl Operator {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) async fn says(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), async || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// Where devices are answered, once they are.
    pub(crate) async fn feed(&self) -> SocketAddr {
        self.says("devices are answered on ").await;
        let log = self.log();
        let address = log.split("devices are answered on ").nth(1).unwrap();
        address.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The secret of a new token.
    pub(crate) fn token(&self, outpost: &str) -> String {
        let made = Command::new(env!("CARGO_BIN_EXE_selvedge-operator"))
            .args(["token", "--outpost", outpost, "--server", "https://192.0.2.1:8443", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().rsplit('/').next().unwrap().to_owned()
    }

    /// What is answered on the port for metrics: the status line and the rest.
    pub(crate) fn ask(&self, path: &str) -> (String, String) {
        let log = self.log();
        let address = log.split("metrics on http://").nth(1).unwrap().split('/').next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (status, rest) = answer.split_once("\r\n").unwrap();
        (status.to_owned(), rest.to_owned())
    }

    /// SIGTERM, and whether the end was a good one.
    pub(crate) fn stop(&mut self) -> bool {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap().success()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Looks until it is so.
pub(crate) async fn eventually<E: Into<String>>(what: &str, look: impl AsyncFn() -> Result<(), E>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Err(found) = look().await else { return };
        if Instant::now() > deadline {
            panic!("{what}: {}", found.into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn cluster() -> Value {
    ours(
        "Cluster",
        "beijing",
        json!({
            "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"], "edgePodCIDRs": ["10.234.0.0/16"],
            "connector": {"addresses": ["203.0.113.10"]},
        }),
    )
}

pub(crate) fn community(name: &str, members: &[&str]) -> Value {
    ours("Community", name, json!({"members": members}))
}

pub(crate) fn ours(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "selvedge.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn node(name: &str, role: &str, address: &str, networks: &[&str]) -> Value {
    let labels = json!({format!("node-role.kubernetes.io/{role}"): ""});
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    });
    if let Some(first) = networks.first() {
        node["spec"] = json!({"podCIDR": first, "podCIDRs": networks});
    }
    node
}
