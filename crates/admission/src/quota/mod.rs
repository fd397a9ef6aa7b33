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

pub struct ResourceQuota {
    lookup: Lookup,
    /// By namespace: objects that were allowed and are not stored yet, by resource and uid.
    pending: Mutex<BTreeMap<String, Vec<(String, Value)>>>,
}

impl ResourceQuota {
    pub fn new(lookup: Lookup) -> Self {
        Self { lookup, pending: Mutex::default() }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<String, Vec<(String, Value)>>> {
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What a quota's namespace holds of what it limits.
    async fn used(&self, namespace: &str, quota: &Value, counted: &str) -> Result<Usage, Status> {
        let mut total = Usage::new();
        for (group, resource) in usage::counted_resources(quota.at("/spec/hard")) {
            if !counted.is_empty() && counted != usage::qualified(group, resource) {
                continue;
            }
            for object in self.lookup.list(group, resource, namespace).await? {
                usage::add(&mut total, usage::of(group, resource, &object, quota));
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
        let own = usage::qualified(group, resource);
        let mut used = self.used(attributes.namespace, quota, &own).await?;
        for (kind, other) in self.pending().get(attributes.namespace).into_iter().flatten() {
            if *kind == own {
                usage::add(&mut used, usage::of(group, resource, other, quota));
            }
        }
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
            let kind = usage::qualified(&attributes.resource.group, &attributes.resource.resource);
            let entry = (kind, attributes.new_object().clone());
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
            objects.retain(|(_, object)| object.text("/metadata/uid") != uid);
            if objects.is_empty() {
                pending.remove(attributes.namespace);
            }
        }
    }
}
