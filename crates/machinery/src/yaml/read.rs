//! Reading YAML into JSON values.

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("error converting YAML to JSON: yaml: {}{message}", Self::place(*line))]
pub struct YamlError {
    /// Counted from one; zero when it is not known.
    pub line: u64,
    pub message: String,
}

impl YamlError {
    fn place(line: u64) -> String {
        if line == 0 { String::new() } else { format!("line {line}: ") }
    }
}

/// All documents of a text; empty ones are left out. Of duplicate keys the last counts, as for `kubectl`.
pub fn to_values(text: &str) -> Result<Vec<Value>, YamlError> {
    read(text, DuplicateKeyPolicy::LastWins)
}

/// As [`to_values`], but duplicate keys are an error.
pub fn to_values_strict(text: &str) -> Result<Vec<Value>, YamlError> {
    read(text, DuplicateKeyPolicy::Error)
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Vec<Value>, YamlError> {
    let options = serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| described(&error))?;
    documents.retain(|document| !document.is_null());
    documents.iter_mut().for_each(whole_numbers);
    Ok(documents)
}

/// `1e3` is written as `1000` in JSON, and fits an integer.
fn whole_numbers(value: &mut Value) {
    /// Up to here every whole number is a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
                *value = Value::from(float as i64);
            }
            _ => {}
        },
        _ => {}
    }
}

fn described(error: &serde_saphyr::Error) -> YamlError {
    let line = error.location().map_or(0, |location| location.line());
    let rendered = error.to_string();
    let message = rendered.lines().next().unwrap_or_default();
    let message = message.rsplit_once(" at line ").map_or(message, |(before, _)| before);
    YamlError { line, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let shown = match to_values(text) {
            Ok(values) => values.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        check("[yes, No, on, off, true, y]", expect!["[true,false,true,false,true,true]"]);
        check("[0644, 0o644, 0x1F, 1e3, 1.5, -7, 1_000]", expect!["[420,420,31,1000,1.5,-7,1000]"]);
        check(
            "[~, null, '', \"yes\", 10.0.0.1, 12:30, 2026-01-01, 1.2.3]",
            expect![[r#"[null,null,"","yes","10.0.0.1","12:30","2026-01-01","1.2.3"]"#]],
        );
        check("mode: 0644\nname: on\nport: \"80\"", expect![[r#"{"mode":420,"name":true,"port":"80"}"#]]);
        check(
            "[9007199254740993, 18446744073709551615, 0.1]",
            expect!["[9007199254740993,18446744073709551615,0.1]"],
        );
    }

    #[test]
    fn documents_anchors_and_merge_keys() {
        check(
            "---\na: 1\n---\n# nothing\n---\nb: 2\n...\n",
            expect![[r#"
            {"a":1}
            {"b":2}"#]],
        );
        check(
            "base: &b {x: 1, y: 2}\nof:\n  <<: *b\n  x: 3\n",
            expect![[r#"{"base":{"x":1,"y":2},"of":{"x":3,"y":2}}"#]],
        );
        check("a: 1\na: 2\n", expect![[r#"{"a":2}"#]]);
        check(
            "text: |\n  one\n  two\nfolded: >-\n  one\n  two\n",
            expect![[r#"{"folded":"one two","text":"one\ntwo\n"}"#]],
        );
        check("1: a\ntrue: b\n", expect![[r#"{"1":"a","true":"b"}"#]]);
        check("{\"json\": [1, \"x\"]}", expect![[r#"{"json":[1,"x"]}"#]]);
    }

    #[test]
    fn errors_name_the_line() {
        check("a: 1\nb: [\n", expect!["error converting YAML to JSON: yaml: line 2: unclosed bracket '['"]);
        check(
            "a: 1\n\tb: 2\n",
            expect![
                "error converting YAML to JSON: yaml: line 1: while scanning a plain scalar, found a tab"
            ],
        );
        check(
            "a: b: c\n",
            expect![
                "error converting YAML to JSON: yaml: line 1: mapping values are not allowed in this context"
            ],
        );
        assert_eq!(to_values_strict("a: 1\nb: 2\na: 3\n").unwrap_err().line, 3);
    }
}
