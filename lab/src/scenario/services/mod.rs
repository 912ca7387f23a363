//! Services of every kind, from their manifests to the kernel: whom clients reach, and as whom they are seen.

mod objects;
mod rows;
mod sctp;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::objects::{Kind, zone};
use crate::fabric::Fabric;
use crate::manifests;
use crate::netns::Netns;
use crate::programs::wait;
use crate::table::Report;

const FILE: &str = "kinds.yaml";
const STEP: Duration = Duration::from_secs(30);
/// `timeoutSeconds` of the Service that remembers its clients.
const REMEMBERED: Duration = Duration::from_secs(2);

/// Routed to edge-1, as whoever sets such addresses does.
const NETWORK: &str = "192.0.2.80/29";
const EXTERNAL: &str = "192.0.2.80";
const BALANCER: &str = "192.0.2.81";
const OWN_EXTERNAL: &str = "192.0.2.82";
const HASHED_EXTERNAL: &str = "192.0.2.83";

/// edge-1 in its site, and the client there.
const CLIENT: &str = "192.168.11.1";

/// Pods of edge-1, of its neighbour, and of the cloud.
const OWN: (&str, usize) = ("edge-1", 0);
const OWN_2: (&str, usize) = ("edge-1", 1);
const NEXT: (&str, usize) = ("edge-2", 0);
const CLOUD: (&str, usize) = ("cloud-1", 0);
const CLOUD_2: (&str, usize) = ("cloud-2", 0);

/// Nodes that are called here, or call.
const NODES: [&str; 3] = ["edge-1", "cloud-2", "master"];

pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let outside = Outside::open(fabric)?;
    let nodes = fabric.lab.nodes.iter().map(|node| {
        let mut object = manifests::node(node, fabric.manifests.metered);
        object["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone(&node.name));
        object
    });
    fabric.manifests.write("nodes.yaml", &nodes.collect::<Vec<_>>())?;
    put(fabric, &kinds())?;
    rows::faces(report, fabric);
    rows::policies(report, fabric);
    rows::choices(report, fabric, &outside);
    rows::changes(report, fabric, &outside);
    fabric.manifests.write(FILE, &[])?;
    std::fs::remove_file(fabric.manifests.dir.join(FILE))?;
    fabric.manifests.write_nodes(&fabric.lab)
}

/// All Services of this scenario.
fn kinds() -> Vec<Kind<'static>> {
    let external = |address: &str| json!({"type": "NodePort", "externalIPs": [address]});
    let balance = |balance: &str| json!({"distribution": "any", "balance": balance});
    let seconds = REMEMBERED.as_secs();
    vec![
        Kind {
            node_port: 30080,
            balancer: Some(BALANCER),
            spec: json!({"type": "LoadBalancer", "externalIPs": [EXTERNAL], "loadBalancerSourceRanges": [format!("{CLIENT}/32")]}),
            ..Kind::new("front", 1, &[OWN, CLOUD])
        },
        Kind { node_port: 30081, spec: external(OWN_EXTERNAL), ..Kind::new("own", 2, &[OWN]) },
        Kind { protocols: &["SCTP"], ..Kind::new("sctp", 3, &[OWN, CLOUD]) },
        Kind { spec: json!({"internalTrafficPolicy": "Local"}), ..Kind::new("inside", 4, &[OWN_2, NEXT]) },
        Kind {
            node_port: 30082,
            spec: json!({"type": "NodePort", "externalTrafficPolicy": "Local"}),
            ..Kind::new("outside", 5, &[OWN_2, CLOUD])
        },
        Kind {
            spec: json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}),
            ..Kind::new("kept", 6, &[OWN, OWN_2])
        },
        Kind { annotations: balance("random"), ..Kind::new("random", 7, &[OWN, OWN_2]) },
        Kind::new("turns", 8, &[OWN, OWN_2, NEXT]),
        Kind {
            spec: external(HASHED_EXTERNAL),
            annotations: balance("sourceHash"),
            ..Kind::new("hashed", 9, &[OWN, OWN_2, NEXT])
        },
        Kind {
            annotations: json!({"distribution": "any", "weights": "edge-1=3,edge-2=1"}),
            ..Kind::new("weighed", 10, &[OWN, NEXT])
        },
        Kind { annotations: json!({"balance": "roundRobin"}), ..Kind::new("tiers", 11, &[OWN, OWN_2, NEXT, CLOUD]) },
        Kind {
            spec: json!({"trafficDistribution": "PreferSameZone"}),
            annotations: json!({"balance": "roundRobin"}),
            ..Kind::new("site", 12, &[OWN, NEXT, CLOUD])
        },
        Kind { annotations: json!({"balance": "roundRobin"}), ..Kind::new("zones", 13, &[CLOUD, CLOUD_2, NEXT]) },
        Kind::new("moved", 14, &[OWN]),
    ]
}

/// Writes these Services and no others, and waits until the nodes have them in their kernels.
fn put(fabric: &Fabric, kinds: &[Kind<'_>]) -> Result<()> {
    let objects: Vec<Value> =
        kinds.iter().map(|kind| kind.objects(fabric)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    fabric.manifests.write(FILE, &objects)?;
    for name in NODES {
        let node = fabric.lab.node(name)?;
        wait(&format!("{name}: the Services"), STEP, || {
            let config = fabric.written(node)?;
            ensure!(config["services"]["zone"].as_str().unwrap_or_default() == zone(name), "its zone is not known");
            let list = config["services"]["list"].as_array().context("no Services")?;
            let written: BTreeMap<&str, &Value> = list
                .iter()
                .filter(|service| service["namespace"] == "services")
                .filter_map(|service| Some((service["name"].as_str()?, service)))
                .collect();
            for kind in kinds {
                let service = written.get(kind.name).with_context(|| format!("no {}", kind.name))?;
                ensure!(kind.is_in(service), "{} has other endpoints", kind.name);
            }
            let (written, status) = (config["generation"].as_u64(), fabric.status(name)?);
            ensure!(written == Some(status.config.generation), "generation {written:?} is not in force");
            Ok(())
        })?;
    }
    Ok(())
}

/// Where edge-1 is: another scenario may have moved it.
fn edge(fabric: &Fabric) -> Result<String> {
    Ok(fabric.lab.node("edge-1")?.addresses.first().context("edge-1 has no address")?.to_string())
}

/// The site of edge-1 with more clients in it, and a way to the addresses of Services.
struct Outside<'a>(&'a Netns);

impl<'a> Outside<'a> {
    /// Their addresses.
    fn clients() -> impl Iterator<Item = String> {
        (100..116).map(|number| format!("192.168.11.{number}"))
    }

    fn open(fabric: &'a Fabric) -> Result<Self> {
        let outside = Self(&fabric.lab.routers[1].ns);
        outside.0.ip(&format!("route add {NETWORK} via {}", edge(fabric)?))?;
        outside.addresses("add")?;
        Ok(outside)
    }

    fn addresses(&self, verb: &str) -> Result<()> {
        let lines: Vec<String> = Self::clients().map(|client| format!("address {verb} {client}/24 dev lan0")).collect();
        self.0.ip(&lines.join("\n"))
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        let _ = self.addresses("del");
        let _ = self.0.ip(&format!("route del {NETWORK}"));
    }
}
