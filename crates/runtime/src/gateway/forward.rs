//! What becomes of a request: the rule it meets, the endpoint that gets it, and what is answered when there is none.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use selvedge_gateway::http1::Piece;
use selvedge_gateway::{Fields, Found, Picker, Request, Response, Site, answer, prepare, redirection};
use selvedge_model::Protocol;
use selvedge_model::gateway::{Backend, Mirror, Rule};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::pipe::{Body, Feed, pipe};
use super::shared::{Door, Shared, Slot, Unreachable};
use super::{http1, http2};

/// Endpoints that are tried for one request or connection.
pub(super) const MAX_TRIES: usize = 4;

/// Until the head of an answer, where the rule does not say.
const ATTEMPT: Duration = Duration::from_secs(60);

/// Bytes of a body that a slow mirror may leave waiting before it is given up.
const MIRROR_WAITS: usize = 64 << 10;

/// Copies of requests under way at the same time; there are no more while mirrors are slow.
const MAX_MIRRORED: usize = 64;

/// Where a request comes from.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) client: SocketAddr,
    /// The port it came in by.
    pub(super) port: u16,
    /// What its TLS was made for, if it has any.
    pub(super) tls: Option<Rc<Admission>>,
}

/// The site whose certificate a client was shown, as it was then. Configurations change under connections.
#[derive(PartialEq, Eq)]
pub(super) struct Admission {
    host: String,
    certificate: String,
    client_certificates: bool,
}

/// An answer on its way back.
pub(super) struct Answer {
    pub(super) response: Response,
    /// Absent where there is none.
    pub(super) body: Option<Body>,
    /// After status 101: what the connection is now, and what was read of it already.
    pub(super) tunnel: Option<(TcpStream, Vec<u8>)>,
}

/// A task that ends with whoever started it.
pub(super) struct Bound<T>(pub(super) JoinHandle<T>);

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why one attempt failed.
enum Failure {
    Unreachable(Unreachable),
    /// The connection broke before the answer began; `stale`: it had served before, and nothing was done.
    Broken {
        stale: bool,
    },
    Timeout,
}

impl Admission {
    pub(super) fn to(site: &Site) -> Self {
        let (host, certificate) = (site.host.clone(), site.certificate.clone());
        Admission { host, certificate, client_certificates: site.client_certificates }
    }
}

impl Origin {
    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

impl Answer {
    /// One of the gateway itself.
    pub(super) fn own(status: u16, text: &str) -> Self {
        let mut fields = Fields::default();
        fields.add("content-type", "text/plain");
        let text = format!("{status}: {text}\n");
        fields.add("content-length", text.len().to_string());
        let response = Response { status, fields, upgrade: None };
        Answer { response, body: Some(Body::whole(text.into_bytes())), tunnel: None }
    }
}

/// Finds the answer to a request.
pub(super) async fn forward(slot: &Rc<Slot>, origin: &Origin, request: Request, body: Option<Body>) -> Answer {
    let door = slot.door();
    slot.shared.count(&door, |counters| counters.requests += 1);
    let (status, text) = match route(&slot.shared, &door, origin, request, body).await {
        Ok(answer) => return answer,
        Err(problem) => problem,
    };
    slot.shared.count(&door, |counters| match status {
        404 | 421 => counters.unrouted += 1,
        _ => counters.failed += 1,
    });
    Answer::own(status, text)
}

async fn route(
    shared: &Rc<Shared>,
    door: &Rc<Door>,
    origin: &Origin,
    mut request: Request,
    body: Option<Body>,
) -> Result<Answer, (u16, &'static str)> {
    let site = door.table.site(request.host()).and_then(|i| door.table.sites().get(i));
    let site = site.ok_or((404, "no such host here"))?;
    if origin.tls.as_ref().is_some_and(|tls| **tls != Admission::to(site)) {
        return Err((421, "this connection was made for another host"));
    }
    let found = site.find(&request).ok_or((404, "no route for this request"))?;
    let rule = found.rule;
    if let Some(redirect) = &rule.redirect {
        let response = redirection(&request, redirect, found.prefix, origin.scheme(), origin.port);
        return Ok(Answer { response, body: None, tunnel: None });
    }
    if let Some(status) = rule.status {
        return Err((status, "the route cannot be served"));
    }
    let backend = Picker::backend(&rule.backends, shared.random()).ok_or((500, "the route has no backend"))?;
    if backend.invalid {
        return Err((500, "the route's backend cannot be used"));
    }
    let asked_for = request.clone();
    prepare(&mut request, &found, backend, origin.client.ip(), origin.scheme());
    let body = mirror(shared, rule, &asked_for, &found, origin, body);
    let attempts = attempts(shared, rule, backend, &asked_for, origin.client.ip(), &request, body);
    let attempted = match rule.timeout_ms.filter(|ms| *ms > 0) {
        Some(ms) => timeout(Duration::from_millis(u64::from(ms)), attempts).await.unwrap_or(Err(Failure::Timeout)),
        None => attempts.await,
    };
    let mut answered = attempted.map_err(|failure| match failure {
        Failure::Unreachable(Unreachable::NoService) => (500, "there is no such Service"),
        Failure::Unreachable(Unreachable::NoEndpoint) => (503, "the Service has no endpoint"),
        Failure::Unreachable(Unreachable::Refused) => (502, "no endpoint takes a connection"),
        Failure::Unreachable(Unreachable::Timeout) => (504, "no endpoint takes a connection in time"),
        Failure::Broken { .. } => (502, "the endpoint ended the connection"),
        Failure::Timeout => (504, "the endpoint does not answer in time"),
    })?;
    answer(&mut answered.response, &found, backend);
    Ok(answered)
}

/// Asks until there is an answer. A body is sent once.
async fn attempts(
    shared: &Rc<Shared>,
    rule: &Rule,
    backend: &Backend,
    asked_for: &Request,
    client: IpAddr,
    request: &Request,
    mut body: Option<Body>,
) -> Result<Answer, Failure> {
    let patience = match rule.attempt_timeout_ms {
        Some(0) => Duration::MAX,
        Some(ms) => Duration::from_millis(u64::from(ms)),
        None => ATTEMPT,
    };
    let repeatable = body.is_none();
    let mut retries = rule.retry.as_ref().map_or(0, |retry| retry.attempts);
    let (mut tried, mut stale) = (Vec::new(), 0);
    loop {
        // A hash goes by what the client said.
        let picked = shared.pick(backend, Protocol::Tcp, client, Some(asked_for), &tried);
        let (endpoint, http2) = picked.map_err(Failure::Unreachable)?;
        let http2 = http2 || backend.http2;
        let fresh = stale > 0 || !(repeatable && request.is_safe());
        let asking = ask(shared, endpoint, http2, fresh, request, &mut body);
        let failure = match timeout(patience, asking).await.unwrap_or(Err(Failure::Timeout)) {
            Ok(answer) => {
                let again = rule.retry.as_ref().filter(|retry| retry.statuses.contains(&answer.response.status));
                if again.is_none() || !repeatable || retries == 0 {
                    return Ok(answer);
                }
                None
            }
            Err(failure) => Some(failure),
        };
        match failure {
            Some(Failure::Broken { stale: true }) if repeatable && request.is_safe() && stale == 0 => {
                stale += 1;
                continue;
            }
            // Nothing was sent: another may get it, at no risk.
            Some(Failure::Unreachable(error)) => {
                tried.push(endpoint);
                let next = shared.pick(backend, Protocol::Tcp, client, Some(asked_for), &tried);
                if next.is_err() || tried.len() >= MAX_TRIES {
                    return Err(Failure::Unreachable(error));
                }
                continue;
            }
            Some(failure) if !repeatable || retries == 0 => return Err(failure),
            _ => {}
        }
        retries -= 1;
        tried.push(endpoint);
        if shared.pick(backend, Protocol::Tcp, client, Some(asked_for), &tried).is_err() {
            tried.clear();
        }
        if let Some(retry) = &rule.retry {
            sleep(Duration::from_millis(u64::from(retry.pause_ms))).await;
        }
    }
}

async fn ask(
    shared: &Rc<Shared>,
    endpoint: SocketAddr,
    http2: bool,
    fresh: bool,
    request: &Request,
    body: &mut Option<Body>,
) -> Result<Answer, Failure> {
    if http2 {
        let client = match shared.pool.http2(endpoint) {
            Some(client) => client,
            None => {
                let stream = shared.connect(endpoint).await.map_err(Failure::Unreachable)?;
                let client = http2::Client::start(stream);
                shared.pool.put_http2(endpoint, client.clone());
                client
            }
        };
        let mut request = request.clone();
        request.upgrade = None;
        return client.ask(request, body.take()).await.ok_or(Failure::Broken { stale: false });
    }
    // What was just used will hardly close now.
    let age = if fresh { Duration::from_millis(500) } else { Duration::MAX };
    let kept = shared.pool.take(endpoint, age);
    let stale = kept.is_some();
    let stream = match kept {
        Some(stream) => stream,
        None => shared.connect(endpoint).await.map_err(Failure::Unreachable)?,
    };
    http1::ask(shared, endpoint, stream, request, body.take()).await.ok_or(Failure::Broken { stale })
}

/// Sends copies of the request where the rule says. What is left is the body for the backend.
fn mirror(
    shared: &Rc<Shared>,
    rule: &Rule,
    asked_for: &Request,
    found: &Found<'_>,
    origin: &Origin,
    body: Option<Body>,
) -> Option<Body> {
    let chosen = |mirror: &&Mirror| (u64::from(shared.random()) * 10_000) >> 32 < u64::from(mirror.share);
    let room = MAX_MIRRORED.saturating_sub(shared.mirrored.get());
    let mirrors: Vec<&Mirror> = rule.mirrors.iter().filter(chosen).take(room).collect();
    if mirrors.is_empty() {
        return body;
    }
    let mut copies: Vec<Feed> = Vec::new();
    for mirror in mirrors {
        let mut request = asked_for.clone();
        request.upgrade = None;
        prepare(&mut request, found, &mirror.backend, origin.client.ip(), origin.scheme());
        let copy = body.as_ref().map(|_| pipe()).map(|(feed, copy)| {
            copies.push(feed);
            copy
        });
        let (shared, backend, client) = (shared.clone(), mirror.backend.clone(), origin.client.ip());
        shared.mirrored.set(shared.mirrored.get() + 1);
        tokio::task::spawn_local(async move {
            let _ = timeout(ATTEMPT, send_copy(&shared, &backend, client, &request, copy)).await;
            shared.mirrored.set(shared.mirrored.get() - 1);
        });
    }
    let body = body?;
    let (feed, passed_on) = pipe();
    tokio::task::spawn_local(async move {
        loop {
            if !feed.ready().await {
                return;
            }
            match body.next().await {
                Ok(Piece::Data(data)) => {
                    copies.retain(|copy| copy.waiting() < MIRROR_WAITS);
                    copies.iter().for_each(|copy| copy.send(data.clone()));
                    feed.send(data);
                }
                Ok(Piece::End(trailers)) => {
                    copies.into_iter().for_each(|copy| copy.end(trailers.clone()));
                    return feed.end(trailers);
                }
                Err(_) => return,
            }
        }
    });
    Some(passed_on)
}

/// Asks a mirror, and forgets what it says.
async fn send_copy(shared: &Rc<Shared>, backend: &Backend, client: IpAddr, request: &Request, mut body: Option<Body>) {
    let picked = shared.pick(backend, Protocol::Tcp, client, Some(request), &[]);
    let Ok((endpoint, http2)) = picked else { return };
    let Ok(answer) = ask(shared, endpoint, http2 || backend.http2, true, request, &mut body).await else { return };
    let Some(body) = answer.body else { return };
    while let Ok(Piece::Data(_)) = body.next().await {}
}
