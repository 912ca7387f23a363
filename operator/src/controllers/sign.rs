//! The part of a pass that is about credentials: who needs new ones, what is revoked, how authorities follow each other.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tracing::info;

use super::Controller;
use super::credentials::{self, Keys};
use super::failure::Failure;
use super::pass::bounded;
use super::plan::{self, Action, Plan, Reason};
use crate::authority::{Authorities, Credentials, Everybody, seconds};
use crate::core::Output;
use crate::core::issued::Issued;
use crate::core::rotation::Phase;
use crate::index::key;

/// Between looks for devices while authorities change.
const LOOK: Duration = Duration::from_secs(30);

impl Controller {
    /// Plans the credentials, and goes on with the change of authorities and with revocations.
    pub(super) async fn sign(&mut self, output: Option<&Output<'_>>, plan: &mut Plan) -> Result<(), Failure> {
        let now = SystemTime::now();
        let secrets: Api<Secret> = Api::namespaced(self.around.client.clone(), &self.around.namespace);
        if self.keys.is_none() {
            // Without any node there is nobody to sign for.
            let Some(output) = output else { return Ok(()) };
            let wanted = output.authority.rotate.as_deref();
            self.keys = Some(bounded(credentials::load(&secrets, &output.cluster, wanted, now)).await?);
            self.checks.forget();
            self.around.ledger.forget().await;
        }
        let Some(keys) = self.keys.clone() else { return Ok(()) };
        let Some(output) = output else {
            let mut issued = Issued::default();
            self.plan_credentials(None, &keys.authorities, &mut issued, now, plan);
            return Ok(());
        };
        let settings = &output.authority;
        let revoke = |issued: &mut Issued| issued.revoke(&settings.revoked, seconds(now));
        let mut issued = bounded(self.around.ledger.change(revoke)).await?;
        let mut authorities = keys.copy()?;
        if authorities.revoke(issued.revoked(), now).map_err(|e| Failure::new(e.to_string()))? {
            info!("{} certificates are revoked", issued.revoked().len());
            self.replace(&secrets, &keys, &authorities).await?;
        }
        let Some(keys) = self.keys.clone() else { return Ok(()) };
        self.plan_credentials(Some(output), &keys.authorities, &mut issued, now, plan);
        bounded(self.around.ledger.change(|known| known.merge(&issued))).await?;

        // Nobody lacks anything: all have what the last step brought.
        let served = !plan.actions.iter().any(|action| matches!(action, Action::Secret(_)));
        let mut everybody = Everybody { trusted: served, replaced: served };
        let devices: Vec<&String> = issued.devices(seconds(now)).collect();
        if !devices.is_empty() {
            let seen = self.around.server.as_ref().map(|server| server.everybody(devices.into_iter()));
            everybody.trusted &= seen.is_some_and(|seen| seen.trusted);
            everybody.replaced &= seen.is_some_and(|seen| seen.replaced);
        }
        let mut authorities = keys.copy()?;
        let before = authorities.phase();
        let (step, wake) = authorities
            .advance(&output.cluster, settings.rotate.as_deref(), settings.grace, &everybody, now)
            .map_err(|e| Failure::new(e.to_string()))?;
        if before != authorities.phase() {
            self.replace(&secrets, &keys, &authorities).await?;
        }
        let wake = match step {
            Some(step) => {
                info!("{step}");
                Some(now)
            }
            // Devices are seen at any time.
            None if authorities.phase() != Phase::Steady => Some(wake.map_or(now + LOOK, |wake| wake.min(now + LOOK))),
            None => wake,
        };
        plan.renewal = plan.renewal.into_iter().chain(wake).min();
        Ok(())
    }

    fn plan_credentials(
        &mut self,
        output: Option<&Output<'_>>,
        authorities: &Authorities,
        issued: &mut Issued,
        now: SystemTime,
        plan: &mut Plan,
    ) {
        let enrols = self.around.server.is_some();
        let (objects, written, checks) = (&self.objects, &self.written, &mut self.checks);
        plan::credentials(output, enrols, objects, written, authorities, issued, checks, now, plan);
    }

    /// Keeps changed authorities before they are used.
    async fn replace(&mut self, secrets: &Api<Secret>, old: &Keys, new: &Authorities) -> Result<(), Failure> {
        self.checks.forget();
        // If somebody else has changed them, they are read again.
        self.keys = None;
        self.keys = Some(bounded(credentials::save(secrets, old, new)).await?);
        Ok(())
    }

    /// New credentials of a node, or what it has with other authorities.
    pub(super) fn credentials(&self, node: &str, reason: &Reason, days: u32) -> Result<(Credentials, Issued), Failure> {
        let Some(keys) = &self.keys else { return Err(Failure::new("there is no certificate authority")) };
        let there = self.written.secrets.get(&key(node)).and_then(|there| there.credentials.as_ref());
        if let Some(there) = there.filter(|_| reason.keep) {
            return Ok((keys.authorities.current(there), Issued::default()));
        }
        let mut issued = Issued::default();
        let made = keys.authorities.issue(&reason.name, &mut issued, SystemTime::now(), days);
        made.map(|(made, _)| (made, issued)).map_err(|e| Failure::new(format!("{node}: {e}")))
    }
}
