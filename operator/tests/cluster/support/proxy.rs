//! Stands between the operator and the API server: writes down what is asked, and answers badly when told to.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use futures::StreamExt;
use kube::Client;
use kube::client::Body as KubeBody;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The proxy. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    pub(crate) address: String,
}

struct Shared {
    upstream: Client,
    faults: Mutex<Vec<Fault>>,
    log: Mutex<Vec<String>>,
    /// Counts the times that all streams were cut.
    cut: watch::Sender<u32>,
}

/// Requests whose `METHOD /path` has this in it are answered so, that many times.
struct Fault {
    pattern: String,
    answer: Answer,
    times: usize,
}

/// What is answered.
#[derive(Clone)]
pub(crate) enum Answer {
    Status(u16),
    /// In a watch that was accepted.
    GoneEvent,
    Json(serde_json::Value),
    /// The body of the request comes back as if it had been stored.
    Echo,
    /// None, ever.
    Silence,
}

impl Proxy {
    pub(crate) async fn start(upstream: Client) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared =
            Arc::new(Shared { upstream, faults: Mutex::default(), log: Mutex::default(), cut: watch::channel(0).0 });
        let router = axum::Router::new().fallback(forward).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Proxy { shared, address }
    }

    pub(crate) fn fail(&self, pattern: &str, answer: Answer, times: usize) {
        self.shared.faults.lock().unwrap().push(Fault { pattern: pattern.to_owned(), answer, times });
    }

    /// How often a fault is still to be answered.
    pub(crate) fn left(&self) -> usize {
        self.shared.faults.lock().unwrap().iter().map(|fault| fault.times).sum()
    }

    pub(crate) fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Ends all watches.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// `METHOD /path` of all requests that write, without those for the Lease, since this was last asked.
    pub(crate) fn writes(&self) -> Vec<String> {
        let log = std::mem::take(&mut *self.shared.log.lock().unwrap());
        log.into_iter().filter(|line| !line.starts_with("GET ") && !line.contains("/leases")).collect()
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri());
    shared.log.lock().unwrap().push(line.split('?').next().unwrap_or_default().to_owned());
    let fault = shared.faults.lock().unwrap().iter_mut().find_map(|fault| {
        let hit = fault.times > 0 && line.contains(&fault.pattern);
        hit.then(|| {
            fault.times -= 1;
            fault.answer.clone()
        })
    });
    match fault {
        Some(Answer::Status(code)) => status(code),
        Some(Answer::GoneEvent) => {
            let event = json!({"type": "ERROR", "object": {
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
                "message": "too old resource version",
            }});
            (StatusCode::OK, [("content-type", "application/json")], format!("{event}\n")).into_response()
        }
        Some(Answer::Json(value)) => (StatusCode::OK, axum::Json(value)).into_response(),
        Some(Answer::Echo) => {
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            (StatusCode::OK, [("content-type", "application/json")], body).into_response()
        }
        Some(Answer::Silence) => std::future::pending().await,
        None => upstream(&shared, request).await,
    }
}

async fn upstream(shared: &Shared, request: Request) -> Response<Body> {
    let mut cut = shared.cut.subscribe();
    let (mut parts, body) = request.into_parts();
    parts.headers.remove("host");
    let body = axum::body::to_bytes(body, 4 << 20).await.unwrap().to_vec();
    match shared.upstream.send(Request::from_parts(parts, KubeBody::from(body))).await {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let end = async move {
                let _ = cut.changed().await;
            };
            let stream = Body::new(body).into_data_stream().take_until(Box::pin(end));
            Response::from_parts(parts, Body::from_stream(stream))
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn status(code: u16) -> Response<Body> {
    let reason = match code {
        401 => "Unauthorized",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": "as the test wants it", "metadata": {},
    });
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}
