use k8s_openapi::api::core::v1 as core;
use selvedge_model::Role;
use serde_json::{Value, json};

use super::super::template::{Target, agent, clean};
use super::super::{Phase, Pod, Program};
use super::world::spec;
use crate::api::{AgentSpec, NodeAgent};

fn target<'a>(program: Program, spec: &'a AgentSpec, own: &'a NodeAgent) -> Target<'a> {
    Target { namespace: "selvedge", node: "edge-1", node_uid: "u-1", program, spec, own, token: false }
}

/// Every field is one of Kubernetes: what it does not know is not there after reading and writing.
fn is_kubernetes(pod: &Value) {
    let read: core::Pod = serde_json::from_value(pod.clone()).unwrap();
    let mut written = serde_json::to_value(read).unwrap();
    written["apiVersion"] = json!("v1");
    written["kind"] = json!("Pod");
    // Empty lists are left out.
    let mut pod = pod.clone();
    if pod["spec"]["imagePullSecrets"] == json!([]) {
        pod["spec"].as_object_mut().unwrap().remove("imagePullSecrets");
    }
    assert_eq!(written, pod);
}

fn revision_of(pod: &Value) -> &str {
    pod["metadata"]["labels"]["selvedge.dev/revision"].as_str().unwrap()
}

#[test]
fn the_same_revision_is_the_same_on_all_nodes() {
    let (spec, own) = (spec("1"), NodeAgent::default());
    let one = target(Program::Agent, &spec, &own);
    let other = Target { node: "edge-2", node_uid: "u-2", ..one };
    assert_eq!(revision_of(&agent(one)), revision_of(&agent(other)));
    assert_ne!(agent(one), agent(other));
}

#[test]
fn every_field_is_one_of_kubernetes() {
    let mut spec = spec("1");
    spec.pull_secrets = vec!["registry".to_owned()];
    let own = NodeAgent::default();
    for program in [Program::Agent, Program::Connector] {
        is_kubernetes(&agent(Target { token: true, ..target(program, &spec, &own) }));
        is_kubernetes(&clean(target(program, &spec, &own)));
    }
}

#[test]
fn a_pod_may_no_more_than_it_must() {
    let (spec, own) = (spec("1"), NodeAgent::default());
    for pod in [agent(target(Program::Agent, &spec, &own)), clean(target(Program::Agent, &spec, &own))] {
        let spec = &pod["spec"];
        let container = &spec["containers"][0];
        let expected = json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        assert_eq!(container["securityContext"], expected);
        assert_eq!(spec["automountServiceAccountToken"], json!(false));
        assert_eq!(
            (&spec["hostPID"], &spec["hostIPC"], &spec["initContainers"]),
            (&json!(null), &json!(null), &json!(null))
        );
        for volume in spec["volumes"].as_array().unwrap() {
            assert_eq!(volume["projected"], json!(null), "a token that nobody asked for");
        }
        // Of the node, it writes only to what is its own, or made to be shared.
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let written: Vec<_> =
            mounts.filter(|m| m["readOnly"] == false).map(|m| m["mountPath"].as_str().unwrap()).collect();
        assert_eq!(
            written,
            [
                "/run/selvedge",
                "/var/lib/selvedge",
                "/run/xtables.lock",
                "/dev/net",
                "/host/proc/sys/net",
                "/etc/cni/net.d"
            ]
        );
    }
}

#[test]
fn a_node_gets_its_own_configuration_and_no_other() {
    let (spec, own) = (spec("1"), NodeAgent::default());
    let pod = agent(target(Program::Agent, &spec, &own));
    let text = pod.to_string();
    assert_eq!(text.matches("selvedge-node-").count(), 2);
    assert_eq!(text.matches("selvedge-node-edge-1\"").count(), 2);
    assert_eq!(pod["spec"]["nodeName"], "edge-1");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u-1");
    assert_eq!(
        (&pod["metadata"]["generateName"], &pod["metadata"]["name"]),
        (&json!("selvedge-agent-edge-1-"), &json!(null))
    );
}

#[test]
fn annotations_of_a_node_are_for_that_node() {
    let mut spec = spec("1");
    spec.args = vec!["--metered".to_owned()];
    let plain = agent(target(Program::Agent, &spec, &NodeAgent::default()));
    let own =
        NodeAgent { image: Some("own:1".to_owned()), args: vec!["--no-landlock".to_owned()], ..NodeAgent::default() };
    let special = agent(target(Program::Agent, &spec, &own));
    let container = &special["spec"]["containers"][0];
    assert_eq!(container["image"], "own:1");
    assert_eq!(container["args"].as_array().unwrap()[5..], [json!("--metered"), json!("--no-landlock")]);
    assert_ne!(revision_of(&plain), revision_of(&special));
}

#[test]
fn how_a_change_is_rolled_out_changes_no_pod() {
    let own = NodeAgent::default();
    let mut spec = spec("1");
    let before = agent(target(Program::Agent, &spec, &own));
    (spec.rollout.paused, spec.rollout.max_failures) = (true, 9);
    assert_eq!(agent(target(Program::Agent, &spec, &own)), before);
    spec.log = crate::api::LogLevel::Debug;
    assert_ne!(revision_of(&agent(target(Program::Agent, &spec, &own))), revision_of(&before));
}

#[test]
fn the_connector_has_folders_of_its_own() {
    let (spec, own) = (spec("1"), NodeAgent::default());
    let pod = agent(target(Program::of(Role::Connector), &spec, &own)).to_string();
    assert!(pod.contains("\"/run/selvedge-connector\"") && pod.contains("\"connector:1\""));
    assert!(!pod.contains("\"/run/selvedge\"") && !pod.contains("cni"), "{pod}");
}

#[test]
fn a_pod_is_read_as_the_api_server_has_it() {
    let (spec, own) = (spec("1"), NodeAgent::default());
    let mut pod = agent(target(Program::Agent, &spec, &own));
    pod["metadata"]["name"] = json!("selvedge-agent-edge-1-x");
    pod["metadata"]["uid"] = json!("u");
    let read = Pod::read(&pod).unwrap();
    assert_eq!((read.phase, read.ready, read.deleting, &read.trouble), (Phase::Pending, false, false, &None));
    assert_eq!(read.revision, revision_of(&pod));

    pod["status"] = json!({
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"restartCount": 2, "state": {"waiting": {
            "reason": "ErrImagePull", "message": "no such image\nlots of text"
        }}}],
    });
    let read = Pod::read(&pod).unwrap();
    assert_eq!((read.restarts, read.trouble.as_deref()), (2, Some("ErrImagePull: no such image")));

    pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "ContainerCreating"}});
    assert_eq!(Pod::read(&pod).unwrap().trouble, None);
    pod["status"]["phase"] = json!("Running");
    pod["status"]["conditions"][0]["status"] = json!("True");
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let read = Pod::read(&pod).unwrap();
    assert_eq!((read.phase, read.ready, read.deleting), (Phase::Running, true, true));

    pod["metadata"]["labels"]["app.kubernetes.io/name"] = json!("nginx");
    assert_eq!(Pod::read(&pod), None);
}
