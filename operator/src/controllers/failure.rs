//! What did not work, in words.

use std::fmt;

use crate::telemetry::words;

/// An error with what it is about.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    /// HTTP status of the API server's answer; 0 if there was none.
    code: u16,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 0 }
    }

    /// Whether the API server understood and refused, so that to try again as it is cannot help.
    pub(super) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.code) && !matches!(self.code, 401 | 408 | 409 | 410 | 429)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

pub(super) trait Context<T> {
    /// Says what the error is about.
    fn context(self, about: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Context<T> for Result<T, kube::Error> {
    fn context(self, about: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| {
            let code = if let kube::Error::Api(status) = &e { status.code } else { 0 };
            Failure { message: format!("{}: {}", about(), words(&e)), code }
        })
    }
}
