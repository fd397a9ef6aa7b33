//! Which kinds the server has, and which of them a name means.

use std::sync::Arc;

use bytes::Bytes;
use client::Target;
use http::Method;
use machinery::Status;
use serde_json::Value;

use crate::Error;
use crate::api::{Api, Request};

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A resource in one version.
#[derive(Debug, Default, PartialEq)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
    /// The plural, as in paths.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<String>,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`.
    pub fn qualified(&self) -> String {
        with_group(&self.resource, &self.group)
    }

    /// `pod` or `deployment.apps`, as in messages.
    pub fn label(&self) -> String {
        with_group(&self.kind.to_lowercase(), &self.group)
    }

    /// The path of an object (or, without a name, of a collection).
    pub fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let target = Target {
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            namespace: if self.namespaced { namespace.to_owned() } else { String::new() },
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        };
        target.path()
    }

    /// Whether this is a resource of a group, whatever the version.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    fn is_called(&self, name: &str) -> bool {
        self.resource == name || self.singular == name || self.kind.to_lowercase() == name
    }
}

fn with_group(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// All kinds, the preferred ones first.
#[derive(Debug, Default)]
pub struct Discovery {
    pub kinds: Vec<Arc<Kind>>,
}

/// Asks the server.
pub async fn load(api: &dyn Api) -> Result<Arc<Discovery>, Error> {
    let mut discovery = Discovery::default();
    for path in ["/api", "/apis"] {
        let request =
            Request { method: Method::GET, path, accept: ACCEPT, content_type: "", body: Bytes::new() };
        let answer = api.fetch(request).await?;
        let value: Value = serde_json::from_slice(&answer)
            .map_err(|error| Status::internal(format!("the discovery document cannot be read: {error}")))?;
        if value["kind"] != "APIGroupDiscoveryList" {
            return Err(Error::usage("the server does not offer aggregated discovery"));
        }
        discovery.add(&value);
    }
    Ok(Arc::new(discovery))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Discovery {
    /// Takes in an `APIGroupDiscoveryList`.
    pub fn add(&mut self, list: &Value) {
        for group in items(&list["items"]) {
            let name = text(&group["metadata"]["name"]);
            for version in items(&group["versions"]) {
                for resource in items(&version["resources"]) {
                    self.kinds.push(Arc::new(kind(&name, &text(&version["version"]), resource)));
                }
            }
        }
    }

    /// The kind that a name means: plural, singular, kind or short name, alone or with `.group` or `.version.group`.
    pub fn find(&self, name: &str) -> Option<Arc<Kind>> {
        let name = name.to_lowercase();
        let (first, rest) = name.split_once('.').unwrap_or((&name, ""));
        let fits = |kind: &&Arc<Kind>| {
            rest.is_empty() || rest == kind.group || rest == format!("{}.{}", kind.version, kind.group)
        };
        let by_name = self.kinds.iter().filter(fits).find(|kind| kind.is_called(first));
        let short = |kind: &&Arc<Kind>| kind.short_names.iter().any(|short| short == first);
        by_name.or_else(|| self.kinds.iter().filter(fits).find(short)).cloned()
    }

    /// The kind of a manifest.
    pub fn of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.kinds.iter().find(|known| known.kind == kind && known.api_version() == api_version).cloned()
    }

    /// The kinds of a category such as `all`, each in its preferred version.
    pub fn category(&self, name: &str) -> Vec<Arc<Kind>> {
        let mut found: Vec<Arc<Kind>> = Vec::new();
        for kind in self.kinds.iter().filter(|kind| kind.categories.iter().any(|category| category == name)) {
            if !found.iter().any(|other| other.is(&kind.group, &kind.resource)) {
                found.push(kind.clone());
            }
        }
        found
    }
}

fn kind(group: &str, version: &str, resource: &Value) -> Kind {
    let of = &resource["responseKind"];
    let subresources = items(&resource["subresources"]).map(|sub| text(&sub["subresource"])).collect();
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: text(&of["kind"]),
        resource: text(&resource["resource"]),
        singular: text(&resource["singularResource"]),
        short_names: texts(&resource["shortNames"]),
        categories: texts(&resource["categories"]),
        namespaced: resource["scope"] == "Namespaced",
        verbs: texts(&resource["verbs"]),
        subresources,
    }
}
