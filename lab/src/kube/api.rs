//! A client of a Kubernetes API, of the API server or of what stands for it on an edge.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ureq::http::{Request, header};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::netns;

/// Longer than any answer takes: MetaServer sits on its for ten seconds, lite-apiserver on its first for 45.
const PATIENCE: Duration = Duration::from_secs(60);
/// In the managed fields of what the laboratory applies.
const MANAGER: &str = "selvedge-lab";

/// One server, asked from one namespace under one name.
#[derive(Clone, Debug)]
pub struct Api {
    agent: ureq::Agent,
    server: String,
    token: Option<String>,
    namespace: Option<String>,
}

/// How a caller proves who he is, and knows the server.
#[derive(Clone, Debug, Default)]
pub struct Identity<'a> {
    /// The authority that the server's certificate is by, in PEM.
    pub authority: Option<&'a str>,
    /// Certificate and key, in PEM.
    pub certificate: Option<(&'a str, &'a str)>,
    /// A service account's.
    pub token: Option<&'a str>,
    /// Constant over releases, or caches that go by it are lost.
    pub user_agent: &'a str,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP's.
    pub status: u16,
    /// The Content-Type.
    pub content: String,
    /// As text, whatever it is.
    pub body: String,
}

impl Api {
    /// `server` is a URL; `namespace` the network namespace to ask from.
    pub fn new(server: &str, namespace: Option<&str>, identity: &Identity<'_>) -> Result<Self> {
        let mut tls =
            TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        if let Some(pem) = identity.authority {
            tls = tls.root_certs(RootCerts::new_with_certs(&[Certificate::from_pem(pem.as_bytes())?]));
        }
        if let Some((certificate, key)) = identity.certificate {
            let chain = [Certificate::from_pem(certificate.as_bytes())?];
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, PrivateKey::from_pem(key.as_bytes())?)));
        }
        let user_agent = if identity.user_agent.is_empty() { MANAGER } else { identity.user_agent };
        let agent = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .user_agent(user_agent)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            server: server.to_owned(),
            token: identity.token.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
        })
    }

    /// Asks, and takes any answer. `body` comes with its content type.
    pub fn ask(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Result<Response> {
        let ask = || {
            let url = format!("{}{path}", self.server);
            let mut request = Request::builder().method(method).uri(&url).header(header::ACCEPT, "application/json");
            if let Some(token) = &self.token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let answer = match body {
                Some((content, text)) => self.agent.run(request.header(header::CONTENT_TYPE, content).body(text)?),
                None => self.agent.run(request.body(())?),
            };
            let mut answer = answer.with_context(|| format!("{method} {url}"))?;
            let content = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            Ok(Response {
                status: answer.status().as_u16(),
                content: content.unwrap_or_default().to_owned(),
                body: String::from_utf8_lossy(&answer.body_mut().with_config().limit(64 << 20).read_to_vec()?)
                    .into_owned(),
            })
        };
        match &self.namespace {
            Some(name) => netns::enter(name, ask),
            None => ask(),
        }
    }

    /// An answer that comes line by line and may take as long as it likes: a watch.
    pub fn stream(&self, path: &str) -> Result<impl BufRead + Send + use<>> {
        let mut request = self.agent.get(format!("{}{path}", self.server)).config().timeout_global(None).build();
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = request.call().with_context(|| format!("GET {path}"))?;
        ensure!(answer.status() == 200, "GET {path}: {}", answer.status());
        Ok(BufReader::new(answer.into_body().into_reader()))
    }

    /// An object or a list; whatever is not 200 is an error.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask("GET", path, None)?.json(path)
    }

    /// Applies an object on the server's side, with its status if it has one.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let path = path(object)?;
        let mut spec = object.clone();
        let status = spec.as_object_mut().and_then(|fields| fields.remove("status"));
        self.patch(&format!("{path}?fieldManager={MANAGER}&force=true"), "application/apply-patch+yaml", &spec)?;
        // A node has several addresses of one type, and none of them could be applied.
        let merge =
            |status| self.patch(&format!("{path}/status"), "application/merge-patch+json", &json!({"status": status}));
        status.map_or(Ok(()), merge)
    }

    /// Deletes what is there; what is not is deleted already.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let path = path(object)?;
        let answer = self.ask("DELETE", &path, None)?;
        ensure!(matches!(answer.status, 200 | 202 | 404), "DELETE {path}: {}", answer.said());
        Ok(())
    }

    /// Creates by POST to a collection; the answer.
    pub fn post(&self, path: &str, object: &Value) -> Result<Value> {
        self.ask("POST", path, Some(("application/json", &object.to_string())))?.json(path)
    }

    fn patch(&self, path: &str, content: &str, patch: &Value) -> Result<()> {
        let answer = self.ask("PATCH", path, Some((content, &patch.to_string())))?;
        ensure!(matches!(answer.status, 200 | 201), "PATCH {path}: {}", answer.said());
        Ok(())
    }
}

impl Response {
    /// The body, if the request succeeded.
    pub fn json(&self, what: &str) -> Result<Value> {
        ensure!(matches!(self.status, 200 | 201), "{what}: {}", self.said());
        serde_json::from_str(&self.body).with_context(|| format!("{what}: {}", self.said()))
    }

    /// Status, and the beginning of what it says.
    pub fn said(&self) -> String {
        let status: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let text = status["message"].as_str().unwrap_or_else(|| self.body.trim());
        format!("{}: {}", self.status, text.chars().take(300).collect::<String>())
    }
}

/// Where an object is: Kubernetes' plurals are regular as far as the laboratory uses them.
pub fn path(object: &Value) -> Result<String> {
    let word =
        |value: &Value, what: &str| value.as_str().map(str::to_owned).with_context(|| format!("object without {what}"));
    let version = word(&object["apiVersion"], "apiVersion")?;
    let kind = word(&object["kind"], "kind")?.to_lowercase();
    let name = word(&object["metadata"]["name"], "a name")?;
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind == "endpoints" => kind,
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    let group = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let namespace = object["metadata"]["namespace"].as_str().map(|ns| format!("/namespaces/{ns}")).unwrap_or_default();
    Ok(format!("{group}{namespace}/{plural}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::{json, path};

    #[test]
    fn objects_are_found_by_kind_and_namespace() {
        let object = |version: &str, kind: &str, namespace: Option<&str>| {
            let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
            if let Some(namespace) = namespace {
                object["metadata"]["namespace"] = json!(namespace);
            }
            path(&object).unwrap()
        };
        assert_eq!(object("v1", "Node", None), "/api/v1/nodes/x");
        assert_eq!(object("v1", "ConfigMap", Some("a")), "/api/v1/namespaces/a/configmaps/x");
        assert_eq!(object("selvedge.dev/v1alpha1", "Community", None), "/apis/selvedge.dev/v1alpha1/communities/x");
        assert_eq!(
            object("discovery.k8s.io/v1", "EndpointSlice", Some("d")),
            "/apis/discovery.k8s.io/v1/namespaces/d/endpointslices/x"
        );
        assert_eq!(object("storage.k8s.io/v1", "StorageClass", None), "/apis/storage.k8s.io/v1/storageclasses/x");
        assert_eq!(object("v1", "Endpoints", Some("d")), "/api/v1/namespaces/d/endpoints/x");
        assert!(path(&json!({})).is_err());
    }
}
