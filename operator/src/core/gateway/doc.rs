//! A cursor over the `spec` of an object that knows its own path, and tells of every field that nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

/// What was found wrong: the field, and words.
pub(super) type Notes = RefCell<Vec<(String, String)>>;

pub(super) struct Doc<'a> {
    path: String,
    value: &'a Value,
    asked: RefCell<BTreeSet<&'static str>>,
    notes: &'a Notes,
}

impl<'a> Doc<'a> {
    pub(super) fn new(path: &str, value: &'a Value, notes: &'a Notes) -> Self {
        Doc { path: path.to_owned(), value, asked: RefCell::default(), notes }
    }

    /// Where this stands.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A field that may be absent.
    pub(super) fn get(&self, name: &'static str) -> Option<Doc<'a>> {
        self.asked.borrow_mut().insert(name);
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Doc::new(&format!("{}.{name}", self.path), value, self.notes))
    }

    /// The elements of a list that may be absent.
    pub(super) fn list(&self, name: &'static str) -> Vec<Doc<'a>> {
        let Some(list) = self.get(name) else { return Vec::new() };
        let Some(items) = list.value.as_array() else {
            list.note("is no list");
            return Vec::new();
        };
        let item = |(i, value)| Doc::new(&format!("{}[{i}]", list.path), value, self.notes);
        items.iter().enumerate().map(item).collect()
    }

    /// A text that may be absent.
    pub(super) fn text(&self, name: &'static str) -> Option<&'a str> {
        let field = self.get(name)?;
        let text = field.as_text();
        if text.is_none() {
            field.note("is no text");
        }
        text
    }

    /// This itself as a text.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// This itself.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// This itself as the status of an answer.
    pub(super) fn as_status(&self) -> Option<u16> {
        self.value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| (200..600).contains(n))
    }

    /// How much was noted by now.
    pub(super) fn noted(&self) -> usize {
        self.notes.borrow().len()
    }

    /// A number from 0 that may be absent.
    pub(super) fn number(&self, name: &'static str) -> Option<u32> {
        let field = self.get(name)?;
        let number = field.value.as_u64().and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            field.note("is no number that could be used");
        }
        number
    }

    /// A port that may be absent.
    pub(super) fn port(&self, name: &'static str) -> Option<u16> {
        let port = self.number(name).map(u16::try_from);
        match port {
            Some(Ok(port @ 1..)) => Some(port),
            Some(_) => {
                self.note(&format!("{name} is no port"));
                None
            }
            None => None,
        }
    }

    pub(super) fn flag(&self, name: &'static str) -> bool {
        self.get(name).is_some_and(|field| field.value.as_bool().unwrap_or(false))
    }

    /// A duration as Gateway API and Istio write it (`500ms`, `1m30s`), in milliseconds.
    pub(super) fn duration(&self, name: &'static str) -> Option<u32> {
        let field = self.get(name)?;
        let milliseconds = field.as_text().and_then(milliseconds);
        if milliseconds.is_none() {
            field.note("is no duration");
        }
        milliseconds
    }

    /// Names and texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let object = self.value.as_object().into_iter().flatten();
        object.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// Names and what they stand for.
    pub(super) fn entries(&self) -> Vec<(&'a str, Doc<'a>)> {
        let object = self.value.as_object().into_iter().flatten();
        let entry = |(name, value): (&'a String, &'a Value)| {
            (&**name, Doc::new(&format!("{}[{name}]", self.path), value, self.notes))
        };
        object.map(entry).collect()
    }

    pub(super) fn note(&self, words: &str) {
        self.notes.borrow_mut().push((self.path.clone(), words.to_owned()));
    }

    /// Says which fields nobody asked for. True if there are none.
    pub(super) fn done(&self) -> bool {
        let asked = self.asked.borrow();
        let object = self.value.as_object().into_iter().flatten();
        let rest: Vec<&String> =
            object.filter(|(name, value)| !value.is_null() && !asked.contains(name.as_str())).map(|(n, _)| n).collect();
        for name in &rest {
            self.notes.borrow_mut().push((format!("{}.{name}", self.path), "is not supported".to_owned()));
        }
        rest.is_empty()
    }
}

fn milliseconds(text: &str) -> Option<u32> {
    let (mut rest, mut total) = (text, 0f64);
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        total += number.parse::<f64>().ok()?
            * [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6)].iter().find(|(u, _)| *u == unit)?.1;
        rest = behind;
    }
    (total <= 86_400_000.0).then_some(total as u32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [("500ms", Some(500)), ("1m30s", Some(90_000)), ("0s", Some(0)), ("1.5s", Some(1500))] {
            assert_eq!(milliseconds(text), ms, "{text}");
        }
        for text in ["", "5", "s", "5d", "25h"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn fields_that_nobody_asked_for_are_told() {
        let (value, notes) = (json!({"a": [{"b": 1, "c": "x"}], "d": null}), Notes::default());
        let doc = Doc::new("spec", &value, &notes);
        for item in doc.list("a") {
            assert_eq!(item.number("b"), Some(1));
            item.done();
        }
        doc.done();
        assert_eq!(*notes.borrow(), [("spec.a[0].c".to_owned(), "is not supported".to_owned())]);
    }
}
