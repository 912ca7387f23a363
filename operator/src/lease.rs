//! One operator of several writes: the holder of a Lease (coordination.k8s.io/v1).
//!
//! A holder is believed dead when its Lease has not changed for its duration, by our own clock that never jumps; the times
//! written in the Lease are for people. Who cannot renew in time stops writing before anybody else may start.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::telemetry::words;

/// Name of the Lease.
const NAME: &str = "selvedge-operator";
/// A holder that has not renewed for so long is replaced.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long writes no more.
const DEADLINE: Duration = Duration::from_secs(10);
/// For one try.
const ATTEMPT: Duration = Duration::from_secs(4);
/// Between tries.
const PAUSE: Duration = Duration::from_secs(2);

/// Whose turn it is, as far as this operator knows.
#[derive(Debug)]
struct Election {
    identity: String,
    /// The Lease as it was when it last changed, and when that was seen.
    observed: Option<(Lease, Instant)>,
}

/// What is to be done with the Lease.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Lease),
    Replace(Lease),
    Wait,
}

impl Election {
    /// `wall` is only written down.
    fn step(&mut self, lease: Option<Lease>, now: Instant, wall: Timestamp) -> Step {
        let Some(lease) = lease else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let spec = self.spec(None, wall);
            return Step::Create(Lease { metadata, spec: Some(spec) });
        };
        let since = match &self.observed {
            Some((old, since)) if old.spec == lease.spec => *since,
            _ => now,
        };
        self.observed = Some((lease.clone(), since));
        let old = lease.spec.unwrap_or_default();
        let holder = old.holder_identity.as_deref().unwrap_or_default();
        let duration =
            old.lease_duration_seconds.map_or(DURATION, |s| Duration::from_secs(s.max(1).unsigned_abs().into()));
        if !holder.is_empty() && holder != self.identity && now < since + duration {
            return Step::Wait;
        }
        Step::Replace(Lease { metadata: lease.metadata, spec: Some(self.spec(Some(&old), wall)) })
    }

    fn spec(&self, old: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let ours = old.filter(|old| old.holder_identity.as_ref() == Some(&self.identity));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours.map_or(Some(MicroTime(wall)), |old| old.acquire_time.clone()),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: match (old, ours) {
                (Some(old), None) => Some(old.lease_transitions.unwrap_or_default().saturating_add(1)),
                (_, ours) => ours.map_or(Some(0), |ours| ours.lease_transitions),
            },
            ..LeaseSpec::default()
        }
    }
}

/// Runs for the Lease until `stop`, and gives it back then. `leader` says whether it is ours.
pub(crate) async fn run(
    client: Client,
    namespace: &str,
    identity: String,
    leader: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let mut election = Election { identity, observed: None };
    let mut deadline: Option<Instant> = None;
    loop {
        let start = Instant::now();
        deadline = deadline.filter(|deadline| start < *deadline);
        let limit = deadline.map_or(start + ATTEMPT, |deadline| deadline.min(start + ATTEMPT));
        match timeout_at(limit, attempt(&api, &mut election)).await {
            Ok(Ok(true)) => deadline = Some(start + DEADLINE),
            Ok(Ok(false)) => deadline = None,
            Ok(Err(e)) => warn!("the Lease {NAME} cannot be renewed: {}", words(&e)),
            Err(_) => warn!("the Lease {NAME} cannot be renewed: the API server does not answer"),
        }
        let ours = deadline.is_some_and(|deadline| Instant::now() < deadline);
        if leader.send_if_modified(|was| std::mem::replace(was, ours) != ours) {
            info!("{}", if ours { "this operator is the one that writes" } else { "another operator may write now" });
        }
        // Not to sleep beyond what is still ours.
        let pause = if ours { PAUSE.min(deadline.map_or(PAUSE, |d| d.duration_since(Instant::now()))) } else { PAUSE };
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    if leader.send_replace(false)
        && let Err(e) = release(&api, &election.identity).await
    {
        warn!("the Lease {NAME} cannot be given back: {}", words(&e));
    }
}

/// Whether the Lease is ours.
async fn attempt(api: &Api<Lease>, election: &mut Election) -> kube::Result<bool> {
    let lease = api.get_opt(NAME).await?;
    let written = match election.step(lease, Instant::now(), Timestamp::now()) {
        Step::Create(lease) => api.create(&PostParams::default(), &lease).await,
        Step::Replace(lease) => api.replace(NAME, &PostParams::default(), &lease).await,
        Step::Wait => return Ok(false),
    };
    match written {
        Ok(lease) => {
            election.observed = Some((lease, Instant::now()));
            Ok(true)
        }
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(e) => Err(e),
    }
}

async fn release(api: &Api<Lease>, identity: &str) -> kube::Result<()> {
    let Some(mut lease) = api.get_opt(NAME).await? else { return Ok(()) };
    let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(identity)) else {
        return Ok(());
    };
    spec.holder_identity = None;
    api.replace(NAME, &PostParams::default(), &lease).await.map(drop)
}

#[cfg(test)]
mod tests;
