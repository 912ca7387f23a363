//! Flags of FabEdge's operator and agents as the `spec` of our `Cluster`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::convert::Report;
use super::fabedge::FabEdge;

/// The port of IKE: FabEdge's default, where ours is the one behind NAT.
const IKE: &str = "500";

/// Flags of the operator that say where it runs and how it talks, which ours says in its own way.
const OWN_WAY: &[&str] = &[
    "v",
    "namespace",
    "cluster-role",
    "auto-keep-ippools",
    "endpoint-id-format",
    "connector-labels",
    "connector-config-sync-interval",
    "agent-image",
    "agent-strongswan-image",
    "agent-image-pull-policy",
    "ca-secret",
    "cert-organization",
    "cert-validity-period",
    "leader-election",
    "leader-election-id",
    "leader-lease-duration",
    "leader-renew-deadline",
    "leader-retry-period",
    "api-server-listen-address",
    "api-server-cert-file",
    "api-server-key-file",
    "token-valid-period",
    "show-version",
];

/// Name and `spec` of the own cluster.
pub(super) fn cluster(found: &FabEdge, report: &mut Report) -> Option<(String, Value)> {
    let name = found.flags.get("cluster").cloned().unwrap_or_default();
    if name.is_empty() {
        report.left("the operator's settings: no Deployment of fabedge-operator with --cluster among the objects");
        return None;
    }
    let mut spec = Map::new();
    let mut put = |field: &str, value: Value| spec.insert(field.to_owned(), value);
    put("clusterCIDRs", json!(found.list("cluster-cidr")));
    put("serviceCIDRs", json!(found.list("connector-subnets")));
    if found.flags.get("cni-type").is_some_and(|kind| kind == "calico") {
        put("podNetworks", json!("calico"));
        put("edgePodCIDRs", json!([found.list("edge-pod-cidr"), found.list("edge-pod-cidr6")].concat()));
        for (flag, field, default) in
            [("edge-cidr-mask-size", "edgeMaskSize", 24), ("edge-cidr-mask-size6", "edgeMaskSize6", 64)]
        {
            let text = found.flags.get(flag);
            let size = text.map_or(Some(default), |text| text.parse::<u8>().ok());
            match size {
                Some(size) => drop(put(field, json!(size))),
                None => report.left(&format!("--{flag}: not a number")),
            }
        }
    }
    if let Some(labels) = found.flags.get("edge-labels") {
        put("edgeSelector", json!(labels_of(labels)));
    }
    put("connector", connector(found, report));
    put("services", json!({"edge": if is_true(&found.agent, "enable-proxy") { "kernel" } else { "off" }}));
    put("cni", cni(found, report));
    for flag in found.flags.keys().filter(|flag| !TAKEN.contains(&flag.as_str()) && !OWN_WAY.contains(&flag.as_str())) {
        report.left(&format!("--{flag} of the operator: nothing here corresponds to it"));
    }
    for argument in found.agent.keys() {
        agent(&format!("agents' --{argument}"), argument, &found.agent[argument], report);
    }
    report.taken(&format!("Cluster {name}: networks, connector, CNI network, from the flags of fabedge-operator"));
    Some((name, Value::Object(spec)))
}

const TAKEN: &[&str] = &[
    "cluster",
    "cluster-cidr",
    "connector-subnets",
    "cni-type",
    "edge-pod-cidr",
    "edge-pod-cidr6",
    "edge-cidr-mask-size",
    "edge-cidr-mask-size6",
    "edge-labels",
    "connector-public-addresses",
    "connector-public-port",
    "connector-as-mediator",
];

fn connector(found: &FabEdge, report: &mut Report) -> Value {
    let (addresses, names): (Vec<String>, Vec<String>) =
        found.list("connector-public-addresses").into_iter().partition(|text| text.parse::<IpAddr>().is_ok());
    for name in names {
        report.left(&format!("--connector-public-addresses {name}: a name; write its address into spec.connector"));
    }
    let mut connector = json!({"addresses": addresses});
    match found.flags.get("connector-public-port").map(String::as_str) {
        None | Some(IKE) => {}
        Some(port) => match port.parse::<u16>() {
            Ok(port) => connector["port"] = json!(port),
            Err(_) => report.left(&format!("--connector-public-port {port}: not a port")),
        },
    }
    if is_true(&found.flags, "connector-as-mediator") {
        report.taken("--connector-as-mediator: members of a community always call each other, NAT or not");
    }
    connector
}

/// The same name keeps the addresses of running pods (the folder of `host-local`), the same bridge their links.
fn cni(found: &FabEdge, report: &mut Report) -> Value {
    let text = |flag: &str, default: &str| found.agent.get(flag).cloned().unwrap_or_else(|| default.to_owned());
    let mut cni = json!({
        "network": text("cni-network-name", "fabedge"), "bridge": text("cni-bridge-name", "br-fabedge"),
        "hairpin": found.agent.get("enable-hairpinmode").is_none_or(|value| value == "true"),
    });
    match text("network-plugin-mtu", "1400").parse::<u32>() {
        Ok(mtu) => cni["mtu"] = json!(mtu),
        Err(_) => report.left("agents' --network-plugin-mtu: not a number"),
    }
    cni
}

/// What becomes of a flag of an agent, for the report.
pub(super) fn agent(what: &str, flag: &str, value: &str, report: &mut Report) {
    let of_no_effect = match flag {
        "v"
        | "log-level"
        | "sync-period"
        | "debounce"
        | "masq-outgoing"
        | "tunnels-conf"
        | "local-cert"
        | "workdir"
        | "tunnel-init-timeout"
        | "cni-version"
        | "cni-conf-path" => true,
        "cni-network-name" | "cni-bridge-name" | "network-plugin-mtu" | "enable-hairpinmode" | "enable-proxy" => {
            what.starts_with("agents'")
        }
        _ => false,
    };
    if of_no_effect {
        return;
    }
    let reason = match flag {
        "enable-dns" if value == "true" => "names are not served on the node yet: pods need another DNS server",
        "auto-networking" if value == "true" => {
            "peers are not taken from multicast, which anybody can send; join the nodes of a site by a Community"
        }
        "proxy-mode" => "Services are served by nftables or iptables, whichever the node has",
        "enable-dns" | "auto-networking" => return,
        _ if flag.starts_with("dns-") || flag.starts_with("multicast-") || flag.starts_with("proxy-") => return,
        "endpoint-ttl" | "backup-interval" | "dummy-interface-name" => return,
        "cni-network-name" | "cni-bridge-name" | "network-plugin-mtu" | "enable-hairpinmode" | "enable-proxy" => {
            "is one for all nodes here, in the Cluster"
        }
        _ => "nothing here corresponds to it",
    };
    report.left(&format!("{what}={value}: {reason}"));
}

/// `key=value,key=` as labels; a key alone has an empty value.
fn labels_of(text: &str) -> BTreeMap<String, String> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (key.trim().to_owned(), value.trim().to_owned())
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

fn is_true(flags: &BTreeMap<String, String>, flag: &str) -> bool {
    flags.get(flag).is_some_and(|value| value == "true")
}
