//! The operator in a cluster: watches, the Lease, metrics and the controller, put together.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use prometheus_client::registry::Registry;
use selvedge_model::ServiceSource;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::controllers::agents::Agents;
use crate::controllers::{Controller, InCluster, Ledger, MANAGER, Surroundings, create_token};
use crate::core::Options;
use crate::core::fleet::Report;
use crate::server::{self, Server, Token};
use crate::telemetry::{self, Health, LogFormat, Metrics};
use crate::{index, lease};

/// Objects that wait for the controller; more wait in the API server.
const WAITING: usize = 1024;
/// Without a byte from the API server a request is given up; longer than any watch is silent.
const SILENCE: Duration = Duration::from_secs(60);
/// To give the Lease back.
const FAREWELL: Duration = Duration::from_secs(5);

/// How the operator runs in a cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// Namespace of what the operator writes.
    #[arg(long, env = "SELVEDGE_NAMESPACE", default_value = "selvedge")]
    namespace: String,
    /// File that says where the API server is; without it the pod's own ServiceAccount is used, or the file that
    /// KUBECONFIG names.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of the own Cluster object; needed only if several are not marked `spec.remote: true`.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Where /metrics, /healthz and /readyz are, over plain HTTP.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9090")]
    metrics_listen: SocketAddr,
    /// Where devices enrol and get their configurations, over TLS. Without it nobody is answered, and Outposts get a
    /// Secret with their key as nodes do.
    #[arg(long, env = "SELVEDGE_FEED_LISTEN", value_name = "ADDRESS")]
    feed_listen: Option<SocketAddr>,
    /// Name of this operator among several; its host's name and process unless said.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,
    /// How the log is written.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) log: LogFormat,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(serve: Serve) -> Result<(), Box<dyn Error>> {
    // While one thread compiles, another one must renew the Lease.
    let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?.block_on(start(serve))
}

/// Which cluster a token is for.
#[derive(Args, Clone, Debug)]
pub(crate) struct Access {
    /// Namespace of the operator.
    #[arg(long, env = "SELVEDGE_NAMESPACE", default_value = "selvedge", conflicts_with = "out")]
    namespace: String,
    /// File that says where the API server is.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    kubeconfig: Option<PathBuf>,
}

/// Makes a one-time token that is good until `expires`, in seconds since 1970.
pub(crate) fn token(access: &Access, server: &str, node: &str, expires: u64) -> Result<Token, Box<dyn Error>> {
    let make = async {
        let client = client(access.kubeconfig.as_deref()).await?;
        Ok(create_token(&Api::namespaced(client, &access.namespace), server, node, expires).await?)
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(make)
}

async fn start(serve: Serve) -> Result<(), Box<dyn Error>> {
    let client = client(serve.kubeconfig.as_deref()).await?;
    let listener = TcpListener::bind(serve.metrics_listen)
        .await
        .map_err(|e| format!("--metrics-listen {}: {e}", serve.metrics_listen))?;
    info!("metrics on http://{}/metrics", listener.local_addr()?);
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let health = Health::default();
    let configs = Api::namespaced(client.clone(), &serve.namespace);
    let ledger = Ledger::new(configs);
    let server = match serve.feed_listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await.map_err(|e| format!("--feed-listen {address}: {e}"))?;
            info!("devices are answered on {}", listener.local_addr()?);
            let metrics = server::Metrics::default();
            metrics.register(registry.sub_registry_with_prefix("selvedge_operator"));
            let secrets = Api::namespaced(client.clone(), &serve.namespace);
            let server = Server::new(InCluster { secrets, ledger: ledger.clone() }, metrics);
            tokio::spawn(Arc::clone(&server).serve(listener));
            Some(server)
        }
        None => None,
    };
    tokio::spawn(telemetry::serve(listener, health.clone(), registry));

    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        if let Err(e) = signals().await {
            error!("signals cannot be awaited: {e}");
        }
        info!("stopping");
        stop.send_replace(true);
    });

    let (news_out, news) = mpsc::channel(WAITING);
    index::start(&client, &serve.namespace, MANAGER, &metrics, &news_out);
    let (leader_out, leader) = watch::channel(false);
    let identity = serve.identity.unwrap_or_else(identity);
    info!("{identity} watches, and writes to the namespace {}", serve.namespace);
    let election = {
        let (client, namespace, stopped) = (client.clone(), serve.namespace.clone(), stopped.clone());
        tokio::spawn(async move { lease::run(client, &namespace, identity, leader_out, stopped).await })
    };
    let (wanted, to_be_equipped) = watch::channel(None);
    let (report, agents) = watch::channel(Report::default());
    let crew = Agents::new(client.clone(), &serve.namespace, to_be_equipped, leader.clone(), report);
    tokio::spawn(crew.run(metrics.clone()));
    let options = Options { cluster: serve.cluster, services: ServiceSource::Api };
    let around = Surroundings {
        client,
        namespace: serve.namespace,
        options,
        news,
        leader,
        wanted,
        agents,
        server,
        ledger,
        metrics,
        health,
    };
    Controller::new(around).run(stopped).await;
    // Only now: nothing of ours is under way any more.
    let _ = tokio::time::timeout(FAREWELL, election).await;
    Ok(())
}

async fn client(kubeconfig: Option<&std::path::Path>) -> Result<Client, Box<dyn Error>> {
    let mut config = match kubeconfig {
        Some(file) => {
            let read =
                Kubeconfig::read_from(file).map_err(|e| format!("{}: {}", file.display(), telemetry::words(&e)))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|e| format!("{}: {}", file.display(), telemetry::words(&e)))?
        }
        None => Config::infer()
            .await
            .map_err(|e| format!("no way to an API server, say --kubeconfig FILE: {}", telemetry::words(&e)))?,
    };
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config).map_err(|e| telemetry::words(&e))?)
}

async fn signals() -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}
