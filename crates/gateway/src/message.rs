//! Requests and answers, however they came.

use crate::Fields;
use crate::fields::{is_token, is_value};

/// The head of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// In capitals, as it came.
    pub method: String,
    /// Host and perhaps port, in small letters.
    pub authority: String,
    /// Path and query; `*` of OPTIONS.
    pub path: String,
    /// Without `host`.
    pub fields: Fields,
    /// The other protocol that the client would rather speak (HTTP/1.1 only).
    pub upgrade: Option<String>,
}

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// 100 to 599.
    pub status: u16,
    /// Its header.
    pub fields: Fields,
    /// With status 101: what is spoken from now on.
    pub upgrade: Option<String>,
}

/// Why a message is refused: the status that says so to a client, and words for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad(pub u16, pub &'static str);

impl Request {
    /// The host without the port.
    pub fn host(&self) -> &str {
        without_port(&self.authority)
    }

    /// Path without query, and query.
    pub fn split_path(&self) -> (&str, &str) {
        self.path.split_once('?').unwrap_or((&self.path, ""))
    }

    /// Whether what it asks for may be asked again: nothing is changed by it.
    pub fn is_safe(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    pub(crate) fn check(&self) -> Result<(), Bad> {
        if !is_token(self.method.as_bytes()) {
            return Err(Bad(400, "the method is none"));
        }
        if self.method == "CONNECT" {
            return Err(Bad(405, "CONNECT is not served"));
        }
        let star = self.path == "*" && self.method == "OPTIONS";
        if !(star || self.path.starts_with('/')) || self.path.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(Bad(400, "the path is none"));
        }
        // A backend that resolves them would be asked for what no rule allowed.
        if self.split_path().0.split(['/', '\\']).any(goes_up) {
            return Err(Bad(400, "the path goes up"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&b);
        if self.authority.len() > 255 || !self.authority.bytes().all(plain) {
            return Err(Bad(400, "the host is none"));
        }
        check_fields(&self.fields)
    }
}

/// Whether an element of a path is `..`, however it is written, perhaps with parameters behind it.
fn goes_up(element: &str) -> bool {
    let mut rest = element.split(';').next().unwrap_or_default();
    let mut dots = 0;
    while let Some(behind) = [".", "%2e", "%2E"].iter().find_map(|dot| rest.strip_prefix(dot)) {
        (dots, rest) = (dots + 1, behind);
    }
    dots == 2 && rest.is_empty()
}

pub(crate) fn check_fields(fields: &Fields) -> Result<(), Bad> {
    if fields.len() > crate::MAX_FIELDS {
        return Err(Bad(431, "too many header fields"));
    }
    match fields.iter().all(|(name, value)| is_token(name.as_bytes()) && is_value(value)) {
        true => Ok(()),
        false => Err(Bad(400, "a header field is none")),
    }
}

/// `[::1]:80` is `[::1]`.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_part_of_a_host() {
        for (authority, host) in
            [("a.example:80", "a.example"), ("a.example", "a.example"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(authority), host);
        }
    }
}
