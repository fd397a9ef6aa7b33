//! `apply`: make objects what manifests say, keeping what others set.

use machinery::patch::{three_way_merge, three_way_strategic};
use machinery::schema::{self, Node};
use serde_json::{Map, Value};

use crate::api::with_query;
use crate::arguments::{DryRun, Files, Writing};
use crate::output::Printing;
use crate::selection::{self, Item};
use crate::session::{Session, media};
use crate::{Error, error};

/// Where the manifest of the last apply is kept.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const CLIENT_MANAGER: &str = "kubectl-client-side-apply";
const SERVER_MANAGER: &str = "kubectl";
/// How often a patch that met a conflict is made anew.
const ATTEMPTS: usize = 5;

/// Applies manifests.
#[derive(clap::Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    printing: Printing,
    /// Let the server merge, and remember who set which field.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    server_side: bool,
    /// With --server-side: take over fields that others own.
    #[arg(long)]
    force_conflicts: bool,
}

impl Apply {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        if self.force_conflicts && !self.server_side {
            return Err(Error::usage("--force-conflicts only works with --server-side"));
        }
        let mut errors = Vec::new();
        for item in selection::from_files(session, &self.files).await? {
            if item.name.is_empty() {
                errors.push(Error::usage(format!(
                    "error when retrieving current configuration of {:?}: resource name may not be empty",
                    item.source
                )));
                continue;
            }
            let result = match self.server_side {
                true => self.server_side(session, &item).await,
                false => self.client_side(session, &item).await,
            };
            errors.extend(result.err());
        }
        error::all(errors)
    }

    fn report(&self, session: &Session, item: &Item, object: Value, verb: &str) -> Result<(), Error> {
        let message = format!("{} {verb}{}", item.label(), self.writing.dry_run.suffix());
        self.printing.object(session, object, &message)
    }

    async fn server_side(&self, session: &Session, item: &Item) -> Result<(), Error> {
        if self.writing.dry_run == DryRun::Client {
            return Err(Error::usage(
                "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
            ));
        }
        let path = with_query(&item.path(""), &self.writing.parameters(SERVER_MANAGER));
        let force = if self.force_conflicts { "true" } else { "" };
        let path = with_query(&path, &[("force", force)]);
        match session.patch(&path, media::APPLY, &item.object).await {
            Ok(object) => self.report(session, item, object, "serverside-applied"),
            Err(Error::Server(mut status)) if status.reason == "Conflict" => {
                status.message.push_str(CONFLICT_HELP);
                Err(Error::Server(status))
            }
            Err(error) => Err(error),
        }
    }

    async fn client_side(&self, session: &Session, item: &Item) -> Result<(), Error> {
        for attempt in 1.. {
            let current = match session.get(&item.path("")).await {
                Ok(current) => current,
                Err(error) if error.is_reason("NotFound") => return self.create(session, item).await,
                Err(error) => return Err(error.when("retrieving current configuration of", &item.source)),
            };
            match self.patch(session, item, &current).await {
                Err(error) if error.is_reason("Conflict") && attempt < ATTEMPTS => {}
                result => return result.map_err(|error| error.when("applying patch of", &item.source)),
            }
        }
        Ok(())
    }

    async fn create(&self, session: &Session, item: &Item) -> Result<(), Error> {
        let mut object = with_last_applied(&item.object);
        if self.writing.dry_run != DryRun::Client {
            let path = with_query(&item.collection(), &self.writing.parameters(CLIENT_MANAGER));
            object =
                session.post(&path, &object).await.map_err(|error| error.when("creating", &item.source))?;
        }
        self.report(session, item, object, "created")
    }

    async fn patch(&self, session: &Session, item: &Item, current: &Value) -> Result<(), Error> {
        let decision = decide(item, current)?;
        if decision.was_not_applied {
            session.err.line(format!(
                "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by kubectl \
                 apply. kubectl apply should only be used on resources created declaratively by either kubectl \
                 create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                item.kind.resource, item.name
            ))?;
        }
        let Some((media_type, patch)) = decision.patch else {
            return self.report(session, item, current.clone(), "unchanged");
        };
        if self.writing.dry_run == DryRun::Client {
            let patched = machinery::patch::merge_patch(current, &patch);
            return self.report(session, item, patched, "configured");
        }
        let path = with_query(&item.path(""), &self.writing.parameters(CLIENT_MANAGER));
        let changed = session.patch(&path, media_type, &patch).await?;
        let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let same = revision(&changed) == revision(current) && self.writing.dry_run == DryRun::None;
        self.report(session, item, changed, if same { "unchanged" } else { "configured" })
    }
}

const CONFLICT_HELP: &str = "
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";

/// What a client-side apply does with an object that exists.
#[derive(Debug, PartialEq)]
pub struct Decision {
    /// Media type and patch; `None` if nothing is to be done.
    pub patch: Option<(&'static str, Value)>,
    /// The object was made in another way.
    pub was_not_applied: bool,
}

/// Compares what was applied last, what is wanted, and what is there.
pub fn decide(item: &Item, current: &Value) -> Result<Decision, Error> {
    let last = current["metadata"]["annotations"][LAST_APPLIED].as_str();
    let original = match last {
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Error::usage(format!("the annotation {LAST_APPLIED} of {}: {error}", item.label()))
        })?,
        None => Value::Object(Map::new()),
    };
    let modified = with_last_applied(&item.object);
    let kind = &item.kind;
    let (media_type, patch) = match schema::builtin().type_of(&kind.group, &kind.version, &kind.kind) {
        Some(name) => {
            let node = Node::reference(name);
            let patch = three_way_strategic(schema::builtin(), &node, &original, &modified, current)?;
            (media::STRATEGIC, patch)
        }
        None => (media::MERGE, three_way_merge(&original, &modified, current)),
    };
    let empty = patch.as_object().is_some_and(Map::is_empty);
    Ok(Decision { patch: (!empty).then_some((media_type, patch)), was_not_applied: last.is_none() })
}

/// The manifest with itself in the annotation, as the next apply needs it.
pub fn with_last_applied(manifest: &Value) -> Value {
    let mut manifest = manifest.clone();
    let annotations = &mut manifest["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = Value::Object(Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{manifest}\n");
    manifest["metadata"]["annotations"][LAST_APPLIED] = Value::from(text);
    manifest
}
