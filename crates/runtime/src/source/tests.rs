//! The threads of a source against stand-ins for the three APIs.

mod double;
mod encrypted;

use std::fs;
use std::future::Future as _;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use selvedge_edgeapi::Flavour;
use selvedge_model::IpNet;

use super::desk::{Desk, Reach};
use super::*;
use double::{Double, Link};

const CONFIG: &str = r#"{"version":1,"generation":GEN,"name":"here.edge","node":"edge","role":"edge","podCidrs":[],"local":{"prefixes":[]},"peers":[],"services":{"mode":"kernel","source":"api","cidrs":["10.96.0.0/16"]}}"#;

/// A node with one API on it.
struct Node {
    api: Double,
    options: Options,
    _state: tempfile::TempDir,
    desk: Desk,
}

impl Node {
    fn new(flavour: Flavour) -> Node {
        let node = Node::empty(flavour);
        node.config(1);
        node.web(1, &["10.1.0.5", "10.1.0.6"]);
        node
    }

    /// Nothing in the cloud, and nothing asked for yet.
    fn empty(flavour: Flavour) -> Node {
        let state = tempfile::tempdir().unwrap();
        let api = Double::start(flavour);
        let mut options = Options::new("x", None);
        options.state_dir = state.path().to_owned();
        options.source.kind = match flavour {
            Flavour::KubeEdge => SourceKind::KubeEdge,
            Flavour::SuperEdge => SourceKind::SuperEdge,
            Flavour::OpenYurt => SourceKind::OpenYurt,
            Flavour::Kubernetes => SourceKind::Kubernetes,
        };
        options.source.server = Some(api.url.clone());
        options.source.node = Some("edge".to_owned());
        Node { api, options, _state: state, desk: Desk::default() }
    }

    fn start(mut self) -> Node {
        self.desk = start(&self.options).unwrap();
        self.desk.want_services(true, &self.options).unwrap();
        self
    }

    fn config(&self, generation: u32) {
        let text = CONFIG.replace("GEN", &generation.to_string()).replace('"', "\\\"");
        self.api.put(
            "configmaps",
            "selvedge",
            "selvedge-node-edge",
            "",
            &format!(r#""data":{{"config.json":"{text}"}}"#),
        );
    }

    /// Service number `n` with these endpoints.
    fn web(&self, n: u32, addresses: &[&str]) {
        let service = format!(r#""spec":{{"clusterIP":"10.96.0.{n}","ports":[{{"port":80}}]}}"#);
        self.api.put("services", "a", &format!("web{n}"), "", &service);
        self.slice(n, addresses);
    }

    fn slice(&self, n: u32, addresses: &[&str]) {
        let endpoints: Vec<_> = addresses.iter().map(|a| format!(r#"{{"addresses":["{a}"]}}"#)).collect();
        let labels = format!(r#""kubernetes.io/service-name":"web{n}""#);
        let rest = format!(r#""addressType":"IPv4","endpoints":[{}],"ports":[{{"port":8080}}]"#, endpoints.join(","));
        self.api.put("endpointslices", "a", &format!("web{n}-x"), &labels, &rest);
    }

    /// Waits until the desk shows this.
    fn until(&self, shows: impl Fn(&Node) -> bool) {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            let mut news = pin!(self.desk.news());
            let told = news.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(());
            if shows(self) {
                return;
            }
            if !told {
                thread::park();
            }
        }
    }

    fn generation(&self) -> Option<u64> {
        Some(self.desk.delivered().ok()?.config.generation)
    }

    /// Services with the last numbers of their endpoints: `web1: 5 6`.
    fn services(&self) -> Vec<String> {
        let networks: [IpNet; 1] = ["10.96.0.0/16".parse().unwrap()];
        let show = |service: selvedge_model::Service| {
            let last = |e: &selvedge_model::Endpoint| e.address.to_string().rsplit('.').next().unwrap().to_owned();
            let endpoints: Vec<_> = service.ports[0].endpoints.iter().map(last).collect();
            format!("{}: {}", service.name, endpoints.join(" "))
        };
        self.desk.services(&networks).unwrap_or_default().into_iter().map(show).collect()
    }

    fn error(&self, what: &str) -> Option<String> {
        self.desk.health().errors.get(what).cloned()
    }
}

const FLAVOURS: [Flavour; 4] = [Flavour::KubeEdge, Flavour::SuperEdge, Flavour::OpenYurt, Flavour::Kubernetes];

#[test]
fn configuration_and_services_arrive_and_follow() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour).start();
        node.until(|node| node.generation() == Some(1));
        node.until(|node| node.services() == ["web1: 5 6"]);
        node.api.await_watch("configmaps");
        node.config(2);
        node.until(|node| node.generation() == Some(2));
        node.api.await_watch("endpointslices");
        node.slice(1, &["10.1.0.7"]);
        node.until(|node| node.services() == ["web1: 7"]);
        node.api.await_watch("services");
        node.api.delete("services", "a", "web1");
        node.until(|node| node.services().is_empty());
    }
}

fn pack(text: &str) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_configuration_that_is_too_long_for_a_config_map_comes_packed() {
    let text = CONFIG.replace("GEN", "7");
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("config.json");
    fs::write(folder.path().join("config.json.gz"), pack(&text)).unwrap();
    let (config, read) = read_config(&plain).unwrap();
    assert_eq!((config.generation, read == text), (7, true));
    // What fits is not packed, and so is newer.
    fs::write(&plain, CONFIG.replace("GEN", "8")).unwrap();
    assert_eq!(read_config(&plain).unwrap().0.generation, 8);
    fs::remove_file(&plain).unwrap();
    for (packed, words) in [
        (b"no gzip at all".to_vec(), "config.json.gz: unpack: "),
        (pack(&" ".repeat(MAX_CONFIG_BYTES + 9)), "config.json.gz: configuration: is longer than 8388608 bytes"),
    ] {
        fs::write(folder.path().join("config.json.gz"), packed).unwrap();
        let error = read_config(&plain).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }

    let node = Node::empty(Flavour::Kubernetes);
    let base64: String = pack(&text).chunks(3).map(in_base64).collect();
    let data = format!(r#""binaryData":{{"config.json.gz":"{base64}"}}"#);
    node.api.put("configmaps", "selvedge", "selvedge-node-edge", "", &data);
    let node = node.start();
    node.until(|node| node.generation() == Some(7));
}

/// Up to three bytes.
fn in_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let number = (0..3).fold(0, |number, i| number << 8 | u32::from(bytes.get(i).copied().unwrap_or_default()));
    let digit = |i: usize| if i > bytes.len() { '=' } else { DIGITS[(number >> (18 - 6 * i)) as usize & 63] as char };
    (0..4).map(digit).collect()
}

#[test]
fn every_request_carries_the_same_name_and_the_token_of_now() {
    let mut node = Node::new(Flavour::OpenYurt);
    let token = node.options.state_dir.join("token");
    fs::write(&token, "first\n").unwrap();
    node.options.source.token_file = Some(token.clone());
    let node = node.start();
    node.until(|node| node.generation() == Some(1));
    node.api.await_watch("configmaps");
    fs::write(&token, "second\n").unwrap();
    node.config(2);
    node.until(|node| node.generation() == Some(2));
    let state = node.api.state();
    assert!(state.asked.iter().all(|(_, headers)| headers["user-agent"] == "selvedge-agent/1"));
    assert!(state.asked.iter().all(|(_, headers)| headers["accept"] == "application/json"));
    let of_config = state.asked.iter().filter(|(target, _)| target.contains("configmaps/"));
    let tokens: Vec<_> = of_config.map(|(_, headers)| headers["authorization"].as_str()).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer second"]);
    assert!(state.asked.iter().all(|(target, _)| !target.contains("limit=") && target != "/api" && target != "/apis"));
}

#[test]
fn contents_of_metaservers_slice_lists_are_never_shown() {
    let node = Node::new(Flavour::KubeEdge).start();
    node.until(|node| node.services() == ["web1: 5 6"]);
    // Read anew, while the list says 127.0.0.1.
    node.api.await_watch("endpointslices");
    node.api.end_watches();
    node.api.await_asked("/endpointslices", 5);
    node.api.await_watch("endpointslices");
    assert_eq!(node.services(), ["web1: 5 6"]);
}

#[test]
fn what_is_deleted_while_cut_off_goes_after_it() {
    let node = Node::new(Flavour::KubeEdge);
    node.web(2, &["10.1.0.9"]);
    let node = node.start();
    node.until(|node| node.services() == ["web1: 5 6", "web2: 9"]);
    node.api.await_watch("services");
    node.api.await_watch("endpointslices");
    // A watch that begins now has them stored.
    for n in [1, 2] {
        let service = format!(r#""spec":{{"clusterIP":"10.96.0.{n}","ports":[{{"port":80}}]}}"#);
        node.api.put("services", "a", &format!("web{n}"), "", &service);
    }
    node.api.link(Link::Refused);
    node.api.delete("services", "a", "web2");
    node.api.end_watches();
    node.until(|node| node.desk.health().reach == Reach::Offline);
    assert_eq!(node.services(), ["web1: 5 6", "web2: 9"]);
    node.api.link(Link::Up);
    node.api.await_watch("services");
    node.api.end_watches();
    node.until(|node| node.services() == ["web1: 5 6"]);
    // The store of the node has it for good, and each watch begins with it.
    node.api.await_watch("services");
    node.api.await_watch("endpointslices");
    node.web(3, &["10.1.0.8"]);
    node.until(|node| node.services() == ["web1: 5 6", "web3: 8"]);
}

#[test]
fn cut_off_nothing_is_lost() {
    for flavour in FLAVOURS {
        let node = Node::new(flavour).start();
        node.until(|node| node.generation() == Some(1) && node.services() == ["web1: 5 6"]);
        for collection in ["configmaps", "services", "endpointslices"] {
            node.api.await_watch(collection);
        }
        node.api.link(Link::Refused);
        let count = |part: &str| node.api.state().asked.iter().filter(|(target, _)| target.contains(part)).count();
        let before = ["/configmaps", "/services", "/endpointslices"].map(|part| (part, count(part)));
        node.api.end_watches();
        // All three ask again: empty lists, 404 in plain text, watches that end at once.
        for (part, times) in before {
            node.api.await_asked(part, times + 1);
        }
        assert_eq!((node.generation(), node.services()), (Some(1), vec!["web1: 5 6".to_owned()]), "{flavour:?}");
        node.api.link(Link::Up);
        node.config(2);
        node.api.end_watches();
        node.until(|node| node.generation() == Some(2));
    }
}

#[test]
fn one_answer_that_does_not_come_holds_up_no_other() {
    let node = Node::new(Flavour::KubeEdge);
    node.api.state().held = Some("/services");
    let node = node.start();
    node.until(|node| node.generation() == Some(1));
    node.api.await_watch("endpointslices");
    assert!(node.services().is_empty());
    node.api.release();
    node.until(|node| node.services() == ["web1: 5 6"]);
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let node = Node::new(Flavour::OpenYurt);
    node.api.state().initialising = 2;
    let node = node.start();
    node.until(|node| {
        node.error("Services").is_some_and(|e| e.contains("429")) || node.error("EndpointSlices").is_some()
    });
    node.until(|node| node.services() == ["web1: 5 6"]);
    node.until(|node| node.error("Services").is_none() && node.error("EndpointSlices").is_none());
}

#[test]
fn a_node_without_a_name_in_kubernetes_has_no_configuration_there() {
    for name in ["Edge 1", "../x", ""] {
        let mut node = Node::empty(Flavour::KubeEdge);
        node.options.source.node = Some(name.to_owned());
        let error = start(&node.options).err().unwrap().to_string();
        assert_eq!(error, format!("--node: \"{name}\" is no name in Kubernetes"));
    }
}

#[test]
fn what_does_not_exist_is_said() {
    for (flavour, words) in [
        (Flavour::KubeEdge, "does not exist"),
        (Flavour::Kubernetes, "does not exist"),
        (Flavour::OpenYurt, "does not exist"),
    ] {
        let node = Node::empty(flavour).start();
        node.until(|node| node.error("ConfigMap").as_deref() == Some(words));
        let error = node.desk.delivered().err().unwrap().to_string();
        assert_eq!(error, format!("no configuration was delivered yet: {words}"));
        let awaited = node.desk.awaited().unwrap();
        assert_eq!(awaited, "the ConfigMap selvedge-node-edge in the namespace selvedge");
        node.config(1);
        node.until(|node| node.desk.awaited().is_none());
    }
    let node = Node::empty(Flavour::SuperEdge);
    node.api.link(Link::Refused);
    let node = node.start();
    node.until(|node| node.error("ConfigMap").is_some_and(|error| error.starts_with("HTTP 404: dial tcp")));
}

#[test]
fn a_boot_without_anything_in_reach_has_what_was_known() {
    let mut node = Node::new(Flavour::KubeEdge).start();
    node.until(|node| node.generation() == Some(1) && node.services() == ["web1: 5 6"]);
    node.desk.delivered().unwrap().keep(&node.options).unwrap();
    let services = node.desk.view(|view| view.keep());
    fs::write(node.options.state_dir.join(SERVICES), services).unwrap();
    node.options.source.server = Some("http://127.0.0.1:1".to_owned());
    let node = node.start();
    assert_eq!((node.generation(), node.services()), (Some(1), vec!["web1: 5 6".to_owned()]));
    assert_eq!(node.desk.delivered().unwrap().source, "last good copy");
    node.until(|node| node.error("ConfigMap").is_some_and(|error| error.contains("http://127.0.0.1:1/api/v1/")));
}
