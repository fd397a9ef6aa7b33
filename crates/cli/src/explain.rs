//! `explain`: the fields of a kind, from the server's OpenAPI.

use serde_json::Value;

use crate::Error;
use crate::discovery::Kind;
use crate::session::Session;

/// How deep `--recursive` goes: some schemas contain themselves.
const DEPTH_MAX: usize = 12;

/// Shows fields.
#[derive(clap::Args)]
pub struct Explain {
    /// TYPE or TYPE.field.field.
    resource: String,
    /// Show the fields of fields too.
    #[arg(long)]
    recursive: bool,
    /// Of this group and version.
    #[arg(long)]
    api_version: Option<String>,
}

impl Explain {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let mut parts = self.resource.split('.');
        let kind = session.kind(parts.next().unwrap_or_default()).await?;
        let version = self.api_version.clone().unwrap_or_else(|| kind.api_version());
        let folder = if version.contains('/') { "apis" } else { "api" };
        let document = session.get(&format!("/openapi/v3/{folder}/{version}")).await?;
        let schemas = &document["components"]["schemas"];
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let of_kind = |schema: &&Value| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| {
                kinds.iter().any(|known| {
                    known["group"] == group
                        && known["version"] == version
                        && known["kind"] == kind.kind.as_str()
                })
            })
        };
        let root = schemas.as_object().and_then(|all| all.values().find(of_kind));
        let root = root.ok_or_else(|| {
            Error::usage(format!("couldn't find resource for {group}/{version} {}", kind.kind))
        })?;
        let document = Document { schemas };
        let mut node = root;
        let mut last = None;
        for field in parts {
            let next = document.fields(node).and_then(|fields| fields.get(field));
            node = next.ok_or_else(|| Error::usage(format!("field {field:?} does not exist")))?;
            last = Some(field);
        }
        session.out.text(&document.page(&kind, version, last, node, self.recursive))
    }
}

struct Document<'a> {
    schemas: &'a Value,
}

impl<'a> Document<'a> {
    /// The schema itself, references and lists followed.
    fn resolve(&self, node: &'a Value) -> &'a Value {
        let reference = node["$ref"].as_str().or_else(|| node["allOf"][0]["$ref"].as_str());
        match reference.and_then(|text| text.rsplit('/').next()) {
            Some(name) => &self.schemas[name],
            None => node,
        }
    }

    fn fields(&self, node: &'a Value) -> Option<&'a serde_json::Map<String, Value>> {
        let node = self.resolve(node);
        if let Some(fields) = node["properties"].as_object() {
            return Some(fields);
        }
        let inner = if node["items"].is_object() { &node["items"] } else { &node["additionalProperties"] };
        if inner.is_object() { self.fields(inner) } else { None }
    }

    /// `string`, `[]Container`, `map[string]string`.
    fn type_name(&self, node: &'a Value) -> String {
        let reference = node["$ref"].as_str().or_else(|| node["allOf"][0]["$ref"].as_str());
        if let Some(name) = reference.and_then(|text| text.rsplit('.').next()) {
            return name.to_owned();
        }
        if node["items"].is_object() {
            return format!("[]{}", self.type_name(&node["items"]));
        }
        if node["additionalProperties"].is_object() {
            return format!("map[string]{}", self.type_name(&node["additionalProperties"]));
        }
        node["type"].as_str().unwrap_or("Object").to_owned()
    }

    fn page(
        &self,
        kind: &Kind,
        version: &str,
        field: Option<&str>,
        node: &'a Value,
        recursive: bool,
    ) -> String {
        let mut text = String::new();
        if !kind.group.is_empty() {
            text.push_str(&format!("GROUP:      {}\n", kind.group));
        }
        text.push_str(&format!("KIND:       {}\nVERSION:    {version}\n\n", kind.kind));
        if let Some(field) = field {
            text.push_str(&format!("FIELD: {field} <{}>\n\n", self.type_name(node)));
        }
        let own = node["description"].as_str().or_else(|| self.resolve(node)["description"].as_str());
        text.push_str("DESCRIPTION:\n");
        text.push_str(&wrapped(own.filter(|own| !own.is_empty()).unwrap_or("<empty>"), 4));
        if self.fields(node).is_some() {
            text.push_str("\nFIELDS:\n");
            self.list(node, 2, recursive, &mut text);
        }
        text.push('\n');
        text
    }

    fn list(&self, node: &'a Value, indent: usize, recursive: bool, text: &mut String) {
        let Some(fields) = self.fields(node) else { return };
        let owner = self.resolve(node);
        let owner = if owner["items"].is_object() { self.resolve(&owner["items"]) } else { owner };
        let required = owner["required"].as_array();
        for (name, field) in fields {
            let is_required = required.is_some_and(|all| all.iter().any(|other| other == name.as_str()));
            let mark = if is_required { " -required-" } else { "" };
            text.push_str(&format!("{:indent$}{name}\t<{}>{mark}\n", "", self.type_name(field)));
            if recursive {
                if indent / 2 < DEPTH_MAX {
                    self.list(field, indent + 2, true, text);
                }
                continue;
            }
            if let Some(description) = field["description"].as_str() {
                text.push_str(&wrapped(description, indent + 2));
                text.push('\n');
            }
        }
    }
}

/// Text in lines of at most 80 characters.
fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && indent + line.len() + 1 + word.len() > 80 {
                out.push_str(&format!("{:indent$}{line}\n", ""));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(&format!("{:indent$}{line}\n", ""));
    }
    out
}
