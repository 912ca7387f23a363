//! Which rule a request meets.

use std::cmp::Reverse;

use selvedge_model::gateway::{self as model, Listener, Match, Rule};

use crate::pattern::{Pattern, host_fits};
use crate::{Fields, Request};

/// The sites of a listener, ready to be searched.
#[derive(Debug)]
pub struct Table {
    sites: Vec<Site>,
}

/// The rules for a host or a suffix of hosts.
#[derive(Debug)]
pub struct Site {
    /// As configured.
    pub host: String,
    /// As configured.
    pub certificate: String,
    /// As configured.
    pub client_certificates: bool,
    rules: Vec<Rule>,
    /// In the order of precedence.
    entries: Vec<Entry>,
}

/// One of a rule's alternatives, with one of its hosts.
#[derive(Debug)]
struct Entry {
    rule: usize,
    host: String,
    path: Pattern,
    method: Option<String>,
    headers: Vec<(String, Pattern)>,
    query: Vec<(String, Pattern)>,
}

/// A rule that a request meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// How much of the path its match fitted.
    pub prefix: usize,
}

impl Table {
    /// Prepares the rules of a listener. What cannot be is left out, and said.
    pub fn new(listener: &Listener) -> (Table, Vec<String>) {
        let mut problems = Vec::new();
        let sites = listener.sites.iter().map(|site| Site::new(site, &mut problems)).collect();
        (Table { sites }, problems)
    }

    /// All sites, as configured.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The index of the site that answers for a host, in small letters and without port.
    pub fn site(&self, host: &str) -> Option<usize> {
        let fits = |(i, site): (usize, &Site)| host_fits(&site.host, host).map(|how| (how, Reverse(i)));
        self.sites.iter().enumerate().filter_map(fits).max().map(|(_, Reverse(i))| i)
    }
}

impl Site {
    fn new(site: &model::Site, problems: &mut Vec<String>) -> Self {
        let mut entries = Vec::new();
        let any = [Match::default()];
        for (i, rule) in site.rules.iter().enumerate() {
            let hosts = if rule.hosts.is_empty() { std::slice::from_ref(&site.host) } else { &rule.hosts };
            let matches = if rule.matches.is_empty() { &any[..] } else { &rule.matches };
            for (host, one) in hosts.iter().flat_map(|host| matches.iter().map(move |one| (host, one))) {
                match Entry::new(i, host, one) {
                    Ok(entry) => entries.push(entry),
                    Err(problem) => problems.push(format!("{}: {problem}", rule.name)),
                }
            }
        }
        if !site.in_order {
            // Equal ones stay as they are: in the order of the routes' ages and names.
            entries.sort_by_key(|entry| Reverse(entry.rank()));
        }
        Site {
            host: site.host.clone(),
            certificate: site.certificate.clone(),
            client_certificates: site.client_certificates,
            rules: site.rules.clone(),
            entries,
        }
    }

    /// The rule that goes first among those that the request meets.
    pub fn find(&self, request: &Request) -> Option<Found<'_>> {
        let (path, query) = request.split_path();
        self.entries.iter().find_map(|entry| {
            host_fits(&entry.host, request.host())?;
            let prefix = entry.path.fits(path)?;
            let method = entry.method.as_ref().is_none_or(|method| *method == request.method);
            (method && entry.headers_fit(&request.fields) && entry.query_fits(query))
                .then_some(Found { rule: self.rules.get(entry.rule)?, prefix })
        })
    }

    /// The rule for a connection to that host, whatever it carries.
    pub fn connection(&self, host: &str) -> Option<&Rule> {
        let entry = self.entries.iter().find(|entry| host_fits(&entry.host, host).is_some())?;
        self.rules.get(entry.rule)
    }
}

impl Entry {
    fn new(rule: usize, host: &str, one: &Match) -> Result<Self, String> {
        let fields = |list: &[model::FieldMatch], small: bool| {
            let field = |f: &model::FieldMatch| {
                let name = if small { f.name.to_ascii_lowercase() } else { f.name.clone() };
                // Only paths have elements.
                let kind = if f.kind == model::MatchKind::Prefix { model::MatchKind::Beginning } else { f.kind };
                Ok((name, Pattern::new(kind, &f.value)?))
            };
            list.iter().map(field).collect::<Result<Vec<_>, String>>()
        };
        Ok(Entry {
            rule,
            host: host.to_owned(),
            path: Pattern::path(&one.path)?,
            method: one.method.clone(),
            headers: fields(&one.headers, true)?,
            query: fields(&one.query, false)?,
        })
    }

    /// The order that Gateway API gives: hosts, path, method, number of header fields, of query parameters.
    fn rank(&self) -> ((bool, usize), (u8, usize), bool, usize, usize) {
        let host = match self.host.strip_prefix('*') {
            Some(suffix) => (false, suffix.len()),
            None => (!self.host.is_empty(), self.host.len()),
        };
        (host, self.path.rank(), self.method.is_some(), self.headers.len(), self.query.len())
    }

    fn headers_fit(&self, fields: &Fields) -> bool {
        self.headers.iter().all(|(name, pattern)| {
            let values: Vec<&str> = fields.all(name).filter_map(|value| std::str::from_utf8(value).ok()).collect();
            !values.is_empty() && pattern.fits(&values.join(",")).is_some()
        })
    }

    fn query_fits(&self, query: &str) -> bool {
        self.query.iter().all(|(name, pattern)| {
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let first = pairs.map(|(n, v)| (unescape(n), v)).find(|(n, _)| n == name);
            first.is_some_and(|(_, value)| pattern.fits(&unescape(value)).is_some())
        })
    }
}

/// `%20` and `+` as they are meant in a query.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok()).filter(|_| first == b'%');
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = behind.get(if escaped.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
