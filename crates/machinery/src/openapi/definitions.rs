//! The schemas of a document: those of its rows and all that they refer to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Dialect, Row, type_of_kind};
use crate::schema::builtin;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Types that operations speak of, whatever the resource.
const COMMON: [&str; 3] = ["DeleteOptions", "Patch", "Status"];

pub(super) struct Definitions<'a> {
    custom: &'a BTreeMap<String, Value>,
    /// Of each custom type its group, version and kind.
    custom_rows: BTreeMap<&'a str, &'a Row>,
    dialect: Dialect,
    names: std::collections::btree_set::IntoIter<String>,
}

impl<'a> Definitions<'a> {
    pub fn of(rows: &[&'a Row], custom: &'a BTreeMap<String, Value>, dialect: Dialect) -> Self {
        let custom_rows = rows.iter().filter(|row| custom.contains_key(&row.type_name));
        let custom_rows = custom_rows.map(|row| (row.type_name.as_str(), *row)).collect();
        let mut all = Self { custom, custom_rows, dialect, names: BTreeSet::new().into_iter() };
        let mut names = BTreeSet::new();
        for name in roots(rows) {
            all.gather(name, &mut names);
        }
        all.names = names.into_iter();
        all
    }

    /// Adds a type and all it refers to.
    fn gather(&self, name: String, names: &mut BTreeSet<String>) {
        if names.contains(&name) {
            return;
        }
        let Some(schema) = self.schema(&name) else { return };
        names.insert(name);
        let mut found = Vec::new();
        references(&schema, &mut found);
        for reference in found {
            if let Some((_, name)) = reference.rsplit_once('/') {
                self.gather(name.to_owned(), names);
            }
        }
    }

    fn schema(&self, name: &str) -> Option<Value> {
        if let Some(schema) = self.custom.get(name) {
            return Some(self.custom_schema(self.custom_rows.get(name)?, schema));
        }
        if let Some(row) = name.strip_suffix("List").and_then(|item| self.custom_rows.get(item)) {
            return Some(self.custom_list(row));
        }
        let facts: Value = serde_json::from_str(builtin().facts(name)?).ok()?;
        let mut schema = convert(&facts, self.dialect);
        let kinds: Vec<Value> = builtin().kinds(name).map(|k| gvk(&k.group, &k.version, &k.kind)).collect();
        if let (Some(fields), false) = (schema.as_object_mut(), kinds.is_empty()) {
            fields.insert("x-kubernetes-group-version-kind".to_owned(), Value::from(kinds));
        }
        Some(schema)
    }

    /// A custom resource's own schema, with the fields that every object has.
    fn custom_schema(&self, row: &Row, schema: &Value) -> Value {
        let mut schema = schema.clone();
        if self.dialect == Dialect::V2 {
            simplify(&mut schema);
        }
        schema["type"] = json!("object");
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        schema["properties"]["apiVersion"] = json!({"type": "string"});
        schema["properties"]["kind"] = json!({"type": "string"});
        schema["properties"]["metadata"] = self.dialect.reference(&format!("{META}ObjectMeta"));
        schema["x-kubernetes-group-version-kind"] = json!([gvk(&row.group, &row.version, &row.kind)]);
        schema
    }

    fn custom_list(&self, row: &Row) -> Value {
        json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": self.dialect.reference(&format!("{META}ListMeta")),
                "items": {"type": "array", "items": self.dialect.reference(&row.type_name)},
            },
            "x-kubernetes-group-version-kind": [gvk(&row.group, &row.version, &format!("{}List", row.kind))],
        })
    }
}

impl Iterator for Definitions<'_> {
    type Item = (String, Value);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.names.next()?;
        let schema = self.schema(&name)?;
        Some((name, schema))
    }
}

fn roots(rows: &[&Row]) -> Vec<String> {
    let mut names: Vec<String> = COMMON.iter().map(|name| format!("{META}{name}")).collect();
    for row in rows {
        names.push(row.type_name.clone());
        names.extend(row.list_type());
        for subresource in &row.subresources {
            let version = if subresource.version.is_empty() { &row.version } else { &subresource.version };
            names.extend(type_of_kind(&subresource.group, version, &subresource.kind).map(str::to_owned));
        }
    }
    names
}

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get("$ref") {
                found.push(name.clone());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// An OpenAPI schema of the facts of a type or field.
fn convert(facts: &Value, dialect: Dialect) -> Value {
    let mut schema = Map::new();
    for (key, value) in facts.as_object().into_iter().flatten() {
        match key.as_str() {
            "pb" | "hidden" | "ref" | "zero" => {}
            "oneOf" if dialect == Dialect::V2 => {
                schema.insert("type".to_owned(), json!("string"));
            }
            "fields" => {
                let fields = value.as_object().into_iter().flatten();
                let fields: Map<_, _> =
                    fields.map(|(name, field)| (name.clone(), convert(field, dialect))).collect();
                if !fields.is_empty() {
                    schema.insert("properties".to_owned(), Value::Object(fields));
                }
            }
            "items" | "additionalProperties" => {
                schema.insert(key.clone(), convert(value, dialect));
            }
            _ => {
                schema.insert(key.clone(), value.clone());
            }
        }
    }
    if facts["zero"] == "written" {
        schema.extend(zero_default(facts).map(|zero| ("default".to_owned(), zero)));
    }
    if let Some(name) = facts["ref"].as_str() {
        refer(name, dialect, &mut schema);
    }
    Value::Object(schema)
}

fn zero_default(facts: &Value) -> Option<Value> {
    match facts["type"].as_str() {
        Some("string") => Some(json!("")),
        Some("integer" | "number") => Some(json!(0)),
        Some("boolean") => Some(json!(false)),
        None => Some(json!({})),
        _ => None,
    }
}

/// In version 3 a reference with anything beside it stands in `allOf`; version 2 allows nothing but the extensions
/// that `kubectl` reads.
fn refer(name: &str, dialect: Dialect, schema: &mut Map<String, Value>) {
    let reference = dialect.reference(name);
    match dialect {
        Dialect::V3 if !schema.is_empty() => {
            schema.insert("allOf".to_owned(), json!([reference]));
        }
        _ => {
            schema.remove("default");
            schema.insert("$ref".to_owned(), reference["$ref"].clone());
        }
    }
}

/// Takes away what version 2 has no words for.
fn simplify(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for word in ["oneOf", "anyOf", "allOf", "not", "nullable"] {
        fields.remove(word);
    }
    if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        fields.remove("type");
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(inner) {
            simplify(inner);
        }
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(simplify);
    }
}
