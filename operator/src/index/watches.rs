//! Watches of an API server. What fails is tried again with growing, random pauses, for ever; meanwhile all stays as it is.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tracing::{debug, info, warn};

use super::listing::{Change, Key};
use super::objects::{Kind, Seen};
use super::written::{self, NODE_LABEL, WrittenConfig, WrittenSecret};
use crate::telemetry::{Metrics, words};

/// Seconds after which a watch is begun anew where it was: one that is dead without a word is noticed a little later.
const WATCH: u32 = 45;

/// Between two looks whether a kind of the edge gateway is known by now.
const UNKNOWN: Duration = Duration::from_secs(60);

/// What any of the watches says.
#[derive(Debug)]
pub(crate) enum News {
    Object(Kind, Box<Change<Seen>>),
    Config(Change<WrittenConfig>),
    Secret(Change<WrittenSecret>),
}

/// Starts all watches. They end with the receiver.
pub(crate) fn start(client: &Client, namespace: &str, manager: &str, metrics: &Metrics, news: &Sender<News>) {
    for kind in Kind::all() {
        let versions = kind.versions().iter().map(|version| {
            let resource = resource(kind, version);
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let narrow = move |object: DynamicObject| {
                let mut value = serde_json::to_value(object).unwrap_or_default();
                // Items of a list do not always say what they are.
                value["apiVersion"] = resource.api_version.clone().into();
                value["kind"] = resource.kind.clone().into();
                Some(Seen::read(&value))
            };
            (api, narrow)
        });
        let to_news = move |change| News::Object(kind, Box::new(change));
        let config = Config::default().timeout(WATCH);
        tokio::spawn(follow(kind.name(), versions.collect(), config, to_news, metrics.clone(), news.clone()));
    }
    let own = Config::default().timeout(WATCH).labels(&format!("app.kubernetes.io/managed-by={manager},{NODE_LABEL}"));
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let narrow = |object: ConfigMap| written::config(&object);
    let follow_configs =
        follow("ConfigMap", vec![(configs, narrow)], own.clone(), News::Config, metrics.clone(), news.clone());
    tokio::spawn(follow_configs);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let narrow = |object: Secret| written::secret(&object);
    tokio::spawn(follow("Secret", vec![(secrets, narrow)], own, News::Secret, metrics.clone(), news.clone()));
}

/// How the API server calls a version of a kind.
pub(crate) fn resource(kind: Kind, version: &str) -> ApiResource {
    let (group, plural) = match kind {
        Kind::Cluster => ("selvedge.dev", "clusters"),
        Kind::Community => ("selvedge.dev", "communities"),
        Kind::Outpost => ("selvedge.dev", "outposts"),
        Kind::Node => ("", "nodes"),
        Kind::Service => ("", "services"),
        Kind::EndpointSlice => ("discovery.k8s.io", "endpointslices"),
        Kind::Block => ("crd.projectcalico.org", "ipamblocks"),
        Kind::Gateway(kind) => (kind.group(), kind.plural()),
    };
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: if let Kind::Gateway(kind) = kind { kind.name() } else { kind.name() }.to_owned(),
        plural: plural.to_owned(),
    }
}

/// One watch, of the first of the `versions` that the API server knows. It ends with the receiver.
pub(crate) async fn follow<K, T, N>(
    name: &'static str,
    versions: Vec<(Api<K>, impl Fn(K) -> Option<(Key, T)>)>,
    config: Config,
    to_news: impl Fn(Change<T>) -> N,
    metrics: Metrics,
    news: Sender<N>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut ways = versions.iter().cycle();
    let Some((mut api, mut narrow)) = ways.next().map(|(api, narrow)| (api, narrow)) else { return };
    let begin = |api: &Api<K>| watch(api.clone(), config.clone()).default_backoff().boxed();
    let mut stream = begin(api);
    let (mut failing, mut unknown, mut tried) = (false, false, 1);
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(event) => {
                // Every attempt begins with that, whether the API server knows the version or not.
                if !matches!(event, Event::Init) {
                    tried = 1;
                }
                if std::mem::take(&mut failing) {
                    info!(kind = name, "watching again");
                }
                change(event, narrow)
            }
            Err(error) => {
                metrics.watch_failed(name);
                let kind = Kind::all().find(|kind| kind.name() == name && kind.may_be_unknown());
                let is_unknown = kind.is_some_and(|kind| is_unknown(&error, kind));
                if is_unknown && versions.len() > 1 {
                    (api, narrow) = ways.next().map_or((api, narrow), |(api, narrow)| (api, narrow));
                    stream = begin(api);
                }
                if is_unknown && tried < versions.len() {
                    tried += 1;
                    None
                } else if is_unknown {
                    tried = 1;
                    debug!(kind = name, "unknown to the API server");
                    unknown = matches!(kind, Some(Kind::Gateway(_)));
                    Some(Change::Absent)
                } else {
                    let told = std::mem::replace(&mut failing, true);
                    if !told && !is_routine(&error) {
                        warn!(kind = name, "cannot be watched, all stays as it is: {}", words(&error));
                    }
                    None
                }
            }
        };
        if let Some(change) = change
            && news.send(to_news(change)).await.is_err()
        {
            return;
        }
        if std::mem::take(&mut unknown) {
            tokio::time::sleep(UNKNOWN).await;
        }
    }
}

fn change<K, T>(event: Event<K>, narrow: impl Fn(K) -> Option<(Key, T)>) -> Option<Change<T>> {
    Some(match event {
        Event::Init => Change::Listing,
        Event::InitApply(object) => {
            let (key, new) = narrow(object)?;
            Change::Listed(key, new)
        }
        Event::InitDone => Change::Complete,
        Event::Apply(object) => {
            let (key, new) = narrow(object)?;
            Change::Applied(key, new)
        }
        Event::Delete(object) => Change::Deleted(narrow(object)?.0),
    })
}

/// The API server does not know the kind: 404 for its list. One of the edge gateway that may not be read is as good as
/// unknown: who wants none need not permit it.
fn is_unknown(error: &watcher::Error, kind: Kind) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    status.code == 404 || (status.code == 403 && matches!(kind, Kind::Gateway(_)))
}

/// An old resource version: the list is simply read again.
fn is_routine(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}
