//! The connector of a cluster: ends the tunnels of all edges and forwards between them and the cloud's network.
//! Everything it does is in `selvedge-runtime`; it holds no logic of its own.

use std::process::ExitCode;

use selvedge_runtime::cli::Program;

fn main() -> ExitCode {
    selvedge_runtime::main(&Program {
        name: "selvedge-connector",
        folder: "selvedge-connector",
        summary: "ends the tunnels of a cluster's edges in its cloud",
        cni_dir: None,
        version: env!("CARGO_PKG_VERSION"),
    })
}
