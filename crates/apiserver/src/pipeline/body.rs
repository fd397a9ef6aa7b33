//! From a body to a checked, pruned and defaulted value of the row's kind.

use bytes::Bytes;
use client::WriteOptions;
use machinery::schema::Node;
use machinery::{Status, decode};
use serde_json::Value;

use super::Call;
use crate::core::Core;

/// What strict decoding complains about.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    /// Found before the body became a value: duplicate fields.
    pub found: Vec<String>,
    /// The body, by which all are put in order; empty when there was none.
    pub source: Bytes,
}

impl Core {
    /// Checks apiVersion and kind, prunes and reports unknown fields, fills in defaults, converts to the stored
    /// version.
    pub(super) fn accept(
        &self,
        call: &Call,
        mut value: Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let row = &call.row;
        check_kind(&mut value, &row.api_version(), &row.kind)?;
        self.check_schema(call, &row.schema, &mut value, problems, options)?;
        self.default(call, &mut value);
        Ok(value)
    }

    /// Prunes what the schema does not know; what was found is ignored, a warning or an error, as asked.
    pub(super) fn check_schema(
        &self,
        call: &Call,
        schema: &str,
        value: &mut Value,
        mut problems: Problems,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let row = &call.row;
        let unknown = decode::check_types(self.schema, &Node::reference(schema), value)
            .map_err(|error| error.status(&row.kind, &row.version))?;
        problems.found.extend(unknown);
        self.report(call, problems, options)
    }

    /// What strict decoding found is ignored, told or refused, as asked.
    pub(super) fn report(
        &self,
        call: &Call,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let row = &call.row;
        if problems.found.is_empty() || options.field_validation == "Ignore" {
            return Ok(());
        }
        let found = decode::in_order(&problems.source, problems.found);
        if options.field_validation == "Strict" {
            return Err(decode::strict_error(&row.kind, &row.version, &found));
        }
        found.into_iter().for_each(|problem| call.warn(problem));
        Ok(())
    }

    /// The schema's defaults, then, in the stored version, those that depend on other fields.
    pub(super) fn default(&self, call: &Call, value: &mut Value) {
        self.fill(&call.row.schema, value);
        super::to_storage(&call.row, value);
        call.row.strategy.default(value);
    }

    /// The schema's defaults of a type, and the zero values that upstream always writes.
    pub(super) fn fill(&self, schema: &str, value: &mut Value) {
        decode::complete_fields(self.schema, &Node::reference(schema), value);
    }
}

/// Absent type information is taken from the request; other than the request's is refused.
pub fn check_kind(value: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let Some(object) = value.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "the body of the request is not a {kind}: json: cannot unmarshal into Go value of type object"
        )));
    };
    let given = |object: &serde_json::Map<String, Value>, field: &str| {
        object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (given_version, given_kind) = (given(object, "apiVersion"), given(object, "kind"));
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({given_kind}) does not match the expected kind ({kind})"
        )));
    }
    object.insert("apiVersion".to_owned(), Value::String(api_version.to_owned()));
    object.insert("kind".to_owned(), Value::String(kind.to_owned()));
    Ok(())
}
