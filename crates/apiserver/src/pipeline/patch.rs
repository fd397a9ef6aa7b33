//! patch: JSON, merge, strategic merge and server-side apply; and who owns which field.

use std::sync::Arc;

use client::{Patch, WriteOptions};
use machinery::apply::{self, Type, Writer};
use machinery::schema::Node;
use machinery::{Object, Status, patch};
use resources::Resource;
use serde_json::Value;

use super::body::Problems;
use super::update::check_preconditions;
use super::{Call, Write, meta, served};
use crate::core::Core;

/// What a patch did.
pub struct Patched {
    pub object: Arc<Object>,
    /// An apply of an object that did not exist.
    pub created: bool,
}

impl Core {
    /// Changes an object by a patch; an apply may create it.
    pub async fn patch(
        self: &Arc<Self>,
        call: &Call,
        patch: Patch,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Patched, Status> {
        if let Patch::Apply(intent) = patch {
            return self.apply(call, intent, problems, options).await;
        }
        self.report(call, problems, options)?;
        let object = if self.is_view(call) {
            let (_, _, schema) = self.subresource_type(call);
            let node = Node::reference(&schema);
            self.change_view(call, options, &|_, view| self.patched(&node, view, &patch)).await?
        } else {
            let node = Node::reference(&call.row.schema);
            self.change(call, Write::update(options), &|old| {
                let patched = self.patched(&node, &served(&call.row, old.value), &patch)?;
                self.accept_patched(call, patched, old.object, options)
            })
            .await?
        };
        Ok(Patched { object, created: false })
    }

    fn patched(&self, node: &Node, value: &Value, patch: &Patch) -> Result<Value, Status> {
        match patch {
            Patch::Json(operations) => patch::json_patch(value, operations),
            Patch::Merge(changes) => Ok(patch::merge_patch(value, changes)),
            Patch::StrategicMerge(changes) => patch::strategic(self.schema, node, value, changes),
            Patch::Apply(_) => Err(Status::internal("an apply is no plain patch")),
        }
    }

    /// A patched object is checked like one that came as a whole.
    fn accept_patched(
        &self,
        call: &Call,
        mut value: Value,
        old: &Object,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        meta::match_name(&mut value, &call.target.name)?;
        meta::match_namespace(&call.row, &mut value, &call.target.namespace)?;
        let value = self.accept(call, value, Problems::default(), options)?;
        check_preconditions(call, &value, old)?;
        Ok(value)
    }

    async fn apply(
        self: &Arc<Self>,
        call: &Call,
        mut intent: Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Patched, Status> {
        let write = Write { options, applies: true };
        if self.is_view(call) {
            let intent = self.view_intent(call, intent, problems, options)?;
            let changed = self.apply_to_present(call, write, &intent).await?;
            return Ok(Patched { object: self.projected(call, &changed)?, created: false });
        }
        self.check_intent(call, &mut intent, problems, options)?;
        let missing = self.newest(call).await?.is_none();
        if missing && call.target.subresource.is_empty() {
            if !meta::text(&intent, "uid").is_empty() {
                let detail = "Precondition failed: UID in precondition: the object does not exist";
                return Err(call.conflict(&call.target.name, detail));
            }
            let value = self.applied(call, None, &intent, options)?;
            let value = self.accept(call, value, Problems::default(), options)?;
            let object = self.create_accepted(call, value, write).await?;
            return Ok(Patched { object, created: true });
        }
        let object = self.apply_to_present(call, write, &intent).await?;
        Ok(Patched { object, created: false })
    }

    async fn apply_to_present(
        &self,
        call: &Call,
        write: Write<'_>,
        intent: &Value,
    ) -> Result<Arc<Object>, Status> {
        self.change(call, write, &|old| {
            let live = served(&call.row, old.value);
            let merged = self.applied(call, Some(&live), intent, write.options)?;
            self.accept_patched(call, merged, old.object, write.options)
        })
        .await
    }

    fn check_intent(
        &self,
        call: &Call,
        intent: &mut Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let row = &call.row;
        check_is_intent(intent, &row.api_version(), &row.kind)?;
        self.check_schema(call, &row.schema, intent, problems, options)?;
        drop_foreign_fields(call, intent);
        meta::match_name(intent, &call.target.name)?;
        meta::match_namespace(row, intent, &call.target.namespace)
    }

    fn applied(
        &self,
        call: &Call,
        live: Option<&Value>,
        intent: &Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let node = Node::reference(&call.row.schema);
        let kind = Type { schema: self.schema, node: &node };
        let api_version = call.row.api_version();
        let writer = self.writer(call, options, &api_version);
        apply::apply(kind, live, intent, &writer, options.force)
            .map_err(|conflicts| apply::conflict_status(&conflicts))
    }

    fn writer<'a>(&self, call: &'a Call, options: &'a WriteOptions, api_version: &'a str) -> Writer<'a> {
        let manager = match options.field_manager.as_str() {
            "" => call.caller.agent.as_str(),
            manager => manager,
        };
        Writer { manager, api_version, subresource: &call.target.subresource, now: self.env.now() }
    }

    /// Notes in `managedFields` who set what. An apply has done so itself.
    pub(super) fn track(&self, call: &Call, new: &mut Value, old: Option<&Value>, write: Write<'_>) {
        if write.applies {
            return;
        }
        let row = self.stored_row(&call.row);
        let node = Node::reference(&row.schema);
        let api_version = row.api_version();
        let writer = self.writer(call, write.options, &api_version);
        apply::track_update(Type { schema: self.schema, node: &node }, old, new, &writer);
    }

    /// The row whose version is stored.
    fn stored_row(&self, row: &Arc<Resource>) -> Arc<Resource> {
        if !row.is_converted() {
            return row.clone();
        }
        let table = self.table.load();
        let found =
            table.rows().iter().find(|own| own.storage_prefix == row.storage_prefix && !own.is_converted());
        found.unwrap_or(row).clone()
    }
}

/// What every intent must say and must not.
pub(super) fn check_is_intent(intent: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    for field in ["apiVersion", "kind"] {
        if intent.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
            return Err(Status::bad_request(format!("invalid object type: {field} is required for apply")));
        }
    }
    super::body::check_kind(intent, api_version, kind)?;
    if intent.pointer("/metadata/managedFields").is_some_and(|managed| !managed.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// What the request's endpoint does not write, an intent can neither set nor own: the status of an object that has one
/// of its own, and all but the status there.
fn drop_foreign_fields(call: &Call, intent: &mut Value) {
    let Some(fields) = intent.as_object_mut() else { return };
    match call.target.subresource.as_str() {
        "" if call.row.subresource("status").is_some() => drop(fields.remove("status")),
        "status" => {
            fields.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        }
        _ => {}
    }
}
