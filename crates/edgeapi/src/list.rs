use miniserde::{Deserialize, json};

use crate::{MAX_OBJECT_BYTES, MAX_STATUS_BYTES};

/// Cuts a list into its items while it comes in: never more than one of them is in memory.
///
/// It knows just enough of JSON for that; items and the rest are read by a parser.
#[derive(Debug, Default)]
pub struct ListReader {
    /// Everything but the items.
    head: Vec<u8>,
    item: Vec<u8>,
    place: Place,
    depth: u32,
    text: bool,
    escaped: bool,
    /// Where the last text at the top level begins in `head`: perhaps a field's name.
    name: usize,
    /// The name of the field whose value comes.
    in_items: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Before,
    /// In the object, outside its items.
    Head,
    /// Between items.
    Items,
    /// In one of them.
    Item,
    After,
}

/// What a list says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListHead {
    /// `ConfigMapList`; where it was guessed, something like it.
    pub kind: String,
    /// Version of the state it shows; 0: it does not say.
    pub version: u64,
    /// There are more items than these.
    pub partial: bool,
    /// It has a `selfLink`, which API servers do not write since Kubernetes 1.20: it is out of MetaServer's store.
    pub self_link: bool,
}

#[derive(Deserialize)]
struct RawHead {
    kind: Option<String>,
    items: Option<Vec<()>>,
    metadata: Option<RawMeta>,
}

#[derive(Deserialize)]
struct RawMeta {
    #[serde(rename = "resourceVersion")]
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    more: Option<String>,
    #[serde(rename = "selfLink")]
    self_link: Option<String>,
}

/// Deeper nesting than any object has; OpenAPI schemas are the deepest.
const MAX_DEPTH: u32 = 64;

impl ListReader {
    /// Takes the next piece, and hands out the items that end within it.
    pub fn feed(&mut self, bytes: &[u8], mut item: impl FnMut(&str)) -> Result<(), &'static str> {
        for byte in bytes {
            self.step(*byte, &mut item)?;
        }
        Ok(())
    }

    /// What the list says about itself, once all of it was fed.
    pub fn finish(self) -> Result<ListHead, &'static str> {
        const BROKEN: &str = "the list cannot be read";
        if self.place != Place::After {
            return Err("the list ends too early");
        }
        let text = std::str::from_utf8(&self.head).map_err(|_| BROKEN)?;
        let head: RawHead = json::from_str(text).map_err(|_| BROKEN)?;
        let kind = head.kind.unwrap_or_default();
        if head.items.is_none() && !kind.ends_with("List") {
            return Err("the answer is no list");
        }
        let metadata = head.metadata.unwrap_or(RawMeta { resource_version: None, more: None, self_link: None });
        let given = |text: Option<String>| text.is_some_and(|text| !text.is_empty());
        Ok(ListHead {
            kind,
            version: metadata.resource_version.and_then(|text| text.parse().ok()).unwrap_or(0),
            partial: given(metadata.more),
            self_link: given(metadata.self_link),
        })
    }

    fn step(&mut self, byte: u8, item: &mut impl FnMut(&str)) -> Result<(), &'static str> {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.place {
            Place::Before if space => return Ok(()),
            Place::Before if byte == b'{' => self.place = Place::Head,
            Place::Before => return Err("the answer is no JSON object"),
            Place::After if space => return Ok(()),
            Place::After => return Err("something follows the list"),
            Place::Items => match byte {
                b'{' => self.place = Place::Item,
                b']' => self.place = Place::Head,
                b',' => return Ok(()),
                _ if space => return Ok(()),
                _ => return Err("an item is no object"),
            },
            Place::Head | Place::Item => {}
        }
        if self.place == Place::Item {
            if self.item.len() == MAX_OBJECT_BYTES {
                return Err("an item is too long");
            }
            self.item.push(byte);
        } else {
            if self.head.len() == MAX_STATUS_BYTES {
                return Err("the list says too much about itself");
            }
            self.head.push(byte);
        }
        self.structure(byte, item)
    }

    fn structure(&mut self, byte: u8, item: &mut impl FnMut(&str)) -> Result<(), &'static str> {
        if self.text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.text = false,
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => {
                self.text = true;
                if self.depth == 1 {
                    self.name = self.head.len() - 1;
                }
            }
            b':' if self.depth == 1 => {
                let name = self.head.get(self.name..).unwrap_or_default();
                self.in_items =
                    name.trim_ascii_end().strip_suffix(b":").unwrap_or_default().trim_ascii_end() == b"\"items\"";
            }
            b',' if self.depth == 1 => self.in_items = false,
            b'{' | b'[' => {
                if self.depth == MAX_DEPTH {
                    return Err("the list is nested too deeply");
                }
                self.depth += 1;
                if byte == b'[' && self.depth == 2 && self.in_items && self.place == Place::Head {
                    self.place = Place::Items;
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.checked_sub(1).ok_or("the list cannot be read")?;
                match (self.place, self.depth) {
                    (Place::Item, 2) => {
                        self.place = Place::Items;
                        let text = std::str::from_utf8(&self.item).map_err(|_| "an item is not text")?;
                        item(text);
                        self.item.clear();
                    }
                    (Place::Head, 0) => self.place = Place::After,
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(ListHead, Vec<String>), &'static str> {
        read_pieces(text, usize::MAX)
    }

    fn read_pieces(text: &str, size: usize) -> Result<(ListHead, Vec<String>), &'static str> {
        let mut reader = ListReader::default();
        let mut items = Vec::new();
        for piece in text.as_bytes().chunks(size.min(text.len().max(1))) {
            reader.feed(piece, |item| items.push(item.to_owned()))?;
        }
        Ok((reader.finish()?, items))
    }

    #[test]
    fn items_come_one_by_one_in_any_pieces() {
        let text = r#" {"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"42","items":[1]},
            "items": [ {"a":{"items":[{}]},"b":"]}\"\\"} , {"c":[1,[2]]},{} ] , "x":"items", "y":[{}] }
        "#;
        for size in 1..text.len() {
            let (head, items) = read_pieces(text, size).unwrap();
            assert_eq!(items, [r#"{"a":{"items":[{}]},"b":"]}\"\\"}"#, r#"{"c":[1,[2]]}"#, "{}"], "{size}");
            let version = 42;
            assert_eq!(head, ListHead { kind: "ServiceList".into(), version, partial: false, self_link: false });
        }
    }

    #[test]
    fn what_a_list_says_about_itself() {
        let (head, items) = read(r#"{"apiVersion":"none.io/v1","items":[],"kind":"FooList"}"#).unwrap();
        assert_eq!((head.version, items.len()), (0, 0));
        let (head, _) = read(r#"{"items":null,"kind":"FooList","metadata":{"continue":"x","selfLink":"/y"}}"#).unwrap();
        assert!(head.partial && head.self_link);
        let (head, _) = read(r#"{"items":[],"metadata":{"resourceVersion":"","continue":"","selfLink":""}}"#).unwrap();
        assert_eq!(head, ListHead::default());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            r#"{"items":["#,
            r#"{"items":[{}"#,
            r#"{"items":[{}]"#,
            r#"{"items":[1]}"#,
            r#"{"items":[{}]} x"#,
            r#"{"items":[{}]]"#,
            r#"{"items":{}}"#,
            r#"{"items":[{}],"kind":7}"#,
            r#"{"kind":"Status","reason":"Forbidden"}"#,
            "}{",
            "dial tcp 10.0.0.1:6443: connection refused",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_grows_without_end() {
        let long = |text: &str| format!("{{\"items\":[{{\"a\":\"{text}");
        assert_eq!(read(&long(&"x".repeat(MAX_OBJECT_BYTES))), Err("an item is too long"));
        assert_eq!(
            read(&format!("{{\"a\":\"{}", "x".repeat(MAX_STATUS_BYTES))),
            Err("the list says too much about itself")
        );
        assert_eq!(read(&"{\"a\":".repeat(65)), Err("the list is nested too deeply"));
        assert_eq!(read(&format!("{{\"items\":[{}", "{\"a\":".repeat(65))), Err("the list is nested too deeply"));
    }
}
