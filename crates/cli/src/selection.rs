//! The objects that a command is about: named, selected, or in files.

use std::sync::Arc;

use serde_json::Value;

use crate::api::with_query;
use crate::arguments::{self, Files, Selector, Wanted};
use crate::discovery::Kind;
use crate::session::Session;
use crate::{Error, manifest};

/// An object on the server, or one to be.
#[derive(Clone, Debug)]
pub struct Item {
    pub kind: Arc<Kind>,
    pub namespace: String,
    pub name: String,
    /// As last read; from a file if it was found there.
    pub object: Value,
    /// The file; empty when named otherwise.
    pub source: String,
}

impl Item {
    pub fn new(kind: Arc<Kind>, object: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        Self {
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            kind,
            source: String::new(),
            object,
        }
    }

    /// `pod/x` or `deployment.apps/x`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind.label(), self.name)
    }

    pub fn path(&self, subresource: &str) -> String {
        self.kind.path(&self.namespace, &self.name, subresource)
    }

    pub fn collection(&self) -> String {
        self.kind.path(&self.namespace, "", "")
    }
}

/// One thing to read: a collection or an object.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: Arc<Kind>,
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
}

impl Request {
    /// The path, with the selectors for a collection.
    pub fn path(&self, selector: &Selector) -> String {
        let path = self.kind.path(&self.namespace, &self.name, "");
        if !self.name.is_empty() {
            return path;
        }
        with_query(&path, &[("labelSelector", &selector.label), ("fieldSelector", &selector.field)])
    }
}

/// What has to be read for the arguments or files.
pub async fn requests(
    session: &Session,
    arguments: &[String],
    files: &Files,
    selector: &Selector,
) -> Result<Vec<Request>, Error> {
    if !files.filename.is_empty() {
        if !arguments.is_empty() {
            return Err(Error::usage(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            ));
        }
        return from_files(session, files).await.map(|items| {
            let request =
                |item: Item| Request { kind: item.kind, namespace: item.namespace, name: item.name };
            items.into_iter().map(request).collect()
        });
    }
    match arguments::parse(arguments)? {
        Wanted::Types(types) => {
            let kinds = kinds(session, &types).await?;
            let namespace = |kind: &Kind| {
                if selector.all_namespaces { String::new() } else { session.namespace_of(kind).to_owned() }
            };
            let request =
                |kind: Arc<Kind>| Request { namespace: namespace(&kind), kind, name: String::new() };
            Ok(kinds.into_iter().map(request).collect())
        }
        Wanted::Named(_) if !selector.label.is_empty() => {
            Err(Error::usage("name cannot be provided when a selector is specified"))
        }
        Wanted::Named(_) if selector.all_namespaces => {
            Err(Error::usage("a resource cannot be retrieved by name across all namespaces"))
        }
        Wanted::Named(pairs) => {
            let mut requests = Vec::new();
            for (of, name) in pairs {
                let kind = session.kind(&of).await?;
                requests.push(Request { namespace: session.namespace_of(&kind).to_owned(), kind, name });
            }
            Ok(requests)
        }
    }
}

async fn kinds(session: &Session, types: &[String]) -> Result<Vec<Arc<Kind>>, Error> {
    let mut kinds = Vec::new();
    for name in types {
        let category = session.discovery().await?.category(name);
        if category.is_empty() {
            kinds.push(session.kind(name).await?);
        } else {
            kinds.extend(category.into_iter().filter(|kind| kind.verbs.iter().any(|verb| verb == "list")));
        }
    }
    Ok(kinds)
}

/// The objects of files, as they stand there.
pub async fn from_files(session: &Session, files: &Files) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    for manifest in manifest::read(session, files).await? {
        let kind = manifest::kind(session, &manifest).await?;
        let namespaced = kind.namespaced;
        let mut item = Item { source: manifest.source, ..Item::new(kind, manifest.object) };
        if !namespaced {
            item.namespace.clear();
        }
        items.push(item);
    }
    Ok(items)
}

/// The items of a list, each with its kind and version.
pub fn list_items(kind: &Kind, list: &Value) -> Vec<Value> {
    let typed = |item: &Value| {
        let mut item = item.clone();
        if item.get("kind").is_none() {
            item["kind"] = Value::from(kind.kind.as_str());
            item["apiVersion"] = Value::from(kind.api_version());
        }
        item
    };
    list["items"].as_array().into_iter().flatten().map(typed).collect()
}

/// Reads what was asked for. What fails is told beside what was found.
pub async fn read(session: &Session, requests: &[Request], selector: &Selector) -> (Vec<Item>, Vec<Error>) {
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    for request in requests {
        match session.get(&request.path(selector)).await {
            Ok(object) if !request.name.is_empty() => items.push(Item::new(request.kind.clone(), object)),
            Ok(list) => items.extend(
                list_items(&request.kind, &list)
                    .into_iter()
                    .map(|item| Item::new(request.kind.clone(), item)),
            ),
            Err(error) => errors.push(error),
        }
    }
    (items, errors)
}

/// The present objects that the arguments or files name, for commands that change each of them.
pub async fn present(
    session: &Session,
    arguments: &[String],
    files: &Files,
    selector: &Selector,
    all: bool,
) -> Result<(Vec<Item>, Vec<Error>), Error> {
    let requests = requests(session, arguments, files, selector).await?;
    let unnamed = requests.iter().any(|request| request.name.is_empty());
    if unnamed && !all && selector.label.is_empty() && selector.field.is_empty() {
        return Err(Error::usage("resource(s) were provided, but no name was specified"));
    }
    Ok(read(session, &requests, selector).await)
}

/// The one object that an argument names; `of` is the type when none is given.
pub async fn one(session: &Session, argument: &str, of: &str) -> Result<Item, Error> {
    let (of, name) = argument.split_once('/').unwrap_or((of, argument));
    let kind = session.kind(of).await?;
    let object = session.get(&kind.path(session.namespace_of(&kind), name, "")).await?;
    Ok(Item::new(kind, object))
}
