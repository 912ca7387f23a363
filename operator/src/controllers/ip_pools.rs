//! Calico's `IPPool`s, which keep it from translating what goes into tunnels.

use std::collections::BTreeMap;

use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::info;

use super::failure::{Context, Failure};
use super::render::{MANAGER, labels};
use crate::core::IpPool;
use crate::telemetry::{Metrics, Verb};

const KIND: &str = "IPPool";
const API_VERSION: &str = "crd.projectcalico.org/v1";

/// Makes ours be these. Pools of others are never touched.
pub(super) async fn sync(client: &Client, wanted: &BTreeMap<String, IpPool>, metrics: &Metrics) -> Result<(), Failure> {
    let resource = ApiResource {
        group: "crd.projectcalico.org".to_owned(),
        version: "v1".to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        plural: "ippools".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    let there = match api.list(&ours).await {
        // No Calico, so no pools of ours either.
        Err(kube::Error::Api(status)) if wanted.is_empty() && matches!(status.code, 403 | 404) => return Ok(()),
        list => list.context(|| format!("{KIND}s"))?.items,
    };
    for object in &there {
        let name = object.metadata.name.clone().unwrap_or_default();
        if !wanted.contains_key(&name) {
            let deleted = api.delete(&name, &DeleteParams::default()).await.context(|| format!("{KIND} {name}"));
            metrics.written(KIND, Verb::Delete, deleted.is_ok());
            deleted?;
            info!("{KIND} {name}: removed");
        }
    }
    for (name, pool) in wanted {
        let spec = spec(pool);
        let same = |object: &&DynamicObject| object.metadata.name.as_ref() == Some(name) && holds(&object.data, &spec);
        if there.iter().any(|object| same(&object)) {
            continue;
        }
        let metadata = json!({"name": name, "labels": labels()});
        let object = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec});
        let apply = PatchParams::apply(MANAGER).force();
        let applied = api.patch(name, &apply, &Patch::Apply(&object)).await.context(|| format!("{KIND} {name}"));
        metrics.written(KIND, Verb::Apply, applied.is_ok());
        applied?;
        info!("{KIND} {name}: {} is not translated", pool.network);
    }
    Ok(())
}

fn spec(pool: &IpPool) -> Value {
    json!({
        "cidr": pool.network, "blockSize": pool.block_size, "disabled": true,
        "ipipMode": "Never", "vxlanMode": "Never", "natOutgoing": false,
    })
}

/// Whether an object has all these settings; Calico adds others.
fn holds(data: &Value, spec: &Value) -> bool {
    spec.as_object().into_iter().flatten().all(|(key, value)| data["spec"].get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calico_adds_is_no_difference() {
        let pool = IpPool { network: "10.234.0.0/16".parse().unwrap(), block_size: 26 };
        let mut there = json!({"spec": {"nodeSelector": "all()", "allowedUses": ["Workload"]}});
        assert!(!holds(&there, &spec(&pool)));
        for (key, value) in spec(&pool).as_object().unwrap() {
            there["spec"][key] = value.clone();
        }
        assert!(holds(&there, &spec(&pool)));
        there["spec"]["disabled"] = json!(false);
        assert!(!holds(&there, &spec(&pool)));
    }
}
