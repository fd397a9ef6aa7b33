//! The objects that tokens depend on, as they are now.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use client::{Client, Target};
use machinery::{Object, Status};

/// Reads single objects of the core group, strongly consistent: an account that was just created has tokens, one
/// that was just deleted has none.
#[async_trait]
pub trait Objects: Send + Sync {
    /// `resource` is `pods`, `secrets`, `serviceaccounts` or `nodes`.
    async fn find(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status>;
}

#[async_trait]
impl Objects for Client {
    async fn find(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        let target = Target {
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            ..Target::default()
        };
        self.target(target).find(name).await
    }
}

/// Breaks the circle between the server, which authenticates, and its client, which reads through the server: made
/// first, given the client later.
#[derive(Default)]
pub struct LateObjects {
    client: OnceLock<Client>,
}

impl LateObjects {
    /// Sets the client; later calls change nothing.
    pub fn set(&self, client: Client) {
        self.client.get_or_init(|| client);
    }
}

#[async_trait]
impl Objects for LateObjects {
    async fn find(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        match self.client.get() {
            Some(client) => client.find(resource, namespace, name).await,
            None => Err(Status::service_unavailable("the server is starting")),
        }
    }
}
