//! A real Kubernetes for tests: the API server with its store and its controllers, and what stands for it on an edge.

pub mod api;
pub mod binaries;
pub mod cloud;
pub mod cluster;
pub mod control_plane;
mod edges;
pub mod framework;
mod kubelet;
mod matrix;
mod offline;
mod pki;
mod scale;
mod services;
mod steady;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use self::control_plane::{ControlPlane, Site};
use self::framework::Framework;
use crate::fabric::Options;
use crate::netns;
use crate::suite::{self, Job};
use crate::topology::RunDir;

/// What can be done with it.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a control plane on the loopback, print its KUBECONFIG, and stay until interrupted.
    Up(Up),
    /// The 48 rows and more, with the operator on the API server and the agents fed by an edge-local API.
    Matrix {
        /// Whose edges they are.
        #[arg(long)]
        source: Framework,
        #[command(flatten)]
        options: Options,
    },
    /// What happens without the cloud: refused, black-holed, restarted, back again.
    Offline {
        /// Whose edges they are.
        #[arg(long)]
        source: Framework,
        #[command(flatten)]
        options: Options,
    },
    /// `matrix` and `offline` with every source, two at a time, with one summary.
    Test,
    /// A pod made through the API and run by a real kubelet and containerd on an edge, on the network of the agent.
    Kubelet(Options),
    /// What each edge-local API does online, cut off, restarted offline and joined again.
    Edges {
        /// Whose.
        framework: Framework,
        /// Leave logs behind.
        #[arg(long)]
        keep: bool,
    },
    /// What many Services cost a node, beside kube-proxy: times, memory, CPU, as a table.
    Services(services::Options),
    /// How the operator does with many nodes: times, writes and memory, as a table.
    Bench(scale::Options),
}

/// A control plane for people and for the tests of others.
#[derive(Debug, Args)]
pub struct Up {
    /// Of the API server; the next three are used too.
    #[arg(long, default_value_t = 6443)]
    port: u16,
}

/// Runs one of them.
pub fn run(verb: &Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up(options) => up(options),
        Verb::Matrix { source, options } => matrix::run(*source, options),
        Verb::Offline { source, options } => matrix::offline(*source, options),
        Verb::Test => test(),
        Verb::Kubelet(options) => kubelet::run(options),
        Verb::Services(options) => services::run(options),
        Verb::Bench(options) => scale::run(options),
        Verb::Edges { framework, keep } => edges::run(*framework, *keep),
    }
}

/// They wait for time-outs most of the time, so two go side by side.
fn test() -> Result<ExitCode> {
    let job = |verb: &str, framework: Framework| Job {
        what: format!("{verb}: {}", framework.name()),
        arguments: format!("kube {verb} --source {} --datapath user", framework.name()),
    };
    let all = [Framework::Kubernetes, Framework::Kubeedge, Framework::Superedge, Framework::Openyurt];
    let mut matrix: Vec<Job> = all.map(|framework| job("matrix", framework)).into();
    // The same programs behind another port; MetaServer does not even start without the cloud, then.
    matrix.extend([Framework::KubeedgeTls, Framework::OpenyurtTls].map(|framework| job("matrix", framework)));
    match kubelet::machine::hierarchies() {
        Ok(_) => matrix.push(Job { what: "kubelet".to_owned(), arguments: "kube kubelet --datapath user".to_owned() }),
        Err(error) => println!("left out: kubelet: {error:#}"),
    }
    suite::run_lanes(vec![matrix, all.map(|framework| job("offline", framework)).into()])
}

/// Removes the control groups of this run, whose processes have been killed.
pub fn stop() {
    kubelet::machine::remove_groups(netns::is_own);
}

/// Removes the control groups of runs that are no more.
pub fn remove_leftovers() {
    kubelet::machine::remove_groups(netns::is_leftover);
}

fn up(options: &Up) -> Result<ExitCode> {
    let dir = RunDir::create(false)?;
    let mut plane = ControlPlane::start(&Site { namespace: None, addresses: &[], port: options.port, dir: &dir })?;
    println!("export KUBECONFIG={}", plane.kubeconfig().display());
    loop {
        std::thread::sleep(Duration::from_secs(1));
        plane.check()?;
    }
}
