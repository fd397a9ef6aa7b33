//! `delete`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::{DryRun, Files, Selector};
use crate::selection::{self, Item, Request};
use crate::session::Session;
use crate::watch::{self, Verdict};
use crate::{Error, duration, error};

/// Deletes resources.
#[derive(clap::Args)]
pub struct Delete {
    /// TYPE NAME…, TYPE/NAME…, or TYPE with --all or -l.
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selector: Selector,
    /// All objects of the type in the namespace.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    how: How,
    #[arg(long)]
    ignore_not_found: bool,
    /// `name` prints only type and name.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    output: String,
}

/// How objects are deleted.
#[derive(clap::Args, Clone)]
pub struct How {
    /// What becomes of what the objects own: background, foreground or orphan.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "background", default_missing_value = "background")]
    cascade: Cascade,
    /// Seconds for an orderly end; negative leaves it to the object.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// With a grace period of 0: remove the object without waiting for its node.
    #[arg(long)]
    pub force: bool,
    /// The same as a grace period of 1 second.
    #[arg(long)]
    now: bool,
    /// Wait until the objects are gone.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait; 0s waits without end.
    #[arg(long, value_parser = duration::parse, default_value = "0s")]
    timeout: Duration,
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

impl Default for How {
    fn default() -> Self {
        Self {
            cascade: Cascade::Background,
            grace_period: -1,
            force: false,
            now: false,
            wait: true,
            timeout: Duration::ZERO,
            dry_run: DryRun::None,
        }
    }
}

impl Delete {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let how = self.how.clone().settled()?;
        if self.all && !self.selector.label.is_empty() {
            return Err(Error::usage("cannot set --all and --selector at the same time"));
        }
        if how.force && how.grace_period == 0 {
            session.err.line(
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been \
                 terminated. The resource may continue to run on the cluster indefinitely.",
            )?;
        }
        let (items, mut errors) = self.items(session).await?;
        if items.is_empty() && errors.is_empty() && !self.ignore_not_found {
            session.out.line("No resources found")?;
        }
        let mut deleted = Vec::new();
        for item in items {
            match how.send(session, &item).await {
                Ok(answer) => {
                    session.out.line(self.message(&how, &item))?;
                    deleted.push((item, answer));
                }
                Err(error) if error.is_reason("NotFound") && self.tolerant() => {}
                Err(error) => errors.push(error.when("deleting", &item.source)),
            }
        }
        if how.wait && how.dry_run == DryRun::None {
            how.gone(session, deleted).await?;
        }
        error::all(errors)
    }

    fn tolerant(&self) -> bool {
        self.ignore_not_found || self.all || !self.selector.label.is_empty()
    }

    fn message(&self, how: &How, item: &Item) -> String {
        if self.output == "name" { item.label() } else { how.message(item) }
    }

    /// What is to be deleted. Named objects are not read before.
    async fn items(&self, session: &Session) -> Result<(Vec<Item>, Vec<Error>), Error> {
        if !self.files.filename.is_empty() {
            return Ok((selection::from_files(session, &self.files).await?, Vec::new()));
        }
        let requests = selection::requests(session, &self.resources, &self.files, &self.selector).await?;
        let (named, collections): (Vec<Request>, Vec<Request>) =
            requests.into_iter().partition(|request| !request.name.is_empty());
        let selected = self.all || !self.selector.label.is_empty() || !self.selector.field.is_empty();
        if !collections.is_empty() && !selected {
            return Err(Error::usage("resource(s) were provided, but no name was specified"));
        }
        let (mut items, errors) = selection::read(session, &collections, &self.selector).await;
        items.extend(named.into_iter().map(|Request { kind, namespace, name }| Item {
            kind,
            namespace,
            name,
            object: Value::Null,
            source: String::new(),
        }));
        Ok((items, errors))
    }
}

impl How {
    /// Brings the flags to one meaning.
    fn settled(mut self) -> Result<Self, Error> {
        if self.now && self.grace_period >= 0 {
            return Err(Error::usage("--now and --grace-period cannot be specified together"));
        }
        if self.now {
            self.grace_period = 1;
        }
        if self.force && self.grace_period > 0 {
            return Err(Error::usage(
                "--force and --grace-period greater than 0 cannot be specified together",
            ));
        }
        match (self.force, self.grace_period) {
            (true, _) => self.grace_period = 0,
            // Without --force nothing is removed behind its node's back.
            (false, 0) => self.grace_period = 1,
            _ => {}
        }
        Ok(self)
    }

    fn message(&self, item: &Item) -> String {
        let verb = if self.grace_period == 0 { "force deleted" } else { "deleted" };
        let place = match item.namespace.as_str() {
            "" => String::new(),
            namespace => format!(" from {namespace} namespace"),
        };
        format!("{} {:?} {verb}{place}{}", item.kind.label(), item.name, self.dry_run.suffix())
    }

    /// The body of the request.
    fn options(&self) -> Value {
        let policy = match self.cascade {
            Cascade::Background => "Background",
            Cascade::Foreground => "Foreground",
            Cascade::Orphan => "Orphan",
        };
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = Value::from(self.grace_period);
        }
        if self.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    async fn send(&self, session: &Session, item: &Item) -> Result<Value, Error> {
        if self.dry_run == DryRun::Client {
            return session.get(&item.path("")).await;
        }
        session.delete(&item.path(""), &self.options()).await
    }

    /// Deletes one object, says so, and waits.
    pub async fn one(self, session: &Session, item: Item) -> Result<(), Error> {
        let how = self.settled()?;
        let answer = how.send(session, &item).await?;
        session.out.line(how.message(&item))?;
        how.gone(session, vec![(item, answer)]).await
    }

    async fn gone(&self, session: &Session, deleted: Vec<(Item, Value)>) -> Result<(), Error> {
        let waiting = async {
            for (item, answer) in &deleted {
                let uid = [&answer["metadata"]["uid"], &answer["details"]["uid"]];
                let uid = uid.into_iter().find_map(Value::as_str).unwrap_or_default();
                watch::until(session, item, |object| {
                    let still =
                        object.is_some_and(|object| uid.is_empty() || object["metadata"]["uid"] == uid);
                    Ok(if still { Verdict::More } else { Verdict::Done(()) })
                })
                .await?;
            }
            Ok(())
        };
        if self.timeout.is_zero() {
            return waiting.await;
        }
        match tokio::time::timeout(self.timeout, waiting).await {
            Ok(result) => result,
            Err(_) => Err(Error::usage("timed out waiting for the condition")),
        }
    }
}
