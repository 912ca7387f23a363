use crate::object::Meta;
use crate::owned::identify;
use crate::{Event, Flavour, ListHead, Object};

/// One object of a known name, and which of its states was read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct One {
    uid: String,
    version: u64,
    /// The highest version that was refused for being older.
    refused: u64,
}

/// What an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The object, as new as what was read before, or newer.
    Object,
    /// The object as it was once: out of a cache.
    Older,
    /// Something else.
    Other,
}

impl One {
    /// As [`One::kept`] wrote it.
    pub fn read_kept(text: &str) -> Option<One> {
        let (version, uid) = text.trim().split_once(' ')?;
        Some(One { uid: uid.to_owned(), version: version.parse().ok()?, refused: 0 })
    }

    /// What to keep over a restart: a cache may hold an older state then.
    pub fn kept(&self) -> String {
        format!("{} {}\n", self.version, self.uid)
    }

    /// Judges a text that was read as the object `namespace/name`. `online`: it certainly comes from the cloud.
    ///
    /// Caches show old states: lite-apiserver that of the last GET, though a watch told of a newer one. An older one is
    /// believed if it is another object of that name, or if older ones grow: then the cluster was restored.
    pub fn judge(&mut self, namespace: &str, name: &str, text: &str, online: bool) -> Found {
        let Some((meta, uid)) = identify(text) else { return Found::Other };
        if meta.key.0 != namespace || meta.key.1 != name {
            return Found::Other;
        }
        let another = !uid.is_empty() && uid != self.uid;
        let newer = meta.version == 0 || meta.version >= self.version;
        let restored = self.refused != 0 && meta.version > self.refused;
        if !(another || newer || restored || online) {
            self.refused = meta.version;
            return Found::Older;
        }
        *self = One { uid, version: meta.version, refused: 0 };
        Found::Object
    }

    /// Whether an event of a watch is worth a reading: watches only hint, as they show old states too.
    pub fn is_news<T: Object>(&self, name: &str, event: &Event<T>) -> bool {
        let newer = |meta: &Meta| meta.key.1 == name && (meta.version == 0 || meta.version > self.version);
        match event {
            Event::Put(meta, _) | Event::Deleted(meta) => newer(meta),
            _ => false,
        }
    }
}

/// Whether a list shows the state of the cloud; `None` if nobody can tell.
pub fn is_online(flavour: Flavour, head: &ListHead, kind: &str) -> Option<bool> {
    match flavour {
        Flavour::Kubernetes => Some(true),
        Flavour::KubeEdge => Some(head.version != 0 && !head.self_link && head.kind == kind),
        Flavour::SuperEdge | Flavour::OpenYurt => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(uid: &str, version: &str) -> String {
        format!(r#"{{"metadata":{{"namespace":"s","name":"n","uid":"{uid}","resourceVersion":"{version}"}}}}"#)
    }

    #[test]
    fn older_states_are_not_believed() {
        let mut one = One::default();
        assert_eq!(one.judge("s", "n", &text("u", "20"), false), Found::Object);
        assert_eq!(one.judge("s", "n", &text("u", "10"), false), Found::Older);
        assert_eq!(one.judge("s", "n", &text("u", "10"), false), Found::Older);
        assert_eq!(one.judge("s", "n", &text("u", "20"), false), Found::Object);
        // Not even after a restart.
        let mut again = One::read_kept(&one.kept()).unwrap();
        assert_eq!(again.judge("s", "n", &text("u", "10"), false), Found::Older);
        assert_eq!(again.judge("s", "n", &text("u", "21"), false), Found::Object);
    }

    #[test]
    fn history_may_begin_anew() {
        let mut one = One::default();
        one.judge("s", "n", &text("u", "900"), false);
        assert_eq!(one.judge("s", "n", &text("other", "10"), false), Found::Object);
        one.judge("s", "n", &text("other", "900"), false);
        assert_eq!(one.judge("s", "n", &text("other", "500"), false), Found::Older);
        assert_eq!(one.judge("s", "n", &text("other", "510"), false), Found::Object);
        assert_eq!(one.judge("s", "n", &text("other", "300"), true), Found::Object);
        assert_eq!(one.judge("s", "n", &text("other", "x"), false), Found::Object);
    }

    #[test]
    fn another_object_is_not_ours() {
        let mut one = One::default();
        assert_eq!(one.judge("s", "m", &text("u", "1"), true), Found::Other);
        assert_eq!(one.judge("t", "n", &text("u", "1"), true), Found::Other);
        assert_eq!(one.judge("s", "n", r#"{"kind":"Status","code":404}"#, true), Found::Other);
        assert_eq!(one.judge("s", "n", "not JSON", true), Found::Other);
        assert_eq!(one, One::default());
    }

    #[test]
    fn watches_hint() {
        use crate::Service;
        let mut one = One::default();
        one.judge("s", "n", &text("u", "20"), false);
        let event = |kind: &str, version: &str| -> Event<Service> {
            Event::read(&format!(r#"{{"type":"{kind}","object":{}}}"#, text("u", version)))
        };
        assert!(!one.is_news("n", &event("ADDED", "20")));
        assert!(!one.is_news("n", &event("ADDED", "10")));
        assert!(one.is_news("n", &event("MODIFIED", "21")));
        assert!(one.is_news("n", &event("DELETED", "22")));
        assert!(!one.is_news("m", &event("MODIFIED", "21")));
        assert!(!one.is_news("n", &event("BOOKMARK", "30")));
    }

    #[test]
    fn a_list_out_of_a_store_says_so() {
        let head = ListHead { kind: "ConfigMapList".into(), version: 5, partial: false, self_link: false };
        let online = |flavour, head: &ListHead| is_online(flavour, head, "ConfigMapList");
        assert_eq!(online(Flavour::KubeEdge, &head), Some(true));
        assert_eq!(online(Flavour::KubeEdge, &ListHead { self_link: true, ..head.clone() }), Some(false));
        assert_eq!(online(Flavour::KubeEdge, &ListHead { version: 0, ..head.clone() }), Some(false));
        assert_eq!(online(Flavour::KubeEdge, &ListHead { kind: "ConfigmapList".into(), ..head.clone() }), Some(false));
        assert_eq!(online(Flavour::OpenYurt, &head), None);
        assert_eq!(online(Flavour::Kubernetes, &head), Some(true));
    }
}
