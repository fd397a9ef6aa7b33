//! The nodes' way to the server: behind it there may be nobody at times.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use client::{
    DeleteOptions, Deleted, ListOptions, ObjectList, Patch, Target, Transport, WatchOptions, WatchStream,
    WriteOptions,
};
use machinery::{Object, Status};
use parking_lot::RwLock;
use serde_json::Value;

/// A transport that can be changed.
#[derive(Default)]
pub struct Door {
    behind: RwLock<Option<Arc<dyn Transport>>>,
}

impl Door {
    pub fn set(&self, transport: Option<Arc<dyn Transport>>) {
        *self.behind.write() = transport;
    }

    fn open(&self) -> Result<Arc<dyn Transport>, Status> {
        self.behind.read().clone().ok_or_else(|| Status::service_unavailable("the server is down"))
    }
}

#[async_trait]
impl Transport for Door {
    async fn get(&self, target: &Target, options: &ListOptions) -> Result<Arc<Object>, Status> {
        self.open()?.get(target, options).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<ObjectList, Status> {
        self.open()?.list(target, options).await
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream, Status> {
        self.open()?.watch(target, options).await
    }

    async fn create(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        self.open()?.create(target, body, options).await
    }

    async fn update(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        self.open()?.update(target, body, options).await
    }

    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        self.open()?.patch(target, patch, options).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted, Status> {
        self.open()?.delete(target, options).await
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        self.open()?.delete_collection(target, list, options).await
    }

    async fn raw(&self, path: &str) -> Result<Bytes, Status> {
        self.open()?.raw(path).await
    }
}
