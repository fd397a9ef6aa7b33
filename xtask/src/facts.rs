//! Turns the facts of the Kubernetes API into `crates/machinery/facts/schema.txt`: one line per type, so that the
//! program can read a type when it first needs it.
//!
//! A line is `NAME <tab> GROUP/VERSION/KIND,… <tab> JSON`. Only generally available versions are kept. Each field
//! carries its place in the protobuf message as `pb`: `2.1 repeated message` is field 1 of the struct that Go embeds as
//! field 2.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

type Messages = Map<String, Value>;
type Done<T> = Result<T, Box<dyn Error>>;

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.";

/// Messages without an OpenAPI type whose JSON form has the same names.
const MESSAGE_ONLY: [&str; 3] = [META, "k8s.io.api.apidiscovery.v2.", "k8s.io.api.admission.v1."];

/// Of those, the ones that are kinds.
const MESSAGE_KINDS: [&str; 7] = [
    "meta.k8s.io/v1/PartialObjectMetadata",
    "meta.k8s.io/v1/PartialObjectMetadataList",
    "/v1/List",
    "apidiscovery.k8s.io/v2/APIGroupDiscovery",
    "apidiscovery.k8s.io/v2/APIGroupDiscoveryList",
    "admission.k8s.io/v1/AdmissionReview",
    "/v1/ListOptions",
];

/// Structs that Go always writes, and whose zero value means absent.
const SERVED_AS_ABSENT: [&str; 1] = ["io.k8s.api.core.v1.ServicePort targetPort"];

struct Facts {
    types: Map<String, Value>,
    messages: Messages,
    pointers: BTreeSet<String>,
    always: BTreeSet<String>,
}

/// Reads the facts and writes the schema file.
pub fn write(path: &Path) -> Done<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let facts = Facts::read(path, &root.join("facts/go-fields.txt"))?;
    let mut lines = BTreeMap::new();
    for name in facts.types.keys().filter(|name| is_stable(name)) {
        lines.insert(name.clone(), facts.line(name));
    }
    for message in
        facts.messages.keys().filter(|name| MESSAGE_ONLY.iter().any(|prefix| name.starts_with(prefix)))
    {
        let name = type_name(message);
        if !lines.contains_key(&name) && special(message).is_none() {
            lines.insert(name.clone(), facts.message_line(&name, message));
        }
    }
    lines.extend(metrics()?);
    let mut text = String::new();
    for (name, (kinds, body)) in &lines {
        writeln!(text, "{name}\t{kinds}\t{body}")?;
    }
    std::fs::write(root.join("../crates/machinery/facts/schema.txt"), text)?;
    Ok(())
}

/// The types of `metrics.k8s.io`, which the API server's own documents do not have; lines of the same form.
fn metrics() -> Done<Vec<(String, (String, Value))>> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        let mut next = || parts.next().ok_or("a line of metrics.txt has three parts");
        let (name, kinds) = (next()?, next()?);
        Ok((name, (kinds, serde_json::from_str(&next()?)?)))
    };
    include_str!("../facts/metrics.txt").lines().map(line).collect()
}

impl Facts {
    fn read(path: &Path, go_fields: &Path) -> Done<Self> {
        let Value::Object(mut all) = serde_json::from_slice(&std::fs::read(path)?)? else {
            return Err("the facts are not an object".into());
        };
        let mut take = |key: &str| match all.remove(key) {
            Some(Value::Object(map)) => Ok(map),
            _ => Err(format!("the facts have no {key}")),
        };
        let (types, messages) = (take("types")?, take("protobuf")?);
        let text = std::fs::read_to_string(go_fields)?;
        let having =
            |word: &str| text.lines().filter_map(|line| line.strip_suffix(word)).map(str::to_owned).collect();
        Ok(Self { types, messages, pointers: having(" pointer"), always: having(" always") })
    }

    fn line(&self, name: &str) -> (String, Value) {
        let mut body = self.types[name].clone();
        let kinds = gvks(&body);
        let message = message_name(name);
        if let Some(object) = body.as_object_mut() {
            object.remove("x-kubernetes-group-version-kind");
            object.remove("x-kubernetes-unions");
        }
        let free_form = ["FieldsV1", "RawExtension", "Patch"].iter().any(|free| name.ends_with(free));
        if body["type"] == "object" && body.get("fields").is_none() && !free_form {
            body["fields"] = json!({});
        }
        if let Some(fields) = body.get_mut("fields").and_then(Value::as_object_mut) {
            for (field, node) in fields {
                self.complete(name, &message, field, node);
            }
        }
        (kinds, body)
    }

    /// Adds `zero` and `pb` to a field, and takes away the default that is only Go's zero value.
    fn complete(&self, name: &str, message: &str, field: &str, node: &mut Value) {
        let full = format!("{name} {field}");
        let zero_default = node.get("default").is_some_and(is_zero);
        let zero = match () {
            () if SERVED_AS_ABSENT.contains(&full.as_str()) => "dropped",
            () if zero_default || self.always.contains(&full) => "written",
            () if self.pointers.contains(&full) || node.get("ref").is_some() => "kept",
            () => "dropped",
        };
        let Some(object) = node.as_object_mut() else { return };
        if zero_default {
            object.remove("default");
        }
        if zero != "kept" {
            object.insert("zero".to_owned(), json!(zero));
        }
        match self.place(message, field) {
            Some(place) => {
                object.insert("pb".to_owned(), json!(place));
            }
            None if matches!(field, "apiVersion" | "kind") => {}
            None => eprintln!("no protobuf field for {name}.{field}"),
        }
    }

    /// Where the protobuf message has a field: its number, or the numbers of the embedded structs around it.
    fn place(&self, message: &str, field: &str) -> Option<String> {
        let fields = self.messages.get(message)?.as_object()?;
        if let Some((_, fact)) = fields.iter().find(|(name, _)| letters(name) == letters(field)) {
            return Some(format!("{} {}", fact["n"], self.wire(message, fact)));
        }
        fields.values().filter(|fact| fact.get("repeated").is_none()).find_map(|fact| {
            let inner = absolute(message, fact["type"].as_str()?)?;
            let embeds = special(&inner).is_none() && !inner.ends_with("Meta") && inner != message;
            let place = self.place(&inner, field).filter(|_| embeds && self.is_embedded(message, fact))?;
            Some(format!("{}.{place}", fact["n"]))
        })
    }

    /// Whether a message's field is a struct that Go embeds: the JSON type has no field of its name.
    fn is_embedded(&self, message: &str, fact: &Value) -> bool {
        let name =
            self.messages[message].as_object().and_then(|all| all.iter().find(|(_, other)| *other == fact));
        let fields = self.types.get(&type_name(message)).and_then(|body| body.get("fields")?.as_object());
        match (name, fields) {
            (Some((name, _)), Some(fields)) => !fields.keys().any(|field| letters(field) == letters(name)),
            _ => true,
        }
    }

    fn wire(&self, message: &str, fact: &Value) -> String {
        let of = fact["type"].as_str().unwrap_or_default();
        if let Some(value) = of.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>')) {
            return format!("map {}", self.word(message, value));
        }
        let repeated = if fact.get("repeated").is_some() { "repeated " } else { "" };
        format!("{repeated}{}", self.word(message, of))
    }

    fn word(&self, message: &str, of: &str) -> String {
        let Some(inner) = absolute(message, of) else { return of.to_owned() };
        special(&inner).unwrap_or("message").to_owned()
    }

    /// A type that only protobuf describes.
    fn message_line(&self, name: &str, message: &str) -> (String, Value) {
        let mut fields = Map::new();
        for (field, fact) in self.messages[message].as_object().into_iter().flatten() {
            let mut node = self.message_field(message, fact);
            node["zero"] = json!("dropped");
            node["pb"] = json!(format!("{} {}", fact["n"], self.wire(message, fact)));
            fields.insert(field.clone(), node);
        }
        let kind = name.rsplit('.').next().unwrap_or_default();
        let gvk = MESSAGE_KINDS.iter().find(|gvk| gvk.ends_with(&format!("/{kind}")));
        if gvk.is_some() {
            for field in ["apiVersion", "kind"] {
                fields.insert(field.to_owned(), json!({"type": "string", "zero": "dropped"}));
            }
        }
        (
            gvk.copied().unwrap_or_default().to_owned(),
            json!({"type": "object", "hidden": true, "fields": fields}),
        )
    }

    fn message_field(&self, message: &str, fact: &Value) -> Value {
        let of = fact["type"].as_str().unwrap_or_default();
        if let Some(value) = of.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>')) {
            return json!({"type": "object", "additionalProperties": scalar(message, value)});
        }
        match fact.get("repeated") {
            Some(_) => json!({"type": "array", "items": scalar(message, of)}),
            None => scalar(message, of),
        }
    }
}

fn scalar(message: &str, of: &str) -> Value {
    match of {
        "string" => json!({"type": "string"}),
        "bool" => json!({"type": "boolean"}),
        "double" => json!({"type": "number"}),
        "bytes" => json!({"type": "string", "format": "byte"}),
        "int32" | "int64" => json!({"type": "integer", "format": of}),
        _ => match absolute(message, of) {
            Some(inner) if special(&inner) == Some("strings") => {
                json!({"type": "array", "items": {"type": "string"}})
            }
            Some(inner) => json!({"ref": type_name(&inner)}),
            None => json!({}),
        },
    }
}

/// Messages whose JSON form is not an object with their fields.
fn special(message: &str) -> Option<&'static str> {
    Some(match message.rsplit('.').next()? {
        "Time" => "time",
        "MicroTime" => "microtime",
        "Quantity" => "quantity",
        "IntOrString" => "intorstring",
        "RawExtension" | "FieldsV1" | "JSON" => "raw",
        "Duration" => "duration",
        "Verbs" | "ExtraValue" => "strings",
        "JSONSchemaPropsOrArray" => "schemaorarray",
        "JSONSchemaPropsOrBool" => "schemaorbool",
        "JSONSchemaPropsOrStringArray" => "schemaorstrings",
        _ => return None,
    })
}

/// The full name of the message that a field's type names, if it is one.
fn absolute(message: &str, of: &str) -> Option<String> {
    if let Some(full) = of.strip_prefix('.') {
        return Some(full.to_owned());
    }
    let package = message.rsplit_once('.')?.0;
    of.starts_with(|first: char| first.is_ascii_uppercase()).then(|| format!("{package}.{of}"))
}

fn message_name(name: &str) -> String {
    name.replacen("io.k8s.", "k8s.io.", 1).replace('-', "_")
}

fn type_name(message: &str) -> String {
    message.replacen("k8s.io.", "io.k8s.", 1).replace('_', "-")
}

fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

fn is_stable(name: &str) -> bool {
    !name.split('.').any(|part| part.starts_with('v') && (part.contains("alpha") || part.contains("beta")))
}

fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Bool(false)) || *value == json!("") || *value == json!(0) || *value == json!({})
}

fn gvks(body: &Value) -> String {
    let of = |gvk: &Value, key: &str| gvk[key].as_str().unwrap_or_default().to_owned();
    let list = body["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
    let names: Vec<_> =
        list.map(|gvk| format!("{}/{}/{}", of(gvk, "group"), of(gvk, "version"), of(gvk, "kind"))).collect();
    names.join(",")
}
