//! An API that holds objects in memory and tells watchers of changes: just enough for caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use client::{
    Client, DeleteOptions, Deleted, ListOptions, ObjectList, Patch, Target, Transport, WatchEvent,
    WatchOptions, WatchStream, WriteOptions,
};
use futures::StreamExt;
use machinery::{Key, Object, Status};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

#[derive(Clone, Default)]
pub struct Api {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<(String, Key), Arc<Object>>,
    watchers: Vec<(String, mpsc::UnboundedSender<WatchEvent>)>,
}

impl Api {
    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Creates or replaces an object.
    pub fn put(&self, resource: &str, value: Value) {
        let mut state = self.state.lock();
        state.revision += 1;
        let object = Arc::new(Object::from_value(&value, state.revision).unwrap());
        let old = state.objects.insert((resource.to_owned(), object.key()), object.clone());
        let event = if old.is_some() { WatchEvent::Modified(object) } else { WatchEvent::Added(object) };
        state.send(resource, event);
    }

    /// Deletes an object of namespace `d`.
    pub fn remove(&self, resource: &str, name: &str) {
        let mut state = self.state.lock();
        state.revision += 1;
        let revision = state.revision;
        let old = state.objects.remove(&(resource.to_owned(), Key::new("d", name))).unwrap();
        let last = Object::from_value(&old.value(), revision).unwrap();
        state.send(resource, WatchEvent::Deleted(Arc::new(last)));
    }
}

impl State {
    fn send(&mut self, resource: &str, event: WatchEvent) {
        self.watchers.retain(|(watched, watcher)| watched != resource || watcher.send(event.clone()).is_ok());
    }
}

#[allow(clippy::result_large_err)]
fn unsupported<T>() -> Result<T, Status> {
    Err(Status::internal("not in this test"))
}

#[async_trait]
impl Transport for Api {
    async fn get(&self, _: &Target, _: &ListOptions) -> Result<Arc<Object>, Status> {
        unsupported()
    }

    async fn list(&self, target: &Target, _: &ListOptions) -> Result<ObjectList, Status> {
        let state = self.state.lock();
        let of_kind = state.objects.iter().filter(|((resource, _), _)| *resource == target.resource);
        let items = of_kind.map(|(_, object)| object.clone()).collect();
        Ok(ObjectList { items, revision: state.revision, ..ObjectList::default() })
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        let from: u64 = options.resource_version.parse().unwrap();
        // What came between list and watch.
        let mut missed: Vec<_> =
            state.objects.iter().filter(|((r, _), o)| *r == target.resource && o.revision() > from).collect();
        missed.sort_by_key(|(_, object)| object.revision());
        for (_, object) in missed {
            sender.send(WatchEvent::Modified(object.clone())).unwrap();
        }
        state.watchers.push((target.resource.clone(), sender));
        let events = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|event| (Ok(event), receiver))
        });
        Ok(events.boxed())
    }

    async fn create(&self, _: &Target, _: Value, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        unsupported()
    }

    async fn update(&self, _: &Target, _: Value, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        unsupported()
    }

    async fn patch(&self, _: &Target, _: Patch, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        unsupported()
    }

    async fn delete(&self, _: &Target, _: &DeleteOptions) -> Result<Deleted, Status> {
        unsupported()
    }

    async fn delete_collection(&self, _: &Target, _: &ListOptions, _: &DeleteOptions) -> Result<(), Status> {
        unsupported()
    }

    async fn raw(&self, _: &str) -> Result<bytes::Bytes, Status> {
        unsupported()
    }
}
