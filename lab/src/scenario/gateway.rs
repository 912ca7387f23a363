//! Connections and datagrams from outside are let in at an edge, by Gateway API's objects and by EdgeMesh's.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::within;
use crate::fabric::Fabric;
use crate::manifests::SERVICE_PORT;
use crate::probe;
use crate::table::Report;
use crate::topology::Net;

const FILE: &str = "gateways.yaml";
const SECONDS: Duration = Duration::from_secs(10);

/// The edge lets others' clients through to pods of the cloud and of another edge, and forgets it again.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    report.check("19a", "a Gateway is written: the edge listens", || {
        fabric.manifests.write(FILE, &gateways())?;
        let started = Instant::now();
        fabric.await_status("edge-1", "listeners", |status| {
            let gateway = status.gateway.as_ref();
            let listeners = gateway.map(|gateway| gateway.listeners.as_slice()).unwrap_or_default();
            let listening = listeners.iter().filter(|listener| !listener.addresses.is_empty()).count();
            ensure!(listening == 4, "{listening} of 4 listeners listen: {gateway:?}");
            Ok(())
        })?;
        ensure!(fabric.status("edge-2")?.gateway.is_none(), "edge-2 listens, too");
        within(started.elapsed(), SECONDS)
    });
    for (row, what, port, udp, nodes) in [
        ("19b", "TCP to pods of the cloud", 7000, false, &["cloud-1", "cloud-2"][..]),
        ("19c", "UDP to pods of the cloud", 7000, true, &["cloud-1", "cloud-2"]),
        ("19d", "TCP to a pod of another edge", 7001, false, &["edge-2"]),
        ("19e", "TCP by EdgeMesh's objects", 7002, false, &["cloud-1", "cloud-2"]),
    ] {
        report.check(row, what, || {
            let met = met(fabric, port, udp)?;
            ensure!(met.iter().map(String::as_str).eq(nodes.iter().copied()), "{met:?} answered, not {nodes:?}");
            Ok(met.into_iter().collect::<Vec<_>>().join(", "))
        });
    }
    report.check("19f", "objects that nobody understands hurt nobody", || {
        let mut objects = gateways();
        objects.extend(strange());
        fabric.manifests.write(FILE, &objects)?;
        // The operator goes through all of them before it writes what follows from the next change.
        fabric.manifests.write(FILE, &objects[..objects.len() - 1])?;
        ensure!(met(fabric, 7000, false)?.len() == 2, "the cloud's pods do not answer any more");
        Ok("all goes on".to_owned())
    });
    report.check("19g", "the Gateway goes: nobody listens", || {
        fabric.manifests.write(FILE, &[])?;
        std::fs::remove_file(fabric.manifests.dir.join(FILE))?;
        let started = Instant::now();
        fabric.await_status("edge-1", "no listener", |status| {
            let left = status.gateway.as_ref().map_or(0, |gateway| gateway.listeners.len());
            ensure!(left == 0, "{left} listeners");
            Ok(())
        })?;
        let (from, to) = way(fabric, 7000)?;
        ensure!(probe::who_tcp(from, to, Duration::from_secs(2)).is_err(), "still answered");
        within(started.elapsed(), SECONDS)
    });
    Ok(())
}

/// From a pod of the edge to an address of the edge.
fn way(fabric: &Fabric, port: u16) -> Result<(&crate::netns::Netns, SocketAddr)> {
    let from = fabric.lab.place(Net::Pod, "edge-1")?;
    let to = fabric.lab.place(Net::Host, "edge-1")?;
    Ok((from.ns, SocketAddr::new(to.address(true)?, port)))
}

/// The nodes whose pods answer several clients.
fn met(fabric: &Fabric, port: u16, udp: bool) -> Result<BTreeSet<String>> {
    let (from, to) = way(fabric, port)?;
    let ask = |_| match udp {
        true => probe::who_udp(from, to, SECONDS),
        false => probe::who_tcp(from, to, SECONDS),
    };
    (0..8).map(ask).map(|answer| Ok(answer?.node)).collect()
}

fn gateway_api(kind: &str, version: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "default", "annotations": {"selvedge.dev/nodes": "kubernetes.io/hostname=edge-1"}});
    json!({"apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind, "metadata": metadata, "spec": spec})
}

fn istio(kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "default"});
    json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": kind, "metadata": metadata, "spec": spec})
}

fn gateways() -> Vec<Value> {
    let listener = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
    let route = |section: &str, service: &str| {
        json!({"parentRefs": [{"name": "gate", "sectionName": section}],
               "rules": [{"backendRefs": [{"name": service, "port": SERVICE_PORT}]}]})
    };
    let listeners = [listener("cloud", 7000, "TCP"), listener("cloud-udp", 7000, "UDP"), listener("edge", 7001, "TCP")];
    vec![
        gateway_api("GatewayClass", "v1", "edge", json!({"controllerName": "selvedge.dev/gateway"})),
        gateway_api("Gateway", "v1", "gate", json!({"gatewayClassName": "edge", "listeners": listeners})),
        gateway_api("TCPRoute", "v1alpha2", "cloud", route("cloud", "cloud-pod")),
        gateway_api("UDPRoute", "v1alpha2", "cloud", route("cloud-udp", "cloud-pod")),
        gateway_api("TCPRoute", "v1alpha2", "edge", route("edge", "edge-2-pod")),
        istio(
            "Gateway",
            "mesh",
            json!({"selector": {"kubernetes.io/hostname": "edge-1"},
                   "servers": [{"port": {"number": 7002, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}]}),
        ),
        istio(
            "VirtualService",
            "mesh",
            json!({"hosts": ["*"], "gateways": ["mesh"],
                   "tcp": [{"route": [{"destination": {"host": "cloud-pod", "port": {"number": SERVICE_PORT}}}]}]}),
        ),
    ]
}

/// What other projects write, and what nobody would.
fn strange() -> Vec<Value> {
    vec![
        istio(
            "DestinationRule",
            "ml",
            json!({"host": "ml.kubeflow", "trafficPolicy": {"loadBalancer": {"simple": "PASSTHROUGH"}}}),
        ),
        istio(
            "DestinationRule",
            "cloud-pod",
            json!({"host": "cloud-pod", "subsets": [{"name": "v1"}], "trafficPolicy": 7}),
        ),
        gateway_api(
            "HTTPRoute",
            "v1",
            "odd",
            json!({"parentRefs": [{"name": "gate"}], "rules": [{"filters": [{"type": "Invented"}]}]}),
        ),
        gateway_api(
            "TCPRoute",
            "v1alpha2",
            "lost",
            json!({"parentRefs": [{"name": "gate", "sectionName": "none"}], "rules": "x"}),
        ),
        gateway_api("TCPRoute", "v1alpha2", "last", json!({"parentRefs": 1})),
    ]
}
