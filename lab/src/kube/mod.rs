//! A real Kubernetes for tests: the API server with its store and its controllers, and what stands for it on an edge.

mod api;
mod binaries;
mod cloud;
mod control_plane;
mod edges;
mod framework;
mod pki;
mod scale;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use self::control_plane::{ControlPlane, Site};
use self::framework::Framework;
use crate::topology::RunDir;

/// What can be done with it.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a control plane on the loopback, print its KUBECONFIG, and stay until interrupted.
    Up(Up),
    /// What each edge-local API does online, cut off, restarted offline and joined again.
    Edges {
        /// Whose.
        framework: Framework,
        /// Leave logs behind.
        #[arg(long)]
        keep: bool,
    },
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
        Verb::Bench(options) => scale::run(options),
        Verb::Edges { framework, keep } => edges::run(*framework, *keep),
    }
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
