//! Writing JSON values as YAML, in go-yaml's layout: keys in order, lists at the indentation of their key.

use serde_json::{Map, Value};

/// One document. Strings that a YAML reader would take for something else are quoted.
pub fn from_value(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => mapping(fields, 0, &mut out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        value => {
            scalar(value, 2, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', depth));
}

/// Writes the entries of a mapping; the caller has indented the first one.
fn mapping(fields: &Map<String, Value>, depth: usize, out: &mut String) {
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 {
            indent(depth, out);
        }
        match is_plain(key) {
            true => out.push_str(key),
            false => quoted(key, out),
        }
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                indent(depth + 2, out);
                mapping(inner, depth + 2, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                indent(depth, out);
                sequence(items, depth, out);
            }
            value => {
                out.push(' ');
                scalar(value, depth + 2, out);
                out.push('\n');
            }
        }
    }
}

/// Writes the items of a sequence; the caller has indented the first one.
fn sequence(items: &[Value], depth: usize, out: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            indent(depth, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => mapping(fields, depth + 2, out),
            Value::Array(inner) if !inner.is_empty() => sequence(inner, depth + 2, out),
            value => {
                scalar(value, depth + 2, out);
                out.push('\n');
            }
        }
    }
}

/// `depth` is the indentation of the lines of a block.
fn scalar(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::String(text) if text.contains('\n') && is_block(text) => block(text, depth, out),
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::String(text) if is_printable(text) && !means_something_else(text) => single_quoted(text, out),
        Value::String(text) => quoted(text, out),
        other => out.push_str(&other.to_string()),
    }
}

/// Whether a text with several lines can be a literal block.
fn is_block(text: &str) -> bool {
    !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|letter| letter == '\n' || is_printable_char(letter))
}

fn block(text: &str, depth: usize, out: &mut String) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(depth, out);
            out.push_str(line);
        }
    }
}

fn is_printable_char(letter: char) -> bool {
    letter == '\t' || !(letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}'))
}

fn is_printable(text: &str) -> bool {
    text.chars().all(|letter| letter != '\t' && is_printable_char(letter))
}

/// Whether a text can stand without quotes.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let second_is_space = text.chars().nth(1).is_none_or(char::is_whitespace);
    let starts_well = match first {
        '-' | '?' | ':' => !second_is_space,
        ' ' | ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
        | '`' => false,
        _ => true,
    };
    starts_well
        && is_printable(text)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
        && !means_something_else(text)
}

const WORDS: [&str; 14] =
    ["~", "null", "y", "yes", "true", "on", "n", "no", "false", "off", "<<", "=", ".inf", ".nan"];

/// Whether YAML 1.1 reads the bare text as a boolean, null, number or time.
fn means_something_else(text: &str) -> bool {
    text.is_empty()
        || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
        || is_number(text)
        || is_date(text)
}

fn is_number(text: &str) -> bool {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text).replace('_', "");
    if bare.eq_ignore_ascii_case(".inf") {
        return true;
    }
    let based = |prefixes: [&str; 2], radix| {
        prefixes
            .iter()
            .filter_map(|prefix| bare.strip_prefix(prefix))
            .any(|digits| digits.chars().all(|d| d.is_digit(radix)))
    };
    let decimal = bare.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && bare.contains(|digit: char| digit.is_ascii_digit())
        && bare.parse::<f64>().is_ok();
    decimal
        || based(["0x", "0X"], 16)
        || based(["0b", "0B"], 2)
        || based(["0o", "0O"], 8)
        || is_sexagesimal(&bare)
}

/// `12:30:45`, a number of base 60.
fn is_sexagesimal(text: &str) -> bool {
    text.contains(':')
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.chars().all(|letter| letter.is_ascii_digit() || matches!(letter, ':' | '.'))
}

/// `2026-01-01`, with or without a time.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, most: usize| {
        part.is_some_and(|part| {
            !part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit())
        })
    };
    text.as_bytes().get(4) == Some(&b'-')
        && digits(parts.next(), 4)
        && digits(parts.next(), 2)
        && parts.next().is_some_and(|day| day.starts_with(|first: char| first.is_ascii_digit()))
}

fn single_quoted(text: &str, out: &mut String) {
    out.push('\'');
    out.push_str(&text.replace('\'', "''"));
    out.push('\'');
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            letter if is_printable_char(letter) => out.push(letter),
            letter => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::to_values;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn objects_have_the_layout_of_kubectl() {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {}, "name": "a",
            "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "12"},
            "spec": {"containers": [{"args": ["-c", "echo: hi", "true", ""], "image": "a/b:1", "ports": []}, {"x": [[1, 2], {}]}],
            "script": "#!/bin/sh\necho\n\nexit", "two": "a\n\n", "ip": "10.0.0.1", "quote": "it's: so"}});
        expect![[r#"
            apiVersion: v1
            kind: Pod
            metadata:
              creationTimestamp: "2026-01-01T00:00:00Z"
              labels: {}
              name: a
              resourceVersion: "12"
            spec:
              containers:
              - args:
                - -c
                - 'echo: hi'
                - "true"
                - ""
                image: a/b:1
                ports: []
              - x:
                - - 1
                  - 2
                - {}
              ip: 10.0.0.1
              quote: 'it''s: so'
              script: |-
                #!/bin/sh
                echo

                exit
              two: |+
                a

        "#]]
        .assert_eq(&from_value(&value));
    }

    /// Texts that a reader could take for something else.
    #[rustfmt::skip]
    const STRINGS: &[&str] = &[
        "", " ", "a", "a ", " a", "yes", "No", "ON", "y", "null", "~", "1", "-1", "+1", "1.5", ".5", "5.",
        "1e3", "0x1f", "0644", "0o7", "0b1", "1_000", "12:30", "12:30:45", "2026-01-01",
        "2026-01-01T00:00:00Z", ".inf", "-.inf", ".nan", "<<", "=", "- a", "-a", "?", "? a", ":", ":a",
        "a:", "a: b", "a #b", "#a", "a#b", "&a", "*a", "!a", "|", ">", "'a'", "\"a\"", "%a", "@a", "`a",
        "a\nb", "a\nb\n", "a\n\n\n", "\na", "  a\nb", "a\r\nb", "\ta", "a\tb", "\u{0}", "\u{7f}", "\u{85}",
        "\u{2028}", "\u{feff}", "日本", "---", "--- a", "...", "{}", "[]", "a, b", "{a", "1Gi", "100m",
        "a\\b", "a\n b\n  c\n", "a \nb ", "\n", "\n\n", "0", "00", "0.0", "NaN", "inf", "1__2", "_1",
        "a\n#b", "x: |\n  y", "0xZZ", "08", "1:a", "٣",
    ];

    #[test]
    fn every_string_is_read_back() {
        for text in STRINGS.iter().copied() {
            for value in
                [json!(text), json!({ "k": text, "l": [text, {"m": text}] }), json!({ text: [[text]] })]
            {
                let written = from_value(&value);
                assert_eq!(to_values(&written).unwrap_or_default(), [value], "{text:?} as\n{written}");
            }
        }
    }
}
