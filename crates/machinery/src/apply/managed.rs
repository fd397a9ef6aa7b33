//! `metadata.managedFields`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{FieldSet, Writer};

pub const OPERATION_APPLY: &str = "Apply";
pub const OPERATION_UPDATE: &str = "Update";

/// More entries of updates than this are merged into one.
const UPDATES_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// What one manager owns through one operation, version and subresource.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: String,
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    /// As written: RFC 3339, seconds.
    pub time: String,
    pub fields: FieldSet,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed {
    pub entries: Vec<Entry>,
}

impl Entry {
    pub fn new(writer: &Writer<'_>, operation: &str) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            operation: operation.to_owned(),
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: second(writer.now),
            fields: FieldSet::default(),
        }
    }

    /// Whether the entry is this writer's. An apply is one entry over all versions; updates are kept by version.
    pub fn is_of(&self, writer: &Writer<'_>, operation: &str) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.subresource == writer.subresource
            && (operation == OPERATION_APPLY || self.api_version == writer.api_version)
    }
}

/// An object's `managedFields`, as they are written.
pub(super) fn list_of(object: &Value) -> Option<&[Value]> {
    object.get("metadata")?.get("managedFields")?.as_array().map(Vec::as_slice)
}

/// `metav1.Time`.
pub fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Managed {
    /// Reads an object's entries; malformed ones are dropped, as upstream does.
    pub fn read(object: &Value) -> Self {
        list_of(object).map(Self::read_list).unwrap_or_default()
    }

    /// Reads the entries of a `managedFields` list.
    pub(super) fn read_list(list: &[Value]) -> Self {
        let entries = list.iter().filter_map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let is_known = entry["fieldsType"] == "FieldsV1" && entry["fieldsV1"].is_object();
            is_known.then(|| Entry {
                manager: text("manager"),
                operation: text("operation"),
                api_version: text("apiVersion"),
                subresource: text("subresource"),
                time: text("time"),
                fields: FieldSet::decode(&entry["fieldsV1"]),
            })
        });
        Self { entries: entries.collect() }
    }

    /// Writes the entries into an object; without any the field is absent.
    pub fn write(mut self, object: &mut Value) {
        self.entries.retain(|entry| !entry.fields.is_empty());
        self.cap_updates();
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if self.entries.is_empty() {
            metadata.remove("managedFields");
            return;
        }
        self.entries.sort_by(|a, b| {
            (&a.operation, &a.time, &a.manager, &a.api_version).cmp(&(
                &b.operation,
                &b.time,
                &b.manager,
                &b.api_version,
            ))
        });
        metadata.insert("managedFields".to_owned(), self.entries.iter().map(encode).collect());
    }

    fn cap_updates(&mut self) {
        let updates = |managed: &Self| {
            let updates = managed.entries.iter().enumerate().filter(|(_, entry)| {
                entry.operation == OPERATION_UPDATE
                    && entry.manager != ANCIENT
                    && entry.subresource.is_empty()
            });
            updates.map(|(index, entry)| (entry.time.clone(), index)).collect::<Vec<_>>()
        };
        let mut all = updates(self);
        while all.len() > UPDATES_MAX {
            let oldest = all.iter().min().map(|(_, index)| *index).unwrap_or(0);
            let entry = self.entries.remove(oldest);
            let same =
                |other: &&mut Entry| other.manager == ANCIENT && other.api_version == entry.api_version;
            match self.entries.iter_mut().find(same) {
                Some(ancient) => {
                    ancient.fields.union(&entry.fields);
                    ancient.time = entry.time.max(ancient.time.clone());
                }
                None => self.entries.push(Entry { manager: ANCIENT.to_owned(), ..entry }),
            }
            all = updates(self);
        }
    }
}

fn encode(entry: &Entry) -> Value {
    let mut value = json!({
        "manager": entry.manager,
        "operation": entry.operation,
        "apiVersion": entry.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
    });
    // Not in the macro, which would write and read the whole set once more.
    value["fieldsV1"] = entry.fields.encode();
    if !entry.subresource.is_empty() {
        value["subresource"] = json!(entry.subresource);
    }
    value
}
