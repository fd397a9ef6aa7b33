//! `create`: from files, or with a generator.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::api::with_query;
use crate::arguments::{DryRun, Files, Writing};
use crate::output::Printing;
use crate::selection::{self, Item};
use crate::session::Session;
use crate::{Error, error};

pub const MANAGER: &str = "kubectl-create";

/// Creates resources.
#[derive(clap::Args)]
pub struct Create {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    generator: Option<Generator>,
}

/// How a new object is written and shown.
#[derive(clap::Args, Clone, Default)]
pub struct Output {
    #[command(flatten)]
    pub writing: Writing,
    #[command(flatten)]
    pub printing: Printing,
    /// Remember the manifest in the object, for a later apply.
    #[arg(long)]
    pub save_config: bool,
}

#[derive(clap::Subcommand)]
enum Generator {
    /// Create a namespace.
    #[command(visible_alias = "ns")]
    Namespace {
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Create a config map.
    #[command(visible_alias = "cm")]
    Configmap {
        name: String,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        output: Output,
    },
    /// Create a secret.
    #[command(subcommand)]
    Secret(Secret),
    /// Create a service account.
    #[command(visible_alias = "sa")]
    Serviceaccount {
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Create a deployment.
    #[command(visible_alias = "deploy")]
    Deployment {
        name: String,
        /// An image for a container; may be repeated.
        #[arg(long, required = true)]
        image: Vec<String>,
        #[arg(short, long, default_value_t = 1)]
        replicas: u32,
        /// The port that the container serves.
        #[arg(long)]
        port: Option<u16>,
        #[command(flatten)]
        output: Output,
        /// The command of the container.
        #[arg(last = true)]
        command: Vec<String>,
    },
}

#[derive(clap::Subcommand)]
enum Secret {
    /// Create a secret from files and literals.
    Generic {
        name: String,
        #[command(flatten)]
        data: Data,
        /// The secret's type.
        #[arg(long = "type", default_value = "Opaque")]
        of: String,
        #[command(flatten)]
        output: Output,
    },
    /// Create a secret with a certificate and its key.
    Tls {
        name: String,
        #[arg(long)]
        cert: PathBuf,
        #[arg(long)]
        key: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

/// Where the data of config maps and secrets comes from.
#[derive(clap::Args)]
struct Data {
    /// KEY=VALUE.
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// FILE, KEY=FILE or a folder.
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    /// A file with lines KEY=VALUE.
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<PathBuf>,
}

impl Create {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let Some(generator) = self.generator else {
            let items = selection::from_files(session, &self.files).await?;
            let mut errors = Vec::new();
            for item in items {
                let source = item.source.clone();
                if let Err(error) = create(session, item, &self.output, MANAGER).await {
                    errors.push(error.when("creating", &source));
                }
            }
            return error::all(errors);
        };
        let (object, output) = generator.object()?;
        let item = place(session, object).await?;
        let failed = format!("failed to create {}", item.kind.kind.to_lowercase());
        create(session, item, &output, MANAGER).await.map(drop).map_err(|error| match error {
            Error::Usage(text) => Error::usage(format!("{failed}: {text}")),
            // Answers of the server are told as they are, behind what was attempted.
            Error::Server(status) if status.reason != "Invalid" => {
                Error::usage(format!("{failed}: {}", status.message))
            }
            error => error,
        })
    }
}

/// Gives a generated object its kind and namespace.
pub async fn place(session: &Session, mut object: Value) -> Result<Item, Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, name) = (text(&object["apiVersion"]), text(&object["kind"]));
    let found = session.discovery().await?.of(&version, &name);
    let kind =
        found.ok_or_else(|| Error::usage(format!("no matches for kind {name:?} in version {version:?}")))?;
    let namespace = session.namespace_of(&kind).to_owned();
    // The path says the namespace; a manifest that is only printed should name it if the user did.
    if kind.namespaced && session.namespace_given {
        object["metadata"]["namespace"] = Value::from(namespace.as_str());
    }
    Ok(Item { namespace, ..Item::new(kind, object) })
}

/// Creates an object and says so; the answer is the object as it is stored.
pub async fn create(session: &Session, item: Item, output: &Output, manager: &str) -> Result<Value, Error> {
    let mut object = item.object.clone();
    if output.save_config {
        object = crate::apply::with_last_applied(&object);
    }
    let dry_run = output.writing.dry_run;
    let stored = if dry_run == DryRun::Client {
        object
    } else {
        let path = with_query(&item.collection(), &output.writing.parameters(manager));
        session.post(&path, &object).await?
    };
    let message = format!("{} created{}", Item::new(item.kind, stored.clone()).label(), dry_run.suffix());
    output.printing.object(session, stored.clone(), &message)?;
    Ok(stored)
}

impl Generator {
    fn object(self) -> Result<(Value, Output), Error> {
        Ok(match self {
            Self::Namespace { name, output } => (plain("Namespace", &name), output),
            Self::Serviceaccount { name, output } => (plain("ServiceAccount", &name), output),
            Self::Configmap { name, data, output } => {
                let mut object = plain("ConfigMap", &name);
                config_map(&mut object, data.read()?);
                (object, output)
            }
            Self::Secret(Secret::Generic { name, data, of, output }) => {
                (secret(&name, &of, data.read()?), output)
            }
            Self::Secret(Secret::Tls { name, cert, key, output }) => {
                let data = vec![("tls.crt".to_owned(), bytes(&cert)?), ("tls.key".to_owned(), bytes(&key)?)];
                (secret(&name, "kubernetes.io/tls", data), output)
            }
            Self::Deployment { name, image, replicas, port, output, command } => {
                (deployment(&name, &image, replicas, port, &command)?, output)
            }
        })
    }
}

fn plain(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
}

fn config_map(object: &mut Value, data: Vec<(String, Vec<u8>)>) {
    for (key, bytes) in data {
        match String::from_utf8(bytes) {
            Ok(text) => object["data"][key] = Value::from(text),
            Err(error) => object["binaryData"][key] = Value::from(STANDARD.encode(error.as_bytes())),
        }
    }
}

fn secret(name: &str, of: &str, data: Vec<(String, Vec<u8>)>) -> Value {
    let mut object = plain("Secret", name);
    object["type"] = Value::from(of);
    let data: Map<_, _> =
        data.into_iter().map(|(key, bytes)| (key, Value::from(STANDARD.encode(bytes)))).collect();
    object["data"] = Value::Object(data);
    object
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

impl Data {
    fn read(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut data = Vec::new();
        for literal in &self.from_literal {
            data.push(pair(literal)?);
        }
        for source in &self.from_file {
            from_file(source, &mut data)?;
        }
        for path in &self.from_env_file {
            let text = String::from_utf8_lossy(&bytes(path)?).into_owned();
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in lines {
                data.push(pair(line)?);
            }
        }
        Ok(data)
    }
}

fn pair(text: &str) -> Result<(String, Vec<u8>), Error> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.as_bytes().to_vec())),
        _ => Err(Error::usage(format!("invalid literal source {text}, expected key=value"))),
    }
}

fn from_file(source: &str, data: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    let (key, path) = match source.split_once('=') {
        Some((key, path)) => (Some(key), Path::new(path)),
        None => (None, Path::new(source)),
    };
    let base = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !path.is_dir() {
        data.push((key.map_or_else(|| base(path), str::to_owned), bytes(path)?));
        return Ok(());
    }
    if key.is_some() {
        return Err(Error::usage("cannot give a key name for a directory path"));
    }
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
    let mut files: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        data.push((base(file), bytes(file)?));
    }
    Ok(())
}

fn deployment(
    name: &str,
    images: &[String],
    replicas: u32,
    port: Option<u16>,
    command: &[String],
) -> Result<Value, Error> {
    if images.len() > 1 && !command.is_empty() {
        return Err(Error::usage("cannot specify multiple --image options and command"));
    }
    let container = |image: &String| {
        let mut container = json!({"name": container_name(image), "image": image});
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        if let Some(port) = port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        container
    };
    let containers: Vec<_> = images.iter().map(container).collect();
    let labels = json!({"app": name});
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }))
}

/// The last part of an image's name, without tag and digest.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(['@', ':']).next().unwrap_or(last).replace(['.', '_'], "-").to_lowercase()
}
