//! One pass: compile, write the differences, say what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use selvedge_model::Role;
use tracing::warn;

use super::agents::Wanted;
use super::failure::Failure;
use super::plan::{self, Plan};
use super::stored::Stored;
use super::write::text;
use super::{Controller, ip_pools, until};
use crate::core::fleet::NodeView;
use crate::core::{Memory, Output, Problem, Severity, compile};
use crate::index::key;
use crate::server::{Common, Entry};
use crate::telemetry::metrics;

/// For one write.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// How a pass went.
struct Outcome {
    success: bool,
    renewal: Option<SystemTime>,
}

impl Controller {
    /// Makes everything as it should be, as far as that can be done now.
    pub(super) async fn pass(&mut self) {
        let start = Instant::now();
        self.schedule.since = None;
        let (success, wake) = match self.try_pass().await {
            Ok(outcome) => (outcome.success, until(outcome.renewal, SystemTime::now())),
            Err(e) => {
                warn!("{e}; all stays as it is");
                (false, Duration::ZERO)
            }
        };
        self.around.metrics.pass(start.elapsed());
        self.schedule.pass(tokio::time::Instant::now(), success, wake);
    }

    async fn try_pass(&mut self) -> Result<Outcome, Failure> {
        let (client, namespace) = (self.around.client.clone(), self.around.namespace.clone());
        let configs: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        if self.stored.is_none() {
            // One that cannot be read is an error: to go on would give networks twice.
            let stored = bounded(Stored::load(&configs, Err)).await?;
            self.stored = Some(stored.unwrap_or_else(|| Stored::new(self.written.allocations())));
        }
        let Some(stored) = self.stored.clone() else { return Err(Failure::new("pod networks were not read")) };

        let start = Instant::now();
        let (state, mut problems) = self.objects.state();
        let memory = Memory {
            allocations: stored.value.clone(),
            incumbents: self.written.configs.iter().map(|((_, node), _)| node.clone()).collect(),
            complete: self.objects.shows_all_nodes(),
            certificates: self.gateways.certificates.clone(),
        };
        let mut compiled = compile(&state, &self.around.options, &memory);
        let named = compiled.output.as_ref().map(|output| output.gateways().named.clone()).unwrap_or_default();
        if bounded(self.gateways.read(&client, named)).await? {
            let memory = Memory { certificates: self.gateways.certificates.clone(), ..memory };
            compiled = compile(&state, &self.around.options, &memory);
        }
        problems.extend(compiled.problems);
        let output = compiled.output;
        let mut plan = Plan::default();
        if let Some(output) = &output {
            self.tells_services = output.tells_services;
            plan::configurations(output, &self.objects, &self.written, &mut self.made, &mut plan);
            plan::remains(&self.objects, &self.written, &mut plan);
        }
        let spent = start.elapsed();
        self.around.metrics.compiled(spent);

        if let Some(output) = &output {
            // Before any configuration carries them: neither a crash nor a second operator may give a network twice.
            if output.allocations != stored.value {
                self.stored = bounded(stored.save(&configs, &output.allocations)).await?;
                if self.stored.is_none() {
                    return Err(Failure::new("pod networks were given out by another operator at the same time"));
                }
            }
        }
        self.sign(output.as_ref(), &mut plan).await?;
        problems.append(&mut plan.problems);
        // Who needs nothing any more is refused nothing.
        let wanting: BTreeSet<&str> = plan.actions.iter().map(|action| action.words().2).collect();
        self.refusals.retain(|node, _| wanting.contains(node.as_str()));
        drop(wanting);
        let written = self.write(plan.actions, output.as_ref(), spent).await;
        let success = self.keep_untranslated(output.as_ref()).await && written;
        let success = self.equip_gateways(output.as_ref()).await && success;
        let refused = self.refusals.iter().filter_map(|(node, message)| {
            let reference = &self.objects.node(node)?.reference;
            Some(Problem::error(reference, "", message.clone()))
        });
        problems.extend(refused);
        for (node, why) in &self.around.agents.borrow().failing {
            let Some(seen) = self.objects.node(node) else { continue };
            problems.push(Problem::warning(&seen.reference, "", format!("its agent does not come up: {why}")));
        }
        problems.sort();
        self.measure(output.as_ref(), &problems, plan.longest, plan.renewal);
        // Before the statuses say that all is ready.
        let published = output.as_ref().map_or(Ok(()), |output| self.publish(output));
        let said = self.say(output.as_ref(), &problems).await;
        let said = self.say_gateways(output.as_ref()).await && said;
        let renewal = plan.renewal.into_iter().chain(self.gateways.look_again(SystemTime::now())).min();
        self.equip(output.as_ref());
        published?;
        Ok(Outcome { success: success && said, renewal })
    }

    /// Whether Calico has the pools it should.
    async fn keep_untranslated(&mut self, output: Option<&Output<'_>>) -> bool {
        let Some(Output { ip_pools: wanted, .. }) = output else { return true };
        if self.ip_pools.as_ref() == Some(wanted) || !self.leads() {
            return true;
        }
        if let Err(e) = bounded(ip_pools::sync(&self.around.client, wanted, &self.around.metrics)).await {
            warn!("{e}");
            return false;
        }
        self.ip_pools = Some(wanted.clone());
        true
    }

    /// What devices are answered from now on. Nodes of the cluster have ConfigMap and Secret.
    fn publish(&self, output: &Output<'_>) -> Result<(), Failure> {
        let (Some(server), Some(keys)) = (&self.around.server, &self.keys) else { return Ok(()) };
        let mut entries = BTreeMap::new();
        let outpost = |node: &str| self.objects.node(node).is_some_and(|seen| seen.reference.kind == "Outpost");
        for (node, outline) in output.nodes.iter().filter(|(node, _)| outpost(node)) {
            // What cannot be sent was said when the ConfigMap was planned.
            let Some((generation, digest)) = self.made.sendable(node) else { continue };
            let config = if server.has(&outline.name, digest) { None } else { Some(text(output, node, generation)?) };
            entries.insert(outline.name.clone(), Entry { node: (*node).to_owned(), digest, config });
        }
        let kept = self.written.configs.iter().filter(|((_, node), _)| outpost(node));
        let kept = kept.map(|(_, there)| there.name.clone()).collect();
        let common = Common {
            authorities: Arc::clone(&keys.authorities),
            days: output.certificate_days,
            revoked: output.authority.revoked.clone(),
        };
        server.publish(common, entries, &kept, SystemTime::now()).map_err(|e| Failure::new(e.to_string()))
    }

    /// Tells which nodes are to have agents: those whose configuration and credentials are there.
    fn equip(&self, output: Option<&Output<'_>>) {
        let Some(output) = output else { return };
        let spec = self.objects.cluster(&output.cluster).and_then(|cluster| cluster.agent.clone());
        let mut nodes = BTreeMap::new();
        for (name, outline) in &output.nodes {
            let Some((uid, node)) = self.objects.kubernetes_node(name) else { continue };
            let Some(there) = self.written.configs.get(&key(name)).filter(|there| there.owner == uid) else { continue };
            if self.written.secrets.get(&key(name)).is_none() {
                continue;
            }
            let view = NodeView {
                uid: uid.to_owned(),
                role: outline.role,
                online: node.online,
                agent: node.agent.clone(),
                marked: there.marked,
                token: outline.asks_api,
            };
            nodes.insert((*name).to_owned(), view);
        }
        let wanted = Some(Wanted { spec, nodes });
        self.around.wanted.send_if_modified(|old| {
            let news = *old != wanted;
            *old = wanted;
            news
        });
    }

    fn measure(&self, output: Option<&Output<'_>>, problems: &[Problem], longest: usize, renewal: Option<SystemTime>) {
        let metrics = &self.around.metrics;
        let outlines = || output.iter().flat_map(|output| output.nodes.values());
        for (role, word) in [(Role::Edge, "edge"), (Role::Connector, "connector"), (Role::Cloud, "cloud")] {
            let count = outlines().filter(|outline| outline.role == role).count();
            metrics.nodes.get_or_create(&metrics::Role { role: word }).set(count.try_into().unwrap_or(u32::MAX));
        }
        for (severity, word) in [(Severity::Error, "error"), (Severity::Warning, "warning")] {
            let count = problems.iter().filter(|problem| problem.severity == severity).count();
            let gauge = metrics.problems.get_or_create(&metrics::Severity { severity: word });
            gauge.set(count.try_into().unwrap_or(u32::MAX));
        }
        metrics.longest.set(longest.try_into().unwrap_or(u32::MAX));
        let seconds = renewal.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        metrics.renewal.set(seconds.map_or(0, |seconds| seconds.as_secs().try_into().unwrap_or(u32::MAX)));
    }
}

pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new("the API server does not answer")),
    }
}
