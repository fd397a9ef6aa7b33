//! An API server in a map: enough of it for a kubelet, and nothing judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use client::{
    Client, DeleteOptions, Deleted, ListOptions, ObjectList, Patch, Target, Transport, WatchEvent,
    WatchOptions, WatchStream, WriteOptions,
};
use futures::StreamExt;
use machinery::{Object, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Place = (String, String, String);

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Place, Arc<Object>>,
    history: Vec<(Place, WatchEvent)>,
}

/// See the module's documentation.
pub struct Api {
    state: Mutex<State>,
    changes: broadcast::Sender<(Place, WatchEvent)>,
}

fn place(target: &Target) -> Place {
    (target.resource.clone(), target.namespace.clone(), target.name.clone())
}

fn selected(place: &Place, object: &Object, target: &Target, selector: &str) -> bool {
    let node = || object.value()["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    place.0 == target.resource
        && (target.namespace.is_empty() || target.namespace == place.1)
        && selector.strip_prefix("metadata.name=").is_none_or(|name| name == place.2)
        && selector.strip_prefix("spec.nodeName=").is_none_or(|name| name == node())
}

/// Merges as RFC 7386, lists of conditions by type.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (field, value) in fields {
        match (field.as_str(), value) {
            (_, Value::Null) => {
                into.as_object_mut().expect("it was made one").remove(field);
            }
            ("conditions", Value::Array(changes)) => {
                let mut list = into[field].as_array().cloned().unwrap_or_default();
                for change in changes {
                    list.retain(|known| known["type"] != change["type"]);
                    let mut change = change.clone();
                    change.as_object_mut().expect("a condition").retain(|_, value| !value.is_null());
                    list.push(change);
                }
                into[field] = Value::Array(list);
            }
            _ => merge(&mut into[field], value),
        }
    }
}

impl Api {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: broadcast::Sender::new(1024) })
    }

    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(self.clone())
    }

    fn put(&self, place: Place, value: &Value) -> Arc<Object> {
        let mut state = self.state.lock();
        state.revision += 1;
        let object = Arc::new(Object::from_value(value, state.revision).unwrap());
        let event = match state.objects.insert(place.clone(), object.clone()) {
            None => WatchEvent::Added(object.clone()),
            Some(_) => WatchEvent::Modified(object.clone()),
        };
        state.history.push((place.clone(), event.clone()));
        let _nobody_watches = self.changes.send((place, event));
        object
    }

    /// Creates or replaces an object.
    pub fn set(&self, resource: &str, value: Value) {
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        self.put((resource.to_owned(), text("namespace"), text("name")), &value);
    }

    pub fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let place = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().objects.get(&place).map(|object| object.value())
    }

    pub fn all(&self, resource: &str) -> Vec<Value> {
        let state = self.state.lock();
        state
            .objects
            .iter()
            .filter(|(place, _)| place.0 == resource)
            .map(|(_, object)| object.value())
            .collect()
    }

    /// Marks a pod as being deleted.
    pub fn begin_delete(&self, name: &str, grace_seconds: i64) {
        let mut pod = self.find("pods", "default", name).expect("the pod exists");
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
        self.set("pods", pod);
    }

    /// Waits until the object satisfies `wanted`.
    pub async fn until(
        &self,
        resource: &str,
        name: &str,
        wanted: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                let found = self.find(resource, "default", name).or_else(|| self.find(resource, "", name));
                if wanted(found.as_ref()) {
                    return found;
                }
                let _change = changes.recv().await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(found) => found,
            Err(_) => panic!("{resource} {name} stayed {:#?}", self.find(resource, "default", name)),
        }
    }
}

#[async_trait]
impl Transport for Api {
    async fn get(&self, target: &Target, _: &ListOptions) -> Result<Arc<Object>, Status> {
        let found = self.state.lock().objects.get(&place(target)).cloned();
        found.ok_or_else(|| Status::not_found(&target.group, &target.resource, &target.name))
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> Result<ObjectList, Status> {
        let state = self.state.lock();
        let items = state.objects.iter();
        let items = items.filter(|(place, object)| selected(place, object, target, &options.field_selector));
        let items = items.map(|(_, object)| object.clone()).collect();
        Ok(ObjectList { items, revision: state.revision, ..ObjectList::default() })
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> Result<WatchStream, Status> {
        let state = self.state.lock();
        let receiver = self.changes.subscribe();
        let since: u64 = options.resource_version.parse().unwrap_or(0);
        let revision = |event: &WatchEvent| match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                object.revision()
            }
            WatchEvent::Bookmark { revision, .. } => *revision,
        };
        let past: Vec<_> =
            state.history.iter().filter(|(_, event)| revision(event) > since).cloned().collect();
        drop(state);
        let (target, selector) = (target.clone(), options.field_selector.clone());
        let live = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.ok().map(|change| (change, receiver))
        });
        let all = futures::stream::iter(past).chain(live);
        let stream = all.filter_map(move |(place, event)| {
            let object = match &event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    Some(object)
                }
                WatchEvent::Bookmark { .. } => None,
            };
            let wanted = object.is_some_and(|object| selected(&place, object, &target, &selector));
            std::future::ready(wanted.then_some(Ok(event)))
        });
        Ok(stream.boxed())
    }

    async fn create(&self, target: &Target, body: Value, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        if target.subresource == "token" {
            let answer = json!({"metadata": {}, "status": {"token": "JWT", "expirationTimestamp": "2999-01-01T00:00:00Z"}});
            return Object::from_value(&answer, 0).map(Arc::new).map_err(Status::internal);
        }
        let mut at = place(target);
        at.2 = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.state.lock().objects.contains_key(&at) {
            return Err(Status::already_exists(&target.group, &target.resource, &at.2));
        }
        Ok(self.put(at, &body))
    }

    async fn update(&self, target: &Target, body: Value, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        Ok(self.put(place(target), &body))
    }

    async fn patch(&self, target: &Target, patch: Patch, _: &WriteOptions) -> Result<Arc<Object>, Status> {
        let mut value = self.get(target, &ListOptions::default()).await?.value();
        let (Patch::Merge(patch) | Patch::StrategicMerge(patch) | Patch::Json(patch) | Patch::Apply(patch)) =
            patch;
        if let Some(uid) = patch["metadata"]["uid"].as_str()
            && value["metadata"]["uid"] != uid
        {
            return Err(Status::modified("", &target.resource, &target.name));
        }
        merge(&mut value, &patch);
        Ok(self.put(place(target), &value))
    }

    async fn delete(&self, target: &Target, _: &DeleteOptions) -> Result<Deleted, Status> {
        let mut state = self.state.lock();
        let at = place(target);
        let Some(object) = state.objects.remove(&at) else {
            return Err(Status::not_found(&target.group, &target.resource, &target.name));
        };
        state.revision += 1;
        let last = Arc::new(Object::from_value(&object.value(), state.revision).unwrap());
        let event = WatchEvent::Deleted(last.clone());
        state.history.push((at.clone(), event.clone()));
        let _nobody_watches = self.changes.send((at, event));
        Ok(Deleted::Now(last))
    }

    async fn delete_collection(&self, _: &Target, _: &ListOptions, _: &DeleteOptions) -> Result<(), Status> {
        Err(Status::method_not_supported("", "", "deletecollection"))
    }

    async fn raw(&self, _: &str) -> Result<Bytes, Status> {
        Err(Status::no_such_path())
    }
}
