//! The edge-local APIs themselves, without Selvedge: what the agent has to expect of them, as rows.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::api::Api;
use super::cloud::{Cloud, Cut};
use super::cluster::object;
use super::framework::{EdgeApi, Framework};
use crate::programs::wait;
use crate::table::Report;
use crate::topology::Lab;

const LIMIT: Duration = Duration::from_secs(60);
const AGENT: &str = "selvedge-lab/1";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/selvedge/endpointslices";
const MAPS: &str = "/api/v1/namespaces/selvedge/configmaps";

/// All rows of one framework on a laboratory of its own.
pub fn run(framework: Framework, keep: bool) -> Result<ExitCode> {
    let mut report = Report::new();
    report.title("Setting up");
    let lab = Lab::build(None, keep)?;
    report.progress("namespaces, links, routers");
    let mut cloud = Cloud::start(&lab, framework)?;
    report.progress("the API server is ready");
    let admin = cloud.plane.admin()?;
    prepare(&admin)?;
    let mut edge = EdgeApi::start(framework, &cloud, lab.node("edge-1")?)?;
    report.progress("the edge's API answers");
    let token = cloud.plane.token("selvedge", "reader")?;
    let api = edge.api(AGENT, framework.is_secure().then_some(token.as_str()))?;
    let outcome = rows(&mut report, &admin, &api, &mut cloud, &mut edge);
    if outcome.is_err() {
        println!("{}", edge.log_tail());
    }
    outcome?;
    Ok(report.finish())
}

fn prepare(admin: &Api) -> Result<()> {
    admin.apply(&object("v1", "Namespace", "selvedge", None))?;
    for node in ["edge-1", "edge-2"] {
        admin.apply(&object("v1", "Node", node, None))?;
    }
    admin.apply(&object("v1", "ServiceAccount", "reader", Some("selvedge")))?;
    let mut binding = object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "reader", None);
    binding["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "reader", "namespace": "selvedge"}]);
    admin.apply(&binding)?;
    admin.apply(&map("one", "1"))?;
    admin.apply(&map("two", "1"))
}

/// With a port of the name that MetaServer takes for the API server's.
fn slice() -> Value {
    let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", "web", Some("selvedge"));
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
    slice["addressType"] = json!("IPv4");
    slice["endpoints"] = json!([{"addresses": ["10.10.1.5"]}, {"addresses": ["10.10.1.6"]}]);
    slice["ports"] = json!([{"name": "https", "protocol": "TCP", "port": 8443}]);
    slice
}

fn map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "selvedge"},
        "data": {"value": value},
    })
}

fn rows(report: &mut Report, admin: &Api, api: &Api, cloud: &mut Cloud, edge: &mut EdgeApi) -> Result<()> {
    report.check("1", "a list, online", || {
        wait("the list", LIMIT, || said(api, MAPS, |list| ensure_names(list, &["one", "two"])))
    });
    report.check("2", "an object, online", || said(api, &format!("{MAPS}/one"), |_| Ok(())));
    report.check("3", "a watch, online", || watch(api, MAPS));
    report.check("3b", "a second watch, online", || watch(api, MAPS));
    report.check("4", "no such object, online", || refused(api, &format!("{MAPS}/none")));
    report.check("5", "no such group, online", || refused(api, "/apis/none.io/v1/foos"));
    admin.apply(&slice())?;
    report.check("6", "a slice in a list, online", || {
        wait("the slice", LIMIT, || {
            let list = api.get(SLICES)?;
            let items = list["items"].as_array().context("no items")?;
            let item = items.iter().find(|item| item["metadata"]["name"] == "web").context("not in it")?;
            Ok(format!("{} {}", item["endpoints"], item["ports"]))
        })
    });
    report.check("7", "the same by its name", || {
        let slice = api.get(&format!("{SLICES}/web"))?;
        Ok(format!("{} {}", slice["endpoints"], slice["ports"]))
    });
    for cut in [Cut::Refused, Cut::Silent] {
        let what = if cut == Cut::Refused { "refused" } else { "silent" };
        report.title(&format!("Cut off: {what}"));
        cloud.cut(cut)?;
        let cut_at = Instant::now();
        for attempt in 1..=3 {
            report.check(&format!("a{attempt}"), "an object", || refused(api, &format!("{MAPS}/one")));
        }
        report.check("b", "a list", || refused(api, MAPS));
        report.check("c", "a list never asked for", || refused(api, "/apis/coordination.k8s.io/v1/leases"));
        report.check("d", "an object never asked for", || refused(api, &format!("{MAPS}/none")));
        report.check("e", "a watch", || watch(api, MAPS));
        report.check("f", "a write", || {
            let body = map("three", "1").to_string();
            let answer = api.ask("POST", MAPS, Some(("application/json", &body)))?;
            Ok(format!("{} {}", answer.content, answer.said()))
        });
        admin.apply(&map("one", what))?;
        admin.delete(&map("two", "1"))?;
        admin.apply(&map("later", what))?;
        report.check("g", "restarted", || edge.restart().map(|()| String::new()));
        report.check("h", "an object", || refused(api, &format!("{MAPS}/one")));
        report.check("i", "a list", || refused(api, MAPS));
        report.check("j", "a watch", || watch(api, MAPS));
        report.progress(&format!("{:.1} s cut off", cut_at.elapsed().as_secs_f64()));
        cloud.join()?;
        report.check("k", "joined: the object as it is now", || {
            wait("the object", LIMIT, || {
                said(api, &format!("{MAPS}/one"), |object| {
                    ensure!(object["data"]["value"] == what, "{}", object["data"]);
                    Ok(())
                })
            })
        });
        report.check("l", "joined: the list as it is now", || {
            wait("the list", LIMIT, || said(api, MAPS, |list| ensure_names(list, &["later", "one"])))
        });
        report.check("m", "joined: a watch", || watch(api, MAPS));
        admin.apply(&map("two", "1"))?;
        admin.delete(&map("later", ""))?;
        report.check("n", "a list", || {
            wait("the list", LIMIT, || said(api, MAPS, |list| ensure_names(list, &["one", "two"])))
        });
    }
    Ok(())
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    let mut names: Vec<String> = items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .filter(|n| *n != "kube-root-ca.crt")
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

fn ensure_names(list: &Value, expected: &[&str]) -> Result<()> {
    ensure!(names(list) == expected, "{:?}", names(list));
    Ok(())
}

fn said(api: &Api, path: &str, check: impl Fn(&Value) -> Result<()>) -> Result<String> {
    let answer = api.ask("GET", path, None)?;
    let value = answer.json(path)?;
    check(&value)?;
    Ok(describe(&value))
}

/// Whatever it answers.
fn refused(api: &Api, path: &str) -> Result<String> {
    let answer = api.ask("GET", path, None)?;
    let value: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let body = if value["kind"].is_string() { describe(&value) } else { answer.said() };
    Ok(format!("{} {}: {body}", answer.status, answer.content))
}

fn describe(value: &Value) -> String {
    let version = value["metadata"]["resourceVersion"].as_str().unwrap_or("none");
    let names = if value["items"].is_array() { format!("{:?}", names(value)) } else { value["data"].to_string() };
    let message = value["message"].as_str().unwrap_or_default();
    format!("{} {names} version {version} {message}", value["kind"].as_str().unwrap_or("no kind"))
}

fn watch(api: &Api, path: &str) -> Result<String> {
    let answer = api.ask("GET", &format!("{path}?watch=1&timeoutSeconds=3"), None)?;
    let events: Vec<String> = answer
        .body
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            format!("{} {}", event["type"].as_str().unwrap_or(line), event["object"]["metadata"]["name"])
        })
        .collect();
    Ok(format!("{} {}: {}", answer.status, answer.content, events.join(", ")))
}
