//! Selvedge beside others that do the same, in one run and in turns, so that what else the machine does hits all alike.
//! Nothing here passes or fails by its speed.

pub mod credentials;
mod dns;
pub mod ike;
pub mod link;
mod measure;
mod mesh;
pub mod report;
mod tunnel;
mod tunnels;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What is compared.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// ESP in user space and IKE responders: throughput, latency, CPU and memory beside boringtun, wireguard-go and strongSwan.
    Tunnels(tunnels::Options),
    /// Names of Services, beside CoreDNS, unbound and dnsmasq: questions per CPU second, time, memory.
    Dns(dns::Options),
    /// Traffic to Services on this node and on another one, beside EdgeMesh and kube-proxy.
    Mesh(mesh::Options),
}

/// Measures, prints, and perhaps writes it.
pub fn run(verb: &Verb) -> Result<ExitCode> {
    match verb {
        Verb::Tunnels(options) => tunnels::run(options),
        Verb::Dns(options) => dns::run(options),
        Verb::Mesh(options) => mesh::run(options),
    }
}
