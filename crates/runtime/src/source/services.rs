//! Reads Services and EndpointSlices.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge_edgeapi::{
    Backoff, Believed, EndpointSlice, Event, Flavour, ListReader, MAX_OBJECT_BYTES, Meta, Object, Store, View,
};

use super::asker::{Asker, End, Trouble, random};
use super::desk::{Desk, Reach};
use crate::{Options, Result};

/// MetaServer that cannot reach the cloud takes ten seconds to say what it has stored.
const STALL: Duration = Duration::from_secs(9);

/// More objects than are asked for one by one without need.
const MANY: usize = 20;

/// The shortest watch.
const GLANCE: Duration = Duration::from_secs(5);

/// How soon a list is asked for again that did not show the state of the cloud.
const AGAIN: Duration = Duration::from_secs(60);

/// Starts a thread for each kind: neither waits for the other.
pub(super) fn start(desk: &Desk, options: &Arc<Options>) -> Result<()> {
    Asker::new(desk, options, "Services").spawn(|asker| {
        Reader { asker, store: |view| &mut view.services, names_only: |_| false, version: 0 }.run();
    })?;
    Asker::new(desk, options, "EndpointSlices").spawn(|asker| {
        let names_only = Flavour::lists_only_names_of_slices;
        Reader::<EndpointSlice> { asker, store: |view| &mut view.slices, names_only, version: 0 }.run();
    })
}

struct Reader<T> {
    asker: Asker,
    store: fn(&mut View) -> &mut Store<T>,
    names_only: fn(Flavour) -> bool,
    /// Where a watch goes on.
    version: u64,
}

impl<T: Object> Reader<T> {
    fn run(mut self) {
        let mut settled = false;
        loop {
            self.asker.desk.wait_until_wanted();
            let believed = match self.list() {
                Ok(believed) => believed,
                Err(trouble) => {
                    self.asker.failed(trouble);
                    settled = false;
                    continue;
                }
            };
            self.asker.succeeded();
            let pause = match believed {
                Believed::Yes if settled => self.asker.pace().reconcile,
                Believed::Yes => self.asker.pace().soon,
                _ => AGAIN,
            };
            settled = believed == Believed::Yes;
            let list_again = Instant::now() + Backoff::spread(pause, random());
            while Instant::now() < list_again && self.asker.desk.is_wanted() {
                let left = list_again.saturating_duration_since(Instant::now());
                match self.watch(left) {
                    Ok(End::InTime | End::Enough) => {}
                    Ok(End::Early) => break,
                    Ok(End::AtOnce) => self.asker.pause(),
                    Err(Trouble::Expired) => break,
                    Err(trouble) => {
                        self.asker.failed(trouble);
                        break;
                    }
                }
            }
        }
    }

    fn list(&mut self) -> std::result::Result<Believed, Trouble> {
        let flavour = self.asker.target()?.flavour;
        let mut body = self.asker.ask(T::PATH)?.reader();
        let (desk, store) = (self.asker.desk.clone(), self.store);
        let mut listing = desk.view(|view| store(view).begin((self.names_only)(flavour)));
        let mut reader = ListReader::default();
        let mut buffer = [0; 4 << 10];
        let unreadable = |problem: &str| Trouble::Failed(problem.to_owned());
        loop {
            let length = body.read(&mut buffer).map_err(|error| Trouble::Failed(format!("list: {error}")))?;
            if length == 0 {
                break;
            }
            let piece = buffer.get(..length).unwrap_or_default();
            desk.view(|view| reader.feed(piece, |text| store(view).item(&mut listing, text))).map_err(unreadable)?;
        }
        let head = reader.finish().map_err(unreadable)?;
        if let Some(problem) = &listing.problem {
            log::warn!("{}: {problem}", self.asker.what);
        }
        let believed = desk.view(|view| store(view).end(listing, flavour, &head));
        log::debug!("{}: a list of version {}: {believed:?}", self.asker.what, head.version);
        self.version = head.version;
        self.complete()?;
        let reach = match (believed, flavour) {
            (Believed::Local | Believed::Unknown, _) => Reach::Offline,
            (Believed::Yes, Flavour::KubeEdge | Flavour::Kubernetes) => Reach::Online,
            _ => Reach::Unknown,
        };
        match believed {
            Believed::Unknown => {
                let problem = "the list is empty and of no version: the API does not know";
                self.asker.desk.failed(self.asker.what, problem.to_owned());
            }
            _ => self.asker.desk.well(self.asker.what, reach),
        }
        desk.tell_of_view();
        Ok(believed)
    }

    /// Asks for what was only named: all at once first, as a watch brings what MetaServer has stored, and stores the
    /// rest; then one by one, and no longer if that takes its time: the next watch goes on with it.
    fn complete(&mut self) -> std::result::Result<(), Trouble> {
        let (desk, store) = (self.asker.desk.clone(), self.store);
        for _ in 0..2 {
            if desk.view(|view| store(view).missing().len()) > MANY {
                self.watch(GLANCE)?;
            }
        }
        let Some((group, plural)) = T::PATH.rsplit_once('/') else { return Ok(()) };
        let missing = desk.view(|view| store(view).missing());
        log::debug!("{}: {} to ask for", self.asker.what, missing.len());
        for Meta { key, .. } in missing {
            let (namespace, name) = &key;
            let start = Instant::now();
            match self.asker.ask(&format!("{group}/namespaces/{namespace}/{plural}/{name}")) {
                Ok(answer) => {
                    let body = answer.read(MAX_OBJECT_BYTES)?;
                    match T::read(std::str::from_utf8(&body).unwrap_or_default()) {
                        Ok((meta, object)) if meta.key == key => {
                            desk.view(|view| store(view).got(meta, object));
                        }
                        Ok((meta, _)) => log::debug!("{}: asked for {name}, got {}", self.asker.what, meta.show()),
                        Err((_, problem)) => log::warn!("{}: {problem}", self.asker.what),
                    }
                }
                Err(Trouble::Gone) => {}
                Err(Trouble::Failed(why)) => log::debug!("{}: {namespace}/{name}: {why}", self.asker.what),
                Err(trouble) => return Err(trouble),
            }
            if start.elapsed() > STALL {
                return Ok(());
            }
        }
        desk.view(|view| store(view).complete());
        Ok(())
    }

    fn watch(&mut self, left: Duration) -> std::result::Result<End, Trouble> {
        let flavour = self.asker.target()?.flavour;
        let time = self.asker.pace().watch.min(left).max(GLANCE);
        let path = if flavour == Flavour::KubeEdge || self.version == 0 {
            T::PATH.to_owned()
        } else {
            format!("{}?allowWatchBookmarks=true&resourceVersion={}", T::PATH, self.version)
        };
        let (desk, store, what) = (self.asker.desk.clone(), self.store, self.asker.what);
        let (mut failed, mut expired) = (None, false);
        let mut version = self.version;
        let end = self.asker.watch(&path, time, |line| {
            let event = Event::<T>::read(line);
            match &event {
                Event::Put(meta, _) | Event::Deleted(meta) => version = version.max(meta.version),
                Event::Bookmark(mark) => version = version.max(*mark),
                Event::Unreadable(problem) => log::warn!("{what}: {problem}"),
                Event::Expired => expired = true,
                Event::Failed(problem) => failed = Some(problem.clone()),
            }
            let goes_on = desk.view(|view| store(view).event(event));
            desk.tell_of_view();
            goes_on && desk.is_wanted()
        });
        self.version = version;
        match failed {
            Some(problem) => Err(Trouble::Failed(problem)),
            None if expired => Err(Trouble::Expired),
            None => end,
        }
    }
}
