//! What writes do to the ownership of fields.

use serde_json::{Map, Value};

use super::compare::{self, Difference};
use super::managed::{Entry, Managed, OPERATION_APPLY, OPERATION_UPDATE, list_of, second};
use super::merge::{merge, nothing, prune, strip, without_managed_fields};
use super::{FieldSet, Type, Writer, last_applied, settled};
use crate::Status;
use crate::status::Cause;

/// The owner of what an object had when it was applied for the first time.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields of an intent that another manager owns with another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub manager: String,
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    pub fields: FieldSet,
}

/// Records a create, update or patch that is no apply: `new` gets the managed fields. The writer owns what it
/// changed; others lose it. Ownership that the request itself states replaces what is stored; an empty list, or a list of
/// one empty entry, gives all ownership up. An object that nobody owns stays so until it is applied.
pub fn track_update(kind: Type<'_>, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let is_reset = is_reset(new);
    let requested = take_list(new);
    let stored = old.and_then(list_of).unwrap_or_default();
    if is_reset && old.is_some() {
        return;
    }
    let nothing = nothing();
    let mut change = compare::difference(kind.schema, kind.node, old.unwrap_or(&nothing), new);
    strip(&mut change.changed);
    strip(&mut change.removed);
    let is_stored = requested.as_deref().is_none_or(|list| list == stored);
    if is_stored && old.is_some() && settled::is_settled(stored, &change, writer) {
        put_list(new, requested.unwrap_or_else(|| stored.to_vec()));
        return;
    }
    let mut managed = requested.map(|list| Managed::read_list(&list)).unwrap_or_default();
    if managed.entries.is_empty() {
        managed = Managed::read_list(stored);
    }
    if managed.entries.is_empty() && old.is_some() {
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
    match list_of(object) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

fn take_list(object: &mut Value) -> Option<Vec<Value>> {
    let list = object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")?;
    if let Value::Array(list) = list { Some(list) } else { None }
}

fn put_list(object: &mut Value, list: Vec<Value>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && !list.is_empty()
    {
        metadata.insert("managedFields".to_owned(), Value::Array(list));
    }
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
    let result = match apply_once(kind, live, intent, writer, force) {
        Err(conflicts) if live.is_some_and(|live| last_applied::allows(kind, live, writer, &conflicts)) => {
            apply_once(kind, live, intent, writer, true)
        }
        result => result,
    };
    result.map(|mut merged| {
        last_applied::renew(&mut merged, intent, writer);
        merged
    })
}

fn apply_once(
    kind: Type<'_>,
    live: Option<&Value>,
    intent: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let live_object = live.map_or_else(nothing, without_managed_fields);
    let intent = without_managed_fields(intent);
    let mut managed = live.map(|live| managed_before(kind, live, &live_object, writer)).unwrap_or_default();
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

/// Who owns a live object. What nobody owns yet belongs to whoever wrote it before the first apply.
fn managed_before(kind: Type<'_>, live: &Value, live_object: &Value, writer: &Writer<'_>) -> Managed {
    let mut managed = Managed::read(live);
    if managed.entries.is_empty() {
        let mut fields = compare::fields(kind.schema, kind.node, live_object);
        strip(&mut fields);
        let before = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
        managed.entries.push(Entry { fields, ..Entry::new(&before, OPERATION_UPDATE) });
    }
    managed
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
        texts.push((who, paths));
    }
    let text = match texts.as_slice() {
        [(who, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {who}: {}", paths[0])
        }
        many => {
            let texts: Vec<_> = many
                .iter()
                .map(|(who, paths)| format!("conflicts with {who}:\n- {}", paths.join("\n- ")))
                .collect();
            format!("Apply failed with {} conflicts: {}", causes.len(), texts.join("\n"))
        }
    };
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
    }
    who
}
