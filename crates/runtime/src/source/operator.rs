//! The operator itself as a source: one request that is answered when there is something new, over TLS with certificates
//! of the fabric's own authority. The certificate is renewed on the same way.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use selvedge_edgeapi::Backoff;
use selvedge_model::MAX_CONFIG_BYTES;
use selvedge_tunnel::Wall;

use super::asker::random;
use super::desk::{Desk, Reach};
use super::enrolment::{Enrolment, MAX_BYTES, refusal};
use super::http::Client;
use crate::clock::Clock;
use crate::error::Context as _;
use crate::{Error, Options, Result};

/// As `status` names it.
const SOURCE: &str = "operator";

/// What may go wrong, as `status` names it.
const CONFIG: &str = "configuration";
const CERTIFICATE: &str = "certificate";

/// How long the operator is asked to wait for something new: where it costs nothing, as long as mappings of NATs live;
/// where every byte costs money, as long as it does.
const WAIT: Duration = Duration::from_secs(50);
const METERED_WAIT: Duration = Duration::from_secs(600);

/// Between attempts to renew: the certificate still lives for days.
const RENEW_PAUSE: Duration = Duration::from_secs(600);

/// After an answer that says no: it will say so again.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

struct Reader {
    desk: Desk,
    options: Arc<Options>,
    enrolment: Enrolment,
    client: Option<Client>,
    /// Of the configuration that was delivered last.
    etag: Option<String>,
    /// When the certificate may be renewed next, by the steady clock.
    renew_after: Duration,
    clock: Clock,
}

/// What came of a request.
enum Outcome {
    /// Something new or not, the operator said so.
    Answered,
    /// It will not have us.
    Refused(Error),
}

/// Starts the thread, with what is known from an earlier run.
pub(super) fn start(desk: &Desk, options: &Arc<Options>) -> Result<()> {
    let enrolment = Enrolment::load(&options.state_dir)?;
    let clock = Clock::new(&options.state_dir);
    desk.asks(SOURCE, options.source.server.as_ref().unwrap_or(&enrolment.server));
    desk.awaits("the operator's first answer".to_owned());
    desk.put_credentials(enrolment.pem());
    if let Ok((_, text)) = super::read_config(&options.state_dir.join("config.json")) {
        desk.put_config(text, "last good copy");
    }
    let (desk, options) = (desk.clone(), options.clone());
    let reader = Reader { desk, options, enrolment, client: None, etag: None, renew_after: Duration::ZERO, clock };
    // Enough for a TLS handshake, in a build that is not optimised too.
    let thread = thread::Builder::new().name("source-operator".to_owned()).stack_size(512 << 10);
    thread.spawn(move || reader.run()).map(drop).context(|| "start a thread".to_owned())
}

impl Reader {
    fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            match self.once() {
                Ok(Outcome::Answered) => {
                    backoff.reset();
                    self.desk.well(CONFIG, Reach::Online);
                }
                Ok(Outcome::Refused(error)) => {
                    self.desk.failed(CONFIG, error.to_string());
                    thread::sleep(Backoff::spread(REFUSED_PAUSE, random()));
                }
                Err(error) => {
                    self.client = None;
                    self.desk.failed(CONFIG, error.to_string());
                    thread::sleep(backoff.next(random()));
                }
            }
        }
    }

    fn once(&mut self) -> Result<Outcome> {
        if self.renewal_is_due()? {
            self.renew();
        }
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let clock = Clock::new(&self.options.state_dir);
                self.enrolment.client(clock, self.options.source.server.as_ref())?
            }
        };
        let wait = if self.options.metered || self.desk.is_metered() { METERED_WAIT } else { WAIT };
        let answer = client.follow("/v1/config", self.etag.as_deref(), &self.enrolment.trust_tag, wait)?;
        match answer.status {
            304 => {}
            200 => {
                let (etag, tag) = (answer.etag.clone(), answer.trust.clone());
                let bytes = answer.read(MAX_CONFIG_BYTES)?;
                let text = std::str::from_utf8(&bytes).context(|| "the configuration".to_owned())?;
                // Whom to trust comes first: the configuration may name peers that are vouched for by somebody new.
                if tag.is_some_and(|tag| tag != self.enrolment.trust_tag) {
                    self.learn_trust(&client)?;
                    self.desk.put_config(text.to_owned(), SOURCE);
                    self.etag = etag;
                    // What is checked by the new authorities begins with a new connection.
                    return Ok(Outcome::Answered);
                }
                self.desk.put_config(text.to_owned(), SOURCE);
                self.etag = etag;
            }
            status => {
                let bytes = answer.read(MAX_BYTES)?;
                let error = refusal(status, &String::from_utf8_lossy(&bytes));
                return if matches!(status, 403 | 404) { Ok(Outcome::Refused(error)) } else { Err(error) };
            }
        }
        self.client = Some(client);
        Ok(Outcome::Answered)
    }

    fn learn_trust(&mut self, client: &Client) -> Result<()> {
        let answer = client.get("/v1/trust")?;
        let (status, tag) = (answer.status, answer.trust.clone().unwrap_or_default());
        let bytes = answer.read(MAX_BYTES)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status != 200 {
            return Err(refusal(status, &text));
        }
        let mut changed = self.enrolment.clone();
        (changed.trust, changed.trust_tag) = (text, tag);
        changed.credentials()?;
        log::info!("the operator's certificate authorities have changed");
        self.take(changed)
    }

    /// After two thirds of its life, or if another authority signs by now.
    fn renewal_is_due(&self) -> Result<bool> {
        let now = self.clock.now();
        if now.mono < self.renew_after {
            return Ok(false);
        }
        let credentials = self.enrolment.credentials()?;
        let (Some(begin), Some(end)) = (credentials.not_before(), credentials.not_after()) else { return Ok(true) };
        let renewal = begin + end.saturating_sub(begin) / 3 * 2;
        let wall = match now.wall {
            Wall::Is(wall) | Wall::AtLeast(wall) => wall,
        };
        Ok(wall >= renewal || !credentials.is_by_first_authority())
    }

    fn renew(&mut self) {
        let pause = Backoff::spread(RENEW_PAUSE, random());
        self.renew_after = self.clock.now().mono + pause;
        let clock = Clock::new(&self.options.state_dir);
        let renewed = self
            .enrolment
            .client(clock, self.options.source.server.as_ref())
            .and_then(|client| self.enrolment.renew(&client))
            .and_then(|renewed| self.take(renewed));
        match renewed {
            Ok(()) => {
                log::info!("certificate renewed");
                self.desk.well(CERTIFICATE, Reach::Online);
            }
            Err(error) => self.desk.failed(CERTIFICATE, error.to_string()),
        }
    }

    /// Keeps it before it is used: a certificate without its key is lost.
    fn take(&mut self, changed: Enrolment) -> Result<()> {
        changed.keep(&self.options.state_dir)?;
        self.desk.put_credentials(changed.pem());
        self.enrolment = changed;
        self.client = None;
        Ok(())
    }
}
