//! `patch`.

use std::path::PathBuf;

use machinery::{schema, yaml};
use serde_json::Value;

use crate::api::with_query;
use crate::arguments::{DryRun, Files, Selector, Writing};
use crate::output::Printing;
use crate::selection::{self, Item};
use crate::session::{Session, media};
use crate::{Error, error};

/// Changes fields.
#[derive(clap::Args)]
pub struct PatchCommand {
    /// TYPE NAME or TYPE/NAME.
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The patch, as JSON or YAML.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    patch: String,
    /// A file with the patch.
    #[arg(long)]
    patch_file: Option<PathBuf>,
    /// How the patch is meant.
    #[arg(long = "type", value_enum, default_value = "strategic")]
    of: Type,
    /// A part of the object: status or scale.
    #[arg(long, default_value = "", hide_default_value = true)]
    subresource: String,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    printing: Printing,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Type {
    Json,
    Merge,
    Strategic,
}

impl PatchCommand {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let patch = self.read()?;
        let (items, mut errors) =
            selection::present(session, &self.resources, &self.files, &Selector::default(), false).await?;
        for item in items {
            errors.extend(self.one(session, &item, &patch).await.err());
        }
        error::all(errors)
    }

    fn read(&self) -> Result<Value, Error> {
        let text = match &self.patch_file {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?
            }
            None => self.patch.clone(),
        };
        if text.is_empty() {
            return Err(Error::usage(
                "must specify --patch or --patch-file containing the contents of the patch",
            ));
        }
        let values = yaml::to_values(&text)
            .map_err(|error| Error::usage(format!("unable to parse {text:?}: {error}")))?;
        values.into_iter().next().ok_or_else(|| Error::usage("the patch is empty"))
    }

    async fn one(&self, session: &Session, item: &Item, patch: &Value) -> Result<(), Error> {
        let kind = &item.kind;
        let known = schema::builtin().type_of(&kind.group, &kind.version, &kind.kind).is_some();
        let media_type = match self.of {
            Type::Json => media::JSON_PATCH,
            Type::Merge => media::MERGE,
            Type::Strategic if known => media::STRATEGIC,
            Type::Strategic => {
                return Err(Error::usage(format!(
                    "strategic merge patch is not supported for {} {}, use --type merge instead",
                    kind.api_version(),
                    kind.kind
                )));
            }
        };
        let mut changed = match self.writing.dry_run {
            DryRun::Client => patched(&item.object, media_type, patch)?,
            _ => {
                let path =
                    with_query(&item.path(&self.subresource), &self.writing.parameters("kubectl-patch"));
                session.patch(&path, media_type, patch).await?
            }
        };
        let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let same = match self.writing.dry_run {
            DryRun::None => revision(&changed) == revision(&item.object),
            _ => changed == item.object,
        };
        let verb = if same { "patched (no change)" } else { "patched" };
        if changed.get("kind").is_none() {
            changed["kind"] = Value::from(kind.kind.as_str());
        }
        let message = format!("{} {verb}{}", item.label(), self.writing.dry_run.suffix());
        self.printing.object(session, changed, &message)
    }
}

fn patched(object: &Value, media_type: &str, patch: &Value) -> Result<Value, Error> {
    Ok(match media_type {
        media::JSON_PATCH => machinery::patch::json_patch(object, patch)?,
        media::MERGE => machinery::patch::merge_patch(object, patch),
        _ => {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
            let name = schema::builtin().type_of(group, version, text("kind")).unwrap_or_default();
            machinery::patch::strategic(schema::builtin(), &schema::Node::reference(name), object, patch)?
        }
    })
}
