//! What the operator tells about itself: log, metrics, health.

mod http;
pub(crate) mod metrics;

use std::error::Error;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

pub(crate) use http::{Health, serve};
pub(crate) use metrics::{Metrics, Verb};

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// What the client has to say about its requests is said by who made them.
const USUAL: &str = "info,kube_client=off,kube_runtime=error";

/// Sends the log to standard error. `RUST_LOG` says how much, [`USUAL`] if it says nothing.
pub(crate) fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(USUAL));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// An error and what caused it, in one line. What the API server answered is said as it said it.
pub(crate) fn words(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Some errors say what caused them in their own words.
        match words.last_mut() {
            Some(last) if last.ends_with(&text) => last.truncate(last.len() - text.len()),
            _ => {}
        }
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            let reason = if status.message.is_empty() { &status.reason } else { &status.message };
            words.push(format!("the API server answers {}: {reason}", status.code));
            break;
        }
        words.push(text);
        next = error.source();
    }
    let trimmed = words.iter().map(|text| text.trim_end_matches([':', ' ']));
    trimmed.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
