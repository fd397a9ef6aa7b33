//! A page of a description: lines with tabs that are aligned at the end.

use env::jiff::Timestamp;
use serde_json::Value;

use crate::Error;
use crate::api::with_query;
use crate::selection::list_items;
use crate::session::Session;

#[derive(Default)]
pub struct Page {
    pub text: String,
}

impl Page {
    /// A line at a level of indentation; tabs part its columns.
    pub fn line(&mut self, level: usize, line: impl AsRef<str>) {
        self.text.extend(std::iter::repeat_n("  ", level));
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// A name and its value.
    pub fn field(&mut self, level: usize, name: &str, value: impl AsRef<str>) {
        self.line(level, format!("{name}:\t{}", value.as_ref()));
    }

    /// A field that is left out when there is nothing to say.
    pub fn optional(&mut self, level: usize, name: &str, value: &Value) {
        let value = text(value);
        if !value.is_empty() {
            self.field(level, name, value);
        }
    }

    /// Pairs, one a line, or `<none>`.
    pub fn pairs(&mut self, level: usize, name: &str, map: &Value, separator: &str) {
        let pairs: Vec<_> = map.as_object().into_iter().flatten().collect();
        if pairs.is_empty() {
            self.field(level, name, "<none>");
        }
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            let title = if index == 0 { format!("{name}:") } else { String::new() };
            self.line(level, format!("{title}\t{key}{separator}{}", text(value)));
        }
    }

    /// Name, namespace, labels and annotations.
    pub fn head(&mut self, object: &Value) {
        self.name(object);
        self.labels(object);
    }

    pub fn name(&mut self, object: &Value) {
        self.field(0, "Name", text(&object["metadata"]["name"]));
        self.optional(0, "Namespace", &object["metadata"]["namespace"]);
    }

    pub fn labels(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.pairs(0, "Labels", &metadata["labels"], "=");
        let mut annotations = metadata["annotations"].clone();
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.remove(crate::apply::LAST_APPLIED);
        }
        self.pairs(0, "Annotations", &annotations, ": ");
    }

    /// A table of conditions with some of their fields.
    pub fn conditions(&mut self, object: &Value, columns: &[(&str, &str)]) {
        let conditions: Vec<_> = items(&object["status"]["conditions"]).collect();
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions:");
        let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
        self.line(1, titles.join("\t"));
        let rules: Vec<_> = titles.iter().map(|title| "-".repeat(title.len())).collect();
        self.line(1, rules.join("\t"));
        for condition in conditions {
            let cells = columns.iter().map(|(_, field)| match field.ends_with("Time") {
                true => time(&condition[field]),
                false => text(&condition[field]),
            });
            self.line(1, cells.collect::<Vec<_>>().join("\t"));
        }
    }
}

pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A scalar as text; nothing for `null`.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The text, or something else when there is none.
pub fn or<'a>(value: &'a Value, other: &'a str) -> &'a str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or(other)
}

/// `Mon, 02 Jan 2006 15:04:05 +0000`.
pub fn time(value: &Value) -> String {
    let parsed = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or_else(|| text(value), |time| time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
}

/// Lists objects that belong to a description; without the permission or the kind there are none.
pub async fn list(
    session: &Session,
    of: &str,
    namespace: &str,
    label: &str,
    field: &str,
) -> Result<Vec<Value>, Error> {
    let kind = session.kind(of).await?;
    let path = kind.path(namespace, "", "");
    let path = with_query(&path, &[("labelSelector", label), ("fieldSelector", field)]);
    match session.get(&path).await {
        Ok(list) => Ok(list_items(&kind, &list)),
        Err(error) if error.is_reason("Forbidden") => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
