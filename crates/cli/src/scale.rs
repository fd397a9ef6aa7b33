//! `scale`.

use serde_json::json;

use crate::api::with_query;
use crate::arguments::{DryRun, Files, Selector};
use crate::selection::{self, Item};
use crate::session::{Session, media};
use crate::{Error, error};

/// Sets the number of replicas.
#[derive(clap::Args)]
pub struct Scale {
    /// TYPE NAME… or TYPE/NAME…
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selector: Selector,
    #[arg(long)]
    all: bool,
    /// How many there shall be.
    #[arg(long)]
    replicas: u32,
    /// Only if there are this many now.
    #[arg(long)]
    current_replicas: Option<u32>,
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
}

impl Scale {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let (items, mut errors) =
            selection::present(session, &self.resources, &self.files, &self.selector, self.all).await?;
        if items.is_empty() && errors.is_empty() {
            return Err(Error::usage("no objects passed to scale"));
        }
        for item in items {
            match self.one(session, &item).await {
                Ok(()) => session.out.line(format!("{} scaled{}", item.label(), self.dry_run.suffix()))?,
                Err(error) => errors.push(error),
            }
        }
        error::all(errors)
    }

    async fn one(&self, session: &Session, item: &Item) -> Result<(), Error> {
        if !item.kind.subresources.iter().any(|name| name == "scale") {
            return Err(Error::usage(format!(
                "the server could not find the requested resource: {} cannot be scaled",
                item.kind.qualified()
            )));
        }
        if let Some(expected) = self.current_replicas {
            let scale = session.get(&item.path("scale")).await?;
            let replicas = scale["spec"]["replicas"].as_u64().unwrap_or(0);
            if replicas != u64::from(expected) {
                return Err(Error::usage(format!("Expected replicas to be {expected}, was {replicas}")));
            }
        }
        if self.dry_run == DryRun::Client {
            return Ok(());
        }
        let path = with_query(&item.path("scale"), &[self.dry_run.parameter(), ("fieldManager", "kubectl")]);
        session.patch(&path, media::MERGE, &json!({"spec": {"replicas": self.replicas}})).await.map(drop)
    }
}
