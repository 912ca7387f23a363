//! Endpoints of Services die and come back while the operator is away.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::within;
use crate::fabric::Fabric;
use crate::manifests::SERVICE_PORT;
use crate::netns::Netns;
use crate::pace;
use crate::probe;
use crate::programs::Status;
use crate::server::{Answer, PORT};
use crate::table::Report;
use crate::topology::{Net, Place};

/// An endpoint that does not answer takes no new connections after this time.
const OUT: Duration = Duration::from_secs(3);
/// One that answers again is back after this time, if it was not away often.
const BACK: Duration = Duration::from_secs(8);
/// From one call to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// A call that takes longer was delayed.
const DELAYED: Duration = Duration::from_secs(1);
const FILE: &str = "health.yaml";

/// An endpoint that is out for the second and the third time stays so for this time at least.
const HELD: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];
/// Ports of a client's sockets for datagrams.
const SOCKETS: std::ops::Range<u16> = 40_100..40_200;

/// Two pods of edge-1; two pods of the cloud; two pods of edge-2, asked all the time; two pods of edge-1 over UDP.
const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 2, 1));
const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 2, 2));
const ASKED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 2, 3));
const DATAGRAMS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 2, 4));

pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let near = [("edge-1", 0), ("edge-1", 1)];
    let far = [("cloud-1", 0), ("cloud-2", 0)];
    let asked = [("edge-2", 0), ("edge-2", 1)];
    let mut objects = Vec::new();
    for (name, address, pods, protocol, check) in [
        ("near", NEAR, near, "TCP", None),
        ("far", FAR, far, "TCP", None),
        ("asked", ASKED, asked, "TCP", Some("tcp")),
        ("datagrams", DATAGRAMS, near, "UDP", None),
    ] {
        objects.push(service(name, address, protocol, check));
        objects.push(endpoint_slice(fabric, name, protocol, pods)?);
    }
    fabric.manifests.write(FILE, &objects)?;
    for (address, pods) in [(NEAR, near), (FAR, far), (ASKED, asked)] {
        all_answer(fabric, address, pods)?;
    }
    fabric.operator.kill()?;
    let rows = rows(report, fabric, near, far, asked);
    fabric.start_operator()?;
    fabric.manifests.write(FILE, &[])?;
    rows
}

type Pods = [(&'static str, usize); 2];

fn rows(report: &mut Report, fabric: &mut Fabric, near: Pods, far: Pods, asked: Pods) -> Result<()> {
    report.check("18a", "a pod behind a tunnel is silent", || {
        let deaf = Deaf::new(fabric, far[1])?;
        let seen = calls(fabric, Net::Pod, FAR, OUT * 2)?;
        drop(deaf);
        seen.within(OUT)
    });
    report.check("18b", "the last one stays, even if it does not answer", || {
        let mut deaf = vec![Deaf::new(fabric, far[0])?, Deaf::new(fabric, far[1])?];
        calls(fabric, Net::Pod, FAR, OUT)?;
        await_out(fabric, &far)?;
        deaf.truncate(1);
        // Nobody was taken out of the rules for good: who answers first has all calls.
        let seen = calls(fabric, Net::Pod, FAR, BACK * 2)?;
        seen.within(BACK)
    });
    report.check("18c", "all answer again", || back(fabric, FAR, far));
    report.check("18d", "a pod of this node is silent: others take its calls", || {
        let deaf = Deaf::new(fabric, near[1])?;
        let seen = calls(fabric, Net::Host, NEAR, OUT * 2)?;
        drop(deaf);
        seen.within(OUT)
    });
    report.check("18e", "it answers again, and is called again", || back(fabric, NEAR, near));
    report.check("18f", "its port is closed", || {
        pod(fabric, near[1])?.close();
        let seen = calls(fabric, Net::Host, NEAR, OUT * 2);
        pod(fabric, near[1])?.open()?;
        seen?.within(OUT)
    });
    report.check("18g", "and open again", || back(fabric, NEAR, near));
    report.check("18h", "its link is gone: noticed without a call", || {
        let link = host_link(fabric, near[1])?;
        let ns = &fabric.lab.node(near[1].0)?.ns;
        ns.ip(&format!("link set {link} down"))?;
        let gone = Instant::now();
        let out = await_out(fabric, &[near[1]]);
        let took = gone.elapsed();
        fabric.lab.node(near[1].0)?.ns.ip(&format!("link set {link} up"))?;
        Ok(format!("{}: it {}", within(took, OUT)?, out?))
    });
    report.check("18i", "and there again", || back(fabric, NEAR, near));
    if !fabric.manifests.metered {
        report.check("18j", "a Service that has its endpoints asked: noticed without a call", || {
            let deaf = Deaf::new(fabric, asked[1])?;
            let gone = Instant::now();
            let why = await_out(fabric, &[asked[1]])?;
            let took = gone.elapsed();
            drop(deaf);
            Ok(format!("{}: it {why}", within(took, OUT)?))
        });
        report.check("18k", "it answers again", || back(fabric, ASKED, asked));
    }
    datagrams(report, fabric, near[1]);
    Ok(())
}

/// Who never answered over UDP before, and goes out again and again.
fn datagrams(report: &mut Report, fabric: &mut Fabric, (node, number): (&str, usize)) {
    report.check("18l", "over UDP a pod is silent: its client goes on", || {
        let _deaf = Deaf::new(fabric, (node, number))?;
        goes_on(fabric)
    });
    report.check("18m", "it answers again, and is called again", || {
        let start = Instant::now();
        await_well(fabric, (node, number))?;
        within(start.elapsed(), BACK)
    });
    let mut flap = |row, what, held| {
        report.check(row, what, || {
            let start = Instant::now();
            pod(fabric, (node, number))?.close();
            let went_on = goes_on(fabric).and_then(|took| await_out(fabric, &[(node, number)]).map(|_| took));
            pod(fabric, (node, number))?.open()?;
            let went_on = went_on?;
            await_well(fabric, (node, number))?;
            ensure!(start.elapsed() >= held, "back after {:.2} s", start.elapsed().as_secs_f64());
            Ok(format!("{went_on}; back: {}", within(start.elapsed(), BACK + held)?))
        });
    };
    flap("18n", "its port is closed and open again: out for 2 s", HELD[0]);
    flap("18o", "closed and open once more: out for 4 s", HELD[1]);
}

/// A client of the node that keeps its socket meets an endpoint that does not answer: how long until one does.
fn goes_on(fabric: &Fabric) -> Result<String> {
    let from = fabric.lab.place(Net::Host, "edge-1")?.ns;
    let to = SocketAddr::new(DATAGRAMS, SERVICE_PORT);
    let ask = |port| probe::who_udp_as(from, SocketAddr::new([0; 4].into(), port), to, PAUSE);
    let start = Instant::now();
    let port = SOCKETS.into_iter().find(|port| ask(*port).is_err()).context("all sockets were answered")?;
    while ask(port).is_err() {
        ensure!(start.elapsed() < pace::limit(OUT * 2), "nobody answers");
        // A pod refuses few datagrams in a second, and then none.
        std::thread::sleep(pace::limit(PAUSE));
    }
    within(start.elapsed(), OUT)
}

/// Waits until nothing bad is known of it, and it has answered over UDP.
fn await_well(fabric: &Fabric, (node, number): (&str, usize)) -> Result<()> {
    let Place { name, addresses, .. } = fabric.lab.pod(node, number)?;
    fabric.await_status("edge-1", "the endpoint well", |status| {
        let bad = status.endpoints.iter().find(|endpoint| addresses.contains(&endpoint.address));
        ensure!(bad.is_none(), "{bad:?}");
        Ok(())
    })?;
    let from = fabric.lab.place(Net::Host, "edge-1")?.ns;
    let ask = || probe::who_udp(from, SocketAddr::new(DATAGRAMS, SERVICE_PORT), DELAYED);
    ensure!((0..40).any(|_| ask().is_ok_and(|answer| answer.name == name)), "{name} is not called");
    Ok(())
}

/// What came of many calls, one after another.
struct Seen(Vec<(Duration, Result<Answer>, Duration)>);

impl Seen {
    /// When the last call was made that failed or was delayed; it must be early, and some calls good all the time.
    fn within(self, limit: Duration) -> Result<String> {
        let bad =
            |(_, answer, took): &&(Duration, Result<Answer>, Duration)| answer.is_err() || *took > pace::limit(DELAYED);
        let last = self.0.iter().filter(bad).map(|(at, ..)| *at + PAUSE).max().unwrap_or_default();
        let early = || self.0.iter().filter(|(at, ..)| *at < DELAYED);
        let (good, calls) = (early().filter(|call| !bad(call)).count(), early().count());
        ensure!(good > 0, "all of the first {calls} calls failed or were delayed: one endpoint delays others");
        let failed = self.0.iter().filter(|(_, answer, _)| answer.is_err()).count();
        Ok(format!("{}, {failed} of {} calls failed", within(last, limit)?, self.0.len()))
    }
}

/// Calls a Service from edge-1 all the time, whatever comes of the calls before.
fn calls(fabric: &Fabric, net: Net, service: IpAddr, length: Duration) -> Result<Seen> {
    let from = fabric.lab.place(net, "edge-1")?.ns;
    let to = SocketAddr::new(service, SERVICE_PORT);
    let start = Instant::now();
    let calls = std::thread::scope(|scope| {
        let mut calls = Vec::new();
        while start.elapsed() < pace::limit(length) {
            calls.push(scope.spawn(move || {
                let at = Instant::now();
                (at - start, probe::who_tcp(from, to, OUT), at.elapsed())
            }));
            std::thread::sleep(pace::limit(PAUSE));
        }
        calls.into_iter().map(|call| call.join().ok().context("a call")).collect::<Result<Vec<_>>>()
    })?;
    Ok(Seen(calls))
}

/// Waits until nothing bad is known of any of them and each has been seen to answer.
fn back(fabric: &Fabric, service: IpAddr, pods: Pods) -> Result<String> {
    let start = Instant::now();
    let addresses = addresses(fabric, &pods)?;
    fabric.await_status("edge-1", "all endpoints well", |status| {
        let bad = status.endpoints.iter().find(|endpoint| addresses.contains(&endpoint.address));
        ensure!(bad.is_none(), "{bad:?}");
        Ok(())
    })?;
    let took = within(start.elapsed(), BACK)?;
    all_answer(fabric, service, pods)?;
    Ok(took)
}

/// Waits until all of them are out; why the first one is.
fn await_out(fabric: &Fabric, pods: &[(&str, usize)]) -> Result<String> {
    let addresses = addresses(fabric, pods)?;
    fabric.await_status("edge-1", "endpoints that are out", |status: &Status| {
        let out = |address: &IpAddr| status.endpoints.iter().find(|e| e.address == *address && e.state == "out");
        let reasons = addresses.iter().map(|address| Some(out(address)?.reason.clone())).collect::<Option<Vec<_>>>();
        Ok(reasons.with_context(|| format!("{:?}", status.endpoints))?.join(", "))
    })
}

/// Waits until each of them has answered a call of the Service.
fn all_answer(fabric: &Fabric, service: IpAddr, pods: Pods) -> Result<()> {
    let from = fabric.lab.place(Net::Host, "edge-1")?.ns;
    let mut missing: Vec<String> =
        pods.iter().map(|(node, number)| Ok(fabric.lab.pod(node, *number)?.name.to_owned())).collect::<Result<_>>()?;
    let start = Instant::now();
    while !missing.is_empty() {
        ensure!(start.elapsed() < pace::limit(Duration::from_secs(30)), "{} never answered", missing.join(", "));
        if let Ok(answer) = probe::who_tcp(from, SocketAddr::new(service, SERVICE_PORT), DELAYED) {
            missing.retain(|name| *name != answer.name);
        }
    }
    Ok(())
}

fn addresses(fabric: &Fabric, pods: &[(&str, usize)]) -> Result<Vec<IpAddr>> {
    pods.iter().map(|(node, number)| fabric.lab.pod(node, *number)?.address(true)).collect()
}

fn pod<'a>(fabric: &'a mut Fabric, (node, number): (&str, usize)) -> Result<&'a mut crate::pod::Pod> {
    let node = fabric.lab.nodes.iter_mut().find(|known| known.name == node).context("no such node")?;
    node.pods.get_mut(number).context("no such pod")
}

/// A pod that sends nothing, as long as this lives.
struct Deaf<'a>(&'a Netns);

impl<'a> Deaf<'a> {
    fn new(fabric: &'a Fabric, (node, number): (&str, usize)) -> Result<Self> {
        let Place { ns, .. } = fabric.lab.pod(node, number)?;
        ns.ip("rule add pref 1 blackhole")?;
        Ok(Self(ns))
    }
}

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        let _ = self.0.ip("rule del pref 1");
    }
}

/// The end of a pod's link on its node.
fn host_link(fabric: &Fabric, (node, number): (&str, usize)) -> Result<String> {
    let text = fabric.lab.pod(node, number)?.ns.run("ip -o link show dev eth0")?;
    let index = text.split_once("eth0@if").and_then(|(_, rest)| rest.split(':').next()).context(text.clone())?;
    let links = fabric.lab.node(node)?.ns.run("ip -o link show")?;
    let line = links.lines().find_map(|line| line.strip_prefix(&format!("{index}: "))).context("no such link")?;
    Ok(line.split(['@', ':']).next().unwrap_or_default().to_owned())
}

fn service(name: &str, address: IpAddr, protocol: &str, check: Option<&str>) -> Value {
    let annotations = check.map(|check| json!({"selvedge.dev/health-check": check})).unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "health", "annotations": annotations},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ports": [{"name": "main", "protocol": protocol, "port": SERVICE_PORT, "targetPort": PORT}],
        },
    })
}

fn endpoint_slice(fabric: &Fabric, name: &str, protocol: &str, pods: Pods) -> Result<Value> {
    let mut endpoints = Vec::new();
    for (node, number) in pods {
        let address = fabric.lab.pod(node, number)?.address(true)?;
        endpoints.push(json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true}}));
    }
    Ok(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "health", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "main", "protocol": protocol, "port": PORT}],
    }))
}
