use std::time::Duration;

use miniserde::{Deserialize, json};

use crate::Flavour;

/// What comes before the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// The body is said to be JSON.
    pub json: bool,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u64>,
}

/// What an answer that is not 200 means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The object does not exist.
    Gone,
    /// The version that a watch was to begin at is too old: list again.
    Expired,
    /// The server cannot say now: ask again after this time.
    Later(Duration, String),
    /// It says nothing about the objects; why.
    Unknown(String),
}

/// A `Status` object.
#[derive(Deserialize)]
struct Status {
    kind: Option<String>,
    message: Option<String>,
    reason: Option<String>,
}

/// The longest pause that a server may ask for.
const PATIENCE: u64 = 120;

/// Judges an answer whose status is not 200. `body` is as much of it as was read.
///
/// Only an API server itself says that something does not exist: a `Status` with reason `NotFound`. A 404 in plain text
/// comes from a cache that did not reach it, and so do 400, 403, 502, 503.
pub fn judge(flavour: Flavour, head: Head, body: &[u8]) -> Verdict {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let status: Option<Status> = if head.json { json::from_str(text).ok() } else { None };
    let status = status.filter(|status| status.kind.as_deref() == Some("Status"));
    let reason = status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default();
    let words = match &status {
        Some(Status { message: Some(message), .. }) => printable(message),
        _ => printable(text),
    };
    let said =
        if words.is_empty() { format!("HTTP {}", head.status) } else { format!("HTTP {}: {words}", head.status) };
    match head.status {
        404 if reason == "NotFound" && flavour.not_found_means_gone() => Verdict::Gone,
        410 if status.is_some() => Verdict::Expired,
        429 => Verdict::Later(pause(head.retry_after.unwrap_or(1)), said),
        503 if head.retry_after.is_some() => Verdict::Later(pause(head.retry_after.unwrap_or(1)), said),
        _ => Verdict::Unknown(said),
    }
}

fn pause(seconds: u64) -> Duration {
    Duration::from_secs(seconds.clamp(1, PATIENCE))
}

/// The first line, without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_FOUND: &[u8] =
        br#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"configmaps \"x\" not found","reason":"NotFound","code":404}"#;

    fn answer(flavour: Flavour, status: u16, json: bool, body: &[u8]) -> Verdict {
        judge(flavour, Head { status, json, retry_after: None }, body)
    }

    #[test]
    fn only_a_status_says_that_something_does_not_exist() {
        assert_eq!(answer(Flavour::SuperEdge, 404, true, NOT_FOUND), Verdict::Gone);
        assert_eq!(answer(Flavour::OpenYurt, 404, true, NOT_FOUND), Verdict::Gone);
        let plain = b"dial tcp 10.0.0.1:6443: connect: connection refused";
        let said = Verdict::Unknown("HTTP 404: dial tcp 10.0.0.1:6443: connect: connection refused".into());
        assert_eq!(answer(Flavour::SuperEdge, 404, false, plain), said);
        assert_eq!(answer(Flavour::SuperEdge, 404, true, plain), said);
        // The same words under another name, or as text.
        assert!(matches!(answer(Flavour::Kubernetes, 404, false, NOT_FOUND), Verdict::Unknown(_)));
        let other = br#"{"kind":"Status","reason":"Whatever","message":"m"}"#;
        assert!(matches!(answer(Flavour::Kubernetes, 404, true, other), Verdict::Unknown(_)));
        let no_status = br#"{"kind":"ConfigMap","reason":"NotFound"}"#;
        assert!(matches!(answer(Flavour::Kubernetes, 404, true, no_status), Verdict::Unknown(_)));
    }

    #[test]
    fn not_found_of_a_metaserver_says_only_that_it_has_it_not() {
        let text = "HTTP 404: configmaps \"x\" not found".to_owned();
        assert_eq!(answer(Flavour::KubeEdge, 404, true, NOT_FOUND), Verdict::Unknown(text));
    }

    #[test]
    fn refusals_of_a_cache_say_nothing() {
        for status in [400, 401, 403, 500, 502, 503] {
            assert!(matches!(answer(Flavour::OpenYurt, status, false, b"no"), Verdict::Unknown(_)), "{status}");
            assert!(matches!(answer(Flavour::OpenYurt, status, true, NOT_FOUND), Verdict::Unknown(_)), "{status}");
        }
        assert_eq!(answer(Flavour::OpenYurt, 502, false, b""), Verdict::Unknown("HTTP 502".into()));
    }

    #[test]
    fn a_server_that_is_busy_says_when_to_come_again() {
        let ask = |status, seconds| match judge(
            Flavour::OpenYurt,
            Head { status, json: false, retry_after: seconds },
            b"x",
        ) {
            Verdict::Later(pause, _) => pause.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ask(429, Some(7)), 7);
        assert_eq!(ask(429, None), 1);
        assert_eq!(ask(429, Some(0)), 1);
        assert_eq!(ask(503, Some(3)), 3);
        assert_eq!(ask(503, Some(u64::MAX)), PATIENCE);
    }

    #[test]
    fn a_watch_that_is_too_late_lists_again() {
        let gone = br#"{"kind":"Status","reason":"Expired","message":"too old resource version","code":410}"#;
        assert_eq!(answer(Flavour::Kubernetes, 410, true, gone), Verdict::Expired);
        assert!(matches!(answer(Flavour::Kubernetes, 410, false, b"gone"), Verdict::Unknown(_)));
    }

    #[test]
    fn words_of_a_server_are_short_and_harmless() {
        let long = format!("\u{1b}[31m{}\nsecond", "x".repeat(1000));
        let Verdict::Unknown(text) = answer(Flavour::Kubernetes, 500, false, long.as_bytes()) else { panic!() };
        assert!(text.starts_with("HTTP 500: [31mxxx") && text.len() < 250 && !text.contains("second"), "{text}");
    }
}
