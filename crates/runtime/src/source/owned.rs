//! Reads the ConfigMap and the Secret of this node.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use selvedge_edgeapi::{
    Backoff, ConfigMap, Event, Found, ListReader, MAX_OBJECT_BYTES, One, Secret, Service, is_online,
};
use selvedge_linux::file;
use zeroize::Zeroizing;

use super::asker::{Asker, End, Trouble, random};
use super::desk::{Desk, Reach};
use super::{Pem, read_bounded, unpack};
use crate::{Error, Options, Result};

/// Which of the two.
#[derive(Clone, Copy)]
enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmaps",
            Kind::Secret => "secrets",
        }
    }

    /// As an API server names a list of them.
    fn list(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMapList",
            Kind::Secret => "SecretList",
        }
    }

    /// Where its version is kept.
    fn file(self) -> &'static str {
        match self {
            Kind::ConfigMap => "config.version",
            Kind::Secret => "tls.version",
        }
    }
}

/// Starts a thread for each: neither waits for the other.
pub(super) fn start(desk: &Desk, options: &Arc<Options>) -> Result<()> {
    let node = options.source.node.clone().unwrap_or_else(host_name);
    for (option, name) in [("--node", &node), ("--namespace", &options.source.namespace)] {
        // It becomes a part of paths.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        {
            return Err(Error::new(format!("{option}: \"{name}\" is no name in Kubernetes")));
        }
    }
    desk.awaits(format!("the ConfigMap selvedge-node-{node} in the namespace {}", options.source.namespace));
    for kind in [Kind::ConfigMap, Kind::Secret] {
        let name = format!("selvedge-node-{node}");
        Asker::new(desk, options, kind.name()).spawn(move |asker| {
            let file = asker.options.state_dir.join(kind.file());
            let kept =
                read_bounded(&file, 256).ok().and_then(|bytes| One::read_kept(std::str::from_utf8(&bytes).ok()?));
            Owned { kind, name, one: kept.unwrap_or_default(), asker }.run();
        })?;
    }
    Ok(())
}

/// The name that a kubelet gives its node unless told otherwise.
fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase()
}

struct Owned {
    kind: Kind,
    name: String,
    one: One,
    asker: Asker,
}

impl Owned {
    fn run(mut self) {
        let mut settled = false;
        loop {
            let before = self.one.clone();
            match self.read() {
                Ok(()) => {}
                // A watch tells when it comes.
                Err(Trouble::Gone) => self.asker.desk.failed(self.asker.what, "does not exist".to_owned()),
                Err(trouble) => {
                    self.asker.failed(trouble);
                    settled = false;
                    continue;
                }
            }
            self.asker.succeeded();
            settled &= self.one == before;
            let pause = if settled { self.asker.pace().reconcile } else { self.asker.pace().soon };
            settled = true;
            let read_again = Instant::now() + Backoff::spread(pause, random());
            while Instant::now() < read_again {
                let (time, path) = (self.asker.pace().watch, self.selection());
                let (one, name) = (&self.one, &self.name);
                let ended = self.asker.watch(&path, time, |line| {
                    // Only its name and version matter, which all objects have alike.
                    !one.is_news(name, &Event::<Service>::read(line))
                });
                match ended {
                    Ok(End::InTime) => {}
                    Ok(End::Enough | End::Early) => break,
                    Ok(End::AtOnce) => self.asker.pause(),
                    Err(trouble) => {
                        self.asker.failed(trouble);
                        break;
                    }
                }
            }
        }
    }

    fn read(&mut self) -> std::result::Result<(), Trouble> {
        let (path, list) = (self.path(), self.selection());
        // Who is asked is known after the first question.
        let as_list = self.asker.target()?.flavour.reads_one_as_list();
        let answer = self.asker.ask(if as_list { &list } else { &path })?;
        let body = answer.read(MAX_OBJECT_BYTES)?;
        let flavour = self.asker.target()?.flavour;
        let text = std::str::from_utf8(&body).map_err(|_| Trouble::Failed("the answer is not text".to_owned()))?;
        if !as_list {
            return self.take(text, is_online(flavour, &Default::default(), ""));
        }
        let unreadable = |problem: &str| Trouble::Failed(problem.to_owned());
        let mut item = Zeroizing::new(String::new());
        let mut reader = ListReader::default();
        reader.feed(text.as_bytes(), |object| item.push_str(object)).map_err(unreadable)?;
        let head = reader.finish().map_err(unreadable)?;
        let online = is_online(flavour, &head, self.kind.list());
        match (item.is_empty(), online) {
            (false, _) => self.take(&item, online),
            (true, Some(true)) => Err(Trouble::Gone),
            (true, _) => Err(Trouble::Failed("not in the local store, and the cloud does not answer".to_owned())),
        }
    }

    fn take(&mut self, text: &str, online: Option<bool>) -> std::result::Result<(), Trouble> {
        let before = self.one.clone();
        match self.one.judge(&self.asker.options.source.namespace, &self.name, text, online == Some(true)) {
            Found::Object => {}
            Found::Older => {
                log::debug!("{}: an older one than is known", self.kind.name());
                self.asker.desk.well(self.kind.name(), Reach::Offline);
                return Ok(());
            }
            Found::Other => return Err(Trouble::Failed(format!("the answer is not {}", self.name))),
        }
        let wrong = |problem: String| Trouble::Failed(format!("{}: {problem}", self.name));
        match self.kind {
            Kind::ConfigMap => {
                let flavour = self.asker.target()?.flavour;
                let config = match ConfigMap::read(text).map_err(wrong)? {
                    ConfigMap::Text(config) => config,
                    ConfigMap::Packed(packed) => unpack(&packed).map_err(|error| wrong(error.to_string()))?,
                };
                self.asker.desk.put_config(config, flavour.name());
            }
            Kind::Secret => {
                let Secret { authorities, chain, key, gateway } = Secret::read(text).map_err(wrong)?;
                #[cfg(not(feature = "gateway"))]
                drop(gateway);
                self.asker.desk.put_credentials(Pem {
                    ca: authorities.to_vec(),
                    chain: chain.to_vec(),
                    key,
                    #[cfg(feature = "gateway")]
                    gateway,
                });
            }
        }
        if self.one != before {
            let file = self.asker.options.state_dir.join(self.kind.file());
            if let Err(error) = file::write(file, self.one.kept().as_bytes(), 0o600) {
                log::debug!("{error}");
            }
        }
        self.asker.desk.well(self.kind.name(), Reach::from(online));
        Ok(())
    }

    fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.name)
    }

    /// The same as a list of one.
    fn selection(&self) -> String {
        format!("{}?fieldSelector=metadata.name%3D{}", self.folder(), self.name)
    }

    fn folder(&self) -> String {
        format!("/api/v1/namespaces/{}/{}", self.asker.options.source.namespace, self.kind.plural())
    }
}
