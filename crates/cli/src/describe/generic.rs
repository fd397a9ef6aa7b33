//! Any object, field by field.

use serde_json::Value;

use super::page::{Page, text};

const HEAD: [&str; 4] = ["name", "namespace", "labels", "annotations"];

pub fn describe(page: &mut Page, object: &Value) {
    page.head(object);
    page.field(0, "API Version", text(&object["apiVersion"]));
    page.field(0, "Kind", text(&object["kind"]));
    let mut metadata = object["metadata"].clone();
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|name, _| !HEAD.contains(&name.as_str()) && name != "managedFields");
        page.line(0, "Metadata:");
        value(page, 1, &metadata);
    }
    for (name, field) in object.as_object().into_iter().flatten() {
        if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            entry(page, 0, name, field);
        }
    }
}

fn entry(page: &mut Page, level: usize, name: &str, field: &Value) {
    let label = label(name);
    match field {
        Value::Object(_) => {
            page.line(level, format!("{label}:"));
            value(page, level + 1, field);
        }
        Value::Array(items) => {
            page.line(level, format!("{label}:"));
            items.iter().for_each(|item| value(page, level + 1, item));
        }
        // Nothing in it is for other columns.
        scalar => page.field(level, &label, text(scalar).replace('\t', " ")),
    }
}

fn value(page: &mut Page, level: usize, value: &Value) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, field)| entry(page, level, name, field)),
        scalar => page.line(level, text(scalar)),
    }
}

/// `creationTimestamp` reads `Creation Timestamp`; names that are no identifiers stay as they are.
fn label(name: &str) -> String {
    if !name.chars().all(|character| character.is_ascii_alphanumeric()) {
        return name.to_owned();
    }
    let mut words: Vec<String> = vec![String::new()];
    let characters: Vec<char> = name.chars().collect();
    for (index, character) in characters.iter().enumerate() {
        let lower_before = index > 0 && !characters[index - 1].is_uppercase();
        let lower_after = characters.get(index + 1).is_some_and(|next| next.is_lowercase());
        if character.is_uppercase() && index > 0 && (lower_before || lower_after) {
            words.push(String::new());
        }
        words.last_mut().expect("there is a first word").push(*character);
    }
    let shown = words.iter().map(|word| match word.as_str() {
        "api" | "url" | "uid" | "osb" | "guid" => word.to_uppercase(),
        word => {
            let mut rest = word.chars();
            rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
        }
    });
    shown.collect::<Vec<String>>().join(" ")
}
