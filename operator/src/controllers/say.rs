//! The part of a pass that tells: statuses and Events.

use futures::StreamExt;
use futures::stream;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;
use tracing::warn;

use super::failure::Context;
use super::pass::{PATIENCE, bounded};
use super::render::MANAGER;
use super::status::{self, Update};
use super::write::PARALLEL;
use super::{Controller, events};
use crate::core::{Output, Problem};
use crate::index::resource;
use crate::telemetry::Verb;

impl Controller {
    /// Statuses and Events. Whether the statuses could be written.
    pub(super) async fn say(&mut self, output: Option<&Output<'_>>, problems: &[Problem]) -> bool {
        let now = Timestamp::now();
        let client = self.around.client.clone();
        let events = self.told.news(problems, &self.objects, now);
        let send = |event| {
            let client = client.clone();
            async move {
                let _ = tokio::time::timeout(PATIENCE, events::send(&client, event)).await;
            }
        };
        stream::iter(events).map(send).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;

        let updates =
            status::updates(&self.objects, output, &self.around.agents.borrow(), problems, &format!("{now:.0}"));
        let put = |update: Update| {
            let client = client.clone();
            async move {
                let api: Api<DynamicObject> = Api::all_with(client, &resource(update.kind, update.kind.versions()[0]));
                let patch = Patch::Merge(json!({"status": update.status}));
                let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                let about = || format!("status of {} {}", update.kind.name(), update.name);
                let written =
                    bounded(async { api.patch_status(&update.name, &params, &patch).await.context(about) }).await;
                (update, written.map(drop))
            }
        };
        let results: Vec<_> = stream::iter(updates).map(put).buffer_unordered(PARALLEL).collect().await;
        let mut success = true;
        for (update, result) in results {
            self.around.metrics.written("status", Verb::Apply, result.is_ok());
            match result {
                Ok(()) => self.objects.set_status(update.kind, "", &update.name, update.status),
                Err(e) => {
                    warn!("{e}");
                    success = false;
                }
            }
        }
        success
    }
}
