//! The agent of gateways, edge nodes and cloud nodes: keys tunnels and programs the node. Everything it does is in
//! `selvedge-runtime`; it holds no logic of its own.

use std::process::ExitCode;

use selvedge_runtime::cli::Program;

fn main() -> ExitCode {
    selvedge_runtime::main(&Program {
        name: "selvedge-agent",
        folder: "selvedge",
        summary: "joins this node to the pod network of its cluster",
        cni_dir: cfg!(feature = "cni").then_some("/etc/cni/net.d"),
        version: if cfg!(all(
            feature = "api",
            feature = "cni",
            feature = "doctor",
            feature = "p384",
            feature = "services"
        )) {
            env!("CARGO_PKG_VERSION")
        } else {
            concat!(env!("CARGO_PKG_VERSION"), "+minimal")
        },
    })
}
