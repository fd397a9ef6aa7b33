//! `logs`.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::api::with_query;
use crate::arguments::{Files, Selector};
use crate::selection::{self, Item};
use crate::session::Session;
use crate::{Error, duration, error, pods};

/// Prints logs.
#[derive(clap::Args)]
pub struct Logs {
    /// POD or TYPE/NAME, and perhaps a container.
    resources: Vec<String>,
    /// The logs of pods with these labels.
    #[arg(short = 'l', long = "selector", default_value = "", hide_default_value = true)]
    label: String,
    #[arg(short, long)]
    container: Option<String>,
    #[arg(long)]
    all_containers: bool,
    /// All pods of a deployment and the like.
    #[arg(long)]
    all_pods: bool,
    /// Keep printing what is logged.
    #[arg(short, long)]
    follow: bool,
    /// The container's life before this one.
    #[arg(short, long)]
    previous: bool,
    /// Only this many lines; -1 for all.
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what is newer than 5s, 2m, 3h.
    #[arg(long, value_parser = duration::parse)]
    since: Option<Duration>,
    /// Only what is newer than this time (RFC 3339).
    #[arg(long)]
    since_time: Option<String>,
    #[arg(long)]
    timestamps: bool,
    /// At most this many bytes.
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Put pod and container in front of each line.
    #[arg(long)]
    prefix: bool,
    #[arg(long)]
    ignore_errors: bool,
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
}

/// One container's log.
struct Source {
    path: String,
    prefix: String,
}

impl Logs {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let mut sources = Vec::new();
        for pod in self.pods(session).await? {
            sources.extend(self.sources(session, &pod)?);
        }
        if !self.follow || sources.len() < 2 {
            let mut errors = Vec::new();
            for source in &sources {
                errors.extend(self.print(session, source).await.err());
            }
            return if self.ignore_errors { Ok(()) } else { error::all(errors) };
        }
        if sources.len() > self.max_log_requests {
            return Err(Error::usage(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
                 --max-log-requests to increase the limit",
                sources.len(),
                self.max_log_requests
            )));
        }
        let mut all: FuturesUnordered<_> = sources.iter().map(|source| self.print(session, source)).collect();
        while let Some(result) = all.next().await {
            if !self.ignore_errors {
                result?;
            }
        }
        Ok(())
    }

    async fn pods(&self, session: &Session) -> Result<Vec<Item>, Error> {
        if !self.label.is_empty() {
            let selector = Selector { label: self.label.clone(), ..Selector::default() };
            let (items, errors) =
                selection::present(session, &["pods".to_owned()], &Files::default(), &selector, false)
                    .await?;
            error::all(errors)?;
            if items.is_empty() {
                session.err.line(format!("No resources found in {} namespace.", session.namespace))?;
            }
            return Ok(items);
        }
        let Some(argument) = self.resources.first() else {
            return Err(Error::usage(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'kobune kubectl logs -h' for help and examples",
            ));
        };
        let item = selection::one(session, argument, "pods").await?;
        let label = item.label();
        let mut pods = pods::of(session, item).await?;
        let Some(first) = pods.first() else {
            return Err(Error::usage(format!("no pods found for {label}")));
        };
        if pods.len() > 1 && !self.all_pods {
            session.err.line(format!("Found {} pods, using {}", pods.len(), first.label()))?;
            pods.truncate(1);
        }
        Ok(pods)
    }

    fn sources(&self, session: &Session, pod: &Item) -> Result<Vec<Source>, Error> {
        let names = if self.all_containers {
            pods::containers(&pod.object, true)
        } else {
            let named = self.container.as_deref().or(self.resources.get(1).map(String::as_str));
            vec![pods::default_container(session, &pod.object, named)?]
        };
        let source = |name: String| Source {
            prefix: if self.prefix { format!("[{}/{name}] ", pod.label()) } else { String::new() },
            path: with_query(
                &pod.path("log"),
                &self.parameters(&name).each_ref().map(|(key, value)| (*key, value.as_str())),
            ),
        };
        Ok(names.into_iter().map(source).collect())
    }

    fn parameters(&self, container: &str) -> [(&'static str, String); 8] {
        let flag = |set: bool| if set { "true".to_owned() } else { String::new() };
        let tail = match self.tail {
            Some(lines) if lines >= 0 => lines.to_string(),
            // Of many pods only the last lines are wanted, unless asked otherwise.
            None if !self.label.is_empty() && !self.follow => "10".to_owned(),
            _ => String::new(),
        };
        let since = self.since.map(|since| since.as_secs().max(1).to_string());
        [
            ("container", container.to_owned()),
            ("follow", flag(self.follow)),
            ("previous", flag(self.previous)),
            ("timestamps", flag(self.timestamps)),
            ("tailLines", tail),
            ("sinceSeconds", since.unwrap_or_default()),
            ("sinceTime", self.since_time.clone().unwrap_or_default()),
            ("limitBytes", self.limit_bytes.map(|bytes| bytes.to_string()).unwrap_or_default()),
        ]
    }

    async fn print(&self, session: &Session, source: &Source) -> Result<(), Error> {
        let mut parts = session.api.stream(&source.path, "*/*").await?;
        let mut line = Vec::new();
        while let Some(part) = parts.next().await {
            let part = part?;
            if source.prefix.is_empty() {
                session.out.bytes(&part)?;
                continue;
            }
            for piece in part.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    session.out.bytes(&[source.prefix.as_bytes(), &line].concat())?;
                    line.clear();
                }
            }
        }
        if line.is_empty() { Ok(()) } else { session.out.bytes(&[source.prefix.as_bytes(), &line].concat()) }
    }
}

/// Prints all that a pod's first container logged.
pub async fn whole(session: &Session, pod: &Item) -> Result<(), Error> {
    let container = pod.object["spec"]["containers"][0]["name"].as_str().map(str::to_owned);
    let path = with_query(&pod.path("log"), &[("container", &container.unwrap_or_default())]);
    let mut parts = session.api.stream(&path, "*/*").await?;
    while let Some(part) = parts.next().await {
        session.out.bytes(&part?)?;
    }
    Ok(())
}
