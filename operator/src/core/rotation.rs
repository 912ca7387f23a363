//! How one authority follows another without anybody losing trust. Nothing is torn down at any step:
//!
//! ```text
//! Steady ─introduce─► Introducing: the new one is made and trusted, the old one signs
//!        ─activate──► Replacing:   the new one signs, the old one is trusted
//!        ─retire────► Steady:      the old one is gone
//! ```
//!
//! Each step waits until everybody has what the one before brought, and then for the grace: what is written is not yet
//! delivered.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An authority is replaced so long before its end, in seconds.
pub(crate) const AHEAD: u64 = 365 * 24 * 60 * 60;

/// How far the change of the authority is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rotation {
    /// The request that was obeyed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requested: Option<String>,
    #[serde(default)]
    phase: Phase,
}

/// `since`: from when on everybody had what this phase brought, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    #[default]
    Steady,
    Introducing {
        since: Option<u64>,
    },
    Replacing {
        since: Option<u64>,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a new authority, to be trusted beside the old one.
    Introduce,
    /// Let the new one sign from now on, and replace what the old one signed.
    Activate,
    /// Trust the old one no longer.
    Retire,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Introduce => "a new certificate authority is introduced",
            Step::Activate => "the new certificate authority signs from now on",
            Step::Retire => "the previous certificate authority is trusted no longer",
        })
    }
}

/// What the next step depends on. Times in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) now: u64,
    /// The annotation that asks for a new authority: every new value does.
    pub(crate) wanted: Option<&'a str>,
    /// The end of the authority that signs.
    pub(crate) ends: u64,
    /// Seconds that delivery may take.
    pub(crate) grace: u64,
    /// Everybody's credentials name all authorities.
    pub(crate) trusted: bool,
    /// Everybody's certificate is by the authority that signs.
    pub(crate) replaced: bool,
}

impl Rotation {
    /// Of a new authority: what is asked for now was asked of nothing.
    pub(crate) fn new(wanted: Option<&str>) -> Self {
        Rotation { requested: wanted.map(str::to_owned), phase: Phase::Steady }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The step that is due, and when to look again if nothing else happens.
    pub(crate) fn advance(&mut self, facts: &Facts<'_>) -> (Option<Step>, Option<u64>) {
        let waited = |since: u64| facts.now.saturating_sub(since) >= facts.grace;
        match self.phase {
            Phase::Steady => {
                let asked = facts.wanted.is_some() && facts.wanted != self.requested.as_deref();
                if !asked && facts.now.saturating_add(AHEAD) < facts.ends {
                    return (None, Some(facts.ends - AHEAD));
                }
                if asked {
                    self.requested = facts.wanted.map(str::to_owned);
                }
                self.phase = Phase::Introducing { since: None };
                (Some(Step::Introduce), None)
            }
            Phase::Introducing { since } => {
                let since = facts.trusted.then(|| since.unwrap_or(facts.now));
                if !since.is_some_and(waited) {
                    self.phase = Phase::Introducing { since };
                    return (None, since.map(|since| since.saturating_add(facts.grace)));
                }
                self.phase = Phase::Replacing { since: None };
                (Some(Step::Activate), None)
            }
            Phase::Replacing { since } => {
                let since = facts.replaced.then(|| since.unwrap_or(facts.now));
                if !since.is_some_and(waited) {
                    self.phase = Phase::Replacing { since };
                    return (None, since.map(|since| since.saturating_add(facts.grace)));
                }
                self.phase = Phase::Steady;
                (Some(Step::Retire), None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn facts(now: u64) -> Facts<'static> {
        Facts { now, wanted: None, ends: NOW + 10 * AHEAD, grace: 100, trusted: true, replaced: true }
    }

    #[test]
    fn nothing_happens_unasked_until_a_year_before_the_end() {
        let mut rotation = Rotation::new(Some("a"));
        let asked_before = Facts { wanted: Some("a"), ..facts(NOW) };
        assert_eq!(rotation.advance(&asked_before), (None, Some(NOW + 9 * AHEAD)));
        assert_eq!(rotation.advance(&facts(NOW)), (None, Some(NOW + 9 * AHEAD)), "the annotation was removed");
        assert_eq!(rotation.advance(&facts(NOW + 9 * AHEAD)).0, Some(Step::Introduce));
    }

    #[test]
    fn each_step_waits_for_everybody_and_for_the_grace() {
        let mut rotation = Rotation::new(None);
        let mut step =
            |now, trusted, replaced| rotation.advance(&Facts { wanted: Some("b"), trusted, replaced, ..facts(now) });
        assert_eq!(step(NOW, true, true), (Some(Step::Introduce), None));
        assert_eq!(step(NOW + 1, false, true), (None, None));
        assert_eq!(step(NOW + 200, false, true), (None, None), "not everybody knows it");
        assert_eq!(step(NOW + 201, true, true), (None, Some(NOW + 301)));
        assert_eq!(step(NOW + 300, true, true), (None, Some(NOW + 301)));
        assert_eq!(step(NOW + 301, true, true), (Some(Step::Activate), None));
        assert_eq!(step(NOW + 302, true, false), (None, None));
        assert_eq!(step(NOW + 303, true, true), (None, Some(NOW + 403)));
        assert_eq!(step(NOW + 403, true, true), (Some(Step::Retire), None));
        assert_eq!(step(NOW + 404, true, true).0, None, "the same request is not obeyed twice");
    }

    #[test]
    fn whoever_falls_behind_starts_the_wait_anew() {
        let mut rotation = Rotation { requested: None, phase: Phase::Introducing { since: Some(NOW) } };
        let behind = Facts { trusted: false, ..facts(NOW + 99) };
        assert_eq!(rotation.advance(&behind), (None, None));
        assert_eq!(rotation.advance(&facts(NOW + 100)), (None, Some(NOW + 200)));
        assert_eq!(
            rotation.advance(&facts(NOW - 1000)),
            (None, Some(NOW + 200)),
            "a clock that runs back ends no wait"
        );
    }

    #[test]
    fn another_request_waits_for_its_turn() {
        let mut rotation = Rotation { requested: Some("a".to_owned()), phase: Phase::Replacing { since: Some(NOW) } };
        let asked = Facts { wanted: Some("b"), ..facts(NOW + 100) };
        assert_eq!(rotation.advance(&asked).0, Some(Step::Retire));
        assert_eq!(rotation.advance(&asked).0, Some(Step::Introduce));
    }

    #[test]
    fn it_survives_a_restart() {
        let rotation = Rotation { requested: Some("a".to_owned()), phase: Phase::Replacing { since: Some(NOW) } };
        let text = serde_json::to_string(&rotation).unwrap();
        assert_eq!(text, r#"{"requested":"a","phase":{"replacing":{"since":1800000000}}}"#);
        assert_eq!(serde_json::from_str::<Rotation>(&text).unwrap(), rotation);
    }
}
