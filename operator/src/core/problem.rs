use std::fmt;

use serde::Serialize;

use crate::api::ObjectRef;

/// What is wrong with an object, for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) object: ObjectRef,
    /// `spec.members[2]`, `line 3, column 7`, or empty for the whole.
    pub(crate) field: String,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Severity {
    /// The object, or the named part of it, is not in force.
    Error,
    /// All is in force, but perhaps not as meant.
    Warning,
}

impl Problem {
    pub(crate) fn error(object: &ObjectRef, field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { severity: Severity::Error, object: object.clone(), field: field.into(), message: message.into() }
    }

    pub(crate) fn warning(object: &ObjectRef, field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { severity: Severity::Warning, ..Problem::error(object, field, message) }
    }

    /// Field and words, for where the object is known.
    pub(crate) fn about_object(&self) -> String {
        if self.field.is_empty() { self.message.clone() } else { format!("{}: {}", self.field, self.message) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = self.object.to_string();
        for part in [&object, &self.field].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}
