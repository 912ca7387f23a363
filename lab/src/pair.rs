//! Two machines: the connector here, in a namespace, and an edge of another architecture with a kernel of its own, on
//! the same wire.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cni::Network;
use crate::flat::{self, CLOUD_POD, EDGE, Flat, STEP};
use crate::guest::{self, Wire};
use crate::manifests::{self, Datapath, Firewall, replace};
use crate::node::{Node, Role};
use crate::probe::{self, DEADLINE};
use crate::programs::{self, Folders, wait};
use crate::server::{PORT, Server};
use crate::table::Report;
use crate::topology::RunDir;

/// Where the guest finds what the operator wrote for it.
const DELIVERED: &str = "etc/selvedge";
/// The first pod of the first edge.
const EDGE_POD: Ipv4Addr = Ipv4Addr::new(10, 234, 0, 2);

/// An address of the connector that is there until it has done its rows: for the edge, which waits for that.
const GOING_ON: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);

/// How both ends do it.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    guest: guest::Options,
    /// How ESP is done in the guest; this machine does what it can.
    #[arg(long, value_enum, default_value = "auto")]
    datapath: Datapath,
    /// What the firewall rules of the guest are written for.
    #[arg(long, value_enum, default_value = "auto")]
    firewall: Firewall,
}

/// The connector's end; boots the guest and has it do the other one.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::new();
    let arch = options.guest.arch.context("which architecture? --arch")?;
    report.title(&format!("An edge on {arch} and a connector on this machine"));
    let flat = Flat::start_connector(1)?;
    let connector = flat.node("cloud-1")?;
    connector.ns.ip(&format!("address add {GOING_ON}/24 dev pods"))?;
    let _server = Server::start(&connector.ns, "cloud", "cloud-1", &[CLOUD_POD.into()])?;
    let delivery = flat.output.join(EDGE);
    set(&delivery.join("config.json"), options)?;
    let wire = Wire { wan: &flat.wan, delivery, folder: DELIVERED };
    let code = std::thread::scope(|scope| {
        let guest = scope.spawn(|| guest::run_in(&flat.dir, &options.guest, &["far-edge".to_owned()], Some(&wire)));
        report.check("p5", "connector -> pod of the edge, by TCP", || {
            let to = SocketAddr::new(EDGE_POD.into(), PORT);
            let answer = wait("the edge's pod answers", STEP * 3, || {
                ensure!(!guest.is_finished(), "the guest has ended");
                probe::who_tcp(&connector.ns, to, DEADLINE)
            })?;
            Ok(format!("{} sees {}", answer.name, answer.client.ip()))
        });
        report.check("p6", "1 MB each way, begun by the connector", || {
            let took = probe::bulk_tcp(&connector.ns, SocketAddr::new(EDGE_POD.into(), PORT), 1 << 20, DEADLINE * 4)?;
            Ok(format!("{:.1} s", took.as_secs_f64()))
        });
        connector.ns.ip(&format!("address del {GOING_ON}/24 dev pods"))?;
        guest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    report.check("p7", "all rows of the edge", || {
        ensure!(code == ExitCode::SUCCESS, "not all passed");
        let status = flat.status("cloud-1")?;
        Ok(status.tunnels().filter_map(|peer| peer.cipher.clone()).collect::<Vec<_>>().join(", "))
    });
    Ok(report.finish())
}

/// Writes into the edge's configuration what the options say.
fn set(config: &Path, options: &Options) -> Result<()> {
    let mut value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(config)?)?;
    value["datapath"] = manifests::word(&options.datapath).into();
    value["firewall"] = manifests::word(&options.firewall).into();
    replace(config, &serde_json::to_string(&value)?)
}

/// The edge's end, in the guest: the guest's Ethernet device is the node's.
pub fn far_edge() -> Result<ExitCode> {
    let mut report = Report::new();
    let dir = RunDir::create(false)?;
    let mut node = Node::create(EDGE, Role::Edge, &[&Flat::address(1)], &dir)?;
    crate::exec::run(std::process::Command::new("ip").args(["link", "set", "eth0", "netns", node.ns.name()]))?;
    flat::up(&node)?;
    let mut folders = Folders::of(&node, Path::new("/"));
    folders.config = Path::new("/").join(DELIVERED).join("config.json");
    folders.credentials = Path::new("/").join(DELIVERED).join("tls");
    let mut program = programs::start(&node, &folders)?;
    let network = wait("CNI network", STEP, || {
        program.check()?;
        Network::find(&node.cni_dir(), &node.cni_data())
    })?;
    node.start_pod(&network, "pod-edge-1")?;
    let pod = &node.pods[0];
    let cloud = IpAddr::from(CLOUD_POD);
    report.check("p1", "tunnel to the connector", || {
        wait("tunnel", STEP, || {
            program.check()?;
            let status = programs::status(&node, &folders)?;
            let peer = status.peer("beijing.connector")?;
            ensure!(peer.state == "up", "{}: {}", peer.state, peer.last_error.as_deref().unwrap_or("no reason given"));
            let cipher = peer.cipher.as_deref().unwrap_or("no cipher");
            Ok(format!("{}, {}, {cipher}", status.datapath, status.firewall))
        })
        .with_context(|| program.log_tail())
    });
    report.check("p2", "pod of the edge -> connector, by TCP", || {
        let answer = probe::who_tcp(&pod.ns, SocketAddr::new(cloud, PORT), DEADLINE)?;
        ensure!(answer.client.ip() == IpAddr::from(EDGE_POD), "seen as {}", answer.client.ip());
        let time = probe::ping(&pod.ns, cloud, DEADLINE)?;
        Ok(format!("ping {:.1} ms", time.as_secs_f64() * 1000.0))
    });
    report.check("p3", "1 MB each way", || {
        let took = probe::bulk_tcp(&pod.ns, SocketAddr::new(cloud, PORT), 1 << 20, DEADLINE * 4)?;
        Ok(format!("{:.1} s", took.as_secs_f64()))
    });
    report.check("p4", "pod of the edge -> Service in the cloud", || {
        let answer = probe::who_tcp(&pod.ns, SocketAddr::new(Flat::cluster_ip(0).into(), 80), DEADLINE)?;
        Ok(answer.name)
    });
    wait("end of the other end's rows", STEP * 3, || {
        ensure!(probe::ping(&pod.ns, GOING_ON.into(), DEADLINE).is_err(), "still at it");
        Ok(())
    })?;
    Ok(report.finish())
}
