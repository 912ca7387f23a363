//! What changes in the manifest directory, by inotify(7). Only finished changes count: a file that is being written is not
//! read before its writer closes it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchMask};

use crate::index::is_manifest;

/// After a change more are awaited this long: tools write several files, or move one away and a new one in.
const QUIET: Duration = Duration::from_millis(100);
/// But not longer than this in all.
const PATIENCE: Duration = Duration::from_secs(2);

/// `errno-base.h`: the same on all architectures.
const EMFILE: i32 = 24;

/// A watched directory.
pub(crate) struct Watch {
    events: Receiver<Event>,
}

/// What happened since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Manifests to read again.
    pub(crate) files: BTreeSet<String>,
    /// Everything must be read again.
    pub(crate) everything: bool,
    /// The directory is not watched any more, it was moved or removed.
    pub(crate) gone: bool,
}

enum Event {
    File(String),
    Everything,
    Gone,
}

impl Watch {
    pub(crate) fn new(directory: &Path) -> io::Result<Watch> {
        let inotify = Inotify::init().map_err(|error| match error.raw_os_error() {
            // Files are not what is meant, and the usual 128 are soon used up.
            Some(EMFILE) => io::Error::other("no inotify instance is left (sysctl fs.inotify.max_user_instances)"),
            _ => error,
        })?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(directory, mask)?;
        let (sender, events) = channel();
        let directory = directory.to_owned();
        thread::Builder::new().name("watch".to_owned()).spawn(move || read(inotify, &directory, &sender))?;
        Ok(Watch { events })
    }

    /// Waits for a change, and then until all is quiet. Empty after `patience` without any.
    pub(crate) fn wait(&self, patience: Duration) -> Changes {
        let mut changes = Changes::default();
        let mut wait = patience;
        let mut deadline = None;
        loop {
            match self.events.recv_timeout(wait) {
                Ok(Event::File(name)) => {
                    changes.files.insert(name);
                }
                Ok(Event::Everything) => changes.everything = true,
                Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => {
                    changes.gone = true;
                    return changes;
                }
                Err(RecvTimeoutError::Timeout) => return changes,
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            wait = QUIET.min(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

/// Passes events on until the directory is gone or nobody listens.
fn read(mut inotify: Inotify, directory: &Path, sender: &Sender<Event>) {
    let mut buffer = [0; 16 << 10];
    loop {
        let Ok(events) = inotify.read_events_blocking(&mut buffer) else {
            let _ = sender.send(Event::Gone);
            return;
        };
        for event in events {
            let name = event.name.map(|name| name.to_string_lossy().into_owned());
            let meant = if event.mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED) {
                Some(Event::Gone)
            } else if event.mask.contains(EventMask::Q_OVERFLOW) {
                Some(Event::Everything)
            } else {
                name.and_then(|name| relevant(directory, name, event.mask))
            };
            let gone = matches!(meant, Some(Event::Gone));
            if meant.is_some_and(|event| sender.send(event).is_err()) || gone {
                return;
            }
        }
    }
}

fn relevant(directory: &Path, name: String, mask: EventMask) -> Option<Event> {
    // A mounted ConfigMap changes all its files at once by this link.
    if name == "..data" {
        return Some(Event::Everything);
    }
    // A file just made is empty until it is closed; a link is finished at once.
    let unfinished = mask.contains(EventMask::CREATE) && !directory.join(&name).is_symlink();
    (is_manifest(&name) && !unfinished).then_some(Event::File(name))
}
