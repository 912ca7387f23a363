//! The sample cases of EdgeMesh's documentation: pods that call one another by name, with the programs that people use.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::exec;
use crate::fabric::Fabric;
use crate::programs::{Program, wait};
use crate::table::Report;

const FILE: &str = "samples.yaml";
const STEP: Duration = Duration::from_secs(30);
const PYTHON: &str = "/usr/bin/python3";
const WEBSOCKETS: &str = "/usr/lib/python3/dist-packages/websockets";
/// Where the pods of edges ask for names.
const RESOLVER: &str =
    "nameserver 169.254.25.10\nsearch samples.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";

/// Pods by node.
const EDGE: &str = "edge-2";
const CLOUD: &str = "cloud-1";
const BOTH: [&str; 2] = [EDGE, CLOUD];

/// Name, last number of the cluster IP, nodes, protocol, port, port of the pods.
type Service = (&'static str, u8, &'static [&'static str], &'static str, u16, u16);

const SERVICES: [Service; 7] = [
    ("hostname", 1, &[EDGE], "TCP", 12345, 9376),
    ("https", 2, &[EDGE], "TCP", 443, 8443),
    ("tcp-echo", 3, &[EDGE], "TCP", 2701, 2701),
    ("websocket", 4, &[EDGE], "TCP", 12348, 8081),
    ("hostname-udp", 5, &[EDGE], "UDP", 12345, 9376),
    ("tcp-echo-cloud", 6, &[CLOUD], "TCP", 2701, 2701),
    ("hostname-lb", 7, &BOTH, "TCP", 12345, 9376),
];

/// All rows, where there is what they are made of.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    if !Path::new(WEBSOCKETS).exists() {
        report.progress("left out: python3-websockets is not here");
        return Ok(());
    }
    let samples = Samples::start(fabric)?;
    for (row, what, command, answer) in [
        ("22a", "HTTP", "curl -s -m 5 http://hostname:12345/", "pod-edge-2"),
        ("22b", "HTTPS", "curl -s -m 5 --cacert cert.pem https://https.samples.svc.cluster.local/", "pod-edge-2"),
        ("22c", "TCP", "echo hello | socat -t 5 - TCP:tcp-echo:2701", "pod-edge-2: hello"),
        ("22d", "WebSocket", "/usr/bin/python3 talk.py ws://websocket:12348/", "pod-edge-2: hello"),
        ("22e", "UDP", "echo hello | socat -t 0.5 - UDP4:hostname-udp:12345", "pod-edge-2: hello"),
        (
            "22f",
            "an edge calls the cloud",
            "echo hello | socat -t 5 - TCP:tcp-echo-cloud.samples:2701",
            "pod-cloud-1: hello",
        ),
    ] {
        report.check(row, what, || {
            let said = samples.run("edge-1", command)?;
            ensure!(said.trim() == answer, "{said}");
            Ok(answer.to_owned())
        });
    }
    report.check("22g", "the cloud calls an edge", || {
        let said = samples.run("cloud-2", &format!("echo hello | socat -t 5 - TCP:{}:2701", cluster_ip(3)))?;
        ensure!(said.trim() == "pod-edge-2: hello", "{said}");
        Ok("by its cluster IP".to_owned())
    });
    report.check("22h", "load balancing: pods in turn", || {
        let ask = |_| samples.run("edge-1", "curl -s -m 5 http://hostname-lb:12345/");
        let order = (0..4).map(ask).collect::<Result<Vec<_>>>()?;
        let met: BTreeSet<&String> = order.iter().collect();
        ensure!(met.len() == 2 && order[..2] == order[2..], "{order:?}");
        Ok(order[..2].join(", "))
    });
    drop(samples);
    fabric.manifests.write(FILE, &[])?;
    std::fs::remove_file(fabric.manifests.dir.join(FILE)).context("remove the samples")
}

/// Pods that serve, as long as this lives.
struct Samples<'a> {
    fabric: &'a Fabric,
    _programs: Vec<Program>,
}

impl<'a> Samples<'a> {
    fn start(fabric: &'a Fabric) -> Result<Self> {
        let dir = &fabric.lab.dir;
        let own = rcgen::generate_simple_self_signed(["https.samples.svc.cluster.local".to_owned()])?;
        for (name, text) in [
            ("pod.py", include_str!("pod.py")),
            ("talk.py", include_str!("talk.py")),
            ("resolv.conf", RESOLVER),
            ("cert.pem", &own.cert.pem()),
            ("key.pem", &own.signing_key.serialize_pem()),
        ] {
            std::fs::write(dir.join(name), text)?;
        }
        let mut programs = Vec::new();
        for node in BOTH {
            let pod = fabric.lab.pod(node, 0)?;
            let mut command = pod.ns.command(PYTHON);
            command.args(["pod.py", pod.name, "cert.pem", "key.pem"]).current_dir(&**dir);
            programs.push(Program::launch(command, pod.name, dir)?);
        }
        let objects: Vec<Value> =
            SERVICES.iter().map(|service| objects(fabric, service)).collect::<Result<Vec<_>>>()?.concat();
        fabric.manifests.write(FILE, &objects)?;
        let samples = Self { fabric, _programs: programs };
        for (name, _, nodes, protocol, port, _) in SERVICES.iter().filter(|service| service.3 == "TCP") {
            wait(&format!("{name} at {nodes:?} over {protocol}"), STEP, || {
                samples.run("edge-1", &format!("socat -u /dev/null TCP:{name}:{port}"))
            })?;
        }
        Ok(samples)
    }

    /// Runs a line of shell in the first pod of a node, in the folder of the samples and with the node's names.
    fn run(&self, node: &str, line: &str) -> Result<String> {
        let mut command = self.fabric.lab.pod(node, 0)?.ns.command("sh");
        let dir = &self.fabric.lab.dir;
        command.args(["-c", &format!("mount --bind resolv.conf /etc/resolv.conf && {line}")]).current_dir(&**dir);
        exec::run(&mut command)
    }
}

fn cluster_ip(number: u8) -> IpAddr {
    [10, 96, 4, number].into()
}

fn objects(fabric: &Fabric, (name, number, nodes, protocol, port, target): &Service) -> Result<Vec<Value>> {
    let endpoint = |node: &&str| Ok(json!({"addresses": [fabric.lab.pod(node, 0)?.address(true)?], "nodeName": node}));
    let endpoints = nodes.iter().map(endpoint).collect::<Result<Vec<_>>>()?;
    let annotations = json!({"selvedge.dev/distribution": "any", "selvedge.dev/balance": "roundRobin"});
    Ok(vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "samples", "annotations": annotations},
            "spec": {
                "clusterIP": cluster_ip(*number), "clusterIPs": [cluster_ip(*number)], "ipFamilies": ["IPv4"],
                "ports": [{"name": "main", "protocol": protocol, "port": port, "targetPort": target}],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{name}-1"), "namespace": "samples", "labels": {"kubernetes.io/service-name": name},
            },
            "endpoints": endpoints, "ports": [{"name": "main", "protocol": protocol, "port": target}],
        }),
    ])
}
