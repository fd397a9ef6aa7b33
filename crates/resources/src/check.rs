//! The checks that many kinds share, with upstream's texts.

use machinery::FieldError;
use machinery::quantity::Quantity;
use machinery::selector::{LabelSelector, validate_label_key, validate_label_value};
use serde_json::Value;

use crate::value::{Access, is_zero};

pub const NEGATIVE: &str = "must be greater than or equal to 0";
pub const POSITIVE: &str = "must be greater than 0";
pub const IMMUTABLE: &str = "field is immutable";
pub const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
pub const IP_TEXT: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Collects what is wrong.
#[derive(Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.0.extend(errors);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    pub fn invalid(
        &mut self,
        path: impl Into<String>,
        value: impl serde::Serialize,
        detail: impl std::fmt::Display,
    ) {
        self.push(FieldError::invalid(path, value, detail));
    }

    pub fn required(&mut self, path: impl Into<String>, detail: &str) {
        self.push(FieldError::required(path, detail));
    }

    pub fn forbidden(&mut self, path: impl Into<String>, detail: &str) {
        self.push(FieldError::forbidden(path, detail));
    }

    /// A text that must be given and pass `check`.
    pub fn name(&mut self, path: &str, name: &str, check: impl Fn(&str) -> Result<(), String>) {
        match name {
            "" => self.required(path, ""),
            name => self.format(path, name, check),
        }
    }

    /// A text that, when given, must pass `check`.
    pub fn format(&mut self, path: &str, text: &str, check: impl Fn(&str) -> Result<(), String>) {
        if text.is_empty() {
            return;
        }
        if let Err(detail) = check(text) {
            self.invalid(path, text, detail);
        }
    }

    /// A text that, when given, must be one of `supported`.
    pub fn one_of(&mut self, path: &str, text: &str, supported: &[&str]) {
        if !text.is_empty() && !supported.contains(&text) {
            self.push(FieldError::not_supported(path, text, supported));
        }
    }

    /// A text that must be one of `supported`.
    pub fn required_one_of(&mut self, path: &str, text: &str, supported: &[&str]) {
        match text {
            "" => self.required(path, ""),
            text => self.one_of(path, text, supported),
        }
    }

    /// A number that, when given, must be at least `least`.
    pub fn at_least(&mut self, path: &str, number: Option<i64>, least: i64) {
        if let Some(number) = number.filter(|number| *number < least) {
            let detail = match least {
                0 => NEGATIVE.to_owned(),
                1 => POSITIVE.to_owned(),
                least => format!("must be greater than or equal to {least}"),
            };
            self.invalid(path, number, detail);
        }
    }

    pub fn port_number(&mut self, path: &str, number: i64) {
        if !(1..=65_535).contains(&number) {
            self.invalid(path, number, PORT_RANGE);
        }
    }

    /// A port by number or by name.
    pub fn port(&mut self, path: &str, port: &Value) {
        match port {
            Value::String(name) => self.format(path, name, crate::names::port_name),
            other => self.port_number(path, other.as_i64().unwrap_or(0)),
        }
    }

    pub fn ip(&mut self, path: &str, text: &str) {
        if text.parse::<std::net::IpAddr>().is_err() {
            self.invalid(path, text, IP_TEXT);
        }
    }

    /// Keys and values of a label map.
    pub fn labels(&mut self, path: &str, labels: &Value) {
        for (key, value) in labels.members("") {
            if let Err(detail) = validate_label_key(key) {
                self.invalid(path, key, detail);
            }
            let value = value.as_str().unwrap_or_default();
            if let Err(detail) = validate_label_value(value) {
                self.invalid(path, value, detail);
            }
        }
    }

    /// A `metav1.LabelSelector`.
    pub fn selector(&mut self, path: &str, selector: &Value) {
        self.labels(&format!("{path}.matchLabels"), selector.at("/matchLabels"));
        for (index, expression) in selector.items("/matchExpressions").iter().enumerate() {
            let path = format!("{path}.matchExpressions[{index}]");
            let values = expression.items("/values");
            match expression.text("/operator") {
                "In" | "NotIn" if values.is_empty() => {
                    self.required(
                        format!("{path}.values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    );
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    self.forbidden(format!("{path}.values"), detail);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => self.invalid(format!("{path}.operator"), other, "not a valid selector operator"),
            }
            if let Err(detail) = validate_label_key(expression.text("/key")) {
                self.invalid(format!("{path}.key"), expression.text("/key"), detail);
            }
            for (index, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                if let Err(detail) = validate_label_value(value) {
                    self.invalid(format!("{path}.values[{index}]"), value, detail);
                }
            }
        }
    }

    /// A field that an update may not change.
    pub fn immutable(&mut self, path: &str, new: &Value, old: &Value) {
        if new != old && !(is_zero(new) && is_zero(old)) {
            self.invalid(path, new, IMMUTABLE);
        }
    }

    /// A quantity that is well-formed and not negative.
    pub fn quantity(&mut self, path: &str, value: &Value) -> Option<Quantity> {
        let Some(quantity) = Quantity::read(value) else {
            self.invalid(path, value, "must be a valid quantity");
            return None;
        };
        if quantity.is_negative() {
            self.invalid(path, value, NEGATIVE);
        }
        Some(quantity)
    }

    /// `IntOrString` that is a count or a percentage, neither negative.
    pub fn count_or_percent(&mut self, path: &str, value: &Value) {
        match value {
            Value::Null => {}
            Value::String(text) => {
                if percent(value).is_none() {
                    let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                    self.invalid(path, text, detail);
                }
            }
            other => self.at_least(path, other.as_i64(), 0),
        }
    }
}

/// The number of a percentage.
pub fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Whether a `metav1.LabelSelector` selects objects with these labels.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let labels =
        labels.members("").map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
    LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(&labels.collect()))
}
