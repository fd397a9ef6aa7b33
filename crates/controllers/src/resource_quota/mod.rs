//! The status of ResourceQuotas: how much of each limit a namespace uses.
//!
//! Admission does not depend on it. Caches of the kinds that quotas count are started when the first quota names
//! them, so that a cluster without quotas watches none of them for this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::{Cache, CacheEvent, Caches, Client, target_of};
use env::Shutdown;
use k8s_openapi::api::core::v1::ResourceQuota;
use machinery::{Key, Object, Status};
use parking_lot::Mutex;
use reconcile::{Queue, Reconcile, run_queue};
use resources::quota::{Profile, Quota, status};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::Rows;

pub const NAME: &str = "resourcequota-controller";

/// The controller.
pub struct ResourceQuotas {
    caches: Caches,
    client: Client,
    rows: Arc<Rows>,
    quotas: Cache,
    queue: Arc<Queue<Key>>,
    counted: Mutex<Counted>,
    /// What pods use, by uid, in namespaces that have quotas.
    pods: Mutex<BTreeMap<String, Profiles>>,
}

/// By uid: the revision of an object and what it uses.
type Profiles = BTreeMap<String, (u64, Arc<Profile>)>;

/// The kinds that are followed because a quota counts them.
#[derive(Default)]
struct Counted {
    followed: BTreeSet<(String, String)>,
    feeders: JoinSet<()>,
}

impl ResourceQuotas {
    /// `client` is what it writes with.
    pub fn new(caches: &Caches, client: Client, rows: Arc<Rows>) -> Self {
        Self {
            caches: caches.clone(),
            client,
            rows,
            quotas: caches.of::<ResourceQuota>(),
            queue: Arc::default(),
            counted: Mutex::default(),
            pods: Mutex::default(),
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let (queue, quotas) = (self.queue.clone(), self.quotas.clone());
        let mut feeders = JoinSet::new();
        feeders.spawn(feed(quotas.subscribe(), quotas.clone(), quotas, queue.clone(), |object| object.key()));
        run_queue(NAME, queue, Arc::new(self), shutdown).await;
        feeders.shutdown().await;
    }

    /// The cache of a counted kind, followed from now on; `None`: no such kind is served.
    fn follow(&self, group: &str, resource: &str) -> Option<Cache> {
        let is_row = |row: &&crate::Row| row.target.group == group && row.target.resource == resource;
        let cache = self.caches.target(&self.rows.namespaced().find(is_row)?.target);
        let mut counted = self.counted.lock();
        if counted.followed.insert((group.to_owned(), resource.to_owned())) {
            // Subscribed before anything is counted, so that no change is missed.
            let events = cache.subscribe();
            let (cache, quotas, queue) = (cache.clone(), self.quotas.clone(), self.queue.clone());
            let of_namespace = |object: &Object| Key::new(&*object.meta().namespace, "");
            counted.feeders.spawn(feed(events, cache, quotas, queue, of_namespace));
        }
        Some(cache)
    }

    /// What the objects of a namespace use that a quota counts.
    async fn profiles(&self, namespace: &str, quota: &Quota) -> Vec<Arc<Profile>> {
        let mut all = Vec::new();
        for (group, resource) in quota.counted() {
            let Some(cache) = self.follow(group, resource) else { continue };
            cache.synced().await;
            let objects = cache.namespace(namespace);
            let profile = |object: &Object| Arc::new(Profile::of(group, resource, &object.value()));
            if group.is_empty() && resource == "pods" {
                all.extend(self.pods_of(namespace, &objects, profile));
            } else {
                all.extend(objects.iter().map(|object| profile(object)));
            }
        }
        all
    }

    /// Pods are many and often change without using more; each state is worked out once.
    fn pods_of(
        &self,
        namespace: &str,
        objects: &[Arc<Object>],
        profile: impl Fn(&Object) -> Arc<Profile>,
    ) -> Vec<Arc<Profile>> {
        let mut before = self.pods.lock().remove(namespace).unwrap_or_default();
        let state = |object: &Arc<Object>| {
            let uid = object.meta().uid.clone();
            let known = before.remove(&uid).filter(|(revision, _)| *revision == object.revision());
            (uid, known.unwrap_or_else(|| (object.revision(), profile(object))))
        };
        let now: Profiles = objects.iter().map(state).collect();
        let all = now.values().map(|(_, profile)| profile.clone()).collect();
        self.pods.lock().insert(namespace.to_owned(), now);
        all
    }

    fn forget(&self, namespace: &str) {
        if self.quotas.namespace(namespace).is_empty() {
            self.pods.lock().remove(namespace);
        }
    }
}

#[async_trait]
impl Reconcile<Key> for ResourceQuotas {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Status> {
        let Some(object) = self.quotas.get(key) else {
            self.forget(&key.namespace);
            return Ok(None);
        };
        let mut value = object.value();
        let quota = Quota::read(&value);
        let profiles = self.profiles(&key.namespace, &quota).await;
        let used = quota.used(profiles.iter().map(|profile| &**profile));
        let Some(wanted) = status(&value, &used) else { return Ok(None) };
        value["status"] = wanted;
        let quotas = self.client.target(target_of::<ResourceQuota>(&key.namespace));
        match quotas.update_status(&key.name, &value).await {
            // The newer state is on its way and is judged when it comes.
            Err(status) if status.is_conflict() || status.is_not_found() => Ok(None),
            other => other.map(|_| None),
        }
    }
}

/// Enqueues the quotas that an object concerns: one, or (without a name) all of a namespace.
async fn feed(
    mut events: Receiver<CacheEvent>,
    cache: Cache,
    quotas: Cache,
    queue: Arc<Queue<Key>>,
    key_of: fn(&Object) -> Key,
) {
    let enqueue = |object: &Object| {
        let key = key_of(object);
        if key.name.is_empty() {
            quotas.namespace(&key.namespace).iter().for_each(|quota| queue.add(quota.key()));
        } else {
            queue.add(key);
        }
    };
    cache.synced().await;
    cache.all().iter().for_each(|object| enqueue(object));
    loop {
        match events.recv().await {
            Ok(event) => enqueue(event.object()),
            Err(RecvError::Lagged(_)) => cache.all().iter().for_each(|object| enqueue(object)),
            Err(RecvError::Closed) => return,
        }
    }
}
