//! What ails the Kubernetes API that the program asks, and which switch of its framework helps.

use super::finding::{Finding, Level};
use crate::status::{ConfigStatus, SourceStatus, Status};

/// The configuration as the running program has it.
pub(super) fn configuration(status: &Status) -> Finding {
    let ConfigStatus { generation, source, error } = &status.config;
    match error {
        None => {
            let text = format!("configuration of {}, generation {generation}, from {source}", status.name);
            Finding::new(Level::Ok, "config", text)
        }
        Some(error) => {
            let in_force = if status.name.is_empty() { "" } else { "; the last good one is in force" };
            let text = format!("the configuration cannot be used{in_force}: {error}");
            Finding::new(Level::Fail, "config", text)
        }
    }
}

pub(super) fn findings(source: &SourceStatus) -> Vec<Finding> {
    if source.kind.is_empty() {
        let text = source.errors.first().map_or("no Kubernetes API was found yet", String::as_str);
        let remedy = "start the framework of this node, or name its API: --source, --server";
        return vec![Finding::new(Level::Fail, "source", text).remedy(remedy)];
    }
    // Cut off, errors are to be expected, and what was known stays.
    let level = if source.reach == "offline" { Level::Warn } else { Level::Fail };
    let at = format!("{} at {}", source.kind, source.server);
    let mut findings: Vec<Finding> = source
        .errors
        .iter()
        .map(|error| {
            let text = format!("{at}: {error}");
            Finding::new(level, "source", text).remedy(remedy(&source.kind, &source.server, error))
        })
        .collect();
    if source.reach == "offline" {
        let text = format!("{at} shows what it stored: the cloud does not answer it");
        findings.push(Finding::new(Level::Warn, "source-offline", text).remedy(match source.kind.as_str() {
            "kubeedge" => "look at edgecore's way to cloudcore; if that is well, set modules.dynamicController.enable of cloudcore",
            _ => "",
        }));
    }
    if findings.is_empty() {
        findings.push(Finding::new(Level::Ok, "source", format!("{at} answers")));
    }
    findings
}

/// What helps against an error, as far as its words tell.
fn remedy(kind: &str, server: &str, error: &str) -> &'static str {
    let says = |words: &str| error.contains(words);
    match kind {
        _ if says("does not exist") => "is the operator running, and is this node called so (--node, --namespace)?",
        _ if says("HTTP 401") => "the token is not accepted: give --token-file one of a ServiceAccount of this cluster",
        _ if says("HTTP 403") => {
            "let the agent's ServiceAccount get, list and watch its own ConfigMap and Secret, and services and \
             discovery.k8s.io/endpointslices of all namespaces"
        }
        "openyurt" if says("can not cache") => {
            "add selvedge-agent to cache_agents in ConfigMap kube-system/yurt-hub-cfg, or the agent has nothing offline"
        }
        _ if says("invalid peer certificate") => {
            "give --ca-file the authorities of this server; its certificate must name the address of --server"
        }
        _ if says("no certificate authority to trust") => "give --ca-file the authorities of this server",
        "kubeedge" if says("of no version") => {
            "set modules.dynamicController.enable of cloudcore, and look at its way here"
        }
        "kubeedge" if says("onnection refused") => {
            "start edgecore, with modules.metaManager.metaServer.enable in /etc/kubeedge/config/edgecore.yaml"
        }
        "kubeedge" if server.starts_with("http:") && (says("HTTP 400") || says("protocol")) => {
            "MetaServer asks for TLS (requireAuthorization): --server https://127.0.0.1:10550, with token and authorities"
        }
        "openyurt" if says("onnection refused") => "start yurthub; a pod needs hostNetwork to reach 127.0.0.1:10261",
        "superedge" if says("onnection refused") => {
            "start lite-apiserver; a pod needs hostNetwork to reach 127.0.0.1:51003"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: &str, reach: &str, errors: &[&str]) -> SourceStatus {
        SourceStatus {
            configuration: true,
            kind: kind.into(),
            server: "http://127.0.0.1:1".into(),
            reach: reach.into(),
            read_seconds_ago: None,
            errors: errors.iter().map(|error| (*error).to_owned()).collect(),
        }
    }

    fn told(kind: &str, reach: &str, errors: &[&str]) -> String {
        super::super::finding::human(&findings(&source(kind, reach, errors)))
    }

    #[test]
    fn each_framework_has_its_switch() {
        for (kind, error, switch) in [
            ("kubeedge", "ConfigMap: http://127.0.0.1:1/api: io: Connection refused", "metaServer.enable"),
            ("kubeedge", "Services: the list is empty and of no version: the API does not know", "dynamicController"),
            ("openyurt", "ConfigMap: HTTP 400: can not cache for selvedge-agent", "cache_agents"),
            ("superedge", "ConfigMap: connection refused", "hostNetwork"),
            ("kubernetes", "EndpointSlices: HTTP 403: endpointslices is forbidden", "endpointslices of all namespaces"),
            ("kubernetes", "Secret: HTTP 401: Unauthorized", "--token-file"),
            ("superedge", "Secret: rustls: invalid peer certificate: UnknownIssuer", "--ca-file"),
            ("kubernetes", "ConfigMap: does not exist", "--node"),
        ] {
            let text = told(kind, "unknown", &[error]);
            assert!(text.starts_with("FAIL") && text.contains(switch), "{text}");
        }
    }

    #[test]
    fn a_source_that_is_well_or_away() {
        assert!(told("kubeedge", "online", &[]).starts_with("ok    kubeedge at http://127.0.0.1:1 answers"));
        assert!(told("kubeedge", "offline", &[]).contains("dynamicController"));
        assert!(!told("kubeedge", "offline", &["Secret: not in the local store"]).contains("FAIL"));
        assert!(told("", "unknown", &["ConfigMap: no Kubernetes API answers"]).contains("--source"));
    }
}
