//! A pod made through the API, run by a real kubelet and containerd on an edge, on the network of the agent.

mod image;
pub mod machine;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};

use self::worker::Worker;
use super::api::{Api, Identity};
use super::cluster::object;
use super::framework::Framework;
use crate::fabric::{Fabric, Options};
use crate::netns::Netns;
use crate::pace;
use crate::probe::{self, DEADLINE};
use crate::programs::wait;
use crate::server::{Answer, MARKER, PORT};
use crate::table::Report;
use crate::topology::{Net, Place};
use crate::traffic::Traffic;

const NODE: &str = "edge-1";
const POD: &str = "/api/v1/namespaces/default/pods/hello";
const SERVICE: [&str; 2] = ["10.96.1.20", "fd00:96::120"];
/// The kubelet's own pace is ten seconds for its state, and a minute for a pod that it could not start.
const LIMIT: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(10);
/// Whose answers the pod and its Service have to reach.
const CLIENTS: [&str; 4] = ["cloud-1", "cloud-2", "edge-2", NODE];

/// The laboratory with what its rows are about; the worker ends before the node that it is on.
struct Site {
    worker: Worker,
    fabric: Fabric,
    admin: Api,
    addresses: Vec<IpAddr>,
    container: String,
}

/// All rows.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::new();
    report.title("Setting up: kubernetes, with a kubelet and containerd on edge-1");
    let fabric = Fabric::start_on(Framework::Kubernetes, options, &report)?;
    let cluster = fabric.cluster.as_ref().context("no cluster")?;
    let worker = Worker::start(&cluster.cloud, fabric.lab.node(NODE)?)?;
    let admin = cluster.admin.clone();
    report.progress("containerd and kubelet started");
    let mut site = Site { worker, fabric, admin, addresses: Vec::new(), container: String::new() };
    site.rows(&mut report);
    if report.failed() > 0 {
        println!("{}\n{}", site.worker.log_tail(), site.fabric.logs());
    }
    Ok(report.finish())
}

impl Site {
    fn rows(&mut self, report: &mut Report) {
        report.title("A pod of a real kubelet");
        report.check("p1", "the kubelet finds the network and is ready", || self.ready());
        if report.failed() > 0 {
            return;
        }
        report.check("p2", "a pod made through the API runs", || self.create());
        if report.failed() > 0 {
            return;
        }
        report.check("p3", "its addresses are of the node's blocks", || self.own_block());
        report.check("p4", "from the pod: ping and TCP to pods everywhere", || self.outwards());
        report.check("p5", "to the pod: ping and TCP, source kept", || self.inwards());
        report.check("p6", "its Service answers everywhere", || self.serve());
        report.check("p7", "not ready, the Service refuses; then it answers", || self.readiness());
        report.check("p8", "kubelet and containerd killed: the pod goes on", || self.restart());
        report.check("p9", "agent killed: the pod goes on", || self.restart_agent());
        report.check("p10", "deleted, it gives its addresses back", || self.delete());
    }

    fn ready(&mut self) -> Result<String> {
        let start = Instant::now();
        let node = wait("the node to be ready", LIMIT, || {
            self.worker.check()?;
            let node = self.admin.get(&format!("/api/v1/nodes/{NODE}"))?;
            let conditions = node["status"]["conditions"].as_array().context("no conditions yet")?;
            let ready = conditions.iter().find(|c| c["type"] == "Ready").context("no condition Ready")?;
            ensure!(ready["status"] == "True", "{}", ready["message"]);
            Ok(node)
        })?;
        let said = |field: &str| node["status"]["nodeInfo"][field].as_str().unwrap_or_default().to_owned();
        let (kubelet, runtime) = (said("kubeletVersion"), said("containerRuntimeVersion"));
        Ok(format!("{kubelet}, {runtime}, after {:.1} s", start.elapsed().as_secs_f64()))
    }

    fn create(&mut self) -> Result<String> {
        // Its controller makes the account some time after the namespace.
        wait("the pod to be taken", LIMIT, || self.admin.apply(&pod()))?;
        let start = Instant::now();
        let pod = wait("the pod to be ready", LIMIT, || {
            self.worker.check()?;
            let pod = self.admin.get(POD)?;
            let status = &pod["status"];
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let ready = conditions.filter(|c| c["type"] == "Ready").any(|c| c["status"] == "True");
            ensure!(ready, "{}: {}", status["phase"], status["containerStatuses"]);
            Ok(pod)
        })?;
        ensure!(pod["spec"]["hostNetwork"] != true, "it is on the network of its node");
        let addresses = pod["status"]["podIPs"].as_array().context("no podIPs")?;
        let parse = |ip: &Value| Ok(ip["ip"].as_str().context("no address")?.parse()?);
        self.addresses = addresses.iter().map(parse).collect::<Result<_>>()?;
        self.container = container(&pod)?;
        Ok(format!("{:?}, ready after {:.1} s", self.addresses, start.elapsed().as_secs_f64()))
    }

    fn own_block(&self) -> Result<String> {
        let config = self.fabric.written(self.fabric.lab.node(NODE)?)?;
        let blocks = config["podCidrs"].as_array().context("no podCidrs")?.iter();
        let blocks: Vec<IpNet> =
            blocks.map(|block| Ok(block.as_str().context("no text")?.parse()?)).collect::<Result<_>>()?;
        ensure!(blocks.len() == self.addresses.len(), "{:?} of {blocks:?}", self.addresses);
        for block in &blocks {
            ensure!(self.addresses.iter().any(|a| block.contains(a)), "{:?} not in {block}", self.addresses);
        }
        ensure!(leases(&self.fabric)?.len() >= self.addresses.len(), "no leases in the node's folder");
        Ok(format!("{blocks:?}"))
    }

    fn outwards(&self) -> Result<String> {
        for client in CLIENTS {
            let place = self.fabric.lab.place(Net::Pod, client)?;
            for address in place.addresses {
                self.worker.shell(&self.container, &format!("ping -c 1 -W 5 {address} >/dev/null"))?;
                let ask = format!("echo WHO {MARKER} | nc -w 5 {address} {PORT}");
                let text = self.worker.shell(&self.container, &ask)?;
                let answer: Answer = serde_json::from_str(&text).with_context(|| format!("{address} said {text:?}"))?;
                ensure!(answer.name == place.name, "{} answered instead of {}", answer.name, place.name);
                ensure!(self.addresses.contains(&answer.client.ip()), "it was seen as {}", answer.client.ip());
            }
        }
        Ok("IPv4 and IPv6, with its own address".to_owned())
    }

    fn inwards(&self) -> Result<String> {
        self.each_client(|place, v4| {
            let to = self.addresses.iter().find(|a| a.is_ipv4() == v4).copied().context("no address")?;
            probe::ping(place.ns, to, DEADLINE)?;
            let answer = ask(place.ns, SocketAddr::new(to, PORT))?;
            ensure!(answer.client.ip() == place.address(v4)?, "{} was seen as {}", place.name, answer.client.ip());
            Ok(())
        })?;
        Ok("IPv4 and IPv6".to_owned())
    }

    fn serve(&self) -> Result<String> {
        self.admin.apply(&service())?;
        let start = Instant::now();
        wait("the Service", LIMIT, || self.answers())?;
        let took = start.elapsed().as_secs_f64();
        let selector = "labelSelector=kubernetes.io/service-name=hello";
        let slices =
            self.admin.get(&format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?{selector}"))?;
        let first = &slices["items"][0];
        let maker = &first["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
        ensure!(maker == "endpointslice-controller.k8s.io", "the slice is by {maker}");
        ensure!(first["endpoints"][0]["nodeName"] == NODE, "{}", first["endpoints"]);
        let own = format!("nc -w 5 {} 80 </dev/null && echo open", SERVICE[0]);
        let said = self.worker.shell(&self.container, &own).context("the pod does not reach its own Service")?;
        ensure!(said.contains("open"), "{said:?}");
        Ok(format!("slices by {}, everywhere after {took:.1} s", maker.as_str().unwrap_or_default()))
    }

    fn readiness(&self) -> Result<String> {
        self.worker.shell(&self.container, "touch /tmp/busy")?;
        let start = Instant::now();
        wait("the Service to refuse", LIMIT, || self.refuses())?;
        let refused = start.elapsed().as_secs_f64();
        self.worker.shell(&self.container, "rm /tmp/busy")?;
        let start = Instant::now();
        wait("the Service to answer", LIMIT, || self.answers())?;
        Ok(format!("after {refused:.1} s and {:.1} s", start.elapsed().as_secs_f64()))
    }

    fn restart(&mut self) -> Result<String> {
        let traffic = self.traffic()?;
        let heartbeat = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            conditions.filter(|c| c["type"] == "Ready").map(|c| c["lastHeartbeatTime"].to_string()).next()
        };
        let path = format!("/api/v1/nodes/{NODE}");
        let before = heartbeat(&self.admin.get(&path)?);
        self.worker.restart_runtime()?;
        self.worker.restart_kubelet()?;
        wait("the kubelet's next word", LIMIT, || {
            self.worker.check()?;
            ensure!(heartbeat(&self.admin.get(&path)?) != before, "nothing since {before:?}");
            Ok(())
        })?;
        self.ready()?;
        self.unchanged(traffic)
    }

    fn restart_agent(&mut self) -> Result<String> {
        let traffic = self.traffic()?;
        self.fabric.kill(NODE)?;
        self.fabric.start_program(NODE)?;
        self.fabric.await_keyed(NODE)?;
        self.unchanged(traffic)
    }

    fn delete(&self) -> Result<String> {
        let before = leases(&self.fabric)?;
        let ours = |lease: &&String| self.addresses.iter().any(|address| **lease == address.to_string());
        ensure!(before.iter().filter(ours).count() == self.addresses.len(), "its leases are not among {before:?}");
        self.admin.delete(&pod())?;
        let start = Instant::now();
        wait("the pod to be gone", LIMIT, || {
            let answer = self.admin.ask("GET", POD, None)?;
            ensure!(answer.status == 404, "{}", answer.status);
            Ok(())
        })?;
        let gone = start.elapsed().as_secs_f64();
        let left = leases(&self.fabric)?;
        ensure!(!left.iter().any(|lease| ours(&lease)), "leases of it are left: {left:?}");
        wait("the Service to refuse", LIMIT, || self.refuses())?;
        let client = self.fabric.lab.place(Net::Pod, "cloud-1")?;
        for address in &self.addresses {
            ensure!(probe::ping(client.ns, *address, Duration::from_secs(1)).is_err(), "{address} still answers");
        }
        Ok(format!("gone after {gone:.1} s"))
    }

    fn traffic(&self) -> Result<Traffic> {
        let to = self.addresses.first().copied().context("the pod has no address")?;
        Traffic::start(self.fabric.lab.place(Net::Pod, "cloud-1")?.ns, to, pace::limit(INTERVAL))
    }

    /// The same container, and no ping lost.
    fn unchanged(&self, traffic: Traffic) -> Result<String> {
        let pod = self.admin.get(POD)?;
        ensure!(container(&pod)? == self.container, "another container runs");
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        ensure!(*restarts == 0, "restarted {restarts} times");
        wait("the Service to answer", LIMIT, || self.answers())?;
        let (sent, lost) = traffic.stop()?;
        ensure!(lost == 0, "{lost} of {sent} pings lost");
        Ok(format!("0 of {sent} pings lost"))
    }

    fn answers(&self) -> Result<()> {
        self.each_client(|place, v4| ask(place.ns, cluster_address(v4)?).map(drop))
    }

    fn refuses(&self) -> Result<()> {
        self.each_client(|place, v4| match ask(place.ns, cluster_address(v4)?) {
            Ok(_) => bail!("it answers {}", place.name),
            Err(error) => {
                ensure!(format!("{error:#}").contains("refused"), "{}: {error:#}", place.name);
                Ok(())
            }
        })
    }

    fn each_client(&self, check: impl Fn(Place<'_>, bool) -> Result<()>) -> Result<()> {
        for client in CLIENTS {
            let place = self.fabric.lab.place(Net::Pod, client)?;
            for v4 in [true, false] {
                check(place, v4).with_context(|| format!("from {client}, IPv{}", if v4 { 4 } else { 6 }))?;
            }
        }
        Ok(())
    }
}

fn pod() -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut pod = object("v1", "Pod", "hello", Some("default"));
    pod["metadata"]["labels"] = json!({"app": "hello"});
    pod["spec"] = json!({
        "nodeName": NODE, "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "hello", "image": image::NAME, "imagePullPolicy": "Never",
            "command": ["httpd", "-f", "-p", PORT.to_string(), "-h", "/www"],
            "env": [field("POD", "metadata.name"), field("NODE", "spec.nodeName")],
            "ports": [{"containerPort": PORT}],
            "readinessProbe": {"exec": {"command": ["sh", "-c", "test ! -e /tmp/busy"]}, "periodSeconds": 1},
            "livenessProbe": {"httpGet": {"path": image::PAGE, "port": PORT}, "periodSeconds": 1},
        }],
    });
    pod
}

fn service() -> Value {
    let mut service = object("v1", "Service", "hello", Some("default"));
    service["spec"] = json!({
        "clusterIP": SERVICE[0], "clusterIPs": SERVICE,
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
        "selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": PORT}],
    });
    service
}

fn cluster_address(v4: bool) -> Result<SocketAddr> {
    Ok(SocketAddr::new(SERVICE[usize::from(!v4)].parse()?, 80))
}

/// The id of the pod's only container, as containerd has it.
fn container(pod: &Value) -> Result<String> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().context("no containerID")?;
    Ok(id.strip_prefix("containerd://").context("not containerd's")?.to_owned())
}

/// What the pod's page says.
fn ask(from: &Netns, to: SocketAddr) -> Result<Answer> {
    let api = Api::new(&format!("http://{to}"), Some(from.name()), &Identity::default())?;
    let mut answer: Answer = serde_json::from_value(api.get(image::PAGE)?)?;
    ensure!(answer.name == "hello" && answer.node == NODE, "{} of {} answered", answer.name, answer.node);
    answer.client.set_ip(answer.client.ip().to_canonical());
    Ok(answer)
}

/// The addresses that host-local has given to the node's pods.
fn leases(fabric: &Fabric) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for network in std::fs::read_dir(fabric.lab.node(NODE)?.cni_data())? {
        let names =
            std::fs::read_dir(network?.path())?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        found.extend(names.filter(|name| name.parse::<IpAddr>().is_ok()));
    }
    Ok(found)
}
