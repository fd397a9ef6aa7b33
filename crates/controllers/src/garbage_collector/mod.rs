//! The garbage collector: objects whose owners are gone, and owners that are deleted with their dependents.
//!
//! It reads the owner references of every resource. Caches may lag behind each other, so an owner that a cache does
//! not show is asked for before a dependent is deleted.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::{Cache, Caches, Client, ListOptions, OWNER_INDEX, Target};
use env::Shutdown;
use machinery::{Key, Object, OwnerReference, Status};
use reconcile::{Executor, Plan, Queue, Reconcile, Recorder, run_queue};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

pub use plan::{Owner, OwnerState, attempt_to_delete, attempt_to_orphan};

use crate::{Row, Rows};

/// An object by its row and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    row: usize,
    key: Key,
}

/// The collector.
pub struct GarbageCollector {
    client: Client,
    rows: Arc<Rows>,
    /// Of each row.
    caches: Vec<Cache>,
    queue: Arc<Queue<Node>>,
    executor: Executor,
}

impl GarbageCollector {
    pub fn new(caches: &Caches, rows: Arc<Rows>) -> Self {
        let client = caches.client().clone();
        let (recorder, _no_events) = Recorder::new(client.clone(), env::Env::system(), NAME, "");
        let executor = Executor::new(caches.clone(), client.clone(), recorder, NAME);
        let caches = rows.all().map(|row| caches.target(&row.target)).collect();
        Self { client, rows, caches, queue: Arc::default(), executor }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let queue = self.queue.clone();
        let this = Arc::new(self);
        let mut feeders = JoinSet::new();
        for (row, cache) in this.caches.iter().enumerate() {
            feeders.spawn(this.clone().feed(row, cache.clone()));
        }
        run_queue(NAME, queue, this, shutdown).await;
        feeders.shutdown().await;
    }

    async fn feed(self: Arc<Self>, row: usize, cache: Cache) {
        let mut events = cache.subscribe();
        cache.synced().await;
        cache.all().iter().for_each(|object| self.consider(row, object));
        loop {
            match events.recv().await {
                Ok(client::CacheEvent::Deleted(object)) => self.owner_left(&object.meta().uid, object.meta()),
                Ok(client::CacheEvent::Modified { old, new }) => {
                    self.owners_dropped(&old, &new);
                    if is_news(&old, &new) {
                        self.consider(row, &new);
                    }
                }
                Ok(event) => self.consider(row, event.object()),
                Err(RecvError::Lagged(_)) => cache.all().iter().for_each(|object| self.consider(row, object)),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn consider(&self, row: usize, object: &Object) {
        let meta = object.meta();
        if !meta.owner_references.is_empty()
            || meta.deletion_timestamp.is_some() && !meta.finalizers.is_empty()
        {
            self.queue.add(Node { row, key: object.key() });
        }
    }

    /// Its dependents are looked at again, and its owners, which may wait for it.
    fn owner_left(&self, uid: &str, meta: &machinery::ObjectMeta) {
        for (row, dependent) in self.dependents(uid) {
            self.queue.add(Node { row, key: dependent.key() });
        }
        for owner in &meta.owner_references {
            self.consider_owner(owner, &meta.namespace);
        }
    }

    /// Owners that wait for their dependents, to be deleted or to be let go, have one less to wait for.
    fn owners_dropped(&self, old: &Object, new: &Object) {
        let kept = &new.meta().owner_references;
        let dropped = old.meta().owner_references.iter().filter(|owner| !kept.contains(owner));
        for owner in dropped {
            self.consider_owner(owner, &new.meta().namespace);
        }
    }

    fn consider_owner(&self, owner: &OwnerReference, namespace: &str) {
        if let Some(row) = self.index_of(owner) {
            let namespace = if self.row(row).namespaced { namespace } else { "" };
            self.queue.add(Node { row, key: Key::new(namespace, &*owner.name) });
        }
    }

    fn dependents(&self, uid: &str) -> Vec<(usize, Arc<Object>)> {
        let of_row = |(row, cache): (usize, &Cache)| {
            cache.indexed(OWNER_INDEX, uid).into_iter().map(move |dependent| (row, dependent))
        };
        self.caches.iter().enumerate().flat_map(of_row).collect()
    }

    fn row(&self, index: usize) -> &Row {
        self.rows.all().nth(index).expect("indexes come from enumerating the rows")
    }

    fn index_of(&self, owner: &OwnerReference) -> Option<usize> {
        let row = self.rows.of_kind(&owner.api_version, &owner.kind)?;
        self.rows.all().position(|other| other == row)
    }

    async fn owner(&self, reference: &OwnerReference, namespace: &str) -> Result<Owner, Status> {
        let state = match self.index_of(reference) {
            // A kind that is not served: upstream leaves the dependents alone, too.
            None => OwnerState::Unknown,
            Some(index) => self.owner_state(index, reference, namespace).await?,
        };
        Ok(Owner { reference: reference.clone(), state })
    }

    async fn owner_state(
        &self,
        index: usize,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<OwnerState, Status> {
        let row = self.row(index);
        let namespace = if row.namespaced { namespace } else { "" };
        let cached = self.caches[index].get(&Key::new(namespace, &*owner.name));
        if let Some(object) = cached.filter(|object| object.meta().uid == owner.uid) {
            return Ok(OwnerState::of(&object));
        }
        let target =
            Target { namespace: namespace.to_owned(), name: owner.name.clone(), ..row.target.clone() };
        match self.client.transport().get(&target, &ListOptions::default()).await {
            Ok(object) if object.meta().uid == owner.uid => Ok(OwnerState::of(&object)),
            Ok(_) => Ok(OwnerState::Gone),
            Err(status) if status.is_not_found() => Ok(OwnerState::Gone),
            Err(status) => Err(status),
        }
    }
}

const NAME: &str = "generic-garbage-collector";

/// Whether a change can make a difference here. Most are of other things: a node's Lease is owned by its node, and is
/// renewed all the time.
fn is_news(old: &Object, new: &Object) -> bool {
    let (old, new) = (old.meta(), new.meta());
    old.owner_references != new.owner_references
        || old.deletion_timestamp != new.deletion_timestamp
        || old.finalizers != new.finalizers
        || old.uid != new.uid
}

#[async_trait]
impl Reconcile<Node> for GarbageCollector {
    async fn reconcile(&self, node: &Node) -> Result<Option<Duration>, Status> {
        let row = self.row(node.row);
        let Some(object) = self.caches[node.row].get(&node.key) else { return Ok(None) };
        let dependents: Vec<_> = self
            .dependents(&object.meta().uid)
            .into_iter()
            .map(|(index, dependent)| (self.row(index).target.clone(), dependent))
            .collect();
        let mut actions = attempt_to_orphan(&row.target, &object, &dependents);
        if actions.is_empty() {
            let mut owners = Vec::new();
            for reference in &object.meta().owner_references {
                owners.push(self.owner(reference, &object.meta().namespace).await?);
            }
            actions = attempt_to_delete(&row.target, &object, &owners, &dependents);
        }
        // Foreground deletion walks down: each dependent is judged by the state of its owner.
        let waits = actions.is_empty() && plan::is_foreground(&object);
        if waits {
            for (index, dependent) in self.dependents(&object.meta().uid) {
                self.queue.add(Node { row: index, key: dependent.key() });
            }
        }
        let result = self.executor.apply(Plan { actions, ..Plan::nothing() }).await;
        match result {
            Err(status) if status.is_not_found() => Ok(None),
            other => other.map(|()| None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_of_owners_finalizers_and_deletion_are_news() {
        let of = |metadata| {
            Object::from_value(&json!({"metadata": metadata, "spec": {"renewTime": 1}}), 1).unwrap()
        };
        let old = json!({"name": "a", "uid": "u", "labels": {"a": "b"}});
        let changed = |field: &str, value| {
            let mut new = old.clone();
            new[field] = value;
            is_news(&of(old.clone()), &of(new))
        };
        assert!(!changed("labels", json!({"a": "c"})) && !changed("annotations", json!({"renewed": "now"})));
        assert!(changed("ownerReferences", json!([{"uid": "o", "blockOwnerDeletion": true}])));
        assert!(changed("deletionTimestamp", json!("2026-01-01T00:00:00Z")));
        assert!(changed("finalizers", json!(["foregroundDeletion"])));
        assert!(changed("uid", json!("of another of that name")));
    }
}
