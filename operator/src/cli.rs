//! The command line.

use std::error::Error;
use std::fs;
use std::io::{Write, stderr, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand};

use crate::adopt;
use crate::api::{definitions, dns_subdomain};
use crate::authority::{fingerprint, seconds};
use crate::core::Severity;
use crate::run::{self, Operator};
use crate::serve::{self, Serve};
use crate::server::Token;
use crate::store::{Store, write_token};
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
        /// Answer devices on this address over TLS: enrolment by a token, configurations, renewal.
        #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "once")]
        feed_listen: Option<SocketAddr>,
        /// Compile once and exit: 0 if all is well, 1 if any object was refused or could not be written.
        #[arg(long)]
        once: bool,
    },
    /// Print a one-time token by which a device enrols: `selvedge-agent enroll TOKEN`, run there.
    ///
    /// The private key is made on the device and never leaves it. A new token replaces an earlier one of the same node.
    Token {
        #[command(flatten)]
        access: serve::Access,
        /// Output directory of the operator, if it works with one.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// The Outpost, or the node, that it is for.
        #[arg(long, value_name = "NAME", visible_alias = "node", value_parser = node_name)]
        outpost: String,
        /// Where the device reaches the operator's --feed-listen: https://HOST:PORT.
        #[arg(long, env = "SELVEDGE_FEED_URL", value_name = "URL", value_parser = server_url)]
        server: String,
        /// How long it is good: 30m, 1h, 2d.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
        valid: Duration,
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
    /// Turn what FabEdge has in a cluster into objects of ours, every address kept: manifests on standard output, a report
    /// on standard error. Exits with 1 if anything is to be mended before they are applied.
    #[command(after_long_help = ADOPT_GUIDE)]
    Adopt {
        /// Directory of FabEdge's objects and the Nodes, as `kubectl get -o yaml` prints them.
        #[arg(long, value_name = "DIR")]
        manifests: PathBuf,
    },
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

const ADOPT_GUIDE: &str = "\
  kubectl get nodes,communities.fabedge.io,clusters.fabedge.io -o yaml > fabedge/objects.yaml
  kubectl get deployment -n fabedge fabedge-operator -o yaml > fabedge/operator.yaml
  kubectl get ipamblocks.crd.projectcalico.org -o yaml > fabedge/blocks.yaml    (beside Calico)
  selvedge-operator adopt --manifests fabedge > selvedge.yaml
  kubectl apply --server-side --field-manager selvedge-adopt -f selvedge.yaml
The Nodes in it hold annotations only. Under a name of its own, kubectl leaves all else that it once set on them.";

const SERVE_GUIDE: &str = "\
What is watched: Cluster, Community and Outpost of selvedge.dev/v1alpha1; Nodes, Services and EndpointSlices;
Calico's IPAMBlocks, where there are any.

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
        Command::Run { input, out, feed_listen, once } => start(input, &out, feed_listen, once),
        Command::Token { access, out, outpost, server, valid } => {
            token(&access, out.as_deref(), &outpost, &server, valid)
        }
        Command::Check { input } => check(&input),
        Command::Serve(serve) => serve::run(serve).map(|()| ExitCode::SUCCESS),
        Command::Adopt { manifests } => adopt(&manifests),
        Command::Crds { out } => crds(out.as_deref()),
    };
    result.unwrap_or_else(|e| {
        let _ = writeln!(stderr(), "selvedge-operator: {e}");
        ExitCode::FAILURE
    })
}

fn start(input: Input, out: &Path, feed: Option<SocketAddr>, once: bool) -> Result<ExitCode, Box<dyn Error>> {
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
    if let Some(address) = feed {
        operator.listen(address).map_err(|e| format!("{address}: {e}"))?;
    }
    operator.watch(manifests).map_err(in_manifests)?;
    Ok(ExitCode::SUCCESS)
}

fn token(
    access: &serve::Access,
    out: Option<&Path>,
    node: &str,
    server: &str,
    valid: Duration,
) -> Result<ExitCode, Box<dyn Error>> {
    let expires = seconds(SystemTime::now() + valid);
    let token = match out {
        Some(out) => {
            let path = out.join(".state/ca.crt");
            let pem = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let token = Token::create(server, &fingerprint(&pem)?, node)?;
            write_token(out, node, &token.record(expires))?;
            token
        }
        None => serve::token(access, server, node, expires)?,
    };
    writeln!(stdout(), "{token}")?;
    Ok(ExitCode::SUCCESS)
}

fn node_name(text: &str) -> Result<String, String> {
    dns_subdomain(text).map(|()| text.to_owned())
}

fn server_url(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    match authority {
        Some(authority) if !authority.is_empty() && !authority.contains(['/', '#', '?', '@', ' ']) => {
            Ok(format!("https://{authority}"))
        }
        _ => Err("is not https://HOST:PORT".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "is none of 30m, 1h, 2d and the like".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

fn adopt(manifests: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let objects = adopt::objects(manifests).map_err(|e| format!("{}: {e}", manifests.display()))?;
    let adopted = adopt::adopt(&objects);
    let mut out = stdout().lock();
    for manifest in &adopted.manifests {
        write!(out, "---\n{}", serde_saphyr::to_string(manifest)?)?;
    }
    write!(stderr(), "{}", adopted.report)?;
    Ok(if adopted.report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    for (node, summary) in &nodes {
        let role = format!("{:?}", summary.role).to_lowercase();
        let networks: Vec<String> = summary.pod_cidrs.iter().map(ToString::to_string).collect();
        writeln!(out, "{node:<20} {role:<10} {:>4} peers  pods {}", summary.peers, networks.join(", "))?;
    }
    for problem in &problems {
        let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
        writeln!(out, "{severity}: {problem}")?;
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    writeln!(out, "{} nodes, {errors} errors, {} warnings", nodes.len(), problems.len() - errors)?;
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
