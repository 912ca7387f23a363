//! Events on the objects concerned: once when something is wrong, once when it is right again.
//!
//! An Event's name follows from what it says, so neither a restart nor a second operator says it twice while the first
//! one is kept.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::{debug, error, info, warn};

use super::render::MANAGER;
use crate::api::{API_VERSION, GatewayKind, ObjectRef};
use crate::core::{Problem, Severity, digest};
use crate::index::Objects;
use crate::telemetry::words;

/// At once, so that a mistake in one place is no flood.
const MOST: usize = 200;

/// What was told, to the log and as Events.
#[derive(Default)]
pub(super) struct Told(Option<BTreeSet<Problem>>);

impl Told {
    /// The Events that are due; what is new is logged.
    pub(super) fn news(&mut self, problems: &[Problem], objects: &Objects, now: Timestamp) -> Vec<Event> {
        let current: BTreeSet<Problem> = problems.iter().cloned().collect();
        let told = self.0.replace(current.clone()).unwrap_or_default();
        let mut events = Vec::new();
        for problem in current.difference(&told) {
            let reason = match problem.severity {
                Severity::Error => {
                    error!("{problem}");
                    "Refused"
                }
                Severity::Warning => {
                    warn!("{problem}");
                    "Noticed"
                }
            };
            events.extend(event(problem, "Warning", reason, problem.about_object(), objects, now));
        }
        for problem in told.difference(&current) {
            info!("resolved: {problem}");
            let message = format!("resolved: {}", problem.about_object());
            events.extend(event(problem, "Normal", "Resolved", message, objects, now));
        }
        events.truncate(MOST);
        events
    }
}

/// `None` if the object is gone, or the problem is nobody's.
fn event(
    problem: &Problem,
    kind: &str,
    reason: &str,
    message: String,
    objects: &Objects,
    now: Timestamp,
) -> Option<Event> {
    let seen = objects.get(&problem.object)?;
    let ObjectRef { kind: of, namespace, name, .. } = problem.object.clone();
    // Events about objects without a namespace are kept in this one.
    let place = if namespace.is_empty() { "default".to_owned() } else { namespace.clone() };
    let api_version = match of.as_str() {
        "Node" | "Service" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        _ => match GatewayKind::titled(&of) {
            Some(kind) => &format!("{}/{}", kind.group(), seen.version),
            None => API_VERSION,
        },
    };
    let of = GatewayKind::titled(&of).map_or(of, |kind| kind.name().to_owned());
    let identity = digest(format!("{} {reason} {message}", seen.identity.uid).as_bytes()).to_string();
    Some(Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", short(&name), &identity[..16])),
            namespace: Some(place),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(of),
            name: Some(name),
            namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
            uid: Some(seen.identity.uid.clone()),
            ..ObjectReference::default()
        },
        type_: Some(kind.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.chars().take(1000).collect()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(MANAGER.to_owned()), host: None }),
        ..Event::default()
    })
}

/// What is left of a name beside the rest of an Event's.
fn short(name: &str) -> &str {
    name.get(..200).unwrap_or(name).trim_end_matches(['.', '-'])
}

/// Sends an Event. It is a courtesy: what cannot be sent is not tried again.
pub(super) async fn send(client: &Client, event: Event) {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let name = event.metadata.name.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let sent = match api.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let again = json!({"lastTimestamp": event.last_timestamp});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(again)).await
        }
        sent => sent,
    };
    if let Err(e) = sent {
        debug!("Event {namespace}/{name} cannot be sent: {}", words(&e));
    }
}
