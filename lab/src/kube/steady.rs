//! A client that asks a Service again and again, and notes every time it is not answered.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::fabric::Fabric;
use crate::manifests::{SERVICE_PORT, Service};
use crate::netns;
use crate::pace;
use crate::server::{Answer, MARKER};
use crate::topology::Net;

const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(2);

/// Questions that go on until they are stopped.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(u32, Vec<String>)>>,
}

impl Steady {
    /// From the first pod of a node.
    pub fn start(fabric: &Fabric, node: &str, service: &str) -> Result<Self> {
        let from = fabric.lab.place(Net::Pod, node)?.ns.name().to_owned();
        let service = Service::named(service)?;
        let target = SocketAddr::new(service.cluster_ip(true), SERVICE_PORT);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            netns::enter(&from, || {
                let (mut asked, mut failures) = (0, Vec::new());
                while !stopped.load(Ordering::Relaxed) {
                    asked += 1;
                    if let Err(error) = ask(target, service) {
                        failures.push(format!("question {asked}: {error:#}"));
                    }
                    std::thread::sleep(PAUSE);
                }
                Ok((asked, failures))
            })
        });
        Ok(Self { stop, thread })
    }

    /// Ends it; an error if a single question was not answered by an endpoint of the Service.
    pub fn stop(self) -> Result<String> {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(outcome) = self.thread.join() else { bail!("the client panicked") };
        let (asked, failures) = outcome?;
        ensure!(failures.is_empty(), "{} of {asked} not answered; {}", failures.len(), failures[0]);
        Ok(format!("{asked} questions"))
    }
}

fn ask(target: SocketAddr, service: &Service) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, pace::limit(PATIENCE)).context("connect")?;
    stream.set_read_timeout(Some(pace::limit(PATIENCE)))?;
    writeln!(stream, "WHO {MARKER}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer: Answer = serde_json::from_str(&line).with_context(|| format!("answer {line:?}"))?;
    ensure!(service.nodes.contains(&answer.node.as_str()), "{} answered", answer.name);
    Ok(())
}
