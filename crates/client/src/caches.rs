//! One cache per collection for everybody in the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use env::Shutdown;
use k8s_openapi::Resource;
use machinery::Object;
use parking_lot::Mutex;

use crate::cache::IndexFunction;
use crate::{Cache, Client, ListOptions, Target, target_of};

/// Index of every shared cache: the uids of an object's owners.
pub const OWNER_INDEX: &str = "owner";

/// The value of [`OWNER_INDEX`] of objects with labels that no controller manages: what controllers could adopt.
pub const ORPHANS: &str = "";

/// Index of the shared cache of pods: the node that a pod is bound to.
pub const NODE_INDEX: &str = "node";

/// Hands out caches, starting each at its first use. Cheap to clone.
#[derive(Clone)]
pub struct Caches {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    shutdown: Shutdown,
    caches: Mutex<BTreeMap<Target, Cache>>,
}

impl Caches {
    /// Caches that live until `shutdown`.
    pub fn new(client: Client, shutdown: Shutdown) -> Self {
        Self { shared: Arc::new(Shared { client, shutdown, caches: Mutex::default() }) }
    }

    /// The client that the caches read with.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The cache of a typed kind over all namespaces. Must be called inside a tokio runtime.
    pub fn of<K: Resource>(&self) -> Cache {
        self.target(&target_of::<K>(""))
    }

    /// The cache of a collection; namespace, name and subresource of `target` are ignored.
    pub fn target(&self, target: &Target) -> Cache {
        let collection = Target {
            namespace: String::new(),
            name: String::new(),
            subresource: String::new(),
            ..target.clone()
        };
        let mut caches = self.shared.caches.lock();
        caches.entry(collection).or_insert_with_key(|collection| self.start(collection)).clone()
    }

    fn start(&self, collection: &Target) -> Cache {
        let resources = self.shared.client.target(collection.clone());
        let mut indexes: Vec<(&'static str, IndexFunction)> = vec![(OWNER_INDEX, owner_uids)];
        if collection.group.is_empty() && collection.resource == "pods" {
            indexes.push((NODE_INDEX, node_of_pod));
        }
        let cache = match collection.resource.as_str() {
            "pods" | "nodes" | "leases" | "endpointslices" => {
                Cache::busy(resources, ListOptions::default(), indexes)
            }
            _ => Cache::new(resources, ListOptions::default(), indexes),
        };
        let (running, shutdown) = (cache.clone(), self.shared.shutdown.clone());
        tokio::spawn(async move { running.run(shutdown).await });
        cache
    }
}

fn owner_uids(object: &Object) -> Vec<String> {
    let meta = object.meta();
    let mut uids: Vec<String> = meta.owner_references.iter().map(|owner| owner.uid.clone()).collect();
    let is_managed = meta.owner_references.iter().any(|owner| owner.controller == Some(true));
    if !is_managed && !meta.labels.is_empty() {
        uids.push(ORPHANS.to_owned());
    }
    uids
}

fn node_of_pod(object: &Object) -> Vec<String> {
    let node = object.node_name();
    if node.is_empty() { Vec::new() } else { vec![node.to_owned()] }
}
