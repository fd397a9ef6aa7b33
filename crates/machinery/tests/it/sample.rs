//! An object of a type with every field filled.

use machinery::schema::{Node, Shape, builtin};
use serde_json::{Map, Value, json};

/// How often a type may stand inside itself.
const RECURSION: usize = 2;

/// Fills all fields of a type; lists and maps near the top have two elements. No value is zero or repeated.
pub fn sample(type_name: &str) -> Value {
    let mut maker = Maker { counter: 0, path: Vec::new() };
    maker.named(type_name).expect("the outermost type is not too deep")
}

struct Maker {
    counter: u64,
    path: Vec<String>,
}

impl Maker {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn named(&mut self, name: &str) -> Option<Value> {
        let short = name.rsplit('.').next().unwrap_or(name);
        let n = self.next();
        match short {
            "MicroTime" => return Some(json!(format!("2026-01-02T03:04:05.{:06}Z", n % 1_000_000))),
            "Time" => return Some(json!(format!("2026-01-02T03:04:{:02}Z", n % 60))),
            "JSONSchemaPropsOrBool" => return Some(json!({ "type": format!("t{n}") })),
            "JSONSchemaPropsOrArray" => return Some(json!([{ "type": format!("t{n}") }, {"minimum": 1.5}])),
            "JSONSchemaPropsOrStringArray" => return Some(json!([format!("a{n}"), "b"])),
            _ => {}
        }
        if self.path.iter().filter(|above| *above == name).count() >= RECURSION {
            return None;
        }
        self.path.push(name.to_owned());
        let value = self.value(builtin().named(name)?);
        self.path.pop();
        value
    }

    fn value(&mut self, node: &Node) -> Option<Value> {
        let n = self.next();
        Some(match &node.shape {
            Shape::Ref(name) => return self.named(&name.clone()),
            Shape::Any => json!({ "any": n, "list": [null, true, "x"] }),
            Shape::Boolean => json!(true),
            Shape::Integer => json!(n),
            Shape::Number => json!(n as f64 + 0.5),
            Shape::String if node.format.as_deref() == Some("byte") => json!("Ynl0ZXM="),
            Shape::String => json!(format!("text {n}: \"é\"\n")),
            Shape::IntOrString => {
                if n.is_multiple_of(2) {
                    json!(n)
                } else {
                    json!("50%")
                }
            }
            Shape::Quantity => json!(format!("{n}Mi")),
            Shape::List(inner) => Value::Array((0..self.width()).filter_map(|_| self.value(inner)).collect()),
            Shape::Map(inner) => {
                let entries =
                    (0..self.width()).filter_map(|at| Some((format!("key-{at}"), self.value(inner)?)));
                Value::Object(entries.collect())
            }
            Shape::Struct(body) => {
                let mut fields = Map::new();
                // Protobuf names the kind of the outermost object only.
                let inner_kind = self.path.len() > 1
                    && self.path.last().is_some_and(|of| builtin().kinds(of).next().is_some());
                for (name, field) in &body.fields {
                    if inner_kind && matches!(name.as_ref(), "apiVersion" | "kind") {
                        continue;
                    }
                    let value = if is_duration(self.path.last(), name) {
                        Some(json!(format!("{}s", self.next() % 59 + 1)))
                    } else {
                        self.value(field)
                    };
                    if let Some(value) = value.filter(|value| *value != json!([])) {
                        fields.insert(name.to_string(), value);
                    }
                }
                Value::Object(fields)
            }
        })
        .filter(|value| *value != json!([]) && *value != json!({}) || matches!(node.shape, Shape::Struct(_)))
    }

    fn width(&self) -> usize {
        if self.path.len() < 4 { 2 } else { 1 }
    }
}

/// The schema has `metav1.Duration` as a string; only protobuf knows better.
fn is_duration(of: Option<&String>, field: &str) -> bool {
    field == "window" && of.is_some_and(|of| of.contains(".metrics.v1beta1."))
}
