//! ControllerRevisions: the templates that a StatefulSet or DaemonSet had.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Cache, Patch, target_of};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machinery::{Object, ObjectMeta};
use reconcile::Action;
use reconcile::plan::named;
use serde_json::{Map, Value, json};

use super::{claim, names, owners};

/// A ControllerRevision.
#[derive(Clone, Debug)]
pub struct Revision {
    pub object: Arc<Object>,
    pub number: i64,
    pub data: Value,
}

impl Revision {
    pub fn read(object: Arc<Object>) -> Self {
        let mut value = object.value();
        let number = value["revision"].as_i64().unwrap_or(0);
        Self { number, data: value["data"].take(), object }
    }

    pub fn name(&self) -> &str {
        &self.object.meta().name
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.object.meta().labels.get(name).map(String::as_str)
    }

    /// The pod template that it recorded.
    pub fn template(&self) -> Value {
        let mut template = self.data["spec"]["template"].clone();
        if let Some(fields) = template.as_object_mut() {
            fields.remove("$patch");
        }
        template
    }
}

/// The revisions that an owner manages or could adopt, oldest first.
pub fn of(cache: &Cache, owner: &ObjectMeta, selector: &LabelSelector) -> Vec<Revision> {
    let found = claim::candidates(cache, &owner.namespace, &owner.uid, selector);
    let mut revisions: Vec<Revision> = found.into_iter().map(Revision::read).collect();
    revisions.sort_by(|a, b| (a.number, a.name()).cmp(&(b.number, b.name())));
    revisions
}

/// Takes over the revisions that nobody manages.
pub fn adopt(revisions: &[Revision], owner: &ObjectMeta, reference: &Value) -> Vec<Action> {
    let orphans = revisions.iter().filter(|revision| !owners::is_controlled_by(&revision.object, &owner.uid));
    let collection = target_of::<ControllerRevision>("");
    orphans.map(|orphan| owners::adopt(collection.clone(), &orphan.object, reference.clone())).collect()
}

/// What a revision of the owner's present template holds: a strategic merge patch that replaces the template. Clients
/// compare it with what Go makes of the template, which writes these structs also when they are empty.
pub fn data(owner: &Value) -> Value {
    let mut template = owner["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    if template["metadata"].is_null() {
        template["metadata"] = json!({});
    }
    for list in ["containers", "initContainers"] {
        let containers = template["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.entry("resources").or_insert_with(|| Value::Object(Map::new()));
        }
    }
    json!({"spec": {"template": template}})
}

/// The number of the next revision.
pub fn next_number(revisions: &[Revision]) -> i64 {
    revisions.iter().map(|revision| revision.number).max().unwrap_or(0) + 1
}

/// A new revision.
pub struct New<'a> {
    pub owner: &'a ObjectMeta,
    pub reference: Value,
    pub data: Value,
    pub number: i64,
    /// How often the name that the contents give was taken.
    pub collisions: i32,
    /// The label that carries the hash.
    pub hash_label: &'a str,
}

impl New<'_> {
    pub fn create(self) -> Action {
        let hash = names::hash(&self.data, self.collisions);
        let mut labels: BTreeMap<String, String> =
            serde_json::from_value(self.data["spec"]["template"]["metadata"]["labels"].clone())
                .unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": format!("{}-{hash}", self.owner.name),
                "namespace": self.owner.namespace,
                "labels": labels,
                "ownerReferences": [self.reference],
            },
            "data": self.data,
            "revision": self.number,
        });
        Action::Create {
            target: target_of::<ControllerRevision>(&self.owner.namespace),
            body,
            announce: None,
        }
    }
}

/// Makes a revision the newest: its template is in use again.
pub fn renumber(revision: &Revision, number: i64) -> Action {
    let target = named(target_of::<ControllerRevision>(""), &revision.object);
    Action::Patch { target, patch: Patch::Merge(json!({"revision": number})) }
}

/// Removes the oldest revisions that are not in use beyond the history limit.
pub fn clean_up(
    revisions: &[Revision],
    limit: Option<i32>,
    in_use: impl Fn(&Revision) -> bool,
) -> Vec<Action> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let past: Vec<&Revision> = revisions.iter().filter(|revision| !in_use(revision)).collect();
    let surplus = past.len().saturating_sub(limit);
    let collection = target_of::<ControllerRevision>("");
    past[..surplus]
        .iter()
        .map(|revision| Action::delete(collection.clone(), &revision.object, None))
        .collect()
}
