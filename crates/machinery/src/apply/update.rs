//! What writes do to the ownership of fields.

use serde_json::Value;

use super::compare::{self, Difference};
use super::managed::{Entry, Managed, OPERATION_APPLY, OPERATION_UPDATE, second};
use super::merge::{merge, nothing, prune, strip, without_managed_fields};
use super::{FieldSet, Type, Writer};
use crate::Status;
use crate::status::Cause;

/// Fields of an intent that another manager owns with another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub manager: String,
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    pub time: String,
    pub fields: FieldSet,
}

/// Records a create, update or patch that is no apply: `new` gets the managed fields. The writer owns what it
/// changed; others lose it.
pub fn track_update(kind: Type<'_>, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let mut managed =
        if is_reset(new) { Managed::default() } else { old.map(Managed::read).unwrap_or_default() };
    let reset = old.is_some() && is_reset(new);
    let nothing = nothing();
    let mut change = compare::difference(kind.schema, kind.node, old.unwrap_or(&nothing), new);
    strip(&mut change.changed);
    strip(&mut change.removed);
    if change.is_empty() && old.is_some() && !reset {
        restore(old, new);
        return;
    }
    for entry in &mut managed.entries {
        entry.fields.subtract(&change.removed);
        if !entry.is_of(writer, OPERATION_UPDATE) {
            entry.fields.subtract(&change.changed);
        }
    }
    own(&mut managed, writer, OPERATION_UPDATE, &change.changed);
    managed.write(new);
}

/// A client resets ownership by sending an empty list or a list of one empty entry.
fn is_reset(object: &Value) -> bool {
    match object.pointer("/metadata/managedFields") {
        Some(Value::Array(entries)) => match entries.as_slice() {
            [] => true,
            [one] => one.as_object().is_some_and(serde_json::Map::is_empty),
            _ => false,
        },
        _ => false,
    }
}

/// Nothing of substance changed: the ownership stays as it was.
fn restore(old: Option<&Value>, new: &mut Value) {
    let before = old.and_then(|old| old.pointer("/metadata/managedFields")).cloned();
    let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match before {
        Some(before) => metadata.insert("managedFields".to_owned(), before),
        None => metadata.remove("managedFields"),
    };
}

fn own(managed: &mut Managed, writer: &Writer<'_>, operation: &str, fields: &FieldSet) {
    match managed.entries.iter_mut().find(|entry| entry.is_of(writer, operation)) {
        Some(entry) => {
            let before = entry.fields.clone();
            entry.fields.union(fields);
            if entry.fields != before {
                entry.time = second(writer.now);
            }
        }
        None => managed.entries.push(Entry { fields: fields.clone(), ..Entry::new(writer, operation) }),
    }
}

/// Applies an intent to the live object. Returns the merged object with its managed fields, or the conflicts when
/// `force` is not set.
pub fn apply(
    kind: Type<'_>,
    live: Option<&Value>,
    intent: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let live_object = live.map_or_else(nothing, without_managed_fields);
    let intent = without_managed_fields(intent);
    let mut managed = live.map(Managed::read).unwrap_or_default();
    let mut wanted = compare::fields(kind.schema, kind.node, &intent);
    strip(&mut wanted);
    let mine = managed.entries.iter().position(|entry| entry.is_of(writer, OPERATION_APPLY));
    let mine = mine.map(|index| managed.entries.remove(index));
    let mut merged = merge(kind.schema, kind.node, &live_object, &intent);
    if let Some(mine) = &mine {
        let others = union(&managed);
        prune(kind.schema, kind.node, &mut merged, &mine.fields, Some(&wanted), Some(&others));
    }
    let mut change = compare::difference(kind.schema, kind.node, &live_object, &merged);
    strip(&mut change.changed);
    strip(&mut change.removed);
    settle(&mut managed, &change, force)?;
    let time = match &mine {
        Some(mine) if mine.fields == wanted && mine.api_version == writer.api_version => mine.time.clone(),
        _ => second(writer.now),
    };
    managed.entries.push(Entry { fields: wanted, time, ..Entry::new(writer, OPERATION_APPLY) });
    managed.write(&mut merged);
    Ok(merged)
}

fn union(managed: &Managed) -> FieldSet {
    let mut all = FieldSet::default();
    managed.entries.iter().for_each(|entry| all.union(&entry.fields));
    all
}

/// Takes changed and removed fields off the other managers, or says which of them object.
fn settle(managed: &mut Managed, change: &Difference, force: bool) -> Result<(), Vec<Conflict>> {
    let mut conflicts = Vec::new();
    for entry in &mut managed.entries {
        let fields = entry.fields.intersection(&change.changed);
        if !fields.is_empty() {
            entry.fields.subtract(&fields);
            conflicts.push(Conflict {
                manager: entry.manager.clone(),
                operation: entry.operation.clone(),
                api_version: entry.api_version.clone(),
                subresource: entry.subresource.clone(),
                time: entry.time.clone(),
                fields,
            });
        }
        entry.fields.subtract(&change.removed);
    }
    if conflicts.is_empty() || force { Ok(()) } else { Err(conflicts) }
}

/// The answer to an apply with conflicts, in upstream's words.
pub fn conflict_status(conflicts: &[Conflict]) -> Status {
    let mut causes = Vec::new();
    let mut texts = Vec::new();
    for conflict in conflicts {
        let who = describe(conflict);
        let paths = conflict.fields.paths();
        for path in &paths {
            causes.push(Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {who}"),
                field: path.clone(),
            });
        }
        texts.push(match paths.as_slice() {
            [one] => format!("conflict with {who}: {one}"),
            many => format!("conflicts with {who}:\n- {}", many.join("\n- ")),
        });
    }
    let count = causes.len();
    let plural = if count == 1 { "" } else { "s" };
    let text = format!("Apply failed with {count} conflict{plural}: {}", texts.join("\n"));
    let mut status = Status::failure(409, "Conflict", text);
    status.details = Some(Box::new(crate::status::Details { causes, ..Default::default() }));
    status
}

fn describe(conflict: &Conflict) -> String {
    let mut who = format!("{:?}", conflict.manager);
    if !conflict.subresource.is_empty() {
        who.push_str(&format!(" with subresource {:?}", conflict.subresource));
    }
    if conflict.operation == OPERATION_UPDATE {
        who.push_str(&format!(" using {}", conflict.api_version));
        if !conflict.time.is_empty() {
            who.push_str(&format!(" at {}", conflict.time));
        }
    }
    who
}
