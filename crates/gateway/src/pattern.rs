//! Texts and what they are compared with.

use selvedge_model::gateway::{MatchKind, TextMatch};

use crate::regex::Regex;

/// A comparison, ready to be made.
#[derive(Debug)]
pub(crate) enum Pattern {
    Exact(String),
    /// Of whole path elements, without a slash at the end.
    Prefix(String),
    Beginning(String),
    Regex(Regex),
}

impl Pattern {
    pub(crate) fn new(kind: MatchKind, value: &str) -> Result<Self, String> {
        Ok(match kind {
            MatchKind::Exact => Pattern::Exact(value.to_owned()),
            MatchKind::Prefix => Pattern::Prefix(value.trim_end_matches('/').to_owned()),
            MatchKind::Beginning => Pattern::Beginning(value.to_owned()),
            MatchKind::Regex => Pattern::Regex(Regex::new(value).map_err(|problem| format!("\"{value}\" {problem}"))?),
        })
    }

    pub(crate) fn path(of: &Option<TextMatch>) -> Result<Self, String> {
        of.as_ref().map_or(Ok(Pattern::Prefix(String::new())), |path| Pattern::new(path.kind, &path.value))
    }

    /// How much of the text, from its beginning, fitted. `None`: it does not.
    pub(crate) fn fits(&self, text: &str) -> Option<usize> {
        match self {
            Pattern::Exact(value) => (text == value).then_some(text.len()),
            Pattern::Prefix(value) => {
                let rest = text.strip_prefix(value.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then_some(value.len())
            }
            Pattern::Beginning(value) => text.starts_with(value.as_str()).then_some(value.len()),
            Pattern::Regex(expression) => expression.is_match(text).then_some(text.len()),
        }
    }

    /// What goes first among paths: exact ones, then expressions, then the longest prefix.
    pub(crate) fn rank(&self) -> (u8, usize) {
        match self {
            Pattern::Exact(value) => (2, value.len()),
            Pattern::Regex(expression) => (1, expression.as_str().len()),
            Pattern::Prefix(value) | Pattern::Beginning(value) => (0, value.len()),
        }
    }
}

/// How well a host fits `pattern`, a name, `*.` with a suffix, or empty: length of what is no wildcard, and whether there
/// is none. `None`: not at all.
pub(crate) fn host_fits(pattern: &str, host: &str) -> Option<(bool, usize)> {
    match pattern.strip_prefix('*') {
        _ if pattern.is_empty() => Some((false, 0)),
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some((false, suffix.len())),
        None => (pattern == host).then_some((true, pattern.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_elements() {
        let prefix = Pattern::new(MatchKind::Prefix, "/foo/").unwrap();
        for (path, fits) in
            [("/foo", Some(4)), ("/foo/", Some(4)), ("/foo/bar", Some(4)), ("/foobar", None), ("/", None)]
        {
            assert_eq!(prefix.fits(path), fits, "{path}");
        }
        assert_eq!(Pattern::new(MatchKind::Prefix, "/").unwrap().fits("/any"), Some(0));
        assert_eq!(Pattern::new(MatchKind::Beginning, "/foo").unwrap().fits("/foobar"), Some(4));
    }

    #[test]
    fn expressions_fit_the_whole() {
        let regex = Pattern::new(MatchKind::Regex, "/v[0-9]+|/x").unwrap();
        for (path, fits) in [("/v12", true), ("/v12/", false), ("/a/v1", false), ("/x", true), ("/xy", false)] {
            assert_eq!(regex.fits(path).is_some(), fits, "{path}");
        }
        assert!(Pattern::new(MatchKind::Regex, "(").is_err());
        assert!(Pattern::new(MatchKind::Regex, "(a{1000}){1000}").is_err());
    }

    #[test]
    fn a_wildcard_stands_for_at_least_one_label() {
        assert_eq!(host_fits("*.example", "a.example"), Some((false, 8)));
        assert_eq!(host_fits("*.example", "a.b.example"), Some((false, 8)));
        assert_eq!(host_fits("*.example", "example"), None);
        assert_eq!(host_fits("*.example", "notexample"), None);
        assert_eq!(host_fits("a.example", "a.example"), Some((true, 9)));
        assert_eq!(host_fits("", "any"), Some((false, 0)));
    }
}
