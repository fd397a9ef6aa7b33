//! ResourceQuota: a namespace does not hold more than its quotas allow.
//!
//! Usage is counted from what is stored, not from the quota's status, so that it is right without the controller that
//! keeps the status; requests that are allowed but not stored yet are counted beside it. One request of a namespace
//! is judged at a time, and what an object uses is worked out once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use machinery::{Object, Status};
use resources::quota::{Profile, Quota, Usage, can_grow, growth, qualified, unspecified};
use resources::value::Access;
use serde_json::Value;

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};

/// What is remembered of a namespace that has quotas.
#[derive(Default)]
struct Ledger {
    /// By uid: what was allowed and may not be stored yet.
    pending: BTreeMap<String, Pending>,
    /// By uid: the revision of a stored object and what it uses.
    known: BTreeMap<String, (u64, Arc<Profile>)>,
}

struct Pending {
    resource: String,
    profile: Arc<Profile>,
}

#[derive(Default)]
struct Namespace {
    /// Held while a request is judged.
    turn: tokio::sync::Mutex<()>,
    ledger: Mutex<Ledger>,
}

pub struct ResourceQuota {
    lookup: Lookup,
    namespaces: Mutex<BTreeMap<String, Arc<Namespace>>>,
}

impl ResourceQuota {
    pub fn new(lookup: Lookup) -> Self {
        Self { lookup, namespaces: Mutex::default() }
    }

    fn namespace(&self, name: &str) -> Arc<Namespace> {
        locked(&self.namespaces).entry(name.to_owned()).or_default().clone()
    }

    /// What the namespace uses of a quota through the resource of the request, stored or on its way.
    async fn used(&self, attributes: &Attributes<'_>, quota: &Quota) -> Result<Usage, Status> {
        let (group, resource) = (attributes.resource.group.as_str(), attributes.resource.resource.as_str());
        let stored = self.lookup.objects(group, resource, attributes.namespace).await?;
        let namespace = self.namespace(attributes.namespace);
        let profiles = locked(&namespace.ledger).profiles(group, resource, &stored);
        Ok(quota.used(profiles.iter().map(|profile| &**profile)))
    }

    async fn check(&self, attributes: &Attributes<'_>, quota: &Quota) -> Result<(), Status> {
        let (group, resource) = (attributes.resource.group.as_str(), attributes.resource.resource.as_str());
        let object = attributes.new_object();
        let profile = Profile::of(group, resource, object);
        if resource == "pods" && attributes.operation == Operation::Create && quota.selects(&profile) {
            let missing = unspecified(object, quota);
            if !missing.is_empty() {
                let detail = format!("failed quota: {}: must specify {missing}", quota.name);
                return Err(attributes.forbidden(&detail));
            }
        }
        let mut delta = quota.charge(&profile);
        if let Some(old) = attributes.old {
            delta = growth(delta, &quota.charge(&Profile::of(group, resource, old)));
        }
        if delta.is_empty() {
            return Ok(());
        }
        let used = self.used(attributes, quota).await?;
        match quota.excess(&delta, &used) {
            None => Ok(()),
            Some(text) => Err(attributes.forbidden(&format!("exceeded quota: {}, {text}", quota.name))),
        }
    }
}

impl Ledger {
    /// What the stored objects of a resource use, and those on their way.
    fn profiles(&mut self, group: &str, resource: &str, stored: &[Arc<Object>]) -> Vec<Arc<Profile>> {
        let qualified = qualified(group, resource);
        let mut all = Vec::with_capacity(stored.len());
        let mut known = BTreeMap::new();
        for object in stored {
            let (uid, revision) = (object.meta().uid.as_str(), object.revision());
            // What is being written counts as it will be.
            if self.pending.contains_key(uid) {
                continue;
            }
            let profile = match self.known.remove(uid) {
                Some((seen, profile)) if seen == revision => profile,
                _ => Arc::new(Profile::of(group, resource, &object.value())),
            };
            all.push(profile.clone());
            if resource == "pods" {
                known.insert(uid.to_owned(), (revision, profile));
            }
        }
        if resource == "pods" {
            self.known = known;
        }
        let pending = self.pending.values().filter(|pending| pending.resource == qualified);
        all.extend(pending.map(|pending| pending.profile.clone()));
        all
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn uid(attributes: &Attributes<'_>) -> String {
    attributes.new_object().text("/metadata/uid").to_owned()
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let (group, resource) = (&attributes.resource.group, &attributes.resource.resource);
        let writes = match attributes.operation {
            Operation::Create => attributes.subresource.is_empty(),
            Operation::Update => can_grow(group, resource, attributes.subresource),
            Operation::Delete | Operation::Connect => false,
        };
        let counted = !attributes.is("", "resourcequotas") && !attributes.is("", "events");
        writes && counted && !attributes.namespace.is_empty()
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let quotas: Vec<Value> = self.lookup.list("", "resourcequotas", attributes.namespace).await?;
        if quotas.is_empty() {
            locked(&self.namespaces).remove(attributes.namespace);
            return Ok(());
        }
        let namespace = self.namespace(attributes.namespace);
        let _turn = namespace.turn.lock().await;
        for quota in &quotas {
            self.check(attributes, &Quota::read(quota)).await?;
        }
        if !attributes.dry_run {
            let (group, resource) = (&attributes.resource.group, &attributes.resource.resource);
            let profile = Arc::new(Profile::of(group, resource, attributes.new_object()));
            let pending = Pending { resource: qualified(group, resource), profile };
            locked(&namespace.ledger).pending.insert(uid(attributes), pending);
        }
        Ok(())
    }

    fn finish(&self, attributes: &Attributes<'_>, _committed: bool) {
        if let Some(namespace) = locked(&self.namespaces).get(attributes.namespace) {
            locked(&namespace.ledger).pending.remove(&uid(attributes));
        }
    }
}
