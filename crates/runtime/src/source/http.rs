//! Requests to one server, every one of them bounded in time and size.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::Connector as _;
use zeroize::Zeroizing;

use super::read_bounded;
use super::tcp::Tcp;
use super::tls::{Identity, Tls, Trust};
use crate::clock::Clock;
use crate::error::Context as _;
use crate::{Error, Result};

/// More than any ServiceAccount token or bundle of authorities needs.
const MAX_SECRET_BYTES: u64 = 256 << 10;

/// Until a connection is made, with TLS.
const CONNECT: Duration = Duration::from_secs(10);

/// Longer than the ten seconds that KubeEdge needs to find out that the cloud does not answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// For a whole body that is not a watch.
const BODY: Duration = Duration::from_secs(120);

/// Where a server is, and how it and this node prove who they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Server {
    /// `https://127.0.0.1:51003`: no slash at the end.
    pub(crate) url: String,
    /// Certificate authorities in PEM; needed for `https`.
    pub(crate) ca_file: Option<PathBuf>,
    /// A bearer token, read for every request: tokens are replaced while they are used.
    pub(crate) token_file: Option<PathBuf>,
}

/// Speaks to one server under one name.
pub(crate) struct Client {
    agent: ureq::Agent,
    server: Server,
}

/// What a server answered, its body still to be read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The body claims to be JSON.
    pub(crate) json: bool,
    /// Seconds of `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    pub(crate) etag: Option<String>,
    /// Selvedge-Trust: the version of the operator's authorities.
    pub(crate) trust: Option<String>,
    body: ureq::Body,
}

impl Client {
    /// `name` goes out as User-Agent. lite-apiserver and yurthub key their caches by it: it never changes, with no release.
    /// `watchful`: a server that is gone without a word is noticed within a minute or so, for some bytes now and then.
    pub(crate) fn new(server: &Server, name: &str, clock: Clock, watchful: bool) -> Result<Client> {
        let authorities = match &server.ca_file {
            Some(file) => Some(read_bounded(file, MAX_SECRET_BYTES)?),
            None => None,
        };
        Self::build(server, name, authorities.as_deref().map(Trust::Host), None, clock, watchful)
    }

    /// With `trust` in the place of authorities in a file.
    pub(crate) fn with_trust(
        server: &Server,
        name: &str,
        trust: Option<Trust<'_>>,
        identity: Option<&Identity>,
        clock: Clock,
    ) -> Result<Client> {
        Self::build(server, name, trust, identity, clock, false)
    }

    fn build(
        server: &Server,
        name: &str,
        trust: Option<Trust<'_>>,
        identity: Option<&Identity>,
        clock: Clock,
        watchful: bool,
    ) -> Result<Client> {
        let config = Config::builder()
            .user_agent(name)
            .accept("application/json")
            .http_status_as_error(false)
            // Whoever is told to go elsewhere would show its token there.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(BODY))
            .timeout_per_read(Some(ANSWER))
            .timeout_per_write(Some(ANSWER))
            .input_buffer_size(8 << 10)
            .output_buffer_size(4 << 10)
            .max_response_header_size(8 << 10)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .build();
        let connector = ().chain(Tcp { watchful }).chain(Tls::new(trust, identity, clock)?);
        let agent = ureq::Agent::with_parts(config, connector, DefaultResolver::default());
        Ok(Client { agent, server: server.clone() })
    }

    /// `path` begins with a slash.
    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.answered(path, self.request(path)?.call())
    }

    /// A GET whose answer, or whose body, may take up to `wait` to begin or to go on: a watch, or a long poll.
    pub(crate) fn wait(&self, path: &str, wait: Duration) -> Result<Answer> {
        let request = self.request(path)?;
        let patience = Some(wait + ANSWER);
        let request = request.config().timeout_recv_response(patience).timeout_recv_body(patience);
        self.answered(path, request.timeout_per_read(patience).build().call())
    }

    /// Waits for another version than `etag`. `trust` tells the operator which authorities we know.
    pub(crate) fn follow(&self, path: &str, etag: Option<&str>, trust: &str, wait: Duration) -> Result<Answer> {
        let request = self.request(path)?.header("Selvedge-Trust", trust);
        let request = request.header("Prefer", format!("wait={}", wait.as_secs()));
        let request = match etag {
            Some(etag) => request.header("If-None-Match", etag),
            None => request,
        };
        let patience = Some(wait + wait / 4 + ANSWER);
        let request = request.config().timeout_recv_response(patience).timeout_per_read(patience);
        self.answered(path, request.build().call())
    }

    /// Sends a body.
    pub(crate) fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let request = self.agent.post(format!("{}{path}", self.server.url)).header("Content-Type", content_type);
        let sent = match self.token()? {
            Some(token) => request.header("Authorization", &*token).send(body),
            None => request.send(body),
        };
        self.answered(path, sent)
    }

    fn request(&self, path: &str) -> Result<ureq::RequestBuilder<ureq::typestate::WithoutBody>> {
        let request = self.agent.get(format!("{}{path}", self.server.url));
        Ok(match self.token()? {
            Some(token) => request.header("Authorization", &*token),
            None => request,
        })
    }

    fn token(&self) -> Result<Option<Zeroizing<String>>> {
        let Some(file) = &self.server.token_file else { return Ok(None) };
        let bytes = Zeroizing::new(read_bounded(file, MAX_SECRET_BYTES)?);
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::new(format!("{}: holds no token", file.display())));
        }
        Ok(Some(Zeroizing::new(format!("Bearer {text}"))))
    }

    fn answered(
        &self,
        path: &str,
        answer: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer> {
        // Selectors say nothing that helps, and are long.
        let shown = path.split('?').next().unwrap_or_default();
        let (head, body) = answer.context(|| format!("{}{shown}", self.server.url))?.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(Answer {
            status: head.status.as_u16(),
            json: body.mime_type().is_some_and(|kind| kind == "application/json"),
            retry_after: text("retry-after").and_then(|seconds| seconds.trim().parse().ok()),
            etag: text("etag").map(str::to_owned),
            trust: text("selvedge-trust").map(str::to_owned),
            body,
        })
    }
}

impl Answer {
    /// The whole body; longer than `limit` bytes is an error. It may hold keys.
    pub(crate) fn read(self, limit: usize) -> Result<Zeroizing<Vec<u8>>> {
        // Reserved at once: what is copied on the way of growing would stay in memory.
        let expected = self.body.content_length().unwrap_or(8 << 10).min(limit as u64);
        let mut bytes = Zeroizing::new(Vec::with_capacity(expected as usize + 1));
        self.reader().take(limit as u64 + 1).read_to_end(&mut bytes).context(|| "read the answer".to_owned())?;
        if bytes.len() > limit {
            return Err(Error::new(format!("the answer is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The body as it comes.
    pub(crate) fn reader(self) -> impl Read {
        self.body.into_reader()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server.url)
    }
}
