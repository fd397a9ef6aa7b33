//! Server-side tables (`metav1.Table`) and metadata-only views. Pure.

use env::jiff::Timestamp;
use machinery::Object;
use resources::Resource;
use serde_json::{Value, json};

/// What a table row carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// From the query; the default is the metadata.
    pub fn parse(text: &str) -> Self {
        match text {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// A table of objects in the stored version. `columns`: whether the definitions are written (not in later events
/// of a watch).
pub fn table<'a>(
    row: &Resource,
    objects: impl Iterator<Item = &'a Object>,
    list_meta: Value,
    include: Include,
    columns: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.map(|object| table_row(row, object, include, now)).collect();
    let definitions = if columns { json!(resources::columns(row)) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn table_row(row: &Resource, object: &Object, include: Include, now: Timestamp) -> Value {
    let mut value = object.value();
    super::encode::to_stored(row, &mut value);
    let cells = row.strategy.cells(now, &value);
    let shown = match include {
        Include::None => return json!({"cells": cells}),
        Include::Metadata => partial(&value),
        Include::Object => object.value(),
    };
    json!({"cells": cells, "object": shown})
}

/// `PartialObjectMetadata` of an object.
pub fn partial(value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": value.get("metadata").cloned().unwrap_or_default(),
    })
}
