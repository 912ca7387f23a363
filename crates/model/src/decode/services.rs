//! The part of a configuration that is about Services.

use super::{MODES, flag, word_or_default};
use crate::reader::{Reader, Result};
use crate::services::*;

const SOURCES: [(&str, ServiceSource); 2] = [("config", ServiceSource::Config), ("api", ServiceSource::Api)];

pub(super) fn services(r: &Reader<'_>) -> Result<Services> {
    Ok(Services {
        mode: word_or_default(r, "mode", &MODES)?,
        source: word_or_default(r, "source", &SOURCES)?,
        balance: word_or_default(r, "balance", &Balance::WORDS)?,
        distribution: word_or_default(r, "distribution", &Distribution::WORDS)?,
        zone: text(r, "zone")?,
        cidrs: r.list_or_empty("cidrs", Reader::prefix)?,
        node_port_addresses: r.list_or_empty("nodePortAddresses", Reader::prefix)?,
        list: r.list_or_empty("list", service)?,
    })
}

fn service(r: &Reader<'_>) -> Result<Service> {
    Ok(Service {
        namespace: r.field("namespace")?.string()?,
        name: r.field("name")?.string()?,
        cluster_ips: r.field("clusterIps")?.list(Reader::address)?,
        ports: r.field("ports")?.list(service_port)?,
        external_name: r.optional("externalName")?.map(|name| name.string()).transpose()?,
        external_ips: r.list_or_empty("externalIps", Reader::address)?,
        load_balancer_ips: r.list_or_empty("loadBalancerIps", Reader::address)?,
        load_balancer_sources: r.list_or_empty("loadBalancerSources", Reader::prefix)?,
        affinity: r.optional("affinity")?.map(|seconds| number(&seconds, 1, MAX_AFFINITY)).transpose()?,
        internal_local: flag(r, "internalLocal")?,
        external_local: flag(r, "externalLocal")?,
        distribution: r.optional("distribution")?.map(|word| word.word(&Distribution::WORDS)).transpose()?,
        balance: r.optional("balance")?.map(|word| word.word(&Balance::WORDS)).transpose()?,
        per_request: r.optional("perRequest")?.map(|text| per_request(&text)).transpose()?,
        health: r.optional("health")?.map(|check| health(&check)).transpose()?,
        publish_not_ready: flag(r, "publishNotReady")?,
        other_proxy: flag(r, "otherProxy")?,
    })
}

fn per_request(r: &Reader<'_>) -> Result<String> {
    let text = r.string()?;
    if Service::is_per_request(&text) {
        return Ok(text);
    }
    r.error(format!("\"{text}\" is neither header:NAME nor cookie:NAME"))
}

fn health(r: &Reader<'_>) -> Result<HealthCheck> {
    let text = r.string()?;
    HealthCheck::parse(&text).map_or_else(|| r.error(format!("\"{text}\" is neither tcp nor http:/path")), Ok)
}

fn service_port(r: &Reader<'_>) -> Result<ServicePort> {
    Ok(ServicePort {
        name: text(r, "name")?,
        protocol: r.field("protocol")?.word(&Protocol::WORDS)?,
        port: number(&r.field("port")?, 0, u16::MAX)?,
        node_port: r.optional("nodePort")?.map_or(Ok(0), |port| number(&port, 0, u16::MAX))?,
        app_protocol: text(r, "appProtocol")?,
        endpoints: r.list_or_empty("endpoints", endpoint)?,
    })
}

fn endpoint(r: &Reader<'_>) -> Result<Endpoint> {
    Ok(Endpoint {
        address: r.field("address")?.address()?,
        port: number(&r.field("port")?, 0, u16::MAX)?,
        node: text(r, "node")?,
        zone: text(r, "zone")?,
        hostname: text(r, "hostname")?,
        terminating: flag(r, "terminating")?,
        weight: r.optional("weight")?.map_or(Ok(1), |weight| number(&weight, 1, MAX_WEIGHT))?,
    })
}

/// Empty if it is absent.
fn text(r: &Reader<'_>, name: &str) -> Result<String> {
    r.optional(name)?.map_or(Ok(String::new()), |text| text.string())
}

fn number<T: TryFrom<u64> + Into<u64>>(r: &Reader<'_>, min: T, max: T) -> Result<T> {
    r.integer(min.into(), max.into())?.try_into().or_else(|_| r.error("is out of range"))
}
