//! The command line.

use std::error::Error;
use std::fs;
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Parser, Subcommand};

use crate::api::definitions;
use crate::core::Severity;
use crate::run::{self, Operator};
use crate::serve::{self, Serve};
use crate::store::Store;
use crate::telemetry::{self, LogFormat};

/// Compiles Kubernetes manifests into one configuration and one set of credentials per node.
#[derive(Parser)]
#[command(name = "selvedge-operator", version, after_long_help = GUIDE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write what every node needs, and keep it up to date as the manifests change.
    #[command(after_long_help = GUIDE)]
    Run {
        #[command(flatten)]
        input: Input,
        /// Directory for the output; made if it is not there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Compile once and exit: 0 if all is well, 1 if any object was refused or could not be written.
        #[arg(long)]
        once: bool,
    },
    /// Say what is wrong with the manifests, write nothing. Exits with 1 if any object is refused.
    ///
    /// Pod networks shown for edge nodes are those of a fresh start; `run` keeps what it gave earlier.
    Check {
        #[command(flatten)]
        input: Input,
    },
    /// Live in a cluster: watch its API server, write one ConfigMap and one Secret per node.
    #[command(after_long_help = SERVE_GUIDE)]
    Serve(Serve),
    /// Print the definitions of Cluster, Community and Outpost, for `kubectl apply -f -`.
    Crds {
        /// Write one file for each into this directory instead.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Input {
    /// Directory of manifests: *.yaml, *.yml, *.json, several documents per file, `kind: List` too.
    /// Directories within are not read.
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Name of the own Cluster object; needed only if several are not marked `spec.remote: true`.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

const GUIDE: &str = "\
What is read:
  Cluster, Community      selvedge.dev/v1alpha1: settings and networks; edge nodes that talk directly
  Node                    v1: edge, connector and cloud nodes are told apart by their labels
  Service, EndpointSlice  v1, discovery.k8s.io/v1: what edge nodes serve by cluster IP
  Other kinds are passed over. The output of
  `kubectl get nodes,services,endpointslices -A -o yaml` is a good start.

What is written:
  OUT/<node>/config.json  the node's configuration
  OUT/<node>/tls/         its credentials: ca.crt, tls.crt and the private key tls.key
  OUT/status.json         nodes and problems
  OUT/.state/             pod networks given out, and the certificate authority. Keep it: without
                          it every node needs new credentials, and its network may change.

Delivery: OUT holds private keys, so it belongs to a machine and a user you trust. Give each node only its
own folder, by a channel that is encrypted and knows the node: scp, or one Secret per node:
  scp OUT/edge-1/config.json root@edge-1:/etc/selvedge/
  scp OUT/edge-1/tls/{ca.crt,tls.crt,tls.key} root@edge-1:/etc/selvedge/tls/
  kubectl create secret generic selvedge-node-edge-1 --from-file=OUT/edge-1/tls/ca.crt \\
    --from-file=OUT/edge-1/tls/tls.crt --from-file=OUT/edge-1/tls/tls.key
Nobody needs .state/ca.key but the operator.

Mistakes: an object that makes no sense is refused with its file, its field and a reason; all else goes on, and
while the operator runs the last good version of that object stays in force.

RUST_LOG=warn makes it quieter.";

const SERVE_GUIDE: &str = "\
What is watched: Cluster, Community and Outpost of selvedge.dev/v1alpha1; Nodes, Services and EndpointSlices.

What is written, in the namespace:
  ConfigMap selvedge-node-<node>  key config.json: the node's configuration
  Secret selvedge-node-<node>     its credentials: ca.crt, tls.crt, tls.key
  ConfigMap selvedge-allocations  pod networks given out. Keep it
  Secret selvedge-ca              the certificate authority. Keep it: without it every node needs new credentials
  Lease selvedge-operator         which operator writes, if there are several
and the status of our own kinds, and Events on objects that are refused.

An object that makes no sense is refused; all else goes on, and its last good version stays in force. While the API
server is away nothing changes.

RUST_LOG=warn makes it quieter.";

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::log(if let Command::Serve(serve) = &cli.command { serve.log } else { LogFormat::Text });
    let result = match cli.command {
        Command::Run { input, out, once } => start(input, &out, once),
        Command::Check { input } => check(&input),
        Command::Serve(serve) => serve::run(serve).map(|()| ExitCode::SUCCESS),
        Command::Crds { out } => crds(out.as_deref()),
    };
    result.unwrap_or_else(|e| {
        let _ = writeln!(stderr(), "selvedge-operator: {e}");
        ExitCode::FAILURE
    })
}

fn start(input: Input, out: &Path, once: bool) -> Result<ExitCode, Box<dyn Error>> {
    let manifests = input.manifests.as_path();
    if let (Ok(a), Ok(b)) = (manifests.canonicalize(), out.canonicalize())
        && a == b
    {
        return Err("--manifests and --out are the same directory: the output would be read as manifests".into());
    }
    let mut operator = Operator::new(manifests, Store::open(out)?, input.cluster);
    let in_manifests = |e| format!("{}: {e}", manifests.display());
    if once {
        let outcome = operator.once(SystemTime::now()).map_err(in_manifests)?;
        return Ok(if outcome.flawless { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    operator.watch(manifests).map_err(in_manifests)?;
    Ok(ExitCode::SUCCESS)
}

fn crds(out: Option<&Path>) -> Result<ExitCode, Box<dyn Error>> {
    for (plural, yaml) in definitions()? {
        match out {
            Some(folder) => {
                let path = folder.join(format!("{plural}.yaml"));
                fs::write(&path, yaml).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            None => write!(stdout(), "---\n{yaml}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(input: &Input) -> Result<ExitCode, Box<dyn Error>> {
    let (nodes, problems) = run::check(&input.manifests, input.cluster.clone())
        .map_err(|e| format!("{}: {e}", input.manifests.display()))?;
    let mut out = stdout().lock();
    for config in nodes.values() {
        let role = format!("{:?}", config.role).to_lowercase();
        let networks: Vec<String> = config.pod_cidrs.iter().map(ToString::to_string).collect();
        let peers = config.peers.len();
        writeln!(out, "{:<20} {role:<10} {peers:>4} peers  pods {}", config.node, networks.join(", "))?;
    }
    for problem in &problems {
        let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
        writeln!(out, "{severity}: {problem}")?;
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    writeln!(out, "{} nodes, {errors} errors, {} warnings", nodes.len(), problems.len() - errors)?;
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
