//! The node answers DNS: its pods and its programs, with the cloud and without it.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use selvedge_dns::{Name, Rcode, Response, kind, question};
use serde_json::{Value, json};

use crate::exec;
use crate::fabric::Fabric;
use crate::manifests::Service;
use crate::netns::Netns;
use crate::programs::{self, wait};
use crate::table::Report;
use crate::topology::Net;

/// Where every node answers.
const SERVER: &str = "169.254.25.10:53";
const NODE: &str = "edge-1";

/// On the internet, and within the node where its questions come back to it.
const UPSTREAM: &str = "198.51.100.1:53";
const MIRROR: &str = "127.0.0.1:5300";

const FOREIGN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
const PATIENCE: Duration = Duration::from_secs(6);
const STEP: Duration = Duration::from_secs(30);

/// All rows; the Cluster is put back as it was.
pub fn run(report: &mut Report, fabric: &mut Fabric) -> Result<()> {
    let before = std::fs::read_to_string(fabric.manifests.dir.join("cluster.yaml"))?;
    let before: Value = serde_json::from_str(&before)?;
    let upstream = Upstream::start(&fabric.lab.wan.ns)?;
    set_upstreams(fabric, &before, UPSTREAM)?;
    let service = Service::named("cloud-pod")?;
    let name = format!("{}.default.svc.cluster.local", service.name);
    report.check("n1", "a Service's name from a pod, over UDP and TCP", || {
        let wanted = service.cluster_ip(true).to_string();
        let pod = fabric.lab.place(Net::Pod, NODE)?.ns;
        for tcp in [false, true] {
            let answer = ask(pod, &name, kind::A, tcp)?;
            ensure!(data(&answer) == [wanted.clone()], "{answer:?}");
        }
        let answer = ask(pod, &name, kind::AAAA, false)?;
        ensure!(data(&answer) == [service.cluster_ip(false).to_string()], "{answer:?}");
        Ok(wanted)
    });
    report.check("n2", "the same from the node, and its name by its address", || {
        let host = fabric.lab.place(Net::Host, NODE)?.ns;
        let IpAddr::V4(address) = service.cluster_ip(true) else { bail!("no IPv4") };
        let [a, b, c, d] = address.octets();
        let answer = ask(host, &format!("{d}.{c}.{b}.{a}.in-addr.arpa"), kind::PTR, false)?;
        ensure!(data(&answer) == [name.clone()], "{answer:?}");
        Ok(name.clone())
    });
    report.check("n3", "search paths end on the node", || {
        let pod = fabric.lab.place(Net::Pod, NODE)?.ns;
        let asked = upstream.count();
        for text in [
            "www.example.com.default.svc.cluster.local",
            "www.example.com.svc.cluster.local",
            "www.example.com.cluster.local",
        ] {
            let answer = ask(pod, text, kind::A, false)?;
            ensure!(answer.rcode == Rcode::NxDomain, "{text}: {answer:?}");
        }
        ensure!(upstream.count() == asked, "an upstream was asked");
        Ok("3 answered, nobody asked".to_owned())
    });
    report.check("n4", "another name: from an upstream, then from memory", || {
        let pod = fabric.lab.place(Net::Pod, NODE)?.ns;
        let first = ask(pod, "www.example.com", kind::A, false)?;
        ensure!(data(&first) == [FOREIGN.to_string()] && origin(&first).starts_with("upstream"), "{first:?}");
        let second = ask(pod, "www.example.com", kind::A, false)?;
        ensure!(origin(&second) == "cache", "{second:?}");
        Ok(origin(&first).to_owned())
    });
    report.check("n5", "an answer that leads into the cluster is refused", || {
        let pod = fabric.lab.place(Net::Pod, NODE)?.ns;
        let answer = ask(pod, "rebind.example.com", kind::A, false)?;
        ensure!(answer.rcode == Rcode::ServFail && answer.answers.is_empty(), "{answer:?}");
        let text = agent(fabric, &["status", "dns", "--json"])?;
        ensure!(text.contains("\"rebound\":1"), "{text}");
        Ok("refused and counted".to_owned())
    });
    report.check("n6", "a stranger on the same link is not answered", || {
        let router = &fabric.lab.routers[1].ns;
        let node = fabric.lab.node(NODE)?;
        let address = node.addresses.first().context("no address")?;
        router.ip(&format!("route add 169.254.25.10/32 via {address}"))?;
        let answer = ask_within(router, &name, kind::A, Duration::from_secs(1));
        router.ip(&format!("route del 169.254.25.10/32 via {address}"))?;
        ensure!(answer.is_err(), "{answer:?}");
        Ok("silence".to_owned())
    });
    report.check("n7", "the upstream is silent: what it said before", || {
        let pod = fabric.lab.place(Net::Pod, NODE)?.ns;
        upstream.silent.store(true, Ordering::SeqCst);
        let stale = wait("a stale answer", STEP, || {
            let answer = ask(pod, "www.example.com", kind::A, false)?;
            ensure!(origin(&answer) == "stale", "{answer:?}");
            Ok(answer)
        });
        upstream.silent.store(false, Ordering::SeqCst);
        let stale = stale?;
        ensure!(data(&stale) == [FOREIGN.to_string()] && stale.answers[0].1 == 30, "{stale:?}");
        Ok("for 30 s".to_owned())
    });
    report.check("n8", "a restart without operator and internet: Services have their names", || {
        fabric.operator.kill()?;
        upstream.silent.store(true, Ordering::SeqCst);
        fabric.kill(NODE)?;
        let folders = fabric.folders(fabric.lab.node(NODE)?);
        let moved = folders.config.with_extension("away");
        std::fs::rename(&folders.config, &moved)?;
        fabric.start_program(NODE)?;
        let pod = fabric.lab.place(Net::Pod, NODE)?.ns;
        let answer = wait("an answer", STEP, || ask(pod, &name, kind::A, false));
        std::fs::rename(&moved, &folders.config)?;
        upstream.silent.store(false, Ordering::SeqCst);
        fabric.start_operator()?;
        let answer = answer?;
        ensure!(data(&answer) == [service.cluster_ip(true).to_string()], "{answer:?}");
        Ok("from the last good copy".to_owned())
    });
    report.check("n9", "`dns query` says where an answer is from", || {
        let text = agent(fabric, &["dns", "query", &name])?;
        ensure!(text.contains(&service.cluster_ip(true).to_string()) && text.contains("from: cluster"), "{text}");
        Ok(text.lines().last().unwrap_or_default().to_owned())
    });
    report.check("n10", "a loop is named and harms no Service", || {
        let _mirror = Mirror::start(&fabric.lab.node(NODE)?.ns)?;
        set_upstreams(fabric, &before, MIRROR)?;
        let pod = fabric.lab.place(Net::Pod, NODE)?.ns;
        let _ = ask(pod, "loop.example.com", kind::A, false);
        let note = wait("the loop is named", STEP, || {
            let text = agent(fabric, &["status", "dns"])?;
            let line = text.lines().find(|line| line.contains("loop: ")).context("not named")?;
            Ok(line.trim().to_owned())
        })?;
        let answer = ask(pod, &name, kind::A, false)?;
        ensure!(data(&answer) == [service.cluster_ip(true).to_string()], "{answer:?}");
        Ok(note)
    });
    fabric.manifests.write("cluster.yaml", &[before])
}

fn set_upstreams(fabric: &Fabric, cluster: &Value, upstream: &str) -> Result<()> {
    let mut cluster = cluster.clone();
    cluster["spec"]["dns"] = json!({"upstreams": [upstream]});
    fabric.manifests.write("cluster.yaml", &[cluster])?;
    wait("the upstream is in force", STEP, || {
        let text = agent(fabric, &["status", "dns", "--json"])?;
        ensure!(text.contains(&format!("\"address\":\"{upstream}\"")), "{text}");
        Ok(())
    })
}

/// What a verb of the node's program says; also if it ends with 1.
fn agent(fabric: &Fabric, words: &[&str]) -> Result<String> {
    let node = fabric.lab.node(NODE)?;
    let mut command = std::process::Command::new(programs::find("selvedge-agent")?);
    command.args(words).arg("--run-dir").arg(fabric.folders(node).run);
    node.ns.enter(|| exec::run(&mut command))
}

fn data(answer: &Response) -> Vec<String> {
    answer.answers.iter().map(|(.., data)| data.clone()).collect()
}

fn origin(answer: &Response) -> &str {
    answer.origin.as_deref().unwrap_or_default()
}

fn ask(from: &Netns, text: &str, kind: u16, tcp: bool) -> Result<Response> {
    if !tcp {
        return ask_within(from, text, kind, PATIENCE);
    }
    let name = Name::parse(text).context("no name")?;
    let query = question(1, &name, kind);
    let message = from.enter(|| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect_timeout(&SERVER.parse()?, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message)?;
        Ok(message)
    })?;
    Response::read(&message, 1, &name, kind).context("unreadable")
}

fn ask_within(from: &Netns, text: &str, kind: u16, patience: Duration) -> Result<Response> {
    let name = Name::parse(text).context("no name")?;
    let message = from
        .enter(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.connect(SERVER)?;
            socket.set_read_timeout(Some(patience))?;
            socket.send(&question(1, &name, kind))?;
            let mut buffer = vec![0; 2048];
            let length = socket.recv(&mut buffer)?;
            buffer.truncate(length);
            Ok(buffer)
        })
        .with_context(|| format!("ask for {text}"))?;
    Response::read(&message, 1, &name, kind).context("unreadable")
}

/// A server of the internet: one address for every name, for a second; another for those that mean harm.
struct Upstream {
    silent: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Upstream {
    fn start(wan: &Netns) -> Result<Self> {
        let socket = wan.enter(|| Ok(UdpSocket::bind(UPSTREAM)?))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let upstream = Upstream { silent: Arc::default(), count: Arc::default(), over: Arc::default() };
        let (silent, count, over) =
            (Arc::clone(&upstream.silent), Arc::clone(&upstream.count), Arc::clone(&upstream.over));
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !over.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                if !silent.load(Ordering::SeqCst) {
                    let _ = socket.send_to(&answer(&buffer[..length]), client);
                }
            }
        });
        Ok(upstream)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn answer(query: &[u8]) -> Vec<u8> {
    let Some((name, end)) = Name::read(query, 12) else { return Vec::new() };
    let mut out = query[..end + 4].to_vec();
    out[2] |= 0x80;
    out[3] |= 0x80;
    out[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    let address = if name.to_string().starts_with("rebind") { [10, 96, 0, 1] } else { [198, 51, 100, 7] };
    out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 2, 0, 4]);
    out.extend_from_slice(&address);
    out
}

/// Asks the node's own server what it is asked.
struct Mirror(Arc<AtomicBool>);

impl Mirror {
    fn start(ns: &Netns) -> Result<Self> {
        let (inside, outside) = ns.enter(|| {
            let outside = UdpSocket::bind(("0.0.0.0", 0))?;
            outside.connect(SERVER)?;
            Ok((UdpSocket::bind(MIRROR)?, outside))
        })?;
        inside.set_read_timeout(Some(Duration::from_millis(200)))?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ended.load(Ordering::SeqCst) {
                if let Ok((length, _)) = inside.recv_from(&mut buffer) {
                    let _ = outside.send(&buffer[..length]);
                }
            }
        });
        Ok(Mirror(over))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
