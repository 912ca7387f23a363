use miniserde::{Deserialize, json};

use crate::answer::printable;
use crate::object::{Meta, Object, RawMeta};

/// One line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The object is so now; `None`: of no use here.
    Put(Meta, Option<T>),
    /// It is gone.
    Deleted(Meta),
    /// Everything up to this version was told.
    Bookmark(u64),
    /// An object that cannot be read; others can.
    Unreadable(String),
    /// The version that the watch began at is too old: list again.
    Expired,
    /// The watch is over.
    Failed(String),
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: Option<String>,
    object: Option<RawAny>,
}

/// What an object, a bookmark or a `Status` has that matters here.
#[derive(Deserialize)]
struct RawAny {
    metadata: Option<RawMeta>,
    code: Option<u32>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct RawPut<R> {
    object: Option<R>,
}

impl<T: Object> Event<T> {
    /// Reads one line.
    pub fn read(line: &str) -> Event<T> {
        let Ok(RawEvent { kind: Some(kind), object: Some(any) }) = json::from_str(line) else {
            return Event::Failed("a line of the watch cannot be read".to_owned());
        };
        match kind.as_str() {
            "ADDED" | "MODIFIED" => match json::from_str::<RawPut<T::Raw>>(line).ok().and_then(|put| put.object) {
                None => Event::Unreadable(format!("{}: a field has a wrong type", Meta::from(any.metadata).show())),
                Some(raw) => match T::narrow(raw) {
                    Ok((meta, object)) => match meta.check() {
                        Ok(()) => Event::Put(meta, object),
                        Err(problem) => Event::Unreadable(problem),
                    },
                    Err(problem) => Event::Unreadable(format!("{}: {problem}", Meta::from(any.metadata).show())),
                },
            },
            "DELETED" => Event::Deleted(any.metadata.into()),
            "BOOKMARK" => Event::Bookmark(Meta::from(any.metadata).version),
            "ERROR" if any.code == Some(410) => Event::Expired,
            "ERROR" => Event::Failed(printable(&any.message.unwrap_or_else(|| "the watch failed".to_owned()))),
            other => Event::Unreadable(format!("a watch tells of \"{}\"", printable(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Service;

    fn read(line: &str) -> Event<Service> {
        Event::read(line)
    }

    #[test]
    fn all_that_a_watch_tells() {
        let put = r#"{"type":"MODIFIED","object":{"kind":"Service","metadata":{"namespace":"a","name":"b",
            "resourceVersion":"5"},"spec":{"clusterIP":"10.96.0.1"}}}"#;
        assert!(matches!(read(put), Event::Put(meta, Some(_)) if meta.version == 5));
        let gone = put.replace("MODIFIED", "DELETED");
        assert!(matches!(read(&gone), Event::Deleted(meta) if meta.show() == "a/b"));
        let mark = r#"{"type":"BOOKMARK","object":{"kind":"Service","metadata":{"resourceVersion":"77"},"spec":{}}}"#;
        assert_eq!(read(mark), Event::Bookmark(77));
        let late = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert_eq!(read(late), Event::Expired);
        assert_eq!(read(&late.replace("410", "500")), Event::Failed("too old".into()));
    }

    #[test]
    fn one_bad_object_ends_no_watch() {
        let put = r#"{"type":"ADDED","object":{"metadata":{"namespace":"a","name":"b"},"spec":{"clusterIP":7}}}"#;
        assert_eq!(read(put), Event::Unreadable("a/b: a field has a wrong type".into()));
        assert!(matches!(read(r#"{"type":"ADDED","object":{}}"#), Event::Unreadable(_)));
        let way_out = r#"{"type":"ADDED","object":{"metadata":{"namespace":"a","name":"../../secrets/x?"}}}"#;
        assert_eq!(read(way_out), Event::Unreadable("an object has an impossible name".into()));
        assert!(matches!(read(r#"{"type":"NEWS","object":{}}"#), Event::Unreadable(_)));
        for line in ["", "7", "{}", r#"{"type":"ADDED"}"#, r#"{"type":7,"object":{}}"#, "dial tcp"] {
            assert!(matches!(read(line), Event::Failed(_)), "{line}");
        }
    }
}
