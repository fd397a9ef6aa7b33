//! Tables that the server draws (`meta.k8s.io/v1 Table`), aligned.

use serde_json::Value;

/// The representation to ask for.
pub const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

const MINIMUM: usize = 6;
const PADDING: usize = 3;

/// A table of one kind.
#[derive(Debug, Default)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

#[derive(Debug)]
pub struct Column {
    pub name: String,
    /// Above 0: only shown when asked for everything.
    pub priority: i64,
}

#[derive(Debug)]
pub struct Row {
    pub cells: Vec<String>,
    /// At least the object's metadata.
    pub object: Value,
}

impl Table {
    /// Reads a `Table`; `None` if it is something else.
    pub fn read(value: &Value) -> Option<Self> {
        if value["kind"] != "Table" {
            return None;
        }
        let column = |column: &Value| Column {
            name: column["name"].as_str().unwrap_or_default().to_uppercase(),
            priority: column["priority"].as_i64().unwrap_or(0),
        };
        let row = |row: &Value| Row {
            cells: items(&row["cells"]).map(cell).collect(),
            object: row["object"].clone(),
        };
        Some(Self {
            columns: items(&value["columnDefinitions"]).map(column).collect(),
            rows: items(&value["rows"]).map(row).collect(),
        })
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Only the first line of a text is shown.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => match text.find(['\n', '\r', '\u{c}']) {
            Some(end) => format!("{}...", &text[..end]),
            None => text.clone(),
        },
        other => other.to_string(),
    }
}

/// What is shown of a table.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub wide: bool,
    pub no_headers: bool,
    pub show_labels: bool,
    pub label_columns: Vec<String>,
    pub with_namespace: bool,
    /// Put in front of names: `pod/`.
    pub name_prefix: String,
}

/// Prints tables of one kind; column widths only grow from one to the next, as a watch needs.
#[derive(Default)]
pub struct Printer {
    options: Options,
    widths: Vec<usize>,
    headed: bool,
}

impl Printer {
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// The table's lines, with the headers the first time.
    pub fn print(&mut self, table: &Table) -> String {
        let mut lines = Vec::new();
        if !self.headed && !self.options.no_headers && !table.columns.is_empty() {
            lines.push(self.header(table));
        }
        self.headed |= !table.columns.is_empty();
        lines.extend(table.rows.iter().map(|row| self.row(table, row)));
        for line in &lines {
            self.widths.resize(self.widths.len().max(line.len()), MINIMUM);
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count() + PADDING);
            }
        }
        lines.iter().map(|line| self.line(line)).collect()
    }

    fn shown<'a, T>(&'a self, table: &'a Table, cells: &'a [T]) -> impl Iterator<Item = &'a T> {
        let wide = self.options.wide;
        table
            .columns
            .iter()
            .zip(cells)
            .filter(move |(column, _)| wide || column.priority == 0)
            .map(|both| both.1)
    }

    fn header(&self, table: &Table) -> Vec<String> {
        let mut line = Vec::new();
        if self.options.with_namespace {
            line.push("NAMESPACE".to_owned());
        }
        line.extend(self.shown(table, &table.columns).map(|column| column.name.clone()));
        let short = |label: &String| label.rsplit('/').next().unwrap_or_default().to_uppercase();
        line.extend(self.options.label_columns.iter().map(short));
        if self.options.show_labels {
            line.push("LABELS".to_owned());
        }
        line
    }

    fn row(&self, table: &Table, row: &Row) -> Vec<String> {
        let metadata = &row.object["metadata"];
        let mut line = Vec::new();
        if self.options.with_namespace {
            line.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
        }
        let name = line.len();
        line.extend(self.shown(table, &row.cells).cloned());
        if let Some(cell) = line.get_mut(name) {
            cell.insert_str(0, &self.options.name_prefix);
        }
        for label in &self.options.label_columns {
            line.push(metadata["labels"][label].as_str().unwrap_or_default().to_owned());
        }
        if self.options.show_labels {
            line.push(labels(&metadata["labels"]));
        }
        line
    }

    fn line(&self, cells: &[String]) -> String {
        let mut text = String::new();
        for (index, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            text.push_str(cell);
            if index + 1 < cells.len() {
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
        text
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(labels: &Value) -> String {
    let pairs: Vec<_> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{Options, Printer, Table};

    fn table(rows: serde_json::Value) -> Table {
        let columns =
            json!([{"name": "Name", "priority": 0}, {"name": "Age"}, {"name": "Node", "priority": 1}]);
        let value = json!({"kind": "Table", "columnDefinitions": columns, "rows": rows});
        Table::read(&value).expect("a table")
    }

    #[test]
    fn widths_grow_and_headers_come_once() {
        let mut printer = Printer::new(Options::default());
        let mut text = printer.print(&table(json!([{"cells": ["web", "5s", "a"], "object": {}}])));
        text += &printer.print(&table(json!([{"cells": ["longer-name", 7, null], "object": {}}])));
        expect![[r#"
            NAME   AGE
            web    5s
            longer-name   7
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn everything_that_can_be_asked_for() {
        let object = json!({"metadata": {"namespace": "kube-system", "labels": {"app": "x", "k/tier": "1"}}});
        let mut printer = Printer::new(Options {
            wide: true,
            show_labels: true,
            label_columns: vec!["k/tier".into()],
            with_namespace: true,
            name_prefix: "pod/".into(),
            ..Options::default()
        });
        expect![[r#"
            NAMESPACE     NAME      AGE   NODE          TIER   LABELS
            kube-system   pod/web   5s    one line...   1      app=x,k/tier=1
        "#]]
        .assert_eq(
            &printer.print(&table(json!([{"cells": ["web", "5s", "one line\ntwo"], "object": object}]))),
        );
    }
}
