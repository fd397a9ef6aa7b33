//! The in-process door: the same pipeline as over HTTPS, handing over shared objects.

use std::sync::Arc;

use async_trait::async_trait;
use auth::User;
use bytes::Bytes;
use client::{
    DeleteOptions, Deleted, ListOptions, ObjectList, Patch, Target, Transport, WatchEvent, WatchOptions,
    WatchStream, WriteOptions,
};
use machinery::{Object, Status};
use resources::Resource;
use serde_json::Value;

use crate::cache::{EventKind, Item, WatchSource};
use crate::core::Core;
use crate::pipeline::{Call, Caller, Problems, Selectors};

/// A caller inside the process.
pub struct InProcess {
    core: Arc<Core>,
    caller: Arc<Caller>,
}

impl InProcess {
    pub fn new(core: Arc<Core>, user: User) -> Self {
        let agent = user.name.rsplit(':').next().unwrap_or_default().to_owned();
        Self { core, caller: Arc::new(Caller { user, agent }) }
    }

    fn call(&self, verb: &'static str, target: &Target) -> Result<Call, Status> {
        self.core.authorize(&self.caller, verb, target, Selectors::default())
    }

    fn selecting(
        &self,
        verb: &'static str,
        target: &Target,
        labels: &str,
        fields: &str,
    ) -> Result<Call, Status> {
        self.core.authorize(&self.caller, verb, target, Selectors { labels, fields })
    }

    fn named_manager(&self, options: &WriteOptions) -> WriteOptions {
        let mut options = options.clone();
        if options.field_manager.is_empty() {
            options.field_manager.clone_from(&self.caller.agent);
        }
        options
    }
}

/// What a caller inside the process cannot see in a header goes to the log.
fn log_warnings(call: &Call) {
    for warning in call.take_warnings() {
        tracing::debug!(resource = call.row.resource, name = call.target.name, %warning, "a write was given advice");
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn get(&self, target: &Target, options: &ListOptions) -> Result<Arc<Object>, Status> {
        self.core.get(&self.call("get", target)?, options).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<ObjectList, Status> {
        let call = self.selecting("list", target, &options.label_selector, &options.field_selector)?;
        self.core.list(&call, options).await
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream, Status> {
        let call = self.selecting("watch", target, &options.label_selector, &options.field_selector)?;
        let source = self.core.watch(&call, options).await?;
        let row = call.row.clone();
        let core = self.core.clone();
        let stream =
            futures::stream::unfold((source, row, core), |(source, row, core)| next_event(source, row, core));
        Ok(Box::pin(stream))
    }

    async fn create(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        // A collection takes no name; the object has its own.
        let collection = Target { name: String::new(), ..target.clone() };
        let target = if target.subresource.is_empty() { &collection } else { target };
        let call = self.call("create", target)?;
        let result = self.core.create(&call, body, Problems::default(), &self.named_manager(options)).await;
        log_warnings(&call);
        result
    }

    async fn update(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let call = self.call("update", target)?;
        let result = self.core.update(&call, body, Problems::default(), &self.named_manager(options)).await;
        log_warnings(&call);
        result
    }

    async fn patch(
        &self,
        target: &Target,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let call = self.call("patch", target)?;
        let result = self.core.patch(&call, patch, Problems::default(), &self.named_manager(options)).await;
        log_warnings(&call);
        result.map(|patched| patched.object)
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted, Status> {
        self.core.delete(&self.call("delete", target)?, options).await
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let call = self.selecting("deletecollection", target, &list.label_selector, &list.field_selector)?;
        self.core.delete_collection(&call, list, options).await.map(drop)
    }

    async fn raw(&self, path: &str) -> Result<Bytes, Status> {
        crate::http::raw(&self.core, &self.caller, path).await
    }
}

type Watching = (WatchSource, Arc<Resource>, Arc<Core>);

async fn next_event(
    mut source: WatchSource,
    row: Arc<Resource>,
    core: Arc<Core>,
) -> Option<(Result<WatchEvent, Status>, Watching)> {
    loop {
        let event = match source.next().await? {
            Item::Initial(object) => WatchEvent::Added(core.present(&row, &object)),
            Item::Bookmark { revision, initial_events_end } => {
                WatchEvent::Bookmark { revision, initial_events_end }
            }
            Item::Change(kind, delivery) => {
                let Some(object) = delivery.change.object(kind) else { continue };
                let object = core.present(&row, &object);
                match kind {
                    EventKind::Added => WatchEvent::Added(object),
                    EventKind::Modified => WatchEvent::Modified(object),
                    EventKind::Deleted => WatchEvent::Deleted(object),
                }
            }
        };
        return Some((Ok(event), (source, row, core)));
    }
}
