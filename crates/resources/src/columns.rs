//! The columns of server-side tables (`kubectl get`), per kind.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::Resource;

const FACTS: &str = include_str!("../facts/columns.json");

/// A `metav1.TableColumnDefinition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: String,
    /// `name` marks the column that identifies the object.
    #[serde(default)]
    pub format: String,
    #[serde(default)]
    pub description: String,
    /// 0 always shown; 1 only with `-o wide`.
    #[serde(default)]
    pub priority: i32,
}

impl Column {
    fn new(name: &str, data_type: &str, format: &str, description: &str) -> Self {
        let [name, data_type, format, description] =
            [name, data_type, format, description].map(str::to_owned);
        Self { name, data_type, format, description, priority: 0 }
    }
}

static COLUMNS: LazyLock<BTreeMap<String, Vec<Column>>> = LazyLock::new(|| {
    let mut columns: BTreeMap<String, Vec<Column>> =
        serde_json::from_str(FACTS).expect("the facts are part of the program and tested");
    let events = columns.get(".Event").cloned().unwrap_or_default();
    columns.insert("events.Event".to_owned(), events);
    columns.insert("apiregistration.APIService".to_owned(), api_service());
    for kind in ["NodeMetrics", "PodMetrics"] {
        columns.insert(format!("metrics.{kind}"), metrics());
    }
    for column in columns.values_mut().flatten() {
        describe(column);
    }
    columns
});

static UNKNOWN: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let mut columns =
        vec![Column::new("Name", "string", "name", ""), Column::new("Created At", "date", "", "")];
    columns.iter_mut().for_each(describe);
    columns
});

/// The columns of a row's table: as many as its strategy gives cells.
pub fn columns(row: &Resource) -> &'static [Column] {
    let group = row.group.split('.').next().unwrap_or_default();
    COLUMNS.get(&format!("{group}.{}", row.kind)).unwrap_or(&UNKNOWN)
}

fn metrics() -> Vec<Column> {
    let mut columns = vec![Column::new("Name", "string", "name", "")];
    columns.extend(["cpu", "memory", "Window"].map(|name| Column::new(name, "string", "", "")));
    columns
}

fn api_service() -> Vec<Column> {
    let mut columns = vec![Column::new("Name", "string", "name", "")];
    let described = [
        ("Service", "The reference to the service that hosts this API endpoint."),
        ("Available", "Whether this service is available."),
    ];
    columns.extend(described.map(|(name, description)| Column::new(name, "string", "", description)));
    columns.push(Column::new("Age", "string", "", ""));
    columns
}

fn describe(column: &mut Column) {
    if !column.description.is_empty() {
        return;
    }
    let text = match column.name.as_str() {
        "Name" => {
            "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
        }
        "Age" | "Created At" => {
            "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC."
        }
        _ => return,
    };
    column.description = text.to_owned();
}
