//! What was found, and how it is shown.

use std::fmt::Write as _;

use miniserde::Serialize;

/// One line of the doctor's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The same in every release, for scripts.
    pub(crate) id: String,
    /// `ok`, `info`, `warn` or `fail`.
    pub(crate) level: String,
    /// What it is, and what it means here.
    pub(crate) text: String,
    /// What helps; empty if nothing needs to, or nobody knows.
    pub(crate) remedy: String,
    /// The system's own words, if any.
    pub(crate) detail: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Missing, and not missed.
    Info,
    /// It works, but not as well as it could.
    Warn,
    /// Something does not work.
    Fail,
}

/// Everything, `doctor --json`.
#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    findings: &'a [Finding],
}

impl Finding {
    pub(crate) fn new(level: Level, id: &str, text: impl Into<String>) -> Self {
        let level = match level {
            Level::Ok => "ok",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        Finding {
            id: id.to_owned(),
            level: level.to_owned(),
            text: text.into(),
            remedy: String::new(),
            detail: String::new(),
        }
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    pub(crate) fn detail(mut self, detail: impl ToString) -> Self {
        self.detail = detail.to_string();
        self
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.level == "ok"
    }

    /// In one line, for `status`.
    pub(crate) fn line(&self) -> String {
        if self.remedy.is_empty() { self.text.clone() } else { format!("{} ({})", self.text, self.remedy) }
    }
}

/// Whether nothing fails.
pub(crate) fn healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != "fail")
}

/// For people.
pub(crate) fn human(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { level, text, remedy, detail, .. } in findings {
        let level = if level == "fail" { "FAIL" } else { level };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{level:4}  {text}");
        for more in [remedy, detail].into_iter().filter(|more| !more.is_empty()) {
            let _ = writeln!(out, "        {more}");
        }
    }
    out
}

/// For programs.
pub(crate) fn json(findings: &[Finding]) -> String {
    let mut text = miniserde::json::to_string(&Document { healthy: healthy(findings), findings });
    text.push('\n');
    text
}
