//! Two nodes with pods: what every proxy of Services is put on.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::web::Web;
use crate::bench::link::{End, Link};
use crate::netns::{self, Netns};
use crate::process::Daemon;
use crate::programs::wait;

/// Of the web server of each pod.
pub const WEB_PORT: u16 = 8080;
/// Of iperf3.
pub const IPERF_PORT: u16 = 5201;
/// Of the UDP echo.
pub const ECHO_PORT: u16 = 5300;

/// Which server is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// A pod of the client's own node.
    Local,
    /// A pod of the other node.
    Remote,
}

/// Both of them.
pub const WHERE: [Where; 2] = [Where::Local, Where::Remote];

/// A pair of nodes, a client's pod on the first and a server's pod on each.
pub struct Site {
    /// The nodes, on one wire.
    pub link: Link,
    /// Where clients run.
    pub client: Netns,
    // Who serves ends before its namespace, by which it is woken.
    _servers: Vec<(Web, Daemon, Netns)>,
}

impl Where {
    /// The Service with this one endpoint.
    pub fn cluster_ip(self) -> Ipv4Addr {
        match self {
            Where::Local => Ipv4Addr::new(10, 96, 0, 10),
            Where::Remote => Ipv4Addr::new(10, 96, 0, 20),
        }
    }

    /// The endpoint itself.
    pub fn pod(self) -> Ipv4Addr {
        match self {
            Where::Local => Ipv4Addr::new(10, 1, 0, 3),
            Where::Remote => Ipv4Addr::new(10, 2, 0, 3),
        }
    }

    /// Name of the Service.
    pub fn name(self) -> &'static str {
        match self {
            Where::Local => "local",
            Where::Remote => "remote",
        }
    }

    /// Kubernetes name of the node that the endpoint is on.
    pub fn node(self) -> &'static str {
        match self {
            Where::Local => "a",
            Where::Remote => "b",
        }
    }
}

/// Name, protocol and number of each port that is served.
pub const PORTS: [(&str, &str, u16); 4] = [
    ("web", "TCP", WEB_PORT),
    ("iperf", "TCP", IPERF_PORT),
    ("iperf-udp", "UDP", IPERF_PORT),
    ("echo", "UDP", ECHO_PORT),
];

impl Site {
    /// At most four characters of `name`.
    pub fn create(name: &str, dir: &Path) -> Result<Self> {
        let link = Link::create(name, dir)?;
        for (end, _) in link.ends() {
            end.ns.ip(&format!(
                "link add pods type bridge
                 link set pods up
                 address add {}/24 dev pods",
                end.inner
            ))?;
            end.ns.sysctl(&[("net/ipv4/ip_forward", "1")])?;
        }
        let client = pod(&link.a, &format!("{name}c"), Ipv4Addr::new(10, 1, 0, 2))?;
        let mut servers = Vec::new();
        for (end, place) in [(&link.a, Where::Local), (&link.b, Where::Remote)] {
            let ns = pod(end, &format!("{name}s{}", end.letter), place.pod())?;
            let mut command = ns.command("iperf3");
            command.args(["-s", "-p", &IPERF_PORT.to_string()]);
            let mut iperf = Daemon::start(command, &end.dir.join("iperf3.log"))?;
            wait("iperf3 server", Duration::from_secs(10), || {
                iperf.check()?;
                ns.run("ss -Hltn")?.contains(&format!(":{IPERF_PORT}")).then_some(()).context("does not listen yet")
            })?;
            let web =
                Web::start(&ns, SocketAddrV4::new(place.pod(), WEB_PORT), SocketAddrV4::new(place.pod(), ECHO_PORT))?;
            servers.push((web, iperf, ns));
        }
        Ok(Self { link, client, _servers: servers })
    }

    /// Plain routes between the nodes' pods, for who brings none.
    pub fn route(&self) -> Result<()> {
        self.link.ends().iter().try_for_each(|(end, other)| {
            end.ns.ip(&format!("route add {} via {} src {}", other.network, other.outer, end.inner))
        })
    }
}

/// Both Services and what serves them, as Kubernetes has them. EdgeMesh reads Endpoints, kube-proxy EndpointSlices.
pub fn objects() -> Vec<Value> {
    let both = WHERE.into_iter().flat_map(|place| {
        let name = place.name();
        let ports = PORTS.map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}));
        let labelled = |key: &str, value: &str| json!({"name": name, "namespace": "default", "labels": {key: value}});
        [
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
                "spec": {"clusterIP": place.cluster_ip(), "ports": ports},
            }),
            json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": labelled("endpointslice.kubernetes.io/skip-mirror", "true"),
                "subsets": [{"addresses": [{"ip": place.pod(), "nodeName": place.node()}], "ports": ports}],
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": labelled("kubernetes.io/service-name", name),
                "endpoints": [{"addresses": [place.pod()], "nodeName": place.node(), "conditions": {"ready": true}}],
                "ports": ports,
            }),
        ]
    });
    both.collect()
}

/// The same in the configuration of a node.
pub fn services() -> Value {
    let one = |place: Where| {
        let ports: Vec<Value> = PORTS
            .into_iter()
            .map(|(name, protocol, port)| {
                json!({
                    "name": name, "protocol": protocol.to_lowercase(), "port": port,
                    "endpoints": [{"address": place.pod(), "port": port, "node": place.node()}],
                })
            })
            .collect();
        json!({"namespace": "default", "name": place.name(), "clusterIps": [place.cluster_ip()], "ports": ports})
    };
    json!({"mode": "kernel", "cidrs": ["10.96.0.0/16"], "list": WHERE.map(one)})
}

fn pod(end: &End, name: &str, address: Ipv4Addr) -> Result<Netns> {
    let ns = Netns::create(name)?;
    let port = format!("p{}", address.octets()[3]);
    netns::join(&ns, "eth0", &end.ns, &port)?;
    end.ns.ip(&format!("link set {port} up master pods"))?;
    ns.ip(&format!(
        "link set eth0 up
         address add {address}/24 dev eth0
         route add default via {}",
        end.inner
    ))?;
    Ok(ns)
}
