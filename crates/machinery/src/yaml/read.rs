//! Reading YAML into JSON values.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;
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

/// The keys that stand twice in their map, as go-yaml complains: `line 3: key "a" already set in map`. None of a text
/// that is no YAML.
pub fn duplicate_keys(text: &str) -> Vec<String> {
    let read = serde_saphyr::from_multiple_with_options(text, options(DuplicateKeyPolicy::LastWins));
    let documents: Vec<Duplicates> = read.unwrap_or_default();
    documents.into_iter().flat_map(|document| document.0).collect()
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Vec<Value>, YamlError> {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options(duplicate_keys))
        .map_err(|error| described(&error))?;
    documents.retain(|document| !document.is_null());
    documents.iter_mut().for_each(whole_numbers);
    Ok(documents)
}

/// The complaints about a node and everything in it.
#[derive(Default)]
struct Duplicates(Vec<String>);

impl<'de> Deserialize<'de> for Duplicates {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(Collector)
    }
}

struct Collector;

impl<'de> Visitor<'de> for Collector {
    type Value = Duplicates;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a YAML node")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_unit<E>(self) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Duplicates, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element::<Duplicates>()? {
            all.extend(item.0);
        }
        Ok(Duplicates(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Duplicates, A::Error> {
        let (mut all, mut keys) = (Vec::new(), BTreeSet::new());
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            let complaint = format!("line {line}: key {:?} already set in map", key.value);
            if !keys.insert(key.value) {
                all.push(complaint);
            }
            all.extend(entries.next_value::<Duplicates>()?.0);
        }
        Ok(Duplicates(all))
    }
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

    #[test]
    fn every_duplicate_key_is_named() {
        let text = "a: 1\nb:\n- x: 1\n  y: 2\n  x: 3\na: 3\nc: {d: 1,\n  d: 2}\n";
        assert_eq!(
            duplicate_keys(text),
            [
                r#"line 5: key "x" already set in map"#,
                r#"line 6: key "a" already set in map"#,
                r#"line 8: key "d" already set in map"#,
            ]
        );
        assert!(duplicate_keys("a: [1, {b: 2, c: 2}]\n---\na: 1\n").is_empty());
        assert!(duplicate_keys("a: [").is_empty());
    }
}
