//! Reading objects for a judgement, and the JSON shapes that plugins share.

use std::sync::Arc;

use client::{Client, ListOptions, Target};
use machinery::{Object, Status};
use resources::value::Access;
use serde_json::Value;

/// The API as plugins read it: always the newest state, so that a decision never lags behind a write.
#[derive(Clone)]
pub struct Lookup {
    client: Client,
}

impl Lookup {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// One object; `None` when there is none.
    pub async fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        Ok(self.object(group, resource, namespace, name).await?.map(|object| object.value()))
    }

    /// The same, not decoded.
    pub async fn object(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        self.client.target(target(group, resource, namespace)).find(name).await
    }

    /// All objects of a resource, in one namespace or (empty) in all.
    pub async fn list(&self, group: &str, resource: &str, namespace: &str) -> Result<Vec<Value>, Status> {
        let objects = self.objects(group, resource, namespace).await?;
        Ok(objects.iter().map(|object| object.value()).collect())
    }

    /// The same, not decoded.
    pub async fn objects(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let collection = self.client.target(target(group, resource, namespace));
        Ok(collection.list(&ListOptions::default()).await?.items)
    }

    /// The labels of a namespace; null when there is no such namespace.
    pub async fn namespace(&self, name: &str) -> Result<Option<Value>, Status> {
        self.find("", "namespaces", "", name).await
    }
}

/// The collection of a resource in its only served version.
pub fn target(group: &str, resource: &str, namespace: &str) -> Target {
    Target {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    }
}

/// The object marked as default by an annotation: the newest, then the first by name.
pub fn marked_default<'a>(objects: &'a [Value], annotation: &str) -> Option<&'a Value> {
    let marked = objects.iter().filter(|object| {
        object.at("/metadata/annotations").get(annotation).is_some_and(|value| value == "true")
    });
    marked.max_by(|a, b| {
        let made = |object: &Value| object.text("/metadata/creationTimestamp").to_owned();
        made(a).cmp(&made(b)).then(b.text("/metadata/name").cmp(a.text("/metadata/name")))
    })
}

/// Whether a pod is the API's picture of one that a kubelet runs from a file.
pub fn is_mirror_pod(pod: &Value) -> bool {
    pod.at("/metadata/annotations").get("kubernetes.io/config.mirror").is_some()
}
