//! A cursor over a JSON value that knows its own path, so that every error names the field.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use miniserde::json::{Number, Object, Value};

/// Why a configuration is refused: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `peers[2].prefixes[0]`, or `line 3, column 7` where the text is not JSON.
    pub place: String,
    /// What is wrong there, in words.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        ConfigError { place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for ConfigError {}

pub(crate) type Result<T> = std::result::Result<T, ConfigError>;

/// One value of the document and the path to it.
pub(crate) struct Reader<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Reader<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Reader { path: String::new(), value }
    }

    pub(crate) fn error<T>(&self, problem: impl Into<String>) -> Result<T> {
        let place = if self.path.is_empty() { "configuration" } else { &self.path };
        Err(ConfigError::new(place, problem))
    }

    /// A field that must be there.
    pub(crate) fn field(&self, name: &str) -> Result<Reader<'a>> {
        match self.optional(name)? {
            Some(reader) => Ok(reader),
            None => Err(ConfigError::new(self.child(name), "is missing")),
        }
    }

    /// A field that may be absent or null.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<Reader<'a>>> {
        Ok(match self.object()?.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => Some(Reader { path: self.child(name), value }),
        })
    }

    /// Every element of an array, read by `item`.
    pub(crate) fn list<T>(&self, item: impl Fn(&Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
        let Value::Array(array) = self.value else {
            return self.error(format!("expected a list, found {}", self.kind()));
        };
        array
            .iter()
            .enumerate()
            .map(|(i, value)| item(&Reader { path: format!("{}[{i}]", self.path), value }))
            .collect()
    }

    /// A list that may be absent: then empty.
    pub(crate) fn list_or_empty<T>(&self, name: &str, item: impl Fn(&Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
        self.optional(name)?.map_or_else(|| Ok(Vec::new()), |r| r.list(item))
    }

    pub(crate) fn string(&self) -> Result<String> {
        match self.value {
            Value::String(s) => Ok(s.clone()),
            _ => self.error(format!("expected a string, found {}", self.kind())),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool> {
        match self.value {
            Value::Bool(b) => Ok(*b),
            _ => self.error(format!("expected true or false, found {}", self.kind())),
        }
    }

    /// A whole number within `min..=max`.
    pub(crate) fn integer(&self, min: u64, max: u64) -> Result<u64> {
        match self.value {
            Value::Number(Number::U64(n)) if (min..=max).contains(n) => Ok(*n),
            Value::Number(Number::U64(n)) => self.error(format!("{n} is not within {min} to {max}")),
            Value::Number(Number::I64(n)) => self.error(format!("{n} is not within {min} to {max}")),
            _ => self.error(format!("expected a whole number, found {}", self.kind())),
        }
    }

    pub(crate) fn port(&self) -> Result<u16> {
        u16::try_from(self.integer(1, u64::from(u16::MAX))?).or_else(|_| self.error("is not a port"))
    }

    pub(crate) fn address(&self) -> Result<IpAddr> {
        let text = self.string()?;
        text.parse().or_else(|_| self.error(format!("\"{text}\" is not an IP address")))
    }

    /// A network in CIDR notation whose host bits are zero.
    pub(crate) fn prefix(&self) -> Result<IpNet> {
        let text = self.string()?;
        let Ok(net) = text.parse::<IpNet>() else {
            return self.error(format!("\"{text}\" is not a network in CIDR notation"));
        };
        if net.trunc() != net {
            return self.error(format!("\"{text}\" has host bits set; the network is {}", net.trunc()));
        }
        Ok(net)
    }

    /// One of the listed words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T> {
        let text = self.string()?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.error(format!("\"{text}\" is none of {}", known.join(", ")))
            }
        }
    }

    fn object(&self) -> Result<&'a Object> {
        match self.value {
            Value::Object(object) => Ok(object),
            _ => self.error(format!("expected an object, found {}", self.kind())),
        }
    }

    fn child(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        }
    }
}
