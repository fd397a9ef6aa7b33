//! `get`.

use std::cmp::Ordering;

use serde_json::Value;

use crate::api::with_query;
use crate::arguments::{Files, Selector};
use crate::output::jsonpath::{self, JsonPath};
use crate::output::table::{self, Options, Printer, Table};
use crate::output::{Format, Printing};
use crate::selection::{self, Request};
use crate::session::Session;
use crate::watch::Watch;
use crate::{Error, error};

/// Shows resources.
#[derive(clap::Args)]
pub struct Get {
    /// TYPE, TYPE,TYPE, TYPE NAME… or TYPE/NAME…
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selector: Selector,
    #[command(flatten)]
    printing: Printing,
    /// Keep showing what changes.
    #[arg(short, long)]
    watch: bool,
    /// Only show what changes.
    #[arg(long)]
    watch_only: bool,
    /// Say nothing when a named resource does not exist.
    #[arg(long)]
    ignore_not_found: bool,
    #[arg(long)]
    no_headers: bool,
    /// Show all labels in a last column.
    #[arg(long)]
    show_labels: bool,
    /// Show these labels as columns.
    #[arg(short = 'L', long, value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Put the kind in front of names.
    #[arg(long)]
    show_kind: bool,
    /// A JSONPath to sort by.
    #[arg(long, default_value = "", hide_default_value = true)]
    sort_by: String,
    /// Read this path of the server as it is.
    #[arg(long, default_value = "", hide_default_value = true)]
    raw: String,
}

impl Get {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        if !self.raw.is_empty() {
            return raw(session, &self.raw).await;
        }
        let requests = selection::requests(session, &self.resources, &self.files, &self.selector).await?;
        match self.printing.format()? {
            _ if self.watch || self.watch_only => self.watch(session, requests).await,
            Format::Human | Format::Wide => self.tables(session, &requests).await,
            format => self.objects(session, &requests, &format).await,
        }
    }

    async fn objects(&self, session: &Session, requests: &[Request], format: &Format) -> Result<(), Error> {
        let (items, errors) = selection::read(session, requests, &self.selector).await;
        let mut objects: Vec<Value> =
            items.into_iter().map(|item| self.printing.strip(item.object)).collect();
        if !self.sort_by.is_empty() {
            let path = JsonPath::relaxed(&self.sort_by).map_err(Error::Usage)?;
            objects.sort_by(|left, right| compare(&path, left, right));
        }
        let single = requests.len() == 1 && !requests[0].name.is_empty();
        if !objects.is_empty() || (!single && errors.is_empty()) {
            session.out.text(&format.render(&objects, single))?;
        }
        error::all(self.tolerated(errors))
    }

    fn tolerated(&self, errors: Vec<Error>) -> Vec<Error> {
        errors.into_iter().filter(|error| !(self.ignore_not_found && error.is_reason("NotFound"))).collect()
    }

    fn options(&self, request: &Request, several_kinds: bool) -> Options {
        let prefix = if several_kinds || self.show_kind {
            format!("{}/", request.kind.label())
        } else {
            String::new()
        };
        Options {
            wide: self.printing.output == "wide",
            no_headers: self.no_headers,
            show_labels: self.show_labels,
            label_columns: self.label_columns.clone(),
            with_namespace: self.selector.all_namespaces && request.kind.namespaced,
            name_prefix: prefix,
        }
    }

    async fn tables(&self, session: &Session, requests: &[Request]) -> Result<(), Error> {
        let several = requests.iter().any(|request| request.kind != requests[0].kind);
        let (mut errors, mut shown) = (Vec::new(), false);
        let mut rest = requests;
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|other| other.kind == first.kind).count();
            let mut whole = Table::default();
            for request in &rest[..same] {
                match self.table(session, request).await {
                    Ok((table, _)) => {
                        whole.columns = table.columns;
                        whole.rows.extend(table.rows);
                    }
                    Err(error) => errors.push(error),
                }
            }
            rest = &rest[same..];
            if whole.rows.is_empty() {
                continue;
            }
            if shown {
                session.out.line("")?;
            }
            shown = true;
            session.out.text(&Printer::new(self.options(first, several)).print(&whole))?;
        }
        let failed = !errors.is_empty();
        let errors = self.tolerated(errors);
        if !shown && !failed {
            session.err.line(self.nothing(session, requests))?;
        }
        error::all(errors)
    }

    fn nothing(&self, session: &Session, requests: &[Request]) -> String {
        let namespaced = requests.iter().any(|request| request.kind.namespaced);
        if self.selector.all_namespaces || !namespaced {
            return "No resources found".to_owned();
        }
        format!("No resources found in {} namespace.", session.namespace)
    }

    /// The table of a request, and its revision.
    async fn table(&self, session: &Session, request: &Request) -> Result<(Table, String), Error> {
        let include = if self.sort_by.is_empty() { "" } else { "Object" };
        let path = with_query(&request.path(&self.selector), &[("includeObject", include)]);
        let value = session.get_as(&path, table::ACCEPT).await?;
        let revision = value["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let mut table = Table::read(&value).ok_or_else(|| {
            Error::usage(format!("the server sent no table of {}", request.kind.qualified()))
        })?;
        if !self.sort_by.is_empty() {
            let path = JsonPath::relaxed(&self.sort_by).map_err(Error::Usage)?;
            table.rows.sort_by(|left, right| compare(&path, &left.object, &right.object));
        }
        Ok((table, revision))
    }

    async fn watch(&self, session: &Session, mut requests: Vec<Request>) -> Result<(), Error> {
        let (Some(mut request), true) = (requests.pop(), requests.is_empty()) else {
            return Err(Error::usage("you may only specify a single resource type"));
        };
        let mut selector = self.selector.clone();
        if !request.name.is_empty() {
            selector.field = format!("metadata.name={}", std::mem::take(&mut request.name));
        }
        let this = Get { selector, ..self.clone_flags() };
        match this.printing.format()? {
            Format::Human | Format::Wide => this.watch_table(session, &request).await,
            format => this.watch_objects(session, &request, &format).await,
        }
    }

    fn clone_flags(&self) -> Self {
        Self {
            resources: Vec::new(),
            files: Files::default(),
            selector: Selector::default(),
            printing: self.printing.clone(),
            label_columns: self.label_columns.clone(),
            sort_by: self.sort_by.clone(),
            raw: String::new(),
            ..*self
        }
    }

    async fn watch_table(&self, session: &Session, request: &Request) -> Result<(), Error> {
        let (table, revision) = self.table(session, request).await?;
        let mut printer = Printer::new(self.options(request, false));
        if !self.watch_only && !table.rows.is_empty() {
            session.out.text(&printer.print(&table))?;
        }
        let mut watch = Watch::open(session, &request.path(&self.selector), &revision, table::ACCEPT).await?;
        let mut columns = table.columns;
        while let Some(event) = watch.next().await? {
            let Some(mut table) = Table::read(&event.object) else { continue };
            if table.columns.is_empty() {
                table.columns = columns;
            }
            session.out.text(&printer.print(&table))?;
            columns = table.columns;
        }
        Ok(())
    }

    async fn watch_objects(
        &self,
        session: &Session,
        request: &Request,
        format: &Format,
    ) -> Result<(), Error> {
        let path = request.path(&self.selector);
        let list = session.get(&path).await?;
        if !self.watch_only {
            for object in selection::list_items(&request.kind, &list) {
                session.out.text(&self.one(format, object))?;
            }
        }
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let mut watch = Watch::open(session, &path, revision, "application/json").await?;
        while let Some(event) = watch.next().await? {
            session.out.text(&self.one(format, event.object))?;
        }
        Ok(())
    }

    fn one(&self, format: &Format, object: Value) -> String {
        let separator = if matches!(format, Format::Yaml) { "---\n" } else { "" };
        format!("{separator}{}", format.render(&[self.printing.strip(object)], true))
    }
}

async fn raw(session: &Session, path: &str) -> Result<(), Error> {
    let request = crate::api::Request {
        method: http::Method::GET,
        path,
        accept: "application/json, */*",
        content_type: "",
        body: bytes::Bytes::new(),
    };
    session.out.bytes(&session.api.fetch(request).await?)
}

fn compare(path: &JsonPath, left: &Value, right: &Value) -> Ordering {
    let first = |object| path.values(object).first().copied().cloned().unwrap_or(Value::Null);
    let (left, right) = (first(left), first(right));
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        _ if left.is_null() || right.is_null() => right.is_null().cmp(&left.is_null()),
        _ => jsonpath::text(&left).cmp(&jsonpath::text(&right)),
    }
}
