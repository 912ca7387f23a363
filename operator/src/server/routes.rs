//! The answers.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use rcgen::PublicKeyData as _;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{info, warn};

use super::token::hash;
use super::{Caller, Published, Registrar, Seen, Server};
use crate::authority::{MAX_REQUEST, random, requested_key, seconds};

/// Bytes of a request's body.
const BODY: usize = MAX_REQUEST + 1024;
/// From the head of a request to the end of its body.
const BODY_TIME: Duration = Duration::from_secs(15);
/// How long a change is waited for, give or take a tenth, so that those who began to wait together do not ask together
/// again. Who pays for every byte prefers to wait longer (RFC 7240 section 4.3), and may.
const WAIT: u32 = 50;
const LONGEST_WAIT: u32 = 600;

/// The version of what `/v1/trust` gives.
const TRUST: HeaderName = HeaderName::from_static("selvedge-trust");

pub(super) fn router<R: Registrar>(server: Arc<Server<R>>) -> Router {
    Router::new()
        .route("/v1/enroll", post(enroll))
        .route("/v1/renew", post(renew))
        .route("/v1/config", get(config))
        .route("/v1/trust", get(trust))
        .with_state(server)
}

#[derive(Deserialize)]
struct Enrolment {
    node: String,
    secret: String,
    csr: String,
}

#[derive(Deserialize)]
struct Renewal {
    csr: String,
}

/// A certificate and what goes with it, in PEM.
#[derive(Serialize)]
struct Issue<'a> {
    name: &'a str,
    certificate: &'a str,
    trust: &'a str,
}

/// An answer in place of the one asked for.
struct Refusal(StatusCode, &'static str);

impl From<Refusal> for Response {
    fn from(Refusal(status, message): Refusal) -> Response {
        let mut response = (status, message).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
        }
        response
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.into()
    }
}

type Answer = Result<Response, Refusal>;

const NOT_READY: Refusal = Refusal(StatusCode::SERVICE_UNAVAILABLE, "nothing is known yet");
const BAD_TOKEN: Refusal = Refusal(StatusCode::FORBIDDEN, "the token is not good, or not any more");
const NO_CERTIFICATE: Refusal = Refusal(StatusCode::FORBIDDEN, "this needs a certificate");
const REVOKED: Refusal = Refusal(StatusCode::FORBIDDEN, "the certificate was revoked");
const UNKNOWN: Refusal = Refusal(StatusCode::NOT_FOUND, "nobody of this name is known");
const FAILED: Refusal = Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the operator could not do it; its log says why");

async fn enroll<R: Registrar>(
    State(server): State<Arc<Server<R>>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Answer {
    let allowed = {
        let mut attempts = server.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.allow(caller.address.ip(), Instant::now())
    };
    if !allowed {
        return Err(Refusal(StatusCode::TOO_MANY_REQUESTS, "too many attempts; try again later"));
    }
    let Enrolment { node, secret, csr } = read(request).await?;
    let published = server.published().ok_or(NOT_READY)?;
    let Ok(key) = requested_key(&csr) else { return Err(Refusal(StatusCode::BAD_REQUEST, "the csr is not good")) };
    // Whether there is such a node is nobody's business without its token.
    let name = server.feed.name_of(&node).filter(|name| !published.common.revoked.contains(name));
    let Some(name) = name else {
        server.metrics.refused_tokens.inc();
        return Err(BAD_TOKEN);
    };
    match server.registrar.redeem(&node, &secret, &hash(key.der_bytes()), seconds(SystemTime::now())).await {
        Ok(true) => {}
        Ok(false) => {
            server.metrics.refused_tokens.inc();
            warn!("{node}: a token from {} was refused", caller.address.ip());
            return Err(BAD_TOKEN);
        }
        Err(e) => {
            warn!("{node}: redeem a token: {e}");
            return Err(FAILED);
        }
    }
    let response = issue(&server, &published, &name, &csr).await?;
    server.metrics.enrolled.inc();
    info!("{node}: enrolled from {}", caller.address.ip());
    Ok(response)
}

async fn renew<R: Registrar>(
    State(server): State<Arc<Server<R>>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Answer {
    let (published, name) = authorised(&server, &caller)?;
    if server.feed.watch(&name).is_none() {
        return Err(unknown(&server));
    }
    let Renewal { csr } = read(request).await?;
    let response = issue(&server, &published, &name, &csr).await?;
    server.metrics.renewed.inc();
    info!("{name}: certificate renewed");
    Ok(response)
}

async fn config<R: Registrar>(
    State(server): State<Arc<Server<R>>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Answer {
    let (_, name) = authorised(&server, &caller)?;
    let mut watch = server.feed.watch(&name).ok_or_else(|| unknown(&server))?;
    if let Some(trust) = headers.get(TRUST).and_then(|trust| trust.to_str().ok()) {
        let trust = trust.chars().take(64).collect();
        let mut seen = server.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(name.clone(), Seen { trust, certificate: Arc::clone(&caller.certificate) });
    }
    if let Some(known) = headers.get(IF_NONE_MATCH) {
        let wait = wait(&headers);
        let changed = watch.wait_for(|document| document.etag.as_bytes() != known.as_bytes());
        match timeout(wait, changed).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(unknown(&server)),
            Err(_) => {
                server.metrics.unchanged.inc();
                return Ok((StatusCode::NOT_MODIFIED, [(ETAG, known.clone())]).into_response());
            }
        }
    }
    let document = watch.borrow().clone();
    // Much may have happened while it waited.
    let (published, _) = authorised(&server, &caller)?;
    server.metrics.sent.inc();
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (ETAG, document.etag),
        (TRUST, published.trust_tag.to_string()),
    ];
    Ok((headers, document.config.to_string()).into_response())
}

async fn trust<R: Registrar>(State(server): State<Arc<Server<R>>>, Extension(caller): Extension<Caller>) -> Answer {
    let (published, _) = authorised(&server, &caller)?;
    let headers = [(CONTENT_TYPE, "application/x-pem-file".to_owned()), (TRUST, published.trust_tag.to_string())];
    Ok((headers, published.trust.to_string()).into_response())
}

fn wait(headers: &HeaderMap) -> Duration {
    let preferred = headers.get("prefer").and_then(|value| value.to_str().ok()?.strip_prefix("wait=")?.parse().ok());
    let millis = 1000 * preferred.unwrap_or(WAIT).min(LONGEST_WAIT);
    let spread = random::<2>().map_or(0, |n| u32::from(u16::from_be_bytes(n)));
    Duration::from_millis(u64::from(millis - millis / 10 + ((millis / 5 * (spread >> 4)) >> 12)))
}

/// The name a caller speaks for, if it may.
fn authorised<R: Registrar>(server: &Server<R>, caller: &Caller) -> Result<(Published, String), Refusal> {
    let (name, serial) = caller.name.as_ref().ok_or(NO_CERTIFICATE)?;
    let published = server.published().ok_or(NOT_READY)?;
    let Published { common, .. } = &published;
    if common.revoked.contains(name) || common.authorities.is_revoked(serial) {
        server.metrics.refused_names.inc();
        return Err(REVOKED);
    }
    Ok((published, name.clone()))
}

fn unknown<R>(server: &Server<R>) -> Refusal {
    server.metrics.refused_names.inc();
    UNKNOWN
}

async fn issue<R: Registrar>(server: &Server<R>, published: &Published, name: &str, csr: &str) -> Answer {
    let Ok(key) = requested_key(csr) else { return Err(Refusal(StatusCode::BAD_REQUEST, "the csr is not good")) };
    let common = &published.common;
    let failed = |e: &dyn std::fmt::Display| {
        warn!("{name}: issue a certificate: {e}");
        FAILED
    };
    let certificate =
        common.authorities.signing().sign(name, &key, SystemTime::now(), common.days).map_err(|e| failed(&e))?;
    server.registrar.record(name, &certificate).await.map_err(|e| failed(&e))?;
    let answer = Issue { name, certificate: &certificate.pem, trust: &published.trust };
    let text = serde_json::to_string(&answer).map_err(|e| failed(&e))?;
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (TRUST, published.trust_tag.to_string())];
    Ok((headers, text).into_response())
}

/// The body of a request, read in bounded time into bounded memory.
async fn read<T: for<'de> Deserialize<'de>>(request: Request<Body>) -> Result<T, Refusal> {
    let Ok(body) = timeout(BODY_TIME, to_bytes(request.into_body(), BODY)).await else {
        return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the body took too long"));
    };
    let body = body.or(Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long")))?;
    serde_json::from_slice(&body).or(Err(Refusal(StatusCode::BAD_REQUEST, "the body is not what it should be")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_as_preferred_but_not_all_alike_and_not_for_ever() {
        let waits = |preferred: &'static str| {
            let headers =
                HeaderMap::from_iter([(HeaderName::from_static("prefer"), HeaderValue::from_static(preferred))]);
            (0..100).map(|_| wait(&headers)).collect::<std::collections::BTreeSet<_>>()
        };
        let within = |preferred, least, most| {
            let waits = waits(preferred);
            let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
            assert!(waits.iter().all(|wait| bounds.contains(wait)), "{preferred}: {waits:?}");
            assert!(waits.len() > 1);
        };
        within("", 45, 55);
        within("wait=x", 45, 55);
        within("wait=100", 90, 110);
        within("wait=4000000000", 540, 660);
        assert_eq!(waits("wait=0").into_iter().collect::<Vec<_>>(), [Duration::ZERO]);
    }
}
