//! The config maps and secrets that pods refer to, each watched by name as long as a pod wants it.
//!
//! A node may only read what its pods name, so there is one watch per object and none per kind. Nothing is polled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use client::{Client, ListOptions, WatchEvent, WatchOptions};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use machinery::{Object, Status};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::make::environment::Lookup;

const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long an object may be unreadable before that is said.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest wait within that time: the start of a pod hangs on it.
const PATIENT_RETRY_MAX: Duration = Duration::from_millis(20);

/// What kind of object is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReferenceKind {
    ConfigMap,
    Secret,
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub kind: ReferenceKind,
    pub namespace: String,
    pub name: String,
}

/// All objects that the pod's volumes, environments and pulls refer to.
pub fn references(pod: &Pod) -> BTreeSet<Reference> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut found = BTreeSet::new();
    let value = serde_json::to_value(&pod.spec).unwrap_or_default();
    let mut add = |kind, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            found.insert(Reference { kind, namespace: namespace.clone(), name: name.to_owned() });
        }
    };
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(ReferenceKind::Secret, Some(&secret.name));
    }
    for volume in spec.volumes.iter().flatten() {
        add(ReferenceKind::ConfigMap, volume.config_map.as_ref().map(|source| source.name.as_str()));
        add(ReferenceKind::Secret, volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()));
        for part in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            add(ReferenceKind::ConfigMap, part.config_map.as_ref().map(|part| part.name.as_str()));
            add(ReferenceKind::Secret, part.secret.as_ref().map(|part| part.name.as_str()));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in value[list].as_array().into_iter().flatten() {
            for source in container["envFrom"].as_array().into_iter().flatten() {
                add(ReferenceKind::ConfigMap, source["configMapRef"]["name"].as_str());
                add(ReferenceKind::Secret, source["secretRef"]["name"].as_str());
            }
            for variable in container["env"].as_array().into_iter().flatten() {
                add(ReferenceKind::ConfigMap, variable["valueFrom"]["configMapKeyRef"]["name"].as_str());
                add(ReferenceKind::Secret, variable["valueFrom"]["secretKeyRef"]["name"].as_str());
            }
        }
    }
    found
}

/// What is known of an object.
#[derive(Clone, Debug)]
enum Known {
    Nothing,
    Missing,
    Present(Arc<Object>),
    /// It could not be read.
    Failed(Status),
}

struct Entry {
    known: watch::Sender<Known>,
    listeners: Mutex<Vec<Weak<Notify>>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Entry {
    fn set(&self, known: Known) {
        let first = matches!(*self.known.borrow(), Known::Nothing);
        self.known.send_replace(known);
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        if !first {
            listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.notify_one());
        }
    }
}

/// The watches of this node.
#[derive(Clone)]
pub struct Watches {
    client: Client,
    entries: Arc<Mutex<BTreeMap<Reference, Weak<Entry>>>>,
}

impl Watches {
    pub fn new(client: Client) -> Self {
        Self { client, entries: Arc::default() }
    }

    /// Watches an object as long as the answer (or another's) lives; `listener` is told of changes.
    fn watch(&self, reference: &Reference, listener: &Arc<Notify>) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        let entry = entries.get(reference).and_then(Weak::upgrade).unwrap_or_else(|| {
            entries.retain(|_, entry| entry.strong_count() > 0);
            let entry = Arc::new(Entry {
                known: watch::Sender::new(Known::Nothing),
                listeners: Mutex::default(),
                task: Mutex::default(),
            });
            let task = tokio::spawn(follow(self.client.clone(), reference.clone(), Arc::downgrade(&entry)));
            *entry.task.lock() = Some(task.abort_handle());
            entries.insert(reference.clone(), Arc::downgrade(&entry));
            entry
        });
        entry.listeners.lock().push(Arc::downgrade(listener));
        entry
    }
}

async fn follow(client: Client, reference: Reference, entry: Weak<Entry>) {
    let mut wait = RETRY_FIRST;
    let begun = tokio::time::Instant::now();
    while entry.strong_count() > 0 {
        match follow_once(&client, &reference, &entry).await {
            Ok(()) => wait = RETRY_FIRST,
            Err(status) if status.is_expired() => {}
            Err(status) => {
                // A node may read what its pods name only once the authorizer has heard of the pod, too.
                let patient = begun.elapsed() < PATIENCE;
                if let Some(entry) = entry.upgrade()
                    && !patient
                    && !matches!(*entry.known.borrow(), Known::Present(_))
                {
                    entry.set(Known::Failed(status));
                }
                wait = (wait * 2).min(if patient { PATIENT_RETRY_MAX } else { RETRY_MAX });
            }
        }
        tokio::time::sleep(wait).await;
    }
}

async fn follow_once(client: &Client, reference: &Reference, entry: &Weak<Entry>) -> Result<(), Status> {
    let resources = match reference.kind {
        ReferenceKind::ConfigMap => client.namespaced::<ConfigMap>(&reference.namespace),
        ReferenceKind::Secret => client.namespaced::<Secret>(&reference.namespace),
    };
    let field_selector = format!("metadata.name={}", reference.name);
    let list = resources
        .list(&ListOptions { field_selector: field_selector.clone(), ..ListOptions::default() })
        .await?;
    let found = list.items.into_iter().next();
    let set = |known| {
        if let Some(entry) = entry.upgrade() {
            entry.set(known)
        }
    };
    set(found.map_or(Known::Missing, Known::Present));
    let options = WatchOptions {
        field_selector,
        resource_version: list.revision.to_string(),
        ..WatchOptions::default()
    };
    let mut stream = resources.watch(&options).await?;
    while let Some(event) = stream.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => set(Known::Present(object)),
            WatchEvent::Deleted(_) => set(Known::Missing),
            WatchEvent::Bookmark { .. } => {}
        }
    }
    Ok(())
}

/// The objects of one pod.
pub struct PodReferences {
    watches: Watches,
    changed: Arc<Notify>,
    held: BTreeMap<Reference, Arc<Entry>>,
}

impl PodReferences {
    pub fn new(watches: Watches, pod: &Pod) -> Self {
        let mut made = Self { watches, changed: Arc::default(), held: BTreeMap::new() };
        made.update(pod);
        made
    }

    /// Follows a change of the pod, e.g. an added ephemeral container.
    pub fn update(&mut self, pod: &Pod) {
        let wanted = references(pod);
        self.held.retain(|reference, _| wanted.contains(reference));
        for reference in wanted {
            if !self.held.contains_key(&reference) {
                let entry = self.watches.watch(&reference, &self.changed);
                self.held.insert(reference, entry);
            }
        }
    }

    /// Told when an object changed.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// A handle for tasks that need the objects.
    pub fn handle(&self) -> Handle {
        Handle { held: self.held.clone() }
    }
}

/// The watched objects, to be read when they are needed.
#[derive(Clone)]
pub struct Handle {
    held: BTreeMap<Reference, Arc<Entry>>,
}

impl Handle {
    /// The objects as they are now; waits until each was read for the first time.
    pub async fn snapshot(&self) -> Snapshot {
        let mut objects = BTreeMap::new();
        for (reference, entry) in &self.held {
            let mut receiver = entry.known.subscribe();
            let known = match receiver.wait_for(|known| !matches!(known, Known::Nothing)).await {
                Ok(known) => known.clone(),
                Err(_closed) => Known::Missing,
            };
            objects.insert((reference.kind, reference.name.clone()), known);
        }
        Snapshot { objects }
    }
}

/// Objects at one time.
pub struct Snapshot {
    objects: BTreeMap<(ReferenceKind, String), Known>,
}

impl Snapshot {
    fn get(&self, kind: ReferenceKind, name: &str) -> Result<Option<Arc<Object>>, Status> {
        match self.objects.get(&(kind, name.to_owned())) {
            Some(Known::Present(object)) => Ok(Some(object.clone())),
            Some(Known::Failed(status)) => Err(status.clone()),
            Some(Known::Missing | Known::Nothing) | None => Ok(None),
        }
    }
}

impl Lookup for Snapshot {
    fn config_map(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
        self.get(ReferenceKind::ConfigMap, name)
    }

    fn secret(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
        self.get(ReferenceKind::Secret, name)
    }
}
