//! The paths of a document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::definitions::gvk;
use super::operations::{self, Operation};
use super::{Dialect, Row};

const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Custom resources have only the first three.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

/// The media types of what an operation takes.
pub(super) fn consumes(operation: &Operation) -> &'static [&'static str] {
    match (operation.action, operation.custom) {
        ("patch", false) => &PATCHES,
        ("patch", true) => &PATCHES[..3],
        _ => &["*/*"],
    }
}

/// The media types of what an operation gives.
fn produces(operation: &Operation) -> &'static [&'static str] {
    if operation.custom { &MEDIA[..2] } else { &MEDIA }
}

/// Every path with its operations.
pub(super) fn of(rows: &[&Row], dialect: Dialect) -> impl Iterator<Item = (String, Value)> {
    let mut paths: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for operation in rows.iter().flat_map(|row| operations::of(row)) {
        paths.entry(operation.path.clone()).or_default().push(operation);
    }
    paths.into_iter().map(move |(path, operations)| {
        let mut item = Map::new();
        item.insert("parameters".to_owned(), Value::from(path_parameters(&operations[0], dialect)));
        for operation in operations {
            item.insert(operation.method.to_owned(), describe(&operation, dialect));
        }
        (path, Value::Object(item))
    })
}

/// The names of the query parameters of an operation and their types.
pub(super) fn query(action: &str) -> &'static [(&'static str, &'static str)] {
    const WRITE: &[(&str, &str)] = &[
        ("dryRun", "string"),
        ("fieldManager", "string"),
        ("fieldValidation", "string"),
        ("pretty", "string"),
    ];
    const PATCH: &[(&str, &str)] = &[
        ("dryRun", "string"),
        ("fieldManager", "string"),
        ("fieldValidation", "string"),
        ("force", "boolean"),
        ("pretty", "string"),
    ];
    const LIST: &[(&str, &str)] = &[
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("pretty", "string"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ];
    const DELETE: &[(&str, &str)] = &[
        ("dryRun", "string"),
        ("gracePeriodSeconds", "integer"),
        ("orphanDependents", "boolean"),
        ("pretty", "string"),
        ("propagationPolicy", "string"),
    ];
    match action {
        "post" | "put" => WRITE,
        "patch" => PATCH,
        "list" | "deletecollection" => LIST,
        "delete" => DELETE,
        _ => &[("pretty", "string")],
    }
}

fn parameter(name: &str, place: &str, of: &str, dialect: Dialect) -> Value {
    let mut parameter = json!({"name": name, "in": place, "uniqueItems": true});
    match dialect {
        Dialect::V2 => parameter["type"] = json!(of),
        Dialect::V3 => {
            parameter["schema"] = json!({"type": of, "uniqueItems": true});
            parameter.as_object_mut().map(|fields| fields.remove("uniqueItems"));
        }
    }
    if place == "path" {
        parameter["required"] = json!(true);
    }
    parameter
}

fn path_parameters(operation: &Operation, dialect: Dialect) -> Vec<Value> {
    let names = [("name", operation.named), ("namespace", operation.path.contains("{namespace}"))];
    names
        .iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| parameter(name, "path", "string", dialect))
        .collect()
}

fn describe(operation: &Operation, dialect: Dialect) -> Value {
    let mut parameters: Vec<Value> =
        query(operation.action).iter().map(|(name, of)| parameter(name, "query", of, dialect)).collect();
    let gives = operation.gives.as_deref().map(|name| dialect.reference(name));
    let takes = operation.takes.as_deref().map(|name| dialect.reference(name));
    let media = consumes(operation);
    let mut described = json!({
        "operationId": operation.id,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": gvk(&operation.group, &operation.version, &operation.kind),
        "responses": {"200": response(gives, produces(operation), dialect), "401": {"description": "Unauthorized"}},
    });
    match (dialect, takes) {
        (Dialect::V2, takes) => {
            described["consumes"] = json!(media);
            described["produces"] = json!(produces(operation));
            parameters.extend(
                takes.map(|schema| json!({"name": "body", "in": "body", "required": true, "schema": schema})),
            );
        }
        (Dialect::V3, Some(schema)) => {
            let content: Map<_, _> =
                media.iter().map(|of| ((*of).to_owned(), json!({"schema": schema}))).collect();
            described["requestBody"] = json!({"content": content, "required": operation.action != "delete"});
        }
        (Dialect::V3, None) => {}
    }
    described["parameters"] = Value::from(parameters);
    described
}

fn response(schema: Option<Value>, media: &[&str], dialect: Dialect) -> Value {
    let mut response = json!({"description": "OK"});
    match (schema, dialect) {
        (Some(schema), Dialect::V2) => response["schema"] = schema,
        (Some(schema), Dialect::V3) => {
            let content: Map<_, _> =
                media.iter().map(|of| ((*of).to_owned(), json!({"schema": schema}))).collect();
            response["content"] = Value::Object(content);
        }
        (None, _) => {}
    }
    response
}
