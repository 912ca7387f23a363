//! A [`Status`] as a person reads it.

use std::fmt::Write as _;

use selvedge_tunnel::Utc;

#[cfg(feature = "dns")]
use crate::status::DnsStatus;
#[cfg(feature = "services")]
use crate::status::EndpointStatus;
#[cfg(feature = "api")]
use crate::status::SourceStatus;
use crate::status::{PeerStatus, Status};

/// Lines for a terminal.
pub fn human(status: &Status) -> String {
    let mut out = String::new();
    let name = if status.name.is_empty() { "(no configuration yet)" } else { &status.name };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{name}  {}  selvedge {}", status.role, status.version);
    let _ = writeln!(out, "  configuration  generation {} from {}", status.config.generation, status.config.source);
    #[cfg(feature = "api")]
    if let Some(source) = &status.source {
        let _ = writeln!(out, "  source         {}", self::source(source));
        for error in &source.errors {
            let _ = writeln!(out, "                 {error}");
        }
    }
    if let Some(error) = &status.config.error {
        let _ = writeln!(out, "  REFUSED        {error}");
    }
    let _ = writeln!(out, "  datapath       {} ({})", status.datapath, status.datapath_reason);
    let _ = writeln!(out, "  firewall       {}", status.firewall);
    let _ = writeln!(out, "  runs as        {}", status.confinement);
    #[cfg(feature = "dns")]
    if let Some(dns) = &status.dns {
        let _ = writeln!(out, "  dns            {}", dns_line(dns));
    }
    if let Some(end) = status.certificate_not_after {
        let left = end
            .checked_sub(status.clock.time)
            .map_or_else(|| "EXPIRED".to_owned(), |left| format!("valid for {}", age(left)));
        let _ = writeln!(out, "  certificate    {left}");
    }
    if !status.clock.set {
        let _ = writeln!(out, "  clock          perhaps not set: {} or later", Utc(status.clock.time));
    }
    let up = status.peers.iter().filter(|p| matches!(p.state.as_str(), "up" | "routed")).count();
    let _ = writeln!(out, "  peers          {up} of {} up", status.peers.len());
    let width = status.peers.iter().map(|p| p.name.len()).max().unwrap_or(0).max(4);
    if !status.peers.is_empty() {
        let _ = writeln!(
            out,
            "\n  {:width$}  {:10}  {:>8}  {:>9}  {:>9}  {:>7}  PATH",
            "PEER", "STATE", "SA AGE", "IN", "OUT", "DROPPED"
        );
    }
    for peer in &status.peers {
        let _ = writeln!(
            out,
            "  {:width$}  {:10}  {:>8}  {:>9}  {:>9}  {:>7}  {}",
            peer.name,
            peer.state,
            peer.sa_age_seconds.map_or_else(|| "-".to_owned(), age),
            bytes(peer.bytes_in),
            bytes(peer.bytes_out),
            peer.dropped_in + peer.dropped_out,
            path(peer)
        );
        if let Some(error) = &peer.last_error {
            let _ = writeln!(out, "  {:width$}    {error}", "");
        }
    }
    section(
        &mut out,
        "refused callers",
        status.refused.iter().map(|r| {
            let claimed = r.claimed.as_deref().unwrap_or("no name");
            format!("{} ({claimed}), {} times: {}", r.remote, r.times, r.reason)
        }),
    );
    section(
        &mut out,
        "dropped",
        status.drops.iter().filter(|d| d.packets > 0).map(|d| format!("{} packets: {}", d.packets, d.reason)),
    );
    #[cfg(feature = "gateway")]
    if let Some(status) = &status.gateway {
        gateway(&mut out, status);
    }
    #[cfg(feature = "services")]
    endpoints(&mut out, &status.endpoints);
    section(&mut out, "kernel", status.kernel.iter().cloned());
    section(&mut out, "notes", status.notes.iter().cloned());
    section(&mut out, "problems", status.problems.iter().cloned());
    out
}

/// The DNS server, for a terminal.
#[cfg(feature = "dns")]
pub(crate) fn dns(status: Option<&DnsStatus>) -> String {
    let Some(dns) = status else { return "this node answers no DNS\n".to_owned() };
    let mut out = format!("answers at {}\n", dns.addresses.join(", "));
    let services = dns.services.map_or_else(|| "not known yet".to_owned(), |n| format!("{n} Services"));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  {:14} {services}", dns.zone);
    let width = dns.upstreams.iter().map(|u| u.address.len()).max().unwrap_or(0).max(8);
    if !dns.upstreams.is_empty() {
        let _ = writeln!(out, "\n  {:width$}  STATE    {:>7}  {:>8}  ANSWERED", "UPSTREAM", "RTT", "ASKED");
    }
    for upstream in &dns.upstreams {
        let rtt = upstream.rtt_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let (address, state, asked) = (&upstream.address, &upstream.state, upstream.asked);
        let _ = writeln!(out, "  {address:width$}  {state:7}  {rtt:>7}  {asked:>8}  {}", upstream.answered);
    }
    let _ = writeln!(out, "\n  questions      {}", dns.questions);
    for (what, count) in [
        ("of the cluster", dns.cluster),
        ("from memory", dns.cached),
        ("asked for", dns.forwarded),
        ("stale", dns.stale),
        ("failed", dns.failed),
        ("refused", dns.rebound),
    ] {
        let _ = writeln!(out, "  {what:14} {count}");
    }
    let _ = writeln!(out, "  kept           {} answers", dns.kept);
    section(&mut out, "notes", dns.notes.iter().cloned());
    out
}

#[cfg(feature = "dns")]
fn dns_line(dns: &DnsStatus) -> String {
    let services = dns.services.map_or_else(|| "Services not known yet".to_owned(), |n| format!("{n} Services"));
    let up = dns.upstreams.iter().filter(|u| matches!(u.state.as_str(), "up" | "unknown")).count();
    let notes = if dns.notes.is_empty() { "" } else { "; see `status dns`" };
    format!("{}: {services}, {up} of {} upstreams{notes}", dns.addresses.join(", "), dns.upstreams.len())
}

#[cfg(feature = "api")]
fn source(source: &SourceStatus) -> String {
    if source.kind.is_empty() {
        return "none found yet".to_owned();
    }
    let reach = match source.reach.as_str() {
        "online" => ", online",
        "offline" => ", OFFLINE: what it stored",
        _ => "",
    };
    let read = source.read_seconds_ago.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", age(seconds)));
    format!("{} at {}{reach}, read {read}", source.kind, source.server)
}

/// What the edge gateway serves.
#[cfg(feature = "gateway")]
pub(crate) fn gateway(out: &mut String, status: &crate::status::GatewayStatus) {
    let lines = status.listeners.iter().map(|l| {
        let addresses = if l.addresses.is_empty() { "nowhere".to_owned() } else { l.addresses.join(" ") };
        let counts = [
            (l.connections, "connections"),
            (l.requests, "requests"),
            (l.unrouted, "without a route"),
            (l.failed, "without an endpoint"),
            (l.refused, "refused"),
        ];
        let counts: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
        format!("{} ({}) at {addresses}{counts}", l.name, l.protocol)
    });
    let alone =
        status.left_alone.iter().map(|e| format!("{} did not answer: left alone for {} s", e.endpoint, e.seconds));
    let problems = status.problems.iter().map(|problem| format!("PROBLEM: {problem}"));
    section(out, "gateway", lines.chain(alone).chain(problems));
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        let _ = writeln!(out, "\n  {title}");
    }
    for line in lines {
        let _ = writeln!(out, "    {line}");
    }
}

/// Those of which something bad is known.
#[cfg(feature = "services")]
pub(crate) fn endpoints(out: &mut String, bad: &[EndpointStatus]) {
    let lines = bad.iter().map(|e| {
        let address = if e.address.contains(':') { format!("[{}]", e.address) } else { e.address.clone() };
        let why = if e.reason.is_empty() { String::new() } else { format!(", {}", e.reason) };
        format!("{} {address}:{}  {} for {}{why}", e.protocol, e.port, e.state, age(e.seconds))
    });
    section(out, "endpoints", lines);
}

fn path(peer: &PeerStatus) -> String {
    match &peer.path {
        None => "-".to_owned(),
        Some(p) => {
            let how = if p.encap { "ESP in UDP" } else { "ESP" };
            let cipher = peer.cipher.as_deref().unwrap_or("");
            format!("{} → {}  {how} {cipher}", p.local, p.remote)
        }
    }
}

pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut whole = count;
    let mut tenths = 0;
    let mut unit = 0;
    while whole >= 1000 && unit + 1 < units.len() {
        tenths = whole % 1000 / 100;
        whole /= 1000;
        unit += 1;
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{tenths} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ClockStatus;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_250_000), "1.2 MB");
        assert_eq!(age(119), "119 s");
        assert_eq!(age(7200), "2 h");
        assert_eq!(age(172_800), "2 days");
    }

    #[cfg(feature = "services")]
    #[test]
    fn endpoints_say_why_they_are_out() {
        let endpoint = |address: &str, state: &str, reason: &str| EndpointStatus {
            address: address.into(),
            port: 80,
            protocol: "tcp".into(),
            state: state.into(),
            seconds: 7,
            reason: reason.into(),
        };
        let mut text = String::new();
        endpoints(&mut text, &[endpoint("10.0.0.1", "out", "does not answer"), endpoint("fd00::1", "suspect", "")]);
        let lines = "    tcp 10.0.0.1:80  out for 7 s, does not answer\n    tcp [fd00::1]:80  suspect for 7 s\n";
        assert_eq!(text, format!("\n  endpoints\n{lines}"));
    }

    #[test]
    fn a_refused_configuration_and_a_dead_peer_are_visible() {
        let status = Status {
            config: crate::status::ConfigStatus { error: Some("peers[0].port: 0".into()), ..Default::default() },
            peers: vec![PeerStatus { name: "a.b".into(), last_error: Some("no answer".into()), ..Default::default() }],
            certificate_not_after: Some(1000),
            clock: ClockStatus { time: 900, set: false },
            ..Default::default()
        };
        let text = human(&status);
        assert!(text.contains("certificate    valid for 100 s"), "{text}");
        assert!(text.contains("clock          perhaps not set: 1970-01-01 00:15:00 UTC or later"), "{text}");
        let text_later = human(&Status { clock: ClockStatus { time: 1001, set: true }, ..status });
        assert!(text_later.contains("EXPIRED") && !text_later.contains("clock"), "{text_later}");
        assert!(text.contains("REFUSED        peers[0].port: 0"), "{text}");
        assert!(text.contains("0 of 1 up") && text.contains("no answer"), "{text}");
    }
}
