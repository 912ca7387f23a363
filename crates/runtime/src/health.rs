//! The health of endpoints on this node: what the firewall reports goes into the judge of `selvedge-health`, and its
//! questions to the endpoints.

mod ask;

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use selvedge_health::{Answer, Health, Probe, State, Target, Terms, Test};
use selvedge_linux::netlink::{Monitor, Notice};
use selvedge_linux::nflog::{self, Report};
use selvedge_model::{Distribution, Endpoint, HealthCheck, NodeConfig, Protocol, Service, ServicePort};
use selvedge_plan::firewall::REPORTS;

use crate::status::EndpointStatus;

pub(crate) use ask::ask;

/// Reports read in one go; the rules send as many in a second at most.
const MAX_REPORTS: usize = 64;

/// What this node knows of the health of endpoints.
pub(crate) struct Watch {
    health: Health,
    /// Open once Services are served and rules can report.
    reports: Option<Monitor<Report>>,
}

impl Watch {
    /// `seed` is any number, of each node its own.
    pub(crate) fn new(seed: u64) -> Self {
        Watch { health: Health::new(Duration::ZERO, seed), reports: None }
    }

    /// Begins to listen to what rules report.
    pub(crate) fn listen(&mut self) -> selvedge_linux::Result<()> {
        if self.reports.is_none() {
            self.reports = Some(nflog::monitor(REPORTS)?);
        }
        Ok(())
    }

    pub(crate) fn is_listening(&self) -> bool {
        self.reports.is_some()
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.reports.as_ref().map(|reports| reports.as_fd())
    }

    /// The judge, for what needs nothing else.
    pub(crate) fn health(&mut self) -> &mut Health {
        &mut self.health
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.health.poll_timeout()
    }

    /// There are other Services, or other endpoints.
    pub(crate) fn handle_services(&mut self, now: Duration, config: &NodeConfig) {
        self.health.handle_endpoints(now, all(config));
    }

    /// Links came or went: perhaps with pods of this node.
    pub(crate) fn handle_links(&mut self, now: Duration, config: &NodeConfig) {
        let here = endpoints(config).filter(|(_, _, endpoint)| is_here(config, endpoint));
        let here = here.filter_map(|(service, port, endpoint)| found(config, service, port, endpoint));
        self.health.handle_change(now, here);
    }

    /// Rules report something.
    pub(crate) fn handle_reports(&mut self, now: Duration, config: &NodeConfig) {
        let Some(reports) = &mut self.reports else { return };
        for _ in 0..MAX_REPORTS {
            match reports.take() {
                Ok(Some(Notice::Event(report))) => {
                    let protocol = match report.protocol {
                        6 => Protocol::Tcp,
                        17 => Protocol::Udp,
                        _ => continue,
                    };
                    let target = (report.address, protocol, report.port);
                    // What is not an endpoint is somebody else's matter.
                    let accused = owner(config, &target).and_then(|(service, port, endpoint)| {
                        found(config, service, port, endpoint).map(|(_, terms)| terms)
                    });
                    match accused {
                        Some(terms) if report.refused => self.health.handle_refusal(now, target, terms),
                        Some(terms) => self.health.handle_suspicion(now, target, terms),
                        None => {}
                    }
                }
                // Whoever is in trouble stays so, and is reported again.
                Ok(Some(Notice::Lost)) => {}
                Ok(None) => return,
                Err(error) => {
                    log::warn!("{error}");
                    return;
                }
            }
        }
    }

    /// What an endpoint said.
    pub(crate) fn handle_answer(&mut self, now: Duration, probe: &Probe, answer: Answer, config: Option<&NodeConfig>) {
        let before = self.health.is_out(&probe.target);
        self.health.handle_answer(now, probe, answer);
        let after = self.health.is_out(&probe.target);
        if before != after {
            let Some((service, ..)) = config.and_then(|config| owner(config, &probe.target)) else { return };
            let Service { namespace, name, .. } = service;
            match after {
                true => {
                    log::info!("an endpoint of {namespace}/{name} {answer}: others take what it would, if there are")
                }
                false => log::info!("an endpoint of {namespace}/{name} answers again"),
            }
        }
    }

    /// Those of which something bad is known.
    pub(crate) fn report(&self, now: Duration) -> Vec<EndpointStatus> {
        let bad = self.health.report(now).filter(|report| report.state != State::Well);
        bad.map(|report| EndpointStatus {
            address: report.target.0.to_string(),
            port: report.target.2,
            protocol: report.target.1.name().to_owned(),
            state: if report.state == State::Out { "out" } else { "suspect" }.to_owned(),
            seconds: report.age.as_secs(),
            reason: report.answer.map(|answer| answer.to_string()).unwrap_or_default(),
        })
        .collect()
    }
}

/// All endpoints that can be asked, as often as they serve.
fn all(config: &NodeConfig) -> impl Iterator<Item = (Target, Terms)> + '_ {
    endpoints(config).filter_map(|(service, port, endpoint)| found(config, service, port, endpoint))
}

fn endpoints(config: &NodeConfig) -> impl Iterator<Item = (&Service, &ServicePort, &Endpoint)> + '_ {
    let served = config.services.list.iter().filter(|service| service.is_proxied());
    let ports = served.flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    ports.flat_map(|(service, port)| port.endpoints.iter().map(move |endpoint| (service, port, endpoint)))
}

fn found(config: &NodeConfig, service: &Service, port: &ServicePort, endpoint: &Endpoint) -> Option<(Target, Terms)> {
    let test = match (port.protocol, &service.health) {
        (Protocol::Tcp, Some(HealthCheck::Http(path))) => Test::Http(path.clone()),
        (Protocol::Tcp, _) => Test::Tcp,
        (Protocol::Udp, _) => Test::Udp,
        (Protocol::Sctp, _) => return None,
    };
    let here = is_here(config, endpoint);
    let distribution = service.distribution.unwrap_or(config.services.distribution);
    let asked = service.health.is_some() && port.protocol == Protocol::Tcp;
    let terms = Terms {
        test,
        // Where those on this node come first, others are nobody's concern as long as there are some.
        always: asked
            && (here || distribution != Distribution::SameNode || !port.endpoints.iter().any(|e| is_here(config, e))),
        costly: !here && costs(config, endpoint.address),
    };
    Some(((endpoint.address, port.protocol, endpoint.port), terms))
}

fn is_here(config: &NodeConfig, endpoint: &Endpoint) -> bool {
    !config.node.is_empty() && endpoint.node == config.node
}

/// Whether the way there is paid for by the byte.
fn costs(config: &NodeConfig, address: IpAddr) -> bool {
    let mut peers = config.peers.iter().filter(|peer| peer.metered);
    config.metered || peers.any(|peer| peer.networks().any(|net| net.contains(&address)))
}

/// A Service that has this endpoint.
fn owner<'a>(config: &'a NodeConfig, target: &Target) -> Option<(&'a Service, &'a ServicePort, &'a Endpoint)> {
    endpoints(config).find(|(_, port, endpoint)| (endpoint.address, port.protocol, endpoint.port) == *target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(metered: bool, health: &str, nodes: [&str; 2]) -> NodeConfig {
        let text = r#"{"version": 1, "generation": 1, "name": "dev.edge-1", "node": "edge-1", "role": "edge",
            "podCidrs": ["10.234.0.0/24"], "local": {"prefixes": ["10.234.0.0/24"]}, "metered": METERED,
            "peers": [{"name": "dev.connector", "via": "tunnel", "prefixes": ["10.244.0.0/16"]}],
            "services": {"mode": "kernel", "cidrs": [], "list": [
                {"namespace": "default", "name": "web", "clusterIps": ["10.96.0.7"] HEALTH, "ports": [
                    {"protocol": "tcp", "port": 80, "endpoints": [
                        {"address": "10.234.0.5", "port": 8080, "node": "NODE-0"},
                        {"address": "10.244.0.5", "port": 8080, "node": "NODE-1"}]},
                    {"protocol": "udp", "port": 80, "endpoints": [
                        {"address": "10.234.0.5", "port": 8080, "node": "NODE-0"}]}]},
                {"namespace": "default", "name": "names-only", "clusterIps": [], "ports": [
                    {"protocol": "tcp", "port": 80, "endpoints": [{"address": "10.234.0.6", "port": 1, "node": ""}]}]}
            ]}}"#;
        let health = if health.is_empty() { String::new() } else { format!(r#", "health": "{health}""#) };
        let text = text.replace("METERED", &metered.to_string()).replace("HEALTH", &health);
        NodeConfig::parse(&text.replace("NODE-0", nodes[0]).replace("NODE-1", nodes[1])).unwrap()
    }

    fn terms(config: &NodeConfig) -> Vec<(String, Test, bool, bool)> {
        all(config).map(|((address, ..), t)| (address.to_string(), t.test, t.always, t.costly)).collect()
    }

    #[test]
    fn who_is_asked_how_and_when() {
        let (here, there) = ("10.234.0.5".to_owned(), "10.244.0.5".to_owned());
        let plain = terms(&config(true, "", ["edge-1", "cloud-1"]));
        let expected = [
            (here.clone(), Test::Tcp, false, false),
            (there.clone(), Test::Tcp, false, true),
            (here.clone(), Test::Udp, false, false),
        ];
        assert_eq!(plain, expected, "only if something is wrong");
        let asked = terms(&config(false, "http:/up", ["edge-1", "cloud-1"]));
        let test = Test::Http("/up".into());
        assert_eq!(asked[..2], [(here.clone(), test.clone(), true, false), (there.clone(), test, false, false)]);
        assert_eq!(asked[2], (here, Test::Udp, false, false));
        let mut any = config(false, "tcp", ["edge-1", "cloud-1"]);
        any.services.distribution = Distribution::Any;
        assert!(terms(&any)[1].2, "all of them are in use");
        let far = terms(&config(false, "tcp", ["edge-2", "cloud-1"]));
        assert!(far[..2].iter().all(|(.., always, costly)| *always && !*costly), "{far:?}");
    }

    #[test]
    fn a_metered_tunnel_costs() {
        let mut config = config(false, "tcp", ["edge-1", "cloud-1"]);
        config.peers[0].metered = true;
        assert_eq!(terms(&config).iter().map(|t| t.3).collect::<Vec<_>>(), [false, true, false]);
        let owner = |port| owner(&config, &("10.244.0.5".parse().unwrap(), Protocol::Tcp, port));
        assert_eq!(owner(8080).map(|(service, ..)| service.name.as_str()), Some("web"));
        assert!(owner(8081).is_none());
    }
}
