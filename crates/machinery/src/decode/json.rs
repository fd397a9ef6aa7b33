//! JSON to a value, with the duplicate fields that `serde_json` would pass over in silence.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::path::Path;

/// What a request may ask of the decoder.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the document.
    pub max_bytes: usize,
    /// How deep lists and objects may be nested; never more than 127.
    pub max_depth: usize,
}

impl Default for Limits {
    /// Upstream's limit of a request body, 3 MiB.
    fn default() -> Self {
        Self { max_bytes: 3 * 1024 * 1024, max_depth: 120 }
    }
}

/// A value as it was written. Of duplicate fields the last counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `duplicate field "spec.replicas"`.
    pub duplicate_fields: Vec<String>,
}

/// Why bytes are not a document.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("the document has {0} bytes, the limit is {1}")]
    TooLarge(usize, usize),
    #[error("couldn't get version/kind; json parse error: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// More complaints than this help nobody; upstream keeps as many.
pub const MAX_COMPLAINTS: usize = 100;

/// Reads one JSON document.
pub fn decode_json(bytes: &[u8], limits: &Limits) -> Result<Decoded, JsonError> {
    if bytes.len() > limits.max_bytes {
        return Err(JsonError::TooLarge(bytes.len(), limits.max_bytes));
    }
    let mut duplicates = Vec::new();
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let seed = Reader { path: Path::Root, depth_left: limits.max_depth, duplicates: &mut duplicates };
    let value = seed.deserialize(&mut source)?;
    source.end()?;
    Ok(Decoded { value, duplicate_fields: duplicates })
}

struct Reader<'a> {
    path: Path<'a>,
    depth_left: usize,
    duplicates: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.depth_left.checked_sub(1).ok_or_else(|| E::custom("exceeded max depth"))
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("the number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth_left = self.deeper()?;
        let mut list = Vec::new();
        loop {
            let path = Path::Index(&self.path, list.len());
            let seed = Reader { path, depth_left, duplicates: self.duplicates };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth_left = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = Path::Field(&self.path, &key);
            let value =
                entries.next_value_seed(Reader { path, depth_left, duplicates: &mut *self.duplicates })?;
            if map.contains_key(&key) && self.duplicates.len() < MAX_COMPLAINTS {
                self.duplicates.push(format!("duplicate field \"{path}\""));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let shown = match decode_json(text.as_bytes(), &Limits { max_bytes: 200, max_depth: 4 }) {
            Ok(decoded) => format!("{} {:?}", decoded.value, decoded.duplicate_fields),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn duplicates_are_named_and_the_last_counts() {
        check(r#"{"a":1,"a":2}"#, expect![[r#"{"a":2} ["duplicate field \"a\""]"#]]);
        check(
            r#"{"spec":{"containers":[{},{"name":"a","name":"b"}]}}"#,
            expect![[
                r#"{"spec":{"containers":[{},{"name":"b"}]}} ["duplicate field \"spec.containers[1].name\""]"#
            ]],
        );
    }

    #[test]
    fn what_is_no_document_is_refused() {
        check(
            r#"{"a":1} x"#,
            expect!["couldn't get version/kind; json parse error: trailing characters at line 1 column 9"],
        );
        check(
            "[[[[[1]]]]]",
            expect!["couldn't get version/kind; json parse error: exceeded max depth at line 1 column 5"],
        );
        check(&"x".repeat(201), expect!["the document has 201 bytes, the limit is 200"]);
    }
}
