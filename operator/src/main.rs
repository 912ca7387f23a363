//! `selvedge-operator`: compiles a directory of Kubernetes manifests into one configuration and one set of credentials
//! per node. Decides what every node is to do; must never touch a node's network itself.

mod adopt;
mod api;
mod authority;
mod cli;
mod controllers;
mod core;
mod index;
mod lease;
mod run;
mod serve;
mod server;
mod store;
mod telemetry;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
