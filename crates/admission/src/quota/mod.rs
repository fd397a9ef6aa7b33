//! ResourceQuota: a namespace does not hold more than its quotas allow.
//!
//! Usage is counted from what is stored, not from the quota's status, so that it is right without a controller that
//! keeps the status; requests that are allowed but not stored yet are counted beside it. The status is brought up to
//! date on the way, without insisting: the count does not depend on it.

pub mod usage;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use machinery::Status;
use machinery::quantity::Quantity;
use resources::value::{Access, Fill};
use serde_json::Value;

use crate::lookup::{Lookup, target};
use crate::{Attributes, Operation, Plugin};
use usage::Usage;

/// An object on its way to the store.
struct Pending {
    group: String,
    resource: String,
    object: Value,
}

pub struct ResourceQuota {
    lookup: Lookup,
    /// By namespace: what was allowed and is not stored yet.
    pending: Mutex<BTreeMap<String, Vec<Pending>>>,
}

impl ResourceQuota {
    pub fn new(lookup: Lookup) -> Self {
        Self { lookup, pending: Mutex::default() }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Pending>>> {
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What a quota's namespace holds of what it limits, stored or on its way; with `counted` of one resource only.
    async fn used(&self, namespace: &str, quota: &Value, counted: &str) -> Result<Usage, Status> {
        let mut total = Usage::new();
        for (group, resource) in usage::counted_resources(quota.at("/spec/hard")) {
            if !counted.is_empty() && counted != usage::qualified(group, resource) {
                continue;
            }
            let objects = match self.lookup.list(group, resource, namespace).await {
                Ok(objects) => objects,
                // Nobody has objects of a kind that is not served.
                Err(status) if status.is_not_found() => continue,
                Err(status) => return Err(status),
            };
            for object in objects {
                usage::add(&mut total, usage::of(group, resource, &object, quota));
            }
        }
        for pending in self.pending().get(namespace).into_iter().flatten() {
            if counted.is_empty() || counted == usage::qualified(&pending.group, &pending.resource) {
                usage::add(&mut total, usage::of(&pending.group, &pending.resource, &pending.object, quota));
            }
        }
        Ok(total)
    }

    async fn check(&self, attributes: &Attributes<'_>, quota: &Value) -> Result<(), Status> {
        let (group, resource) = (attributes.resource.group.as_str(), attributes.resource.resource.as_str());
        let hard = quota.at("/spec/hard");
        let name = quota.text("/metadata/name");
        let object = attributes.new_object();
        let mut delta = usage::limited(usage::of(group, resource, object, quota), hard);
        if let Some(old) = attributes.old {
            let before = usage::of(group, resource, old, quota);
            delta = usage::growth(delta, &before);
        }
        if resource == "pods" && attributes.operation == Operation::Create && usage::matches(object, quota) {
            let missing = usage::unspecified(object, hard);
            if !missing.is_empty() {
                return Err(attributes.forbidden(&format!("failed quota: {name}: must specify {missing}")));
            }
        }
        if delta.is_empty() {
            return Ok(());
        }
        let used = self.used(attributes.namespace, quota, &usage::qualified(group, resource)).await?;
        match usage::excess(&delta, &used, hard) {
            None => Ok(()),
            Some(text) => Err(attributes.forbidden(&format!("exceeded quota: {name}, {text}"))),
        }
    }

    /// Writes what is used into a quota's status, as a controller would; another writer wins.
    async fn publish(&self, namespace: &str, mut quota: Value) -> Result<(), Status> {
        let used = self.used(namespace, &quota, "").await?;
        let hard = quota.at("/spec/hard").clone();
        let zero = Quantity::from_units(0);
        let used: serde_json::Map<String, Value> = hard
            .members("")
            .map(|(name, _)| (name.clone(), used.get(name).unwrap_or(&zero).to_string().into()))
            .collect();
        let status = serde_json::json!({"hard": hard, "used": used});
        if quota.at("/status") == &status {
            return Ok(());
        }
        let name = quota.text("/metadata/name").to_owned();
        quota.set("status", status);
        let quotas = self.lookup.client().target(target("", "resourcequotas", namespace));
        match quotas.update_status(&name, &quota).await {
            Err(status) if !status.is_conflict() && !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let writes = match attributes.operation {
            Operation::Create => true,
            Operation::Update => usage::can_grow(&attributes.resource.group, &attributes.resource.resource),
            Operation::Delete | Operation::Connect => false,
        };
        let counted = !attributes.is("", "resourcequotas") && !attributes.is("", "events");
        writes && counted && !attributes.namespace.is_empty() && attributes.subresource.is_empty()
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let quotas = self.lookup.list("", "resourcequotas", attributes.namespace).await?;
        for quota in &quotas {
            self.check(attributes, quota).await?;
        }
        if quotas.is_empty() || attributes.dry_run {
            return Ok(());
        }
        if attributes.operation == Operation::Create {
            let entry = Pending {
                group: attributes.resource.group.clone(),
                resource: attributes.resource.resource.clone(),
                object: attributes.new_object().clone(),
            };
            self.pending().entry(attributes.namespace.to_owned()).or_default().push(entry);
        }
        for quota in quotas {
            if let Err(status) = self.publish(attributes.namespace, quota).await {
                tracing::debug!(%status, "the status of a quota was not written");
            }
        }
        Ok(())
    }

    fn finish(&self, attributes: &Attributes<'_>, _committed: bool) {
        let uid = attributes.new_object().text("/metadata/uid");
        let mut pending = self.pending();
        if let Some(objects) = pending.get_mut(attributes.namespace) {
            objects.retain(|pending| pending.object.text("/metadata/uid") != uid);
            if objects.is_empty() {
                pending.remove(attributes.namespace);
            }
        }
    }
}
