//! The fields of a header or trailer.

/// Names in small letters with their values, in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Vec<u8>)>);

/// What concerns one connection and is not passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings"];

impl Fields {
    /// The first value of that name, which is in small letters.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The same, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every value of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// Elements of all comma-joined values of that name.
    pub fn elements<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let texts = self.all(name).filter_map(|value| std::str::from_utf8(value).ok());
        texts.flat_map(|text| text.split(',')).map(str::trim).filter(|element| !element.is_empty())
    }

    /// One more, behind those of its name.
    pub fn add(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    /// This one instead of all of its name.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.remove(name);
        self.add(name, value);
    }

    /// None of that name any more.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes away what concerns one connection, and what `connection` says does.
    pub(crate) fn strip(&mut self) {
        let named: Vec<String> = self.elements("connection").map(str::to_ascii_lowercase).collect();
        let trailers = self.elements("te").any(|element| element == "trailers");
        self.0.retain(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()) && !named.contains(name));
        if trailers {
            self.add("te", "trailers");
        }
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Fields {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [u8])>>(fields: T) -> Self {
        Fields(fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect())
    }
}

/// Whether it may be a field's name (a token of RFC 9110).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Whether it may be a field's value.
pub(crate) fn is_value(text: &[u8]) -> bool {
    text.iter().all(|b| !matches!(b, 0 | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let mut fields: Fields = [
            ("Connection", &b"close, X-Mine"[..]),
            ("X-Mine", b"1"),
            ("Keep-Alive", b"timeout=5"),
            ("TE", b"gzip, trailers"),
            ("Transfer-Encoding", b"chunked"),
            ("Upgrade", b"h2c"),
            ("Accept", b"*/*"),
        ]
        .into_iter()
        .collect();
        fields.strip();
        let left: Vec<_> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["accept", "te"]);
        assert_eq!(fields.text("te"), Some("trailers"));
    }
}
