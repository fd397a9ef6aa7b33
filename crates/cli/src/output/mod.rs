//! How objects are printed.

pub mod jsonpath;
pub mod table;
pub mod tabs;

use machinery::yaml;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Error;
use crate::session::Session;
use jsonpath::JsonPath;

/// The value of `-o`.
#[derive(Debug, Default)]
pub enum Format {
    /// What the command prints by itself.
    #[default]
    Human,
    Wide,
    Yaml,
    Json,
    Name,
    JsonPath(JsonPath),
    /// Headers and paths.
    Columns(Vec<(String, JsonPath)>),
}

/// Flags of printing commands.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Printing {
    /// wide, yaml, json, name, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,…
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub output: String,
    /// Keep metadata.managedFields in yaml and json.
    #[arg(long)]
    pub show_managed_fields: bool,
}

impl Printing {
    /// What `-o` means.
    pub fn format(&self) -> Result<Format, Error> {
        let (name, argument) = self.output.split_once('=').unwrap_or((&self.output, ""));
        Ok(match name {
            "" => Format::Human,
            "wide" => Format::Wide,
            "yaml" => Format::Yaml,
            "json" => Format::Json,
            "name" => Format::Name,
            "jsonpath" => Format::JsonPath(JsonPath::parse(argument).map_err(Error::Usage)?),
            "custom-columns" => Format::Columns(columns(argument)?),
            _ => {
                return Err(Error::usage(format!(
                    "unable to match a printer suitable for the output format {:?}, allowed formats are: \
                     custom-columns,json,jsonpath,name,wide,yaml",
                    self.output
                )));
            }
        })
    }

    /// Removes what is not shown unless it is asked for.
    pub fn strip(&self, mut object: Value) -> Value {
        if !self.show_managed_fields
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("managedFields");
        }
        object
    }

    /// Prints one object; `message` is what is said when no format is asked for.
    pub fn object(&self, session: &Session, object: Value, message: &str) -> Result<(), Error> {
        match self.format()? {
            Format::Human | Format::Wide => session.out.line(message),
            format => session.out.text(&format.render(&[self.strip(object)], true)),
        }
    }
}

fn columns(argument: &str) -> Result<Vec<(String, JsonPath)>, Error> {
    let column = |text: &str| {
        let (header, path) = text.split_once(':').ok_or_else(|| {
            Error::usage(format!(
                "unexpected custom-columns spec: {text}, expected <header>:<json-path-expr>"
            ))
        })?;
        Ok((header.to_owned(), JsonPath::relaxed(path).map_err(Error::Usage)?))
    };
    if argument.is_empty() {
        return Err(Error::usage("custom-columns format specified but no custom columns given"));
    }
    argument.split(',').map(column).collect()
}

impl Format {
    /// Prints objects. A `single` one stands for itself; else they are a `List`. Not for the human formats.
    pub fn render(&self, objects: &[Value], single: bool) -> String {
        match self {
            Self::Yaml => yaml::from_value(&whole(objects, single)),
            Self::Json => pretty(&whole(objects, single)),
            Self::Name => objects.iter().map(|object| format!("{}\n", name(object))).collect(),
            Self::JsonPath(path) => path.render(&whole(objects, single)),
            Self::Columns(columns) => custom(columns, objects),
            Self::Human | Self::Wide => String::new(),
        }
    }
}

fn whole(objects: &[Value], single: bool) -> Value {
    match objects {
        [one] if single => one.clone(),
        all => json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": all}),
    }
}

fn custom(columns: &[(String, JsonPath)], objects: &[Value]) -> String {
    let mut text = columns.iter().map(|(header, _)| header.as_str()).collect::<Vec<_>>().join("\t");
    for object in objects {
        let cells: Vec<_> = columns.iter().map(|(_, path)| path.cell(object)).collect();
        text = format!("{text}\n{}", cells.join("\t"));
    }
    tabs::align(&format!("{text}\n"), 6, 3)
}

/// JSON as Go prints it: four spaces, and no characters that HTML would take for its own.
pub fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("a JSON value can be written to memory");
    let text = String::from_utf8_lossy(&bytes);
    format!("{}\n", text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// `pod/x`, `deployment.apps/x`.
pub fn name(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["apiVersion"].as_str().and_then(|version| version.split_once('/')) {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}
