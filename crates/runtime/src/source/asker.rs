//! What all threads of a source do alike: know whom to ask, ask, and wait in between.

use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use selvedge_edgeapi::{Backoff, Flavour, Head, Lines, MAX_STATUS_BYTES, Pace, Verdict, judge};

use super::desk::Desk;
use super::http::{Answer, Client};
use super::target::Target;
use crate::clock::Clock;
use crate::{Error, Options, Result};

/// Under which name the agent asks. Caches on the node are keyed by it: it is the same in every release.
const USER_AGENT: &str = "selvedge-agent/1";

/// A watch that ends sooner told nothing.
const SHORT: Duration = Duration::from_secs(5);

/// One thread's way to the API.
pub(super) struct Asker {
    pub(super) desk: Desk,
    pub(super) options: Arc<Options>,
    /// What it reads, as `status` names it.
    pub(super) what: &'static str,
    client: Option<(Target, bool, Client)>,
    backoff: Backoff,
}

/// Why nothing was read.
pub(super) enum Trouble {
    /// The object does not exist.
    Gone,
    /// Ask again when the pause that has been asked for is over.
    Later(Duration, String),
    /// Ask again sometime.
    Failed(String),
    /// List again.
    Expired,
}

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As it was to, after its time.
    InTime,
    /// Before: something happened to the server or to the way to it.
    Early,
    /// At once, and with nothing: caches that are cut off end watches so.
    AtOnce,
    /// Whoever watched has seen enough.
    Enough,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Failed(error.to_string())
    }
}

impl Asker {
    pub(super) fn new(desk: &Desk, options: &Arc<Options>, what: &'static str) -> Asker {
        Asker { desk: desk.clone(), options: options.clone(), what, client: None, backoff: Backoff::default() }
    }

    /// Starts `run` on a thread of its own.
    pub(super) fn spawn(self, run: impl FnOnce(Asker) + Send + 'static) -> Result<()> {
        use crate::error::Context as _;
        let name = format!("source-{}", self.what);
        // Enough for a TLS handshake, in a build that is not optimised too.
        let thread = thread::Builder::new().name(name).stack_size(512 << 10);
        thread.spawn(move || run(self)).map(drop).context(|| "start a thread".to_owned())
    }

    /// Who is asked.
    pub(super) fn target(&self) -> std::result::Result<Target, Trouble> {
        Ok(self.desk.target(&self.options.source)?)
    }

    pub(super) fn pace(&self) -> Pace {
        let flavour = self.client.as_ref().map_or(Flavour::Kubernetes, |(target, ..)| target.flavour);
        flavour.pace(self.is_metered())
    }

    fn is_metered(&self) -> bool {
        self.options.metered || self.desk.is_metered()
    }

    /// Asks for `path`. Whatever is not 200 is trouble.
    pub(super) fn ask(&mut self, path: &str) -> std::result::Result<Answer, Trouble> {
        self.with_client(|client| client.get(path))
    }

    /// Watches `path` and hands out its lines until one of them is enough.
    pub(super) fn watch(
        &mut self,
        path: &str,
        time: Duration,
        mut line: impl FnMut(&str) -> bool,
    ) -> std::result::Result<End, Trouble> {
        let start = Instant::now();
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}watch=true&timeoutSeconds={}", time.as_secs());
        let mut reader = self.with_client(|client| client.wait(&path, time))?.reader();
        // MetaServer goes on with what it has stored.
        let fresh = !self.client.as_ref().is_some_and(|(target, ..)| target.flavour == Flavour::KubeEdge);
        let mut lines = Lines::default();
        let mut buffer = [0; 4 << 10];
        let (mut enough, mut heard) = (false, false);
        loop {
            let end = match reader.read(&mut buffer) {
                Ok(0) => true,
                Ok(length) => {
                    if fresh {
                        self.desk.heard();
                    }
                    let fed = lines.feed(buffer.get(..length).unwrap_or_default(), |text| {
                        heard = true;
                        enough |= !enough && !line(text);
                    });
                    fed.map_err(|problem| Trouble::Failed(problem.to_owned()))?;
                    false
                }
                // Cut off in the middle is an end like any other.
                Err(error) => {
                    log::debug!("{}: watch: {error}", self.what);
                    true
                }
            };
            if enough {
                return Ok(End::Enough);
            }
            if end {
                let lasted = start.elapsed();
                return Ok(match lasted {
                    _ if lasted < SHORT && !heard => End::AtOnce,
                    _ if lasted < time - time / 4 => End::Early,
                    _ => End::InTime,
                });
            }
        }
    }

    /// Something was read.
    pub(super) fn succeeded(&mut self) {
        self.backoff.reset();
    }

    /// Tells of trouble, and waits.
    pub(super) fn failed(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Later(pause, why) => {
                self.desk.failed(self.what, why);
                thread::sleep(Backoff::spread(pause, random()).max(pause));
            }
            Trouble::Failed(why) => {
                self.desk.failed(self.what, why);
                self.pause();
            }
            Trouble::Gone | Trouble::Expired => self.pause(),
        }
    }

    /// Waits longer each time.
    pub(super) fn pause(&mut self) {
        thread::sleep(self.backoff.next(random()));
    }

    fn with_client(&mut self, ask: impl Fn(&Client) -> Result<Answer>) -> std::result::Result<Answer, Trouble> {
        let target = self.target()?;
        // What is asked for a sign of life costs bytes.
        let watchful = !self.is_metered();
        if self.client.as_ref().is_none_or(|(old, was, _)| (old, *was) != (&target, watchful)) {
            let clock = Clock::new(&self.options.state_dir);
            let client = Client::new(&target.server, USER_AGENT, clock, watchful)?;
            self.client = Some((target.clone(), watchful, client));
        }
        let Some((_, _, client)) = &self.client else { return Err(Trouble::Failed(String::new())) };
        let answer = match ask(client) {
            Ok(answer) => answer,
            Err(error) => {
                // Another may be there by now, or other authorities.
                self.client = None;
                self.desk.mistrust(&target);
                return Err(error.into());
            }
        };
        if answer.status == 200 {
            return Ok(answer);
        }
        let head = Head { status: answer.status, json: answer.json, retry_after: answer.retry_after };
        let body = answer.read(MAX_STATUS_BYTES).unwrap_or_default();
        Err(match judge(target.flavour, head, &body) {
            Verdict::Gone => Trouble::Gone,
            Verdict::Expired => Trouble::Expired,
            Verdict::Later(pause, why) => Trouble::Later(pause, why),
            Verdict::Unknown(why) => Trouble::Failed(why),
        })
    }
}

/// Any number.
pub(super) fn random() -> u32 {
    (RandomState::new().hash_one(0) >> 16) as u32
}
