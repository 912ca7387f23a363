//! What is seen of the Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::objects::{Kind, Pods};
use super::{BALANCER, CLIENT, EXTERNAL, HASHED_EXTERNAL, OWN_EXTERNAL, Outside, REMEMBERED, STEP, edge};
use super::{CLOUD, CLOUD_2, NEXT, OWN, OWN_2, kinds, put, sctp};
use crate::fabric::Fabric;
use crate::manifests::SERVICE_PORT;
use crate::netns::Netns;
use crate::probe::{self, DEADLINE};
use crate::programs::wait;
use crate::table::Report;
use crate::topology::{Net, Place};

/// Who has not answered until then does not answer.
const SILENCE: Duration = Duration::from_secs(1);
/// From one datagram of a client that never closes its socket to the next.
const PAUSE: Duration = Duration::from_millis(200);

/// By what a Service is called.
pub fn faces(report: &mut Report, fabric: &Fabric) {
    report.check("21a", "node port over IPv4, from outside", || {
        seen(fabric, site(fabric), at(&edge(fabric)?, 30080)?, &[(OWN, As::Client), (CLOUD, As::Node("edge-1"))])?;
        for place in [pod(fabric, OWN_2)?, fabric.lab.place(Net::Host, "edge-1")?] {
            answered(fabric, place.ns, at(&edge(fabric)?, 30080)?, &[OWN, CLOUD])?;
        }
        Ok(format!("{CLIENT} as itself here, as the node elsewhere"))
    });
    report.check("21b", "node port over IPv6, at a node of the cloud", || {
        let to = SocketAddr::new(fabric.lab.node("cloud-2")?.addresses[1], 30080);
        let from = &fabric.lab.routers[0].ns;
        seen(fabric, from, to, &[(OWN, As::Node("cloud-2")), (CLOUD, As::Node("cloud-2"))])?;
        Ok("an edge and another node of the cloud".to_owned())
    });
    report.check("21c", "externalIPs", || {
        let to = at(EXTERNAL, SERVICE_PORT)?;
        seen(fabric, site(fabric), to, &[(OWN, As::Client), (CLOUD, As::Node("edge-1"))])?;
        for place in [pod(fabric, OWN_2)?, fabric.lab.place(Net::Host, "edge-1")?] {
            answered(fabric, place.ns, to, &[OWN, CLOUD])?;
        }
        Ok("from outside, a pod and the node".to_owned())
    });
    report.check("21d", "a load balancer's address with source ranges", || {
        let to = at(BALANCER, SERVICE_PORT)?;
        seen(fabric, site(fabric), to, &[(OWN, As::Client), (CLOUD, As::Node("edge-1"))])?;
        let stranger = Outside::clients().next().context("no client")?;
        let answer = probe::who_udp_as(site(fabric), at(&stranger, 0)?, to, SILENCE);
        ensure!(answer.is_err(), "{stranger} was answered: {answer:?}");
        Ok(format!("{CLIENT} only"))
    });
    report.check("21e", "cluster IPs: pods are seen as they are", || {
        for v4 in [true, false] {
            let (pod, to) = (pod(fabric, OWN_2)?, cluster("front", v4)?);
            seen(fabric, pod.ns, to, &[(OWN, As::Pod(OWN_2)), (CLOUD, As::Pod(OWN_2))])?;
            let node = fabric.lab.place(Net::Host, "edge-1")?;
            seen(fabric, node.ns, to, &[(OWN, As::Node("edge-1")), (CLOUD, As::Node("edge-1"))])?;
        }
        Ok("both families, from a pod and from the node".to_owned())
    });
    report.check("21f", "a pod calls itself, by every address", || {
        let pod = pod(fabric, OWN)?.ns;
        let all = [
            cluster("own", true)?,
            cluster("own", false)?,
            at(&edge(fabric)?, 30081)?,
            at(OWN_EXTERNAL, SERVICE_PORT)?,
        ];
        for to in all {
            seen(fabric, pod, to, &[(OWN, As::Node("edge-1"))])?;
        }
        Ok("cluster IPs, node port, external IP".to_owned())
    });
    report.check("21g", "SCTP", || {
        if !sctp::is_there()? {
            return Ok("this kernel has none".to_owned());
        }
        let (client, pods) = (pod(fabric, OWN_2)?, [pod(fabric, OWN)?, pod(fabric, CLOUD)?]);
        let _sums = [client, pods[0], pods[1]]
            .map(|place| sctp::Sums::new(place.ns))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let _servers = pods.map(sctp::Server::start).into_iter().collect::<Result<Vec<_>>>()?;
        let ask = |_| sctp::who(client.ns, cluster("sctp", true)?, DEADLINE);
        let names: BTreeSet<String> = (0..2).map(ask).collect::<Result<_>>()?;
        ensure!(names.len() == 2, "only {names:?} answered");
        Ok("associations with a pod of the node and one of the cloud".to_owned())
    });
}

/// Whom policies allow.
pub fn policies(report: &mut Report, fabric: &Fabric) {
    report.check("21h", "internalTrafficPolicy: Local", || {
        let to = cluster("inside", true)?;
        answered(fabric, pod(fabric, OWN)?.ns, to, &[OWN_2])?;
        answered(fabric, fabric.lab.place(Net::Host, "edge-1")?.ns, to, &[OWN_2])?;
        silent(pod(fabric, CLOUD_2)?.ns, to)?;
        Ok("a pod of the node, or nobody".to_owned())
    });
    report.check("21i", "externalTrafficPolicy: Local", || {
        seen(fabric, site(fabric), at(&edge(fabric)?, 30082)?, &[(OWN_2, As::Client)])?;
        answered(fabric, pod(fabric, OWN)?.ns, at(&edge(fabric)?, 30082)?, &[OWN_2, CLOUD])?;
        silent(&fabric.lab.routers[0].ns, SocketAddr::new(fabric.lab.node("cloud-2")?.addresses[0], 30082))?;
        Ok(format!("{CLIENT} as itself, or nobody"))
    });
    report.check("21j", "sessionAffinity: a client keeps its pod", || {
        for place in [fabric.lab.place(Net::Host, "edge-1")?, pod(fabric, CLOUD_2)?] {
            let names: BTreeSet<String> = order(place.ns, cluster("kept", true)?, 8)?.into_iter().collect();
            ensure!(names.len() == 1, "{} met {names:?}", place.name);
        }
        Ok("8 calls each of a node and a pod".to_owned())
    });
    report.check("21k", "until it was silent for the time-out", || {
        let (from, to) = (pod(fabric, OWN_2)?.ns, cluster("kept", true)?);
        let before = order(from, to, 4)?;
        // Nobody tells when the kernel forgets.
        std::thread::sleep(REMEMBERED + Duration::from_millis(500));
        let after = order(from, to, 4)?;
        ensure!(before[0] == before[3] && after[0] == after[3], "{before:?}, then {after:?}");
        ensure!(before[0] != after[0], "{} is still remembered", before[0]);
        Ok(format!("{}, then {}", before[0], after[0]))
    });
}

/// Which endpoint it is.
pub fn choices(report: &mut Report, fabric: &Fabric, outside: &Outside<'_>) {
    report.check("21l", "balance: random", || {
        let order = order(host(fabric)?, cluster("random", true)?, 60)?;
        ensure!(order.windows(2).any(|two| two[0] == two[1]), "they take turns");
        let shares = shares(&order);
        ensure!(shares.len() == 2 && shares.values().all(|share| *share >= 12), "{shares:?}");
        Ok(words(&shares))
    });
    report.check("21m", "balance: roundRobin", || {
        let order = order(host(fabric)?, cluster("turns", true)?, 12)?;
        ensure!(shares(&order[..3]).len() == 3, "{order:?}");
        ensure!(order.chunks(3).all(|three| three == &order[..3]), "{order:?}");
        Ok(order[..3].join(", "))
    });
    report.check("21n", "balance: sourceHash, whatever the port", || {
        let (first, second) = (hashed(outside)?, hashed(outside)?);
        ensure!(first == second, "{first:?}, then {second:?}");
        let shares = shares(first.values());
        ensure!(shares.len() == 3, "{shares:?}");
        Ok(words(&shares))
    });
    report.check("21o", "weights, 3 to 1", || {
        let shares = shares(&order(host(fabric)?, cluster("weighed", true)?, 120)?);
        let heavy = shares.get("pod-edge-1").copied().unwrap_or_default();
        ensure!(shares.len() == 2 && (70..=110).contains(&heavy), "{shares:?}");
        Ok(words(&shares))
    });
    report.check("21p", "trafficDistribution: the site before the cloud", || {
        answered(fabric, host(fabric)?, cluster("site", true)?, &[OWN, NEXT])?;
        answered(fabric, pod(fabric, CLOUD_2)?.ns, cluster("site", true)?, &[OWN, NEXT, CLOUD])?;
        Ok("for edge-1; all are alike to cloud-2".to_owned())
    });
    report.check("21q", "a node without endpoints: those of its zone", || {
        answered(fabric, fabric.lab.place(Net::Host, "master")?.ns, cluster("zones", true)?, &[CLOUD_2])?;
        answered(fabric, host(fabric)?, cluster("zones", true)?, &[NEXT]).map(|()| "master, edge-1".to_owned())
    });
}

/// What becomes of calls when endpoints go.
pub fn changes(report: &mut Report, fabric: &Fabric, outside: &Outside<'_>) {
    report.check("21r", "this node, then its site, then the cloud", || {
        for (there, taken) in
            [(&[OWN, OWN_2, NEXT, CLOUD][..], &[OWN, OWN_2][..]), (&[NEXT, CLOUD], &[NEXT]), (&[CLOUD], &[CLOUD])]
        {
            put(fabric, &with("tiers", there))?;
            answered(fabric, host(fabric)?, cluster("tiers", true)?, taken)?;
            answered(fabric, pod(fabric, OWN_2)?.ns, cluster("tiers", false)?, taken)?;
        }
        Ok("as endpoints went".to_owned())
    });
    report.check("21s", "sourceHash: who goes takes no others along", || {
        let before = hashed(outside)?;
        put(fabric, &with("hashed", &[OWN, NEXT]))?;
        let after = hashed(outside)?;
        let gone = pod(fabric, OWN_2)?.name;
        let mut moved = 0;
        for (client, name) in &before {
            match name == gone {
                true => moved += 1,
                false => ensure!(after[client] == *name, "{client} went from {name} to {}", after[client]),
            }
        }
        ensure!(moved > 0 && after.values().all(|name| name != gone), "{before:?}, then {after:?}");
        Ok(format!("{moved} of {} clients moved", before.len()))
    });
    report.check("21t", "a UDP socket that is never closed goes on", || {
        let from = pod(fabric, OWN_2)?.ns;
        let ask = || probe::who_udp_as(from, at("0.0.0.0", 40_000)?, cluster("moved", true)?, PAUSE);
        let (old, new) = (pod(fabric, OWN)?.name, pod(fabric, NEXT)?.name);
        wait("the old endpoint", STEP, ask)?;
        ensure!(ask()?.name == old, "somebody else answers");
        put(fabric, &with("moved", &[NEXT]))?;
        wait("the new endpoint", STEP, || {
            let answer = ask()?.name;
            ensure!(answer == new, "{answer} still answers");
            Ok(())
        })?;
        Ok(format!("{old}, then {new}"))
    });
}

/// As whom a client is seen.
#[derive(Clone, Copy)]
enum As<'a> {
    /// As the client in edge-1's site that it is.
    Client,
    /// As the pod that it is.
    Pod((&'a str, usize)),
    /// As one of the addresses of a node.
    Node(&'a str),
}

/// Calls by TCP and UDP until each has had its turn: these pods answer and no others, and see the client as they should.
fn seen(fabric: &Fabric, from: &Netns, to: SocketAddr, expected: &[((&str, usize), As<'_>)]) -> Result<()> {
    for ask in [probe::who_tcp, probe::who_udp] {
        let mut met = BTreeSet::new();
        for _ in 0..2 * expected.len() {
            let answer = ask(from, to, DEADLINE)?;
            let found = expected.iter().find(|(pod, _)| is(fabric, *pod, &answer.name));
            let (_, seen) = found.with_context(|| format!("{} answered at {to}", answer.name))?;
            let client = answer.client.ip();
            let right = match seen {
                As::Client => client == CLIENT.parse::<IpAddr>()?,
                As::Pod(number) => pod(fabric, *number)?.addresses.contains(&client),
                As::Node(node) => {
                    !fabric.lab.node(node)?.ns.run(&format!("ip -o address show to {client}"))?.is_empty()
                }
            };
            ensure!(right, "{} saw {client} behind {to}", answer.name);
            met.insert(answer.name);
        }
        ensure!(met.len() == expected.len(), "only {met:?} answered at {to}");
    }
    Ok(())
}

/// Calls until each has had its turn: these pods answer, and no others.
fn answered(fabric: &Fabric, from: &Netns, to: SocketAddr, pods: Pods<'_>) -> Result<()> {
    let met = shares(&order(from, to, 2 * pods.len().max(2))?);
    let right = met.len() == pods.len() && met.keys().all(|name| pods.iter().any(|pod| is(fabric, *pod, name)));
    ensure!(right, "{met:?} answered at {to}, not {pods:?}");
    Ok(())
}

fn is(fabric: &Fabric, number: (&str, usize), name: &str) -> bool {
    pod(fabric, number).is_ok_and(|pod| pod.name == name)
}

fn pod<'a>(fabric: &'a Fabric, (node, number): (&str, usize)) -> Result<Place<'a>> {
    fabric.lab.pod(node, number)
}

/// Nobody answers a connection, and nobody refuses it.
fn silent(from: &Netns, to: SocketAddr) -> Result<()> {
    match probe::who_tcp(from, to, SILENCE) {
        Ok(answer) => bail!("{} answered at {to}", answer.name),
        Err(error) => ensure!(!format!("{error:#}").contains("refused"), "{error:#}"),
    }
    Ok(())
}

/// Who answers connections, one after the other.
fn order(from: &Netns, to: SocketAddr, calls: usize) -> Result<Vec<String>> {
    (0..calls).map(|_| Ok(probe::who_tcp(from, to, DEADLINE)?.name)).collect()
}

/// Who answers each client outside, from whatever port.
fn hashed(outside: &Outside<'_>) -> Result<BTreeMap<String, String>> {
    let to = at(HASHED_EXTERNAL, SERVICE_PORT)?;
    let ask = |client: String| {
        let answer = probe::who_udp_as(outside.0, at(&client, 0)?, to, DEADLINE)?;
        Ok((client, answer.name))
    };
    Outside::clients().map(ask).collect()
}

fn shares<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for name in names {
        *shares.entry(name.clone()).or_default() += 1;
    }
    shares
}

fn words(shares: &BTreeMap<String, usize>) -> String {
    shares.iter().map(|(name, share)| format!("{name} {share}")).collect::<Vec<_>>().join(", ")
}

/// All Services, one with other pods.
fn with<'a>(name: &str, pods: Pods<'a>) -> Vec<Kind<'a>> {
    kinds().into_iter().map(|kind| if kind.name == name { Kind { pods, ..kind } } else { kind }).collect()
}

fn site(fabric: &Fabric) -> &Netns {
    &fabric.lab.routers[1].ns
}

fn host(fabric: &Fabric) -> Result<&Netns> {
    Ok(fabric.lab.place(Net::Host, "edge-1")?.ns)
}

fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, port))
}

fn cluster(name: &str, v4: bool) -> Result<SocketAddr> {
    let kind = kinds().into_iter().find(|kind| kind.name == name).with_context(|| format!("no Service {name}"))?;
    Ok(SocketAddr::new(kind.cluster_ip(v4), SERVICE_PORT))
}
