//! Namespaces on their way out: everything in them is deleted, then the namespace is finalized.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::{Cache, CacheEvent, Caches, DeleteOptions, ListOptions, Patch, Propagation, Target};
use env::{Env, Shutdown};
use k8s_openapi::api::core::v1::Namespace;
use machinery::{Key, Object, Status};
use reconcile::{Queue, Reconcile, run_queue};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Rows;

const FINALIZER: &str = "kubernetes";

/// The controller.
pub struct Namespaces {
    caches: Caches,
    rows: Arc<Rows>,
    env: Env,
    namespaces: Cache,
    queue: Arc<Queue<Key>>,
}

impl Namespaces {
    pub fn new(caches: &Caches, rows: Arc<Rows>, env: Env) -> Self {
        let namespaces = caches.of::<Namespace>();
        Self { caches: caches.clone(), rows, env, namespaces, queue: Arc::default() }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let queue = self.queue.clone();
        let mut feeders = JoinSet::new();
        feeders.spawn(feed(self.namespaces.clone(), queue.clone(), |object| object.key()));
        for row in self.rows.namespaced() {
            let cache = self.caches.target(&row.target);
            feeders.spawn(feed_departures(cache, self.namespaces.clone(), queue.clone()));
        }
        run_queue("namespace-controller", queue, Arc::new(self), shutdown).await;
        feeders.shutdown().await;
    }

    /// What is left in a namespace: (resource, count, finalizers that hold it).
    fn remaining(&self, namespace: &str) -> Vec<(String, usize, BTreeSet<String>)> {
        let count = |row: &crate::Row| {
            let objects = self.caches.target(&row.target).namespace(namespace);
            let finalizers = objects.iter().flat_map(|object| object.meta().finalizers.clone()).collect();
            (row.qualified(), objects.len(), finalizers)
        };
        self.rows.namespaced().map(count).filter(|(_, count, _)| *count > 0).collect()
    }

    /// Deletes pods first, and the rest when no pod is left: what a pod needs outlives it (KEP-5080).
    async fn delete_contents(&self, namespace: &str) -> Result<(), Status> {
        let mut failure = None;
        let is_pods = |row: &&crate::Row| row.target.group.is_empty() && row.target.resource == "pods";
        let pods = self.rows.namespaced().filter(is_pods);
        for row in pods.chain(self.rows.namespaced().filter(|row| !is_pods(row))) {
            if self.caches.target(&row.target).namespace(namespace).is_empty() {
                continue;
            }
            let target = Target { namespace: namespace.to_owned(), ..row.target.clone() };
            let options = DeleteOptions {
                propagation_policy: Some(Propagation::Background),
                ..DeleteOptions::default()
            };
            let transport = self.caches.client().transport();
            let result = transport.delete_collection(&target, &ListOptions::default(), &options).await;
            failure = failure.or(result.err());
            if is_pods(&row) && !self.is_gone(&target).await? {
                break;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Whether the server has nothing of a collection any longer.
    async fn is_gone(&self, target: &Target) -> Result<bool, Status> {
        let options = ListOptions { limit: 1, ..ListOptions::default() };
        Ok(self.caches.client().transport().list(target, &options).await?.items.is_empty())
    }

    async fn finalize(&self, object: &Object) -> Result<(), Status> {
        let mut body = object.value();
        if let Some(finalizers) = body.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let target = Target {
            version: "v1".to_owned(),
            resource: "namespaces".to_owned(),
            name: object.meta().name.clone(),
            subresource: "finalize".to_owned(),
            ..Target::default()
        };
        let result = self.caches.client().transport().update(&target, body, &Default::default()).await;
        match result {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    async fn report(&self, object: &Object, failure: Option<&Status>) -> Result<(), Status> {
        let remaining = self.remaining(&object.meta().name);
        let conditions = conditions(&remaining, failure);
        let stored = object.value();
        let stored = stored.pointer("/status/conditions").and_then(Value::as_array);
        let said = |condition: &Value| {
            let same = |old: &Value| {
                ["type", "status", "reason", "message"].iter().all(|f| old[*f] == condition[*f])
            };
            stored.is_some_and(|stored| stored.iter().any(same))
        };
        if conditions.iter().all(said) {
            return Ok(());
        }
        let time = self.env.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let with_time = |mut condition: Value| {
            condition["lastTransitionTime"] = json!(time);
            condition
        };
        let conditions: Vec<_> = conditions.into_iter().map(with_time).collect();
        let body = json!({"status": {"phase": "Terminating", "conditions": conditions}});
        let namespaces = self.caches.client().cluster::<Namespace>();
        match namespaces.patch_status(&object.meta().name, Patch::Merge(body)).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Reconcile<Key> for Namespaces {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Status> {
        let Some(object) = self.namespaces.get(key) else { return Ok(None) };
        if object.meta().deletion_timestamp.is_none() {
            return Ok(None);
        }
        for row in self.rows.namespaced() {
            self.caches.target(&row.target).synced().await;
        }
        let deleted = self.delete_contents(&key.name).await;
        // The caches may not show yet what was created last, so the server is asked before the end.
        if deleted.is_ok() && self.remaining(&key.name).is_empty() && self.is_empty(&key.name).await? {
            self.finalize(&object).await?;
            return Ok(None);
        }
        self.report(&object, deleted.as_ref().err()).await?;
        deleted.map(|()| None)
    }
}

impl Namespaces {
    async fn is_empty(&self, namespace: &str) -> Result<bool, Status> {
        for row in self.rows.namespaced() {
            let target = Target { namespace: namespace.to_owned(), ..row.target.clone() };
            if !self.is_gone(&target).await? {
                self.queue.add_after(Key::new("", namespace), Duration::from_millis(100));
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn conditions(remaining: &[(String, usize, BTreeSet<String>)], failure: Option<&Status>) -> Vec<Value> {
    let condition = |kind: &str, status: bool, reason: &str, message: String| {
        let status = if status { "True" } else { "False" };
        json!({"type": kind, "status": status, "reason": reason, "message": message})
    };
    let resources: Vec<_> = remaining
        .iter()
        .map(|(resource, count, _)| format!("{resource} has {count} resource instances"))
        .collect();
    let mut held: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for (_, count, finalizers) in remaining {
        for finalizer in finalizers {
            *held.entry(finalizer).or_default() += count;
        }
    }
    let holders: Vec<_> =
        held.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let deletion = match failure {
        None => condition(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".to_owned(),
        ),
        Some(status) => {
            let message = format!("Failed to delete all resource types, 1 remaining: {status}");
            condition("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", message)
        }
    };
    let content = match resources.as_slice() {
        [] => condition(
            "NamespaceContentRemaining",
            false,
            "ContentRemoved",
            "All content successfully removed".to_owned(),
        ),
        some => {
            let message = format!("Some resources are remaining: {}", some.join(", "));
            condition("NamespaceContentRemaining", true, "SomeResourcesRemain", message)
        }
    };
    let finalizers = match holders.as_slice() {
        [] => condition(
            "NamespaceFinalizersRemaining",
            false,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".to_owned(),
        ),
        some => {
            let message =
                format!("Some content in the namespace has finalizers remaining: {}", some.join(", "));
            condition("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message)
        }
    };
    let discovery = condition(
        "NamespaceDeletionDiscoveryFailure",
        false,
        "ResourcesDiscovered",
        "All resources successfully discovered".to_owned(),
    );
    let versions = condition(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed".to_owned(),
    );
    vec![discovery, versions, deletion, content, finalizers]
}

async fn feed(cache: Cache, queue: Arc<Queue<Key>>, key: fn(&Object) -> Key) {
    let mut events = cache.subscribe();
    cache.synced().await;
    loop {
        cache.all().iter().for_each(|object| queue.add(key(object)));
        while let Ok(event) = events.recv().await {
            queue.add(key(event.object()));
        }
        // Only a receiver that lagged is still open.
        if events.is_closed() {
            return;
        }
    }
}

/// An object that left (or was last to arrive in) a terminating namespace makes it worth another look.
async fn feed_departures(cache: Cache, namespaces: Cache, queue: Arc<Queue<Key>>) {
    let mut events = cache.subscribe();
    loop {
        match events.recv().await {
            Ok(CacheEvent::Deleted(object) | CacheEvent::Added(object)) => {
                let key = Key::new("", &*object.meta().namespace);
                let terminating = namespaces
                    .get(&key)
                    .is_some_and(|namespace| namespace.meta().deletion_timestamp.is_some());
                if terminating {
                    queue.add(key);
                }
            }
            Ok(CacheEvent::Modified { .. }) => {}
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                namespaces.all().iter().for_each(|namespace| queue.add(namespace.key()));
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}
