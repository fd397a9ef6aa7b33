//! [`Client`]: the verbs of a [`Transport`] with the kinds of `k8s-openapi` as a convenience.

use std::sync::Arc;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource};
use machinery::{Object, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    DeleteOptions, Deleted, ListOptions, ObjectList, Patch, Target, Transport, WatchOptions, WatchStream,
    WriteOptions,
};

/// A handle on the API with the identity of its transport. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

/// The collection of one resource, in one namespace or in all.
#[derive(Clone)]
pub struct Resources {
    transport: Arc<dyn Transport>,
    target: Target,
}

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// The seam below, for what has no convenience here.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The collection that `target` names; its name and subresource are ignored.
    pub fn target(&self, target: Target) -> Resources {
        let target = Target { name: String::new(), subresource: String::new(), ..target };
        Resources { transport: self.transport.clone(), target }
    }

    /// A cluster-scoped kind.
    pub fn cluster<K: Resource<Scope = ClusterResourceScope>>(&self) -> Resources {
        self.target(target_of::<K>(""))
    }

    /// A namespaced kind in one namespace.
    pub fn namespaced<K: Resource<Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Resources {
        self.target(target_of::<K>(namespace))
    }

    /// A kind in all namespaces (or a cluster-scoped kind).
    pub fn all<K: Resource>(&self) -> Resources {
        self.target(target_of::<K>(""))
    }
}

/// The collection of a typed kind.
pub fn target_of<K: Resource>(namespace: &str) -> Target {
    Target {
        group: K::GROUP.to_owned(),
        version: K::VERSION.to_owned(),
        resource: K::URL_PATH_SEGMENT.to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    }
}

impl Resources {
    pub fn target(&self) -> &Target {
        &self.target
    }

    fn named(&self, name: &str, subresource: &str) -> Target {
        Target { name: name.to_owned(), subresource: subresource.to_owned(), ..self.target.clone() }
    }

    pub async fn get(&self, name: &str) -> Result<Arc<Object>, Status> {
        self.transport.get(&self.named(name, ""), &ListOptions::default()).await
    }

    /// `None` instead of a `NotFound`.
    pub async fn find(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub async fn list(&self, options: &ListOptions) -> Result<ObjectList, Status> {
        self.transport.list(&self.target, options).await
    }

    pub async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, Status> {
        self.transport.watch(&self.target, options).await
    }

    pub async fn create(&self, body: &impl Serialize) -> Result<Arc<Object>, Status> {
        self.transport.create(&self.target, to_value(body)?, &WriteOptions::default()).await
    }

    /// Creates through a subresource (`binding`, `token`, `eviction`) of the named object.
    pub async fn create_sub(
        &self,
        name: &str,
        sub: &str,
        body: &impl Serialize,
    ) -> Result<Arc<Object>, Status> {
        self.transport.create(&self.named(name, sub), to_value(body)?, &WriteOptions::default()).await
    }

    pub async fn update(&self, name: &str, body: &impl Serialize) -> Result<Arc<Object>, Status> {
        self.transport.update(&self.named(name, ""), to_value(body)?, &WriteOptions::default()).await
    }

    pub async fn update_status(&self, name: &str, body: &impl Serialize) -> Result<Arc<Object>, Status> {
        self.transport.update(&self.named(name, "status"), to_value(body)?, &WriteOptions::default()).await
    }

    pub async fn patch(&self, name: &str, patch: Patch) -> Result<Arc<Object>, Status> {
        self.transport.patch(&self.named(name, ""), patch, &WriteOptions::default()).await
    }

    pub async fn patch_status(&self, name: &str, patch: Patch) -> Result<Arc<Object>, Status> {
        self.transport.patch(&self.named(name, "status"), patch, &WriteOptions::default()).await
    }

    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<Deleted, Status> {
        self.transport.delete(&self.named(name, ""), options).await
    }
}

fn to_value(body: &impl Serialize) -> Result<Value, Status> {
    serde_json::to_value(body).map_err(Status::internal)
}

/// The typed view of an object; a malformed one is an internal error that names the object.
pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(object: &Object) -> Result<Arc<T>, Status> {
    object.typed().map_err(|error| Status::internal(format!("object {}: {error}", object.key())))
}
