//! TLS Secrets: certificates of edge gateways.

use std::fmt;

use k8s_openapi::ByteString;
use serde_json::Value;

/// A certificate with its key, and the authorities of clients if the Secret has any.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) pem: String,
    pub(crate) authorities: Option<String>,
}

impl Certificate {
    /// From the files of a Secret; the error says why it cannot be used.
    pub(crate) fn read(file: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let chain = file("tls.crt").filter(|text| text.contains("BEGIN CERTIFICATE")).ok_or("has no tls.crt")?;
        let key = file("tls.key").filter(|text| text.contains("PRIVATE KEY")).ok_or("has no tls.key")?;
        // A line that looks like a name of a section would begin one.
        let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let pem = format!("{}\n{}", lines(&chain), lines(&key));
        Ok(Certificate { pem, authorities: file("ca.crt").map(|text| lines(&text)) })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// What a Secret of a manifest holds. `None`: it is none for TLS.
pub(super) fn secret(value: &Value) -> Option<Result<Certificate, String>> {
    let file = |name: &str| {
        let plain = value.get("stringData").and_then(|data| data.get(name)).and_then(Value::as_str);
        let encoded = value.get("data").and_then(|data| data.get(name)).cloned();
        let decoded = || String::from_utf8(serde_json::from_value::<ByteString>(encoded?).ok()?.0).ok();
        plain.map(str::to_owned).or_else(decoded)
    };
    let is_tls = value.get("type").and_then(Value::as_str) == Some("kubernetes.io/tls") || file("tls.crt").is_some();
    is_tls.then(|| Certificate::read(file))
}
