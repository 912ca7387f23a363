//! Makes the [`Status`] of a running node.

use selvedge_model::{Role, Via};
use selvedge_tunnel::{Now, Wall};

use crate::cli::Program;
use crate::node::Node;
#[cfg(feature = "api")]
use crate::status::SourceStatus;
use crate::status::{ClockStatus, ConfigStatus, Drops, PathStatus, PeerStatus, Refusal, Status};

pub(crate) fn summary(program: &Program, node: &mut Node, now: Now) -> Status {
    let report = node.tunnels.as_mut().map(|t| t.report(now));
    let mut status = Status {
        version: program.version.to_owned(),
        firewall: node.firewall_name().to_owned(),
        confinement: node.confinement.clone(),
        kernel: node.lacks(),
        notes: node.notes().to_vec(),
        problems: node.problems().cloned().collect(),
        config: ConfigStatus {
            generation: node.config().map_or(0, |c| c.generation),
            source: node.config_source().to_owned(),
            error: node.config_error.clone(),
        },
        #[cfg(feature = "api")]
        source: source(node),
        #[cfg(feature = "gateway")]
        gateway: gateway(node),
        #[cfg(feature = "services")]
        endpoints: node.watch.report(now.mono),
        #[cfg(feature = "dns")]
        dns: node.names.status(),
        clock: ClockStatus { time: now.wall.seconds(), set: matches!(now.wall, Wall::Is(_)) },
        ..Status::default()
    };
    match &node.datapath {
        Some((mode, why)) => {
            status.datapath = mode.to_string();
            status.datapath_reason = why.clone();
        }
        None => {
            status.datapath = "none".to_owned();
            let reason = if node.has_tunnel_problem() { "see the problems" } else { "this node has no tunnels" };
            status.datapath_reason = reason.to_owned();
        }
    }
    status.certificate_not_after = node.certificate_not_after();
    let Some(config) = node.config() else { return status };
    status.name = config.name.clone();
    status.role = match config.role {
        Role::Edge => "edge",
        Role::Connector => "connector",
        Role::Cloud => "cloud",
    }
    .to_owned();
    for peer in config.peers.iter().filter(|p| p.via == Via::Lan) {
        let state = "routed".to_owned();
        status.peers.push(PeerStatus {
            name: peer.name.clone(),
            via: "lan".to_owned(),
            state,
            ..PeerStatus::default()
        });
    }
    match report {
        None => {}
        Some(Err(error)) => status.problems.push(error.to_string()),
        Some(Ok(report)) => {
            status.peers.extend(report.peers.into_iter().map(peer_status));
            status.refused = report.refused.into_iter().map(refusal).collect();
            status.drops = report.drops.into_iter().map(|(reason, packets)| Drops { reason, packets }).collect();
            status.problems.extend(report.problems);
        }
    }
    status
}

#[cfg(feature = "gateway")]
pub(crate) fn gateway(node: &Node) -> Option<crate::status::GatewayStatus> {
    use crate::status::{GatewayStatus, LeftAlone, ListenerStatus};
    let report = node.gateway.report()?;
    let listeners = node.gateway.section().listeners.iter().map(|listener| {
        let counters = report.counters.get(&listener.name).copied().unwrap_or_default();
        let bound = report.bound.iter().filter(|(name, _)| *name == listener.name);
        ListenerStatus {
            name: listener.name.clone(),
            protocol: listener.protocol.name().to_owned(),
            addresses: bound.map(|(_, address)| address.to_string()).collect(),
            connections: counters.connections,
            requests: counters.requests,
            unrouted: counters.unrouted,
            failed: counters.failed,
            refused: counters.refused,
        }
    });
    let left_alone = report.left_alone.iter().map(|(endpoint, until)| LeftAlone {
        endpoint: endpoint.to_string(),
        seconds: until.saturating_duration_since(std::time::Instant::now()).as_secs(),
    });
    Some(GatewayStatus {
        listeners: listeners.collect(),
        connections: report.connections,
        left_alone: left_alone.filter(|endpoint| endpoint.seconds > 0).collect(),
        problems: report.problems.clone(),
    })
}

#[cfg(feature = "api")]
fn source(node: &Node) -> Option<SourceStatus> {
    use crate::options::SourceKind;
    use crate::source::desk::Reach;
    let configuration = node.options.source.kind != SourceKind::File;
    if !configuration && !node.reads_services() {
        return None;
    }
    let mut health = node.desk.health();
    if node.config().is_some_and(|config| !crate::source::needs_credentials(config)) {
        health.errors.remove("Secret");
    }
    let reach = match health.reach {
        Reach::Online => "online",
        Reach::Offline => "offline",
        Reach::Unknown => "unknown",
    };
    Some(SourceStatus {
        configuration,
        kind: health.kind.to_owned(),
        server: health.server,
        reach: reach.to_owned(),
        read_seconds_ago: health.read.map(|at| at.elapsed().as_secs()),
        errors: health.errors.into_iter().map(|(what, why)| format!("{what}: {why}")).collect(),
    })
}

fn peer_status(peer: selvedge_tunnel::PeerReport) -> PeerStatus {
    PeerStatus {
        name: peer.name,
        via: "tunnel".to_owned(),
        state: peer.state.to_owned(),
        metered: peer.metered,
        path: peer.path.map(|path| PathStatus {
            local: path.local.to_string(),
            remote: path.remote.to_string(),
            encap: path.encap,
        }),
        sa_age_seconds: peer.sa_age.map(|age| age.as_secs()),
        cipher: peer.cipher.filter(|c| !c.is_empty()).map(str::to_owned),
        bytes_in: peer.traffic.bytes_in,
        bytes_out: peer.traffic.bytes_out,
        dropped_in: peer.dropped.received,
        dropped_out: peer.dropped.sent,
        last_error: peer.last_error,
    }
}

fn refusal(refusal: selvedge_tunnel::Refusal) -> Refusal {
    Refusal {
        remote: refusal.remote.to_string(),
        claimed: refusal.claimed,
        reason: refusal.reason,
        times: refusal.times,
    }
}
