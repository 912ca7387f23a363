//! `/metrics`, `/healthz` and `/readyz`, over plain HTTP.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::metrics::encode;

/// A loop that has not gone round for so long is stuck.
const STUCK: Duration = Duration::from_secs(300);

/// How the operator is. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Mutex<Vitals>>);

#[derive(Debug, Default)]
struct Vitals {
    /// When the loop last went round.
    beat: Option<Instant>,
    /// Kinds that were not listed yet; `None` before the start.
    missing: Option<Vec<&'static str>>,
}

impl Health {
    pub(crate) fn beat(&self) {
        self.vitals(|vitals| vitals.beat = Some(Instant::now()));
    }

    pub(crate) fn missing(&self, kinds: Vec<&'static str>) {
        self.vitals(|vitals| vitals.missing = Some(kinds));
    }

    fn vitals<T>(&self, read: impl FnOnce(&mut Vitals) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone)]
struct Shared {
    health: Health,
    registry: Arc<Registry>,
}

/// Serves until the program ends.
pub(crate) async fn serve(listener: TcpListener, health: Health, registry: Registry) -> std::io::Result<()> {
    let shared = Shared { health, registry: Arc::new(registry) };
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared);
    axum::serve(listener, router).await
}

async fn healthz(State(shared): State<Shared>) -> impl IntoResponse {
    let stuck = shared.health.vitals(|vitals| vitals.beat.is_some_and(|beat| beat.elapsed() > STUCK));
    if stuck { (StatusCode::SERVICE_UNAVAILABLE, "the loop is stuck\n") } else { (StatusCode::OK, "ok\n") }
}

async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.health.vitals(|vitals| vitals.missing.clone()) {
        Some(missing) if missing.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("not listed yet: {}\n", missing.join(", "))),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match encode(&shared.registry) {
        Ok(text) => (StatusCode::OK, kind, text),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, kind, e.to_string()),
    }
}
