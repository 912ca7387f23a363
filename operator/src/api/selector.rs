//! Label selectors as Kubernetes has them (`meta/v1` LabelSelector).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FieldError;
use super::fields::{Word, word};
use super::schema;

/// Requirements that labels must all meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LabelSelector {
    /// Labels with exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) match_expressions: Vec<Requirement>,
}

/// One requirement for one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Requirement {
    /// The label's name.
    pub(crate) key: String,
    /// `In` and `NotIn` need `values`, `Exists` and `DoesNotExist` must have none.
    #[serde(deserialize_with = "word")]
    #[schemars(schema_with = "schema::word::<Operator>")]
    pub(crate) operator: Operator,
    /// Any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Word for Operator {
    const WORDS: &'static [(&'static str, Self)] =
        &[("In", Self::In), ("NotIn", Self::NotIn), ("Exists", Self::Exists), ("DoesNotExist", Self::DoesNotExist)];
}

impl LabelSelector {
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// What Kubernetes would not accept; `field` is where this selector stands.
    pub(crate) fn check(&self, field: &str) -> Result<(), FieldError> {
        for (i, requirement) in self.match_expressions.iter().enumerate() {
            let wants = matches!(requirement.operator, Operator::In | Operator::NotIn);
            if wants == requirement.values.is_empty() {
                let problem = if wants { "is empty" } else { "must be empty" };
                let message = format!("{problem} with the operator {:?}", requirement.operator);
                return Err(FieldError::new(format!("{field}.matchExpressions[{i}].values"), message));
            }
        }
        Ok(())
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            // As in Kubernetes, a label that is not there is not in.
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
