//! What this node serves, and to whom calls go: for `status services`.

use std::fmt::Write as _;

use selvedge_model::{Balance, ServiceMode};
use selvedge_plan::firewall::{Called, Frontend, Group, Serving, Way, Why};
use selvedge_tunnel::Now;

use crate::node::Node;
use crate::status::{ChosenStatus, ServedStatus, ServicesStatus};

/// The Services as they are loaded.
pub(crate) fn summary(node: &Node, now: Now) -> ServicesStatus {
    let Some(config) = node.config() else {
        return ServicesStatus { off: "no configuration yet".to_owned(), ..ServicesStatus::default() };
    };
    let zone = config.services.zone.clone();
    let serving = node.rules.ruleset().and_then(|ruleset| ruleset.serving.as_ref());
    let off = match (config.services.mode, serving) {
        (ServiceMode::Off, _) => "the configuration leaves Services to others",
        (ServiceMode::Kernel, None) => "no rules are loaded yet; `status` says what is wrong",
        (ServiceMode::Kernel, Some(_)) => "",
    };
    let served = serving.map(|serving| serving.frontends.keys().map(|frontend| served(serving, frontend)).collect());
    let bad = node.watch.report(now.mono);
    ServicesStatus { off: off.to_owned(), zone, served: served.unwrap_or_default(), bad }
}

fn served(serving: &Serving, frontend: &Frontend) -> ServedStatus {
    let called = match frontend.called {
        Called::Address(ip) => std::net::SocketAddr::new(ip, frontend.port).to_string(),
        Called::Node(selvedge_plan::Family::V4) => format!("node:{}", frontend.port),
        Called::Node(selvedge_plan::Family::V6) => format!("node6:{}", frontend.port),
    };
    let protocol = frontend.protocol.name().to_owned();
    let Some(target) = serving.frontends.get(frontend) else {
        return ServedStatus { called, protocol, ..ServedStatus::default() };
    };
    ServedStatus {
        name: target.name.to_string(),
        called,
        protocol,
        near: chosen(&target.near, serving.group(&target.near)),
        far: (target.far != target.near).then(|| chosen(&target.far, serving.group(&target.far))),
        sources: target.sources.iter().map(ToString::to_string).collect(),
    }
}

fn chosen(way: &Way, group: Option<&Group>) -> ChosenStatus {
    let Some(group) = group else {
        let why = if *way == Way::Drop { "dropped" } else { "refused" };
        return ChosenStatus { why: why.to_owned(), ..ChosenStatus::default() };
    };
    let why = match group.why {
        Why::Node => "node",
        Why::Zone => "zone",
        Why::All => "all",
        Why::Policy => "policy",
    };
    let weighed = |weight: u16| if weight == 1 { String::new() } else { format!("*{weight}") };
    let balance = Balance::WORDS.iter().find(|(_, balance)| *balance == group.balance);
    ChosenStatus {
        endpoints: group.endpoints.iter().map(|e| format!("{}{}", e.address, weighed(e.weight))).collect(),
        why: why.to_owned(),
        balance: balance.map_or("", |(word, _)| word).to_owned(),
        affinity: group.affinity,
    }
}

/// Lines for a terminal.
pub(crate) fn human(status: &ServicesStatus) -> String {
    if !status.off.is_empty() {
        return format!("no Services are served: {}\n", status.off);
    }
    let mut out = String::new();
    let zone = if status.zone.is_empty() { String::new() } else { format!(", zone {}", status.zone) };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{} ways to call Services{zone}", status.served.len());
    for served in &status.served {
        let _ = writeln!(out, "\n  {}  {} {}", served.name, served.protocol, served.called);
        match &served.far {
            None => lines(&mut out, "", &served.near),
            Some(far) => {
                lines(&mut out, "from this node: ", &served.near);
                lines(&mut out, "from elsewhere: ", far);
            }
        }
        if !served.sources.is_empty() {
            let _ = writeln!(out, "    only from {}", served.sources.join(", "));
        }
    }
    crate::view::endpoints(&mut out, &status.bad);
    out
}

fn lines(out: &mut String, from: &str, chosen: &ChosenStatus) {
    let why = match chosen.why.as_str() {
        "node" => "on this node",
        "zone" => "in this zone, none on this node",
        "all" => "all there are",
        "policy" => "on this node, as its traffic policy wants",
        "dropped" => "dropped: its traffic policy allows only endpoints on this node, or only other sources",
        _ => "refused: no endpoint is ready",
    };
    let affinity = chosen.affinity.map(|seconds| format!(", a client stays for {seconds} s")).unwrap_or_default();
    let how = if chosen.balance.is_empty() { String::new() } else { format!(" ({}{affinity})", chosen.balance) };
    let _ = writeln!(out, "    {from}{why}{how}");
    for endpoint in &chosen.endpoints {
        let _ = writeln!(out, "      {endpoint}");
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::NodeConfig;
    use selvedge_plan::{Facts, Plan};

    use super::*;

    const CONFIG: &str = r#"{"version": 1, "generation": 1, "name": "a.edge-1", "node": "edge-1", "role": "edge",
        "podCidrs": ["10.1.0.0/24"], "local": {"prefixes": []}, "peers": [],
        "services": {"mode": "kernel", "cidrs": ["10.96.0.0/16"], "list": [
        {"namespace": "d", "name": "none", "clusterIps": ["10.96.0.8"], "ports": [{"protocol": "udp", "port": 53}]},
        {"namespace": "d", "name": "web", "clusterIps": ["10.96.0.7"], "externalLocal": true, "affinity": 60, "ports": [
        {"name": "http", "protocol": "tcp", "port": 80, "nodePort": 30080, "endpoints": [
        {"address": "10.2.0.5", "port": 8080, "node": "edge-2", "weight": 3},
        {"address": "10.2.0.6", "port": 8080, "node": "edge-2"}]}]}]}}"#;

    #[test]
    fn who_is_called_and_why() {
        let plan = Plan::new(&NodeConfig::parse(CONFIG).unwrap(), &Facts::default());
        let serving = plan.ruleset.serving.unwrap();
        let served = serving.frontends.keys().map(|frontend| served(&serving, frontend)).collect();
        let status = ServicesStatus { served, zone: "shop".into(), ..ServicesStatus::default() };
        let text = miniserde::json::to_string(&status);
        let again: ServicesStatus = miniserde::json::from_str(&text).unwrap();
        assert_eq!(
            human(&again),
            "3 ways to call Services, zone shop\n\
             \n  d/web:http  tcp 10.96.0.7:80\n    all there are (random, a client stays for 60 s)\n      \
             10.2.0.5:8080*3\n      10.2.0.6:8080\n\
             \n  d/none:53  udp 10.96.0.8:53\n    refused: no endpoint is ready\n\
             \n  d/web:http  tcp node:30080\n    from this node: all there are (random, a client stays for 60 s)\n      \
             10.2.0.5:8080*3\n      10.2.0.6:8080\n    from elsewhere: dropped: its traffic policy allows only endpoints \
             on this node, or only other sources\n"
        );
    }
}
