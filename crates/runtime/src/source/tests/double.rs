//! Stands in for a Kubernetes API on a node: what the real ones do, wrong and right, and nothing else of them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use selvedge_edgeapi::Flavour;

/// How the node reaches the cloud.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Link {
    Up,
    Refused,
}

pub(super) struct Double {
    pub(super) url: String,
    inner: Arc<Inner>,
}

struct Inner {
    flavour: Flavour,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    down: bool,
    version: u64,
    /// By path: collection, namespace, name.
    cloud: BTreeMap<Path, Object>,
    /// What the node has stored. Of lite-apiserver, an object may be there twice.
    local: Vec<(Path, Object)>,
    watches: Vec<(String, Sender<String>)>,
    /// Requests, each its target and its headers.
    pub(super) asked: Vec<(String, BTreeMap<String, String>)>,
    /// Whoever asks for this collection waits.
    pub(super) held: Option<&'static str>,
    /// How many more times yurthub's multiplexer is not ready.
    pub(super) initialising: u32,
}

type Path = (String, String, String);

#[derive(Clone)]
struct Object {
    version: u64,
    /// What comes after `metadata`.
    rest: String,
    labels: String,
}

impl Double {
    pub(super) fn start(flavour: Flavour) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Mutex::new(State { version: 100, ..State::default() });
        let inner = Arc::new(Inner { flavour, state, changed: Condvar::new() });
        let serving = inner.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let inner = serving.clone();
                thread::spawn(move || inner.serve(stream.unwrap()));
            }
        });
        Double { url, inner }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// Makes an object in the cloud, or changes it.
    pub(super) fn put(&self, collection: &str, namespace: &str, name: &str, labels: &str, rest: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let path = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        let object = Object { version, rest: rest.to_owned(), labels: labels.to_owned() };
        let known = state.cloud.insert(path.clone(), object.clone()).is_some();
        state.tell(self.inner.flavour, if known { "MODIFIED" } else { "ADDED" }, &path, &object);
    }

    pub(super) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let path = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = state.cloud.remove(&path).unwrap();
        object.version = state.version;
        state.tell(self.inner.flavour, "DELETED", &path, &object);
    }

    /// Cuts the node off, or connects it again.
    pub(super) fn link(&self, link: Link) {
        let mut state = self.state();
        state.down = link != Link::Up;
        // MetaServer keeps watches open, yurthub ends those of the other state, lite-apiserver those of the cloud.
        if self.inner.flavour != Flavour::KubeEdge {
            state.watches.clear();
        }
    }

    pub(super) fn release(&self) {
        self.state().held = None;
        self.inner.changed.notify_all();
    }

    /// Ends all watches, with a line that says nothing.
    pub(super) fn end_watches(&self) {
        let mut state = self.state();
        for (_, watch) in state.watches.drain(..) {
            let _ = watch.send(r#"{"type":"BOOKMARK","object":{"metadata":{}}}"#.to_owned());
        }
    }

    /// Waits until somebody watches a collection.
    pub(super) fn await_watch(&self, collection: &str) {
        let watched = |state: &State| state.watches.iter().any(|(of, _)| of == collection);
        drop(self.inner.changed.wait_while(self.state(), |state| !watched(state)).unwrap());
    }

    /// Waits until this was asked for so often in all.
    pub(super) fn await_asked(&self, part: &str, times: usize) {
        let count = |state: &State| state.asked.iter().filter(|(target, _)| target.contains(part)).count();
        drop(self.inner.changed.wait_while(self.state(), |state| count(state) < times).unwrap());
    }
}

impl State {
    fn tell(&mut self, flavour: Flavour, kind: &str, path: &Path, object: &Object) {
        if self.down {
            return;
        }
        let line = format!(r#"{{"type":"{kind}","object":{}}}"#, object.text(path));
        let mut told = false;
        self.watches.retain(|(of, watch)| *of != path.0 || watch.send(line.clone()).inspect(|()| told = true).is_ok());
        match (flavour, kind) {
            // What a watch delivers is stored; what it does not deliver stays as it was.
            (Flavour::KubeEdge | Flavour::OpenYurt, _) if told => {
                self.local.retain(|(stored, _)| stored != path);
                if kind != "DELETED" {
                    self.local.push((path.clone(), object.clone()));
                }
            }
            // Added without looking for an older one.
            (Flavour::SuperEdge, "ADDED" | "MODIFIED") if told => self.local.push((path.clone(), object.clone())),
            (Flavour::SuperEdge, _) if told => self.local.retain(|(stored, _)| stored != path),
            _ => {}
        }
    }

    fn stored(&self, collection: &str) -> Vec<(Path, Object)> {
        self.local.iter().filter(|(path, _)| path.0 == collection).cloned().collect()
    }
}

impl Object {
    fn text(&self, (_, namespace, name): &Path) -> String {
        let Object { version, rest, labels } = self;
        format!(
            r#"{{"metadata":{{"namespace":"{namespace}","name":"{name}","uid":"uid-{name}","resourceVersion":"{version}","labels":{{{labels}}}}},{rest}}}"#
        )
    }
}

impl Inner {
    fn serve(&self, stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(request)) = lines.next() {
            let target = request.split(' ').nth(1).unwrap().to_owned();
            let headers = lines.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty());
            let headers: BTreeMap<_, _> = headers
                .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
                .collect();
            let mut state = self.state.lock().unwrap();
            state.asked.push((target.clone(), headers));
            self.changed.notify_all();
            let held = |state: &mut State| state.held.is_some_and(|part| target.contains(part));
            let state = self.changed.wait_while(state, held).unwrap();
            self.answer(&stream, &target, state);
        }
    }

    fn answer(&self, stream: &TcpStream, target: &str, mut state: MutexGuard<'_, State>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.split('/').collect();
        let (collection, namespace, name) = match parts.iter().position(|part| *part == "namespaces") {
            Some(at) => (parts[at + 2], Some(parts[at + 1]), parts.get(at + 3).copied()),
            None => (*parts.last().unwrap(), None, None),
        };
        let name = name.or(query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D")));
        let wanted = |(of, space, own): &Path| {
            of == collection && namespace.is_none_or(|n| n == space) && name.is_none_or(|n| n == own)
        };
        let pool = matches!(collection, "services" | "endpointslices");
        if self.flavour == Flavour::OpenYurt && pool && state.initialising > 0 {
            state.initialising -= 1;
            return reply(stream, "429 Too Many Requests", "Retry-After: 1\r\n", "text/plain", "initialising");
        }
        if query.contains("watch=true") {
            let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")?.parse().ok());
            return self.watch(stream, collection, since.unwrap_or(0), state);
        }
        let up = !state.down;
        let of_cloud: Vec<_> = state
            .cloud
            .iter()
            .filter(|(path, _)| wanted(path))
            .map(|(path, object)| (path.clone(), object.clone()))
            .collect();
        let of_node: Vec<_> = state.stored(collection).into_iter().filter(|(path, _)| wanted(path)).collect();
        let one = parts.last() == name.as_ref();
        if up && (one || self.flavour != Flavour::KubeEdge) {
            // Whatever is asked for by name, and each list of a cache, is stored.
            state.local.retain(|(path, _)| !wanted(path));
            state.local.extend(of_cloud.iter().cloned());
        }
        let found = if up { &of_cloud } else { &of_node };
        if one {
            match found.first() {
                Some((path, object)) => reply(stream, "200 OK", "", "application/json", &object.text(path)),
                None if !up && self.flavour == Flavour::SuperEdge => {
                    reply(stream, "404 Not Found", "", "text/plain", "dial tcp 10.0.0.1:6443: connection refused");
                }
                None => reply(
                    stream,
                    "404 Not Found",
                    "",
                    "application/json",
                    r#"{"kind":"Status","message":"not found","reason":"NotFound","code":404}"#,
                ),
            }
            return;
        }
        if !up && found.is_empty() && self.flavour == Flavour::SuperEdge {
            return reply(stream, "404 Not Found", "", "text/plain", "dial tcp 10.0.0.1:6443: connection refused");
        }
        let spoilt = up && self.flavour == Flavour::KubeEdge && collection == "endpointslices";
        let items: Vec<String> = found
            .iter()
            .map(|(path, object)| {
                let mut object = object.clone();
                if spoilt {
                    object.rest = r#""endpoints":[{"addresses":["127.0.0.1"]}]"#.to_owned();
                }
                object.text(path)
            })
            .collect();
        let kind = match (collection, up || self.flavour != Flavour::KubeEdge) {
            ("configmaps", true) => "ConfigMapList",
            ("configmaps", false) => "ConfigmapList",
            ("secrets", _) => "SecretList",
            ("services", _) => "ServiceList",
            (_, true) => "EndpointSliceList",
            (_, false) => "EndpointslicesList",
        };
        let highest = found.iter().map(|(_, object)| object.version).max().unwrap_or(0);
        let metadata = match (self.flavour, up) {
            (_, true) => format!(r#","metadata":{{"resourceVersion":"{}"}}"#, state.version),
            (Flavour::KubeEdge, false) if found.is_empty() => String::new(),
            (Flavour::KubeEdge, false) => {
                format!(r#","metadata":{{"resourceVersion":"{highest}","selfLink":"/{collection}"}}"#)
            }
            (_, false) => format!(r#","metadata":{{"resourceVersion":"{highest}"}}"#),
        };
        let text = format!(r#"{{"kind":"{kind}","items":[{}]{metadata}}}"#, items.join(","));
        reply(stream, "200 OK", "", "application/json", &text);
    }

    fn watch(&self, mut stream: &TcpStream, collection: &str, since: u64, mut state: MutexGuard<'_, State>) {
        let (lines, told) = channel();
        match self.flavour {
            // All that is stored, whatever the cloud has.
            Flavour::KubeEdge => {
                for (path, object) in state.stored(collection) {
                    lines.send(format!(r#"{{"type":"ADDED","object":{}}}"#, object.text(&path))).unwrap();
                }
            }
            // Empty, and over.
            Flavour::SuperEdge if state.down => return reply(stream, "200 OK", "", "application/json", ""),
            _ if state.down => {}
            _ => {
                for (path, object) in &state.cloud {
                    if path.0 == collection && object.version > since {
                        lines.send(format!(r#"{{"type":"ADDED","object":{}}}"#, object.text(path))).unwrap();
                    }
                }
            }
        }
        state.watches.push((collection.to_owned(), lines));
        drop(state);
        self.changed.notify_all();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut open = stream.write_all(head.as_bytes()).is_ok();
        for line in told {
            open = open && write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1).is_ok();
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    }
}

fn reply(mut stream: &TcpStream, status: &str, headers: &str, kind: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    let _ = stream.write_all(text.as_bytes());
}
