//! Label and field selectors, in their query form and as `metav1.LabelSelector`.
//!
//! Source: `k8s.io/apimachinery/pkg/labels`, `k8s.io/apimachinery/pkg/fields`.

pub mod labels;
pub mod nodes;
mod parse;
mod validate;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

pub use validate::{validate_label_key, validate_label_value};

/// Why a selector cannot be read. The text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// Requirements on labels, all of which must hold. The empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Reads the query form: `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { requirements: parse::labels(text)? })
    }

    /// Reads a `metav1.LabelSelector`. An absent selector selects nothing upstream; that is the caller's to decide.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, wanted) in value.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let values = vec![wanted.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement { key: key.clone(), operator: Operator::Equals, values });
        }
        for expression in value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Narrows the selector.
    pub fn require(&mut self, requirement: Requirement) {
        self.requirements.push(requirement);
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

fn expression_requirement(expression: &Value) -> Result<Requirement, SelectorError> {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operator = Operator::of_labels(&text("operator")).ok_or_else(|| {
        SelectorError(format!("{:?} is not a valid label selector operator", text("operator")))
    })?;
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Requirement { key: text("key"), operator, values })
}

impl Operator {
    /// By its name in a `metav1.LabelSelector`.
    fn of_labels(name: &str) -> Option<Self> {
        match name {
            "In" => Some(Self::In),
            "NotIn" => Some(Self::NotIn),
            "Exists" => Some(Self::Exists),
            "DoesNotExist" => Some(Self::DoesNotExist),
            _ => None,
        }
    }

    /// By its name in a node selector.
    fn of_nodes(name: &str) -> Option<Self> {
        match name {
            "Gt" => Some(Self::GreaterThan),
            "Lt" => Some(Self::LessThan),
            _ => Self::of_labels(name),
        }
    }

    /// Whether a value, which may be absent, is as `values` say.
    fn holds(self, values: &[String], value: Option<&str>) -> bool {
        let among = || value.is_some_and(|value| values.iter().any(|other| other == value));
        let compared = || {
            let bound: i64 = values.first()?.parse().ok()?;
            Some(value?.parse::<i64>().ok()?.cmp(&bound))
        };
        match self {
            Self::Equals | Self::In => among(),
            Self::NotEquals | Self::NotIn => !among(),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::GreaterThan => compared().is_some_and(std::cmp::Ordering::is_gt),
            Self::LessThan => compared().is_some_and(std::cmp::Ordering::is_lt),
        }
    }
}

impl Requirement {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.operator.holds(&self.values, labels.get(&self.key).map(String::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.requirements.iter().map(ToString::to_string).collect();
        out.write_str(&texts.join(","))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, first) = (&self.key, self.values.first().map_or("", String::as_str));
        let mut sorted = self.values.clone();
        sorted.sort();
        let set = sorted.join(",");
        match self.operator {
            Operator::Equals => write!(out, "{key}={first}"),
            Operator::NotEquals => write!(out, "{key}!={first}"),
            Operator::In => write!(out, "{key} in ({set})"),
            Operator::NotIn => write!(out, "{key} notin ({set})"),
            Operator::Exists => write!(out, "{key}"),
            Operator::DoesNotExist => write!(out, "!{key}"),
            Operator::GreaterThan => write!(out, "{key}>{first}"),
            Operator::LessThan => write!(out, "{key}<{first}"),
        }
    }
}

/// Requirements on fields, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    field: String,
    equals: bool,
    value: String,
}

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`; `\`, `,` and `=` in values are escaped with `\`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let terms = parse::fields(text)?;
        let terms =
            terms.into_iter().map(|(field, equals, value)| FieldTerm { field, equals, value }).collect();
        Ok(Self { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The fields that are asked about.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.field.as_str())
    }

    /// The value that `field` must have, if there is one such.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equals && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether an object matches, whose fields `value_of` gives; an absent field is empty.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|term| (value_of(&term.field) == term.value) == term.equals)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |term: &FieldTerm| {
            let operator = if term.equals { "=" } else { "!=" };
            format!("{}{operator}{}", term.field, parse::escape(&term.value))
        };
        let texts: Vec<_> = self.terms.iter().map(one).collect();
        out.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests;
