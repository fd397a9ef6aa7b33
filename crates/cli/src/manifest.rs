//! Reading manifests from files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use machinery::yaml;
use serde_json::Value;

use crate::Error;
use crate::arguments::Files;
use crate::session::Session;

/// The longest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 64 << 20;

/// One document.
#[derive(Debug)]
pub struct Manifest {
    pub object: Value,
    /// What messages call the file.
    pub source: String,
}

/// Reads all documents of all files; a `List` counts as its items.
pub async fn read(session: &Session, files: &Files) -> Result<Vec<Manifest>, Error> {
    let mut manifests = Vec::new();
    for path in &files.filename {
        let name = path.to_string_lossy();
        if name.starts_with("http://") || name.starts_with("https://") {
            return Err(Error::usage(format!(
                "{name}: manifests are read from files, folders and -; not from URLs"
            )));
        }
        for file in expand(path, files.recursive, true)? {
            manifests.extend(documents(&text(&file)?, &source(&file))?);
        }
    }
    if manifests.is_empty() {
        let text = if files.filename.is_empty() { "must specify -f" } else { "no objects passed" };
        return Err(Error::usage(text));
    }
    for manifest in &mut manifests {
        place(session, manifest).await?;
    }
    Ok(manifests)
}

fn source(path: &Path) -> String {
    if path == Path::new("-") { "STDIN".to_owned() } else { path.display().to_string() }
}

/// The files of a folder that look like manifests, in order; a file stands for itself.
fn expand(path: &Path, recursive: bool, top: bool) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if path == Path::new("-") || !std::fs::metadata(path).map_err(failed)?.is_dir() {
        let known = path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
        });
        return Ok(if top || known { vec![path.to_owned()] } else { Vec::new() });
    }
    if !top && !recursive {
        return Ok(Vec::new());
    }
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
    let mut paths: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let files: Result<Vec<_>, _> = paths.iter().map(|path| expand(path, recursive, false)).collect();
    Ok(files?.into_iter().flatten().collect())
}

fn text(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let length = if path == Path::new("-") {
        std::io::stdin().lock().take(MANIFEST_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MANIFEST_MAX).read_to_string(&mut text))
    };
    length.map_err(failed)?;
    Ok(text)
}

/// The objects of a text.
pub fn documents(text: &str, source: &str) -> Result<Vec<Manifest>, Error> {
    let values = yaml::to_values(text).map_err(|error| {
        Error::usage(format!("error parsing {source}: error converting YAML to JSON: {error}"))
    })?;
    let mut manifests = Vec::new();
    for value in values {
        let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match value.get("items").and_then(Value::as_array) {
            Some(items) if is_list => {
                let of = |object: &Value| Manifest { object: object.clone(), source: source.to_owned() };
                manifests.extend(items.iter().map(of));
            }
            _ => manifests.push(Manifest { object: value, source: source.to_owned() }),
        }
    }
    manifests.iter().try_for_each(check)?;
    Ok(manifests)
}

fn check(manifest: &Manifest) -> Result<(), Error> {
    let Manifest { object, source } = manifest;
    for field in ["apiVersion", "kind"] {
        if object[field].as_str().is_none_or(str::is_empty) {
            return Err(Error::usage(format!(
                "error validating {source:?}: error validating data: {field} not set; if you choose to ignore \
                 these errors, turn validation off with --validate=false"
            )));
        }
    }
    Ok(())
}

/// Gives an object the namespace it belongs to.
async fn place(session: &Session, manifest: &mut Manifest) -> Result<(), Error> {
    let kind = kind(session, manifest).await?;
    let object = &mut manifest.object;
    let stated = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    if !kind.namespaced {
        return Ok(());
    }
    if stated.is_empty() {
        if !object["metadata"].is_object() {
            object["metadata"] = Value::Object(serde_json::Map::new());
        }
        object["metadata"]["namespace"] = Value::from(session.namespace.as_str());
    } else if session.namespace_given && stated != session.namespace {
        return Err(Error::usage(format!(
            "the namespace from the provided object {stated:?} does not match the namespace {:?}. You must pass \
             '--namespace={stated}' to perform this operation.",
            session.namespace
        )));
    }
    Ok(())
}

/// The kind of a manifest, as the server knows it.
pub async fn kind(
    session: &Session,
    manifest: &Manifest,
) -> Result<std::sync::Arc<crate::discovery::Kind>, Error> {
    let Manifest { object, source } = manifest;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let found = session.discovery().await?.of(&version, &kind);
    found.ok_or_else(|| {
        let metadata = &object["metadata"];
        Error::usage(format!(
            "resource mapping not found for name: {:?} namespace: {:?} from {source:?}: no matches for kind \
             {kind:?} in version {version:?}\nensure CRDs are installed first",
            text(&metadata["name"]),
            text(&metadata["namespace"]),
        ))
    })
}
