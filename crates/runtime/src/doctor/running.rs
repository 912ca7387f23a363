//! What ails the program that runs here, from its own status and its files.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use selvedge_linux::Knock;
use selvedge_model::{NodeConfig, Peer, Via};
use selvedge_tunnel::{Utc, Wall};

use super::finding::{Finding, Level};
use crate::cli::Program;
use crate::kernel::Kernel;
use crate::source::Loaded;
use crate::status::{PeerStatus, Status};
use crate::{Options, Result};

/// How long an ICMP answer may take; a neighbour that is not there is noticed after three seconds.
const PATIENCE: Duration = Duration::from_millis(3500);

/// A certificate that ends sooner should have been renewed: the operator does it after two thirds of its life.
const RENEWED: u64 = 3 * 24 * 60 * 60;

pub(super) fn findings(
    options: &Options,
    program: &Program,
    delivered: &Result<Loaded>,
    loaded: Option<&Loaded>,
    now: Wall,
) -> Result<Vec<Finding>> {
    let mut out = Vec::new();
    let status = match UnixStream::connect(options.status_socket()) {
        Ok(_) => {
            let text = crate::ask(options, program, "status")?;
            let status: Result<Status> = crate::read_status(&text);
            Some(status?)
        }
        Err(error) => {
            let text = format!("{} does not run ({}: {error})", program.name, options.status_socket().display());
            out.push(Finding::new(Level::Warn, "running", text));
            None
        }
    };
    #[cfg(feature = "api")]
    let told = status
        .as_ref()
        .filter(|status| status.source.as_ref().is_some_and(|source| source.configuration))
        .map(super::api::configuration);
    match delivered {
        #[cfg(feature = "api")]
        _ if told.is_some() => out.extend(told),
        Ok(loaded) => {
            let text = format!("configuration of {}, generation {}", loaded.config.name, loaded.config.generation);
            out.push(Finding::new(Level::Ok, "config", text));
        }
        Err(error) => {
            let in_force = if loaded.is_some() { "; the last good one is in force" } else { "" };
            let text = format!("the configuration cannot be used{in_force}: {error}");
            out.push(Finding::new(Level::Fail, "config", text).remedy("have it delivered again, and `check` it"));
        }
    }
    out.push(clock(now));
    out.extend(loaded.and_then(|loaded| certificate(loaded, now)));
    let Some(status) = status else { return Ok(out) };
    #[cfg(feature = "api")]
    out.extend(status.source.as_ref().map(super::api::findings).unwrap_or_default());
    #[cfg(feature = "dns")]
    out.extend(status.dns.as_ref().map(super::names::findings).unwrap_or_default());
    for problem in &status.problems {
        out.push(Finding::new(Level::Fail, "problem", problem.clone()));
    }
    for note in &status.notes {
        out.push(Finding::new(Level::Warn, "note", note.clone()));
    }
    for refused in &status.refused {
        let name = refused.claimed.as_deref().unwrap_or("somebody without a name");
        let text = format!("{name} called from {} and was turned away: {}", refused.remote, refused.reason);
        out.push(Finding::new(Level::Warn, "refused", text));
    }
    let Some(config) = loaded.map(|loaded| &loaded.config) else { return Ok(out) };
    let mut down = Vec::new();
    for peer in status.peers.iter().filter(|peer| peer.via == "tunnel") {
        match config.peers.iter().find(|p| p.name == peer.name && peer.state != "up") {
            Some(configured) => down.push(Down::new(peer, configured)),
            None => out.push(Finding::new(Level::Ok, "peer", format!("{}: tunnel up", peer.name))),
        }
    }
    // Asked all at once, as each may take its time.
    let deadline = Instant::now() + PATIENCE;
    out.extend(down.into_iter().map(|down| down.finding(deadline)));
    out.extend(fragments(config, &status));
    Ok(out)
}

fn clock(now: Wall) -> Finding {
    match now {
        Wall::Is(time) => Finding::new(Level::Ok, "clock", format!("clock: {}", Utc(time))),
        Wall::AtLeast(time) => {
            let system = Utc(crate::clock::system_time());
            let text =
                format!("the clock is perhaps not set: it says {system}; certificates are judged by {}", Utc(time));
            Finding::new(Level::Warn, "clock", text).remedy("run an NTP client")
        }
    }
}

fn certificate(loaded: &Loaded, now: Wall) -> Option<Finding> {
    let credentials = loaded.credentials.as_ref()?;
    let (begin, end) = (credentials.not_before()?, credentials.not_after()?);
    let time = now.seconds();
    let renewal = "have the operator's new certificate delivered";
    Some(if end <= time {
        let text = format!("the own certificate expired at {}: peers refuse it", Utc(end));
        Finding::new(Level::Fail, "certificate", text).remedy(renewal)
    } else if matches!(now, Wall::Is(_)) && begin > time {
        let text = format!("the own certificate is not valid before {}, and it is {}", Utc(begin), Utc(time));
        Finding::new(Level::Fail, "certificate", text).remedy("set the clock right, here or where it was issued")
    } else if end - time < RENEWED {
        let text = format!("the own certificate ends soon, at {}", Utc(end));
        Finding::new(Level::Warn, "certificate", text).remedy(renewal)
    } else {
        Finding::new(Level::Ok, "certificate", format!("own certificate valid until {}", Utc(end)))
    })
}

/// A peer whose tunnel is not up, and how the network answers.
struct Down<'a> {
    peer: &'a PeerStatus,
    port: u16,
    /// At the addresses of a peer that says nothing by itself.
    knocks: Vec<(IpAddr, Knock)>,
}

/// How an address answers to a datagram.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    None,
    Closed,
    NoWay(String),
}

impl<'a> Down<'a> {
    fn new(peer: &'a PeerStatus, configured: &Peer) -> Self {
        let silent = peer.last_error.as_deref().is_none_or(|error| error.starts_with("no answer"));
        let addresses = configured.addresses.iter().filter(|_| silent);
        // What every IKE port ignores: a keepalive of NAT traversal (RFC 3948 section 2.3).
        let knock = |address: &IpAddr| (*address, Knock::send((*address, configured.port).into(), &[0xff]));
        Down { peer, port: configured.port, knocks: addresses.map(knock).collect() }
    }

    fn finding(self, deadline: Instant) -> Finding {
        let Down { peer, port, knocks } = self;
        let said = peer.last_error.as_deref().unwrap_or("no attempt has ended yet");
        let head = format!("{}: {}", peer.name, peer.state);
        let answers: Vec<(IpAddr, Answer)> =
            knocks.into_iter().map(|(at, knock)| (at, answer(knock, deadline))).collect();
        let mut text = head;
        for (address, answer) in &answers {
            text += &match answer {
                Answer::None => format!(", {address} does not answer"),
                Answer::Closed => format!(", nothing listens on UDP {port} of {address}"),
                Answer::NoWay(why) => format!(", no way to {address} ({why})"),
            };
        }
        let remedy = if answers.is_empty() {
            match said {
                _ if said.contains("certificate") => "renew the certificates of both ends, and look at both clocks",
                _ if ["subnets", "algorithms", "peer of ours"].iter().any(|word| said.contains(word)) => {
                    "bring both ends to configurations of one generation"
                }
                _ if peer.last_error.is_none() => "it must call: look there, and open UDP 4500 here",
                _ => "",
            }
        } else if answers.iter().any(|(_, a)| matches!(a, Answer::Closed)) {
            "start Selvedge there, or forward the port to it"
        } else if answers.iter().all(|(_, a)| matches!(a, Answer::NoWay(_))) {
            "give this node a route: is its uplink up?"
        } else {
            "is it on? is UDP 4500 open on the way to it, and its address right?"
        };
        Finding::new(Level::Fail, "peer", text).detail(said).remedy(remedy)
    }
}

fn answer(knock: Knock, deadline: Instant) -> Answer {
    match knock.answer(deadline.saturating_duration_since(Instant::now())) {
        Ok(()) => Answer::None,
        Err(error) if error.is_refused() => Answer::Closed,
        Err(error) => Answer::NoWay(error.to_string()),
    }
}

/// Links on the way to the peers that the largest packets of tunnels do not fit.
fn fragments(config: &NodeConfig, status: &Status) -> Vec<Finding> {
    /// UDP, ESP with its IV, padding and tag, around an inner packet of [`selvedge_plan::MTU`]; before the IP header.
    const WRAPPED: u32 = selvedge_plan::MTU + 8 + 16 + 4 + 16;
    let Ok(mut kernel) = Kernel::open() else { return Vec::new() };
    if kernel.refresh().is_err() {
        return Vec::new();
    }
    let used = status.peers.iter().filter_map(|p| p.path.as_ref()?.remote.parse::<SocketAddr>().ok()).map(|a| a.ip());
    let peers = config.peers.iter().filter(|p| p.via == Via::Tunnel);
    let mut addresses: Vec<IpAddr> = used.chain(peers.flat_map(|p| p.addresses.iter().copied())).collect();
    addresses.sort();
    addresses.dedup();
    let narrow = |address: &IpAddr| {
        let needed = WRAPPED + if address.is_ipv4() { 20 } else { 40 };
        kernel.mtu_towards(*address).filter(|mtu| *mtu < needed).map(|mtu| (mtu, needed))
    };
    let narrowest = addresses.iter().filter_map(narrow).min();
    let finding = |(mtu, needed)| {
        let text =
            format!("a link to peers has an MTU of {mtu}: tunnel packets of up to {needed} octets are fragmented");
        Finding::new(Level::Warn, "mtu", text).remedy("raise it, or lower the MTU of the pods")
    };
    narrowest.map(finding).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn configured(addresses: &[IpAddr], port: u16) -> Peer {
        let text = format!(
            r#"{{"version": 1, "generation": 1, "name": "a.b", "node": "b", "role": "edge", "podCidrs": [],
            "local": {{"prefixes": []}}, "peers": [{{"name": "a.c", "via": "tunnel", "port": {port},
            "addresses": {}, "prefixes": ["10.0.0.0/8"]}}]}}"#,
            miniserde::json::to_string(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>()),
        );
        NodeConfig::parse(&text).unwrap().peers.remove(0)
    }

    fn dead(error: Option<&str>) -> PeerStatus {
        PeerStatus {
            name: "a.c".into(),
            state: "connecting".into(),
            last_error: error.map(str::to_owned),
            ..Default::default()
        }
    }

    fn knock(address: IpAddr, port: u16) -> Answer {
        answer(Knock::send((address, port).into(), &[0xff]), Instant::now() + PATIENCE)
    }

    fn down(peer: &PeerStatus, configured: &Peer) -> Finding {
        Down::new(peer, configured).finding(Instant::now() + PATIENCE)
    }

    #[test]
    fn a_closed_port_is_told_from_silence_and_from_no_way() {
        // An address of its own: at another's, a port that is given up is taken at once.
        let here: IpAddr = [127, 0, 7, 1].into();
        let socket = UdpSocket::bind((here, 0)).unwrap();
        let open = socket.local_addr().unwrap().port();
        assert_eq!(knock(here, open), Answer::None);
        let finding = down(&dead(None), &configured(&[here], open));
        assert!(
            finding.text.contains("127.0.7.1 does not answer") && finding.remedy.contains("UDP 4500"),
            "{finding:?}"
        );
        drop(socket);
        assert_eq!(knock(here, open), Answer::Closed);
        let finding = down(&dead(Some("no answer from x after 60 s")), &configured(&[here], open));
        assert!(finding.text.contains("nothing listens") && finding.remedy.contains("start Selvedge"), "{finding:?}");
        // The limited broadcast is not for sockets that did not ask for it.
        assert!(matches!(knock([255, 255, 255, 255].into(), open), Answer::NoWay(_)));
    }

    #[test]
    fn what_a_peer_said_is_not_looked_for_in_the_network() {
        let remedy = |error: &str| down(&dead(Some(error)), &configured(&[[127, 0, 0, 1].into()], 1)).remedy;
        assert!(remedy("certificate of a.c expired at 2000-02-29").contains("renew"));
        assert!(remedy("a.c answered TS_UNACCEPTABLE: no subnets in common").contains("generation"));
        assert!(remedy("no subnets in common: offered x").contains("generation"));
        assert!(down(&dead(None), &configured(&[], 1)).remedy.contains("it must call"));
    }
}
