//! Reading and filling JSON objects by field, the way strategies need it: absent, null and empty are one.

use serde_json::{Map, Value};

const NULL: &Value = &Value::Null;

/// Short ways into a JSON value.
pub trait Access {
    /// The value at a JSON pointer; null when there is none.
    fn at(&self, pointer: &str) -> &Value;
    /// The text at a pointer; empty when there is none.
    fn text(&self, pointer: &str) -> &str;
    fn int(&self, pointer: &str) -> Option<i64>;
    fn flag(&self, pointer: &str) -> bool;
    /// The elements of the list at a pointer; none when there is no list.
    fn items(&self, pointer: &str) -> &[Value];
    /// The members of the object at a pointer.
    fn members(&self, pointer: &str) -> impl Iterator<Item = (&String, &Value)>;
    /// Whether a field is there and not null.
    fn has(&self, pointer: &str) -> bool;
}

impl Access for Value {
    fn at(&self, pointer: &str) -> &Value {
        find(self, pointer).unwrap_or(NULL)
    }

    fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    fn int(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).as_i64()
    }

    fn flag(&self, pointer: &str) -> bool {
        self.at(pointer).as_bool().unwrap_or_default()
    }

    fn items(&self, pointer: &str) -> &[Value] {
        self.at(pointer).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn members(&self, pointer: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.at(pointer).as_object().into_iter().flatten()
    }

    fn has(&self, pointer: &str) -> bool {
        !self.at(pointer).is_null()
    }
}

/// As [`Value::pointer`], which makes a copy of every step: a pointer without escapes needs none.
fn find<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.contains('~') {
        return value.pointer(pointer);
    }
    let Some(steps) = pointer.strip_prefix('/') else {
        return pointer.is_empty().then_some(value);
    };
    steps.split('/').try_fold(value, |value, step| match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Whether Go would call this the zero value: null, `""`, 0, false, an empty list or map.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Ways to fill and clear fields of a JSON object.
pub trait Fill {
    /// Sets a field that is absent or null (a pointer field in Go).
    fn default_absent(&mut self, field: &str, value: impl Into<Value>);
    /// Sets a field that has no value or the zero value (a plain field in Go).
    fn default_zero(&mut self, field: &str, value: impl Into<Value>);
    /// The object at a field, made when it is absent.
    fn child(&mut self, field: &str) -> &mut Value;
    /// The object at a field if there is one.
    fn existing(&mut self, field: &str) -> Option<&mut Value>;
    /// The elements of a list field; none when there is no list.
    fn each(&mut self, field: &str) -> impl Iterator<Item = &mut Value>;
    fn set(&mut self, field: &str, value: impl Into<Value>);
    fn unset(&mut self, field: &str) -> Option<Value>;
    /// Makes a field equal to the same field of another object, also in its absence.
    fn copy_from(&mut self, other: &Value, field: &str);
}

impl Fill for Value {
    fn default_absent(&mut self, field: &str, value: impl Into<Value>) {
        if self.get(field).is_none_or(Value::is_null) {
            self.set(field, value);
        }
    }

    fn default_zero(&mut self, field: &str, value: impl Into<Value>) {
        if self.get(field).is_none_or(is_zero) {
            self.set(field, value);
        }
    }

    fn child(&mut self, field: &str) -> &mut Value {
        if !self.is_object() {
            *self = Value::Object(Map::new());
        }
        if !self[field].is_object() {
            self[field] = Value::Object(Map::new());
        }
        &mut self[field]
    }

    fn existing(&mut self, field: &str) -> Option<&mut Value> {
        self.get_mut(field).filter(|value| value.is_object())
    }

    fn each(&mut self, field: &str) -> impl Iterator<Item = &mut Value> {
        self.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
    }

    fn set(&mut self, field: &str, value: impl Into<Value>) {
        if let Some(object) = self.as_object_mut() {
            object.insert(field.to_owned(), value.into());
        }
    }

    fn unset(&mut self, field: &str) -> Option<Value> {
        self.as_object_mut().and_then(|object| object.remove(field))
    }

    fn copy_from(&mut self, other: &Value, field: &str) {
        match other.get(field) {
            // Mostly: to compare costs less than to copy.
            Some(value) if self.get(field) == Some(value) => {}
            Some(value) => self.set(field, value.clone()),
            None => drop(self.unset(field)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pointer_leads_where_serde_says() {
        let value = json!({"a": {"b": [1, {"c": "x"}], "d/e": true, "": 7}, "n": null});
        for pointer in
            ["", "/a", "/a/b/1/c", "/a/b/2", "/a/b/x", "/a/d~1e", "/a/", "/n", "/n/x", "/z", "a", "/"]
        {
            assert_eq!(find(&value, pointer), value.pointer(pointer), "{pointer}");
        }
    }
}
