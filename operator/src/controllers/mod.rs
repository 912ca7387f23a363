//! The operator in a cluster: what the watches say is compiled, and what every node should have is written where it
//! differs from what is there.
//!
//! ```text
//! watches ─► Objects ─► compile (pure) ─► plan (pure) ─► ConfigMaps, Secrets
//!            Written ─────────────────────►              status, Events
//! ```
//!
//! Level-triggered: a pass starts from what is there, so it may end anywhere and the next one goes on.

pub(crate) mod agents;
mod credentials;
mod events;
mod failure;
mod gateways;
mod ip_pools;
mod ledger;
mod pass;
mod plan;
mod render;
mod say;
mod sign;
mod status;
mod stored;
mod tokens;
mod write;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use self::agents::Wanted;
use self::credentials::Keys;
use self::events::Told;
use self::gateways::EdgeGateways;
use self::plan::{Checks, Made};
use self::stored::Stored;
use crate::core::fleet::Report;
use crate::core::{Allocations, IpPool, Options};
use crate::index::{Kind, News, Objects, Written};
use crate::server::Server;
use crate::telemetry::{Health, Metrics};

pub(crate) use self::ledger::Ledger;
pub(crate) use self::render::MANAGER;
pub(crate) use self::tokens::{InCluster, create as create_token};

/// After a change more are awaited this long: things come together.
const QUIET: Duration = Duration::from_millis(100);
/// But not longer than this in all.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest sleep: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(10 * 60);
/// After a first failure; doubled by each further one up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Between signs of life.
const BEAT: Duration = Duration::from_secs(30);

/// What the controller needs from around it.
pub(crate) struct Surroundings {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) options: Options,
    pub(crate) news: mpsc::Receiver<News>,
    /// Whether this operator is the one that writes.
    pub(crate) leader: watch::Receiver<bool>,
    /// Which nodes are to have agents, for the one who sees to it.
    pub(crate) wanted: watch::Sender<Option<Wanted>>,
    /// How these agents are.
    pub(crate) agents: watch::Receiver<Report>,
    /// Where devices ask for themselves.
    pub(crate) server: Option<Arc<Server<InCluster>>>,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
}

/// The state of the loop.
pub(crate) struct Controller {
    around: Surroundings,
    objects: Objects,
    written: Written,
    /// Read anew by every new leader.
    stored: Option<Stored<Allocations>>,
    keys: Option<Keys>,
    checks: Checks,
    made: Made,
    gateways: EdgeGateways,
    told: Told,
    /// Those of Calico that were made last.
    ip_pools: Option<BTreeMap<String, IpPool>>,
    /// Refusals of the API server, by node.
    refusals: BTreeMap<String, String>,
    /// Whether any configuration says what the Services are.
    tells_services: bool,
    schedule: Schedule,
}

/// When the next pass is due.
#[derive(Debug)]
struct Schedule {
    due: Instant,
    /// The first change since the last pass.
    since: Option<Instant>,
    failures: u32,
}

impl Schedule {
    /// When the loop is to go round if nothing happens. Who may not write has nothing to do before he may.
    fn wake(&self, may_write: bool, now: Instant) -> Instant {
        let beat = now + BEAT;
        if may_write { self.due.min(beat) } else { beat }
    }

    fn change(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.due = (now + QUIET).min(since + PATIENCE);
    }

    /// A pass ended; `wake` is how long nothing else is due.
    fn pass(&mut self, now: Instant, success: bool, wake: Duration) {
        self.failures = if success { 0 } else { self.failures.saturating_add(1) };
        self.due = now + if success { wake.min(LONGEST_SLEEP) } else { pause(self.failures, random()) };
        // What came meanwhile is due as it would have been.
        if self.since.is_some() {
            self.due = self.due.min(now + QUIET);
        }
    }
}

/// Doubled with every failure, less up to a half by chance.
fn pause(failures: u32, random: u32) -> Duration {
    let full = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_RETRY);
    full - full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

/// Not for secrets.
fn random() -> u32 {
    let bytes = RandomState::new().hash_one(0).to_ne_bytes();
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Controller {
    pub(crate) fn new(around: Surroundings) -> Controller {
        let schedule = Schedule { due: Instant::now() + LONGEST_SLEEP, since: None, failures: 0 };
        Controller {
            around,
            objects: Objects::default(),
            written: Written::default(),
            stored: None,
            keys: None,
            checks: Checks::default(),
            made: Made::default(),
            gateways: EdgeGateways::default(),
            told: Told::default(),
            ip_pools: None,
            refusals: BTreeMap::new(),
            tells_services: true,
            schedule,
        }
    }

    /// Goes on until `stop` is true.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ready = false;
        loop {
            self.around.health.beat();
            let missing = self.missing();
            let complete = missing.is_empty();
            self.around.health.missing(missing);
            // What is read may become more by what is read.
            if !std::mem::replace(&mut ready, complete) && complete {
                info!("all objects are listed");
                self.schedule.due = Instant::now();
            }
            let due = self.schedule.wake(ready && self.leads(), Instant::now());
            tokio::select! {
                news = self.around.news.recv() => match news {
                    Some(news) => self.take(news),
                    None => {
                        error!("the watches have ended");
                        return;
                    }
                },
                changed = self.around.leader.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let us = self.leads();
                    self.led_by(us);
                }
                Ok(()) = self.around.agents.changed() => self.schedule.change(Instant::now()),
                () = sleep_until(due) => {
                    if ready && self.leads() && Instant::now() >= self.schedule.due {
                        self.pass().await;
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Whether this operator may write.
    fn leads(&self) -> bool {
        *self.around.leader.borrow()
    }

    fn led_by(&mut self, us: bool) {
        self.around.metrics.leader.set(us.into());
        // Another one may have written meanwhile.
        self.stored = None;
        self.keys = None;
        self.ip_pools = None;
        self.gateways.forget();
        if !us {
            // What it would answer may be old by now.
            if let Some(server) = &self.around.server {
                server.withdraw();
            }
        }
        if us {
            self.schedule.due = Instant::now();
        }
    }

    fn take(&mut self, news: News) {
        let matters = match news {
            // Endpoints come and go all the time: where no configuration tells of them, nothing follows from that.
            News::Object(kind, change) => {
                self.objects.apply(kind, *change) && (self.tells_services || kind != Kind::EndpointSlice)
            }
            News::Config(change) => self.written.apply_config(change),
            News::Secret(change) => self.written.apply_secret(change),
        };
        if matters {
            self.schedule.change(Instant::now());
        }
    }

    /// Takes what is waiting. Tells whether any of it matters.
    fn drain(&mut self) -> bool {
        while let Ok(news) = self.around.news.try_recv() {
            self.take(news);
        }
        self.schedule.since.is_some()
    }

    /// Kinds that were not listed yet.
    fn missing(&self) -> Vec<&'static str> {
        let mut missing = self.objects.missing();
        if !self.written.is_complete() {
            missing.push("ConfigMap, Secret");
        }
        missing
    }
}

/// How long until a time of the clock.
fn until(time: Option<SystemTime>, now: SystemTime) -> Duration {
    time.map_or(LONGEST_SLEEP, |time| time.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
