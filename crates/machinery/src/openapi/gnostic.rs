//! `GET /openapi/v2` as the protobuf `openapi.v2.Document` of gnostic: what `kubectl` and Helm before 1.27 read, and
//! later ones fall back to.
//!
//! It holds the definitions, and of the paths the patch operations with their query parameters: the parts that clients
//! look at.

use serde_json::Value;

use super::definitions::{Definitions, gvk};
use super::operations::{self, Operation};
use super::{Api, Dialect, Row, paths};
use crate::protobuf::wire;

/// The document.
pub fn v2_protobuf(api: &Api<'_>) -> Vec<u8> {
    let rows: Vec<&Row> = api.rows.iter().collect();
    let mut out = Vec::new();
    text(1, "2.0", &mut out);
    nested(2, &mut out, |info| {
        text(1, "Kubernetes", info);
        text(2, api.version, info);
    });
    nested(8, &mut out, |all| {
        for operation in
            rows.iter().flat_map(|row| operations::of(row)).filter(|found| found.method == "patch")
        {
            nested(2, all, |named| path(&operation, named));
        }
    });
    nested(9, &mut out, |all| {
        for (name, definition) in Definitions::of(&rows, api.custom, Dialect::V2) {
            nested(1, all, |named| named_schema(&name, &definition, named));
        }
    });
    out
}

fn nested(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let written: Result<(), std::convert::Infallible> = wire::nested(number, out, |out| {
        write(out);
        Ok(())
    });
    match written {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

fn text(number: u32, text: &str, out: &mut Vec<u8>) {
    wire::bytes(number, text.as_bytes(), out);
}

/// A `NamedPathItem` with a patch operation.
fn path(operation: &Operation, out: &mut Vec<u8>) {
    text(1, &operation.path, out);
    nested(2, out, |item| {
        nested(8, item, |patch| {
            text(5, &operation.id, patch);
            paths::consumes(operation).iter().for_each(|media| text(7, media, patch));
            for (name, of) in paths::query(operation.action) {
                nested(8, patch, |parameter| query_parameter(name, of, parameter));
            }
            let kind = gvk(&operation.group, &operation.version, &operation.kind);
            nested(13, patch, |extension| named_any("x-kubernetes-group-version-kind", &kind, extension));
        });
    });
}

/// A `ParametersItem` that is a parameter (1), not in the body (2), in the query (3).
fn query_parameter(name: &str, of: &str, out: &mut Vec<u8>) {
    nested(1, out, |parameter| {
        nested(2, parameter, |outside| {
            nested(3, outside, |query| {
                text(2, "query", query);
                text(4, name, query);
                text(6, of, query);
            });
        });
    });
}

fn named_schema(name: &str, definition: &Value, out: &mut Vec<u8>) {
    text(1, name, out);
    nested(2, out, |inner| schema(definition, inner));
}

fn named_any(name: &str, value: &Value, out: &mut Vec<u8>) {
    text(1, name, out);
    nested(2, out, |inner| any(value, inner));
}

/// A value as YAML, of which JSON is a part.
fn any(value: &Value, out: &mut Vec<u8>) {
    text(2, &value.to_string(), out);
}

fn schema(definition: &Value, out: &mut Vec<u8>) {
    let fields = definition.as_object();
    for (name, value) in fields.into_iter().flatten() {
        match (name.as_str(), value) {
            ("$ref", Value::String(reference)) => text(1, reference, out),
            ("format", Value::String(format)) => text(2, format, out),
            ("title", Value::String(title)) => text(3, title, out),
            ("description", Value::String(description)) => text(4, description, out),
            ("default", value) => nested(5, out, |inner| any(value, inner)),
            ("pattern", Value::String(pattern)) => text(13, pattern, out),
            ("required", Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).for_each(|name| text(19, name, out))
            }
            ("enum", Value::Array(values)) => {
                values.iter().for_each(|value| nested(20, out, |inner| any(value, inner)))
            }
            ("additionalProperties", Value::Bool(any)) => {
                nested(21, out, |inner| wire::integer(2, i64::from(*any), inner))
            }
            ("additionalProperties", value) => {
                nested(21, out, |item| nested(1, item, |inner| schema(value, inner)))
            }
            ("type", Value::String(of)) => nested(22, out, |inner| text(1, of, inner)),
            ("items", value) => nested(23, out, |item| nested(1, item, |inner| schema(value, inner))),
            ("properties", Value::Object(properties)) => nested(25, out, |all| {
                for (name, property) in properties {
                    nested(1, all, |named| named_schema(name, property, named));
                }
            }),
            (name, value) if name.starts_with("x-") => nested(31, out, |inner| named_any(name, value, inner)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{custom, rows};
    use super::*;
    use crate::protobuf::wire::Pieces;

    /// Follows field numbers into the first piece at each.
    fn dig<'a>(mut bytes: &'a [u8], numbers: &[u32]) -> Vec<&'a [u8]> {
        let (last, above) = numbers.split_last().unwrap();
        for number in above {
            bytes = all(bytes, *number)[0];
        }
        all(bytes, *last)
    }

    fn all(bytes: &[u8], number: u32) -> Vec<&[u8]> {
        let pieces = Pieces::new(bytes).map(Result::unwrap);
        pieces.filter(|(found, _)| *found == number).map(|(_, piece)| piece.bytes().unwrap()).collect()
    }

    #[test]
    fn definitions_and_patch_parameters_are_found_by_their_numbers() {
        let (rows, custom) = (rows(), custom());
        let bytes = v2_protobuf(&Api { rows: &rows, custom: &custom, version: "v1.36.0" });
        assert_eq!(dig(&bytes, &[2, 2]), [b"v1.36.0"]);
        let definitions = dig(&bytes, &[9, 1]);
        let deployment =
            definitions.iter().find(|named| all(named, 1)[0] == b"io.k8s.api.apps.v1.Deployment").unwrap();
        let extension = dig(deployment, &[2, 31]);
        assert_eq!(all(extension[0], 1)[0], b"x-kubernetes-group-version-kind");
        let yaml =
            crate::yaml::to_values(std::str::from_utf8(dig(extension[0], &[2, 2])[0]).unwrap()).unwrap();
        assert_eq!(yaml[0][0]["kind"], "Deployment");
        assert_eq!(dig(deployment, &[2, 22, 1]), [b"object"]);
        let patch = dig(&bytes, &[8, 2, 2, 8]);
        let names: Vec<&[u8]> =
            all(patch[0], 8).into_iter().map(|item| dig(item, &[1, 2, 3, 4])[0]).collect();
        assert!(names.contains(&b"fieldValidation".as_slice()));
    }
}
