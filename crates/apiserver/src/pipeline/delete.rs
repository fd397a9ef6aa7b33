//! delete and deletecollection: preconditions, grace, finalizers and what becomes of dependents.

use std::sync::Arc;

use client::{DeleteOptions, Deleted, ListOptions, Propagation};
use env::jiff::{SignedDuration, Timestamp};
use machinery::{Object, Status, object};
use serde_json::{Value, json};
use store::Outcome;

use super::admit::Change;
use super::{Call, meta};
use crate::core::Core;

const TRIES: usize = 5;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How many objects of a collection are deleted before the others are looked at again.
const COLLECTION_PAGE: u64 = 500;

/// What a delete does to the stored object.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It is being deleted already, and this request adds nothing.
    Pending,
    /// It stays for now, in this state.
    Marked(Value),
    Gone,
}

impl Core {
    /// Deletes one object.
    pub async fn delete(&self, call: &Call, options: &DeleteOptions) -> Result<Deleted, Status> {
        check_options(options)?;
        let name = call.target.name.as_str();
        let mut present = self.newest(call).await?;
        for _ in 0..TRIES {
            let old = present.ok_or_else(|| call.not_found(name))?;
            check_preconditions(call, options, &old)?;
            let (old_value, dry_run) = (old.value(), is_dry(options));
            let change = || Change { name, new: None, old: Some(&old_value), dry_run };
            let admitted = match self.mutate(call, change()).await {
                Ok(()) => self.validate(call, change()).await,
                refused => refused,
            };
            let result = match admitted {
                Ok(()) => self.carry_out(call, &old, self.fate(call, &old_value, options), dry_run).await,
                Err(refused) => Err(refused),
            };
            self.finish(call, change(), matches!(result, Ok(Ok(_))));
            match result? {
                Ok(deleted) => return Ok(deleted),
                Err(newer) => present = newer,
            }
        }
        Err(call.modified(name))
    }

    /// Does what was judged. The inner error is the newer state when another write came first.
    async fn carry_out(
        &self,
        call: &Call,
        old: &Arc<Object>,
        fate: Fate,
        dry_run: bool,
    ) -> Result<Result<Deleted, Option<Arc<Object>>>, Status> {
        let (outcome, marked) = match fate {
            Fate::Pending => return Ok(Ok(Deleted::Later(self.present(&call.row, old)))),
            Fate::Gone if dry_run => return Ok(Ok(Deleted::Now(self.present(&call.row, old)))),
            Fate::Gone => (self.remove(call, old).await?, None),
            Fate::Marked(value) if dry_run => {
                let dry = Object::from_value(&value, old.revision()).map_err(Status::internal)?;
                return Ok(Ok(Deleted::Later(self.present(&call.row, &Arc::new(dry)))));
            }
            Fate::Marked(value) => {
                let body = object::encode(&value);
                (self.put(call, old, body.clone()).await?, Some(body))
            }
        };
        match outcome {
            Outcome::Committed(revision) => self.deleted(call, old, marked, revision).map(Ok),
            Outcome::Mismatch(item) => {
                let newer = item.and_then(|item| Object::from_stored(item.value, item.mod_revision).ok());
                Ok(Err(newer.map(Arc::new)))
            }
        }
    }

    fn deleted(
        &self,
        call: &Call,
        old: &Object,
        marked: Option<bytes::Bytes>,
        revision: u64,
    ) -> Result<Deleted, Status> {
        let stays = marked.is_some();
        let body = marked.unwrap_or_else(|| old.stored().clone());
        let object = Arc::new(Object::from_stored(body, revision).map_err(Status::internal)?);
        let object = self.present(&call.row, &object);
        Ok(if stays { Deleted::Later(object) } else { Deleted::Now(object) })
    }

    /// Judges what a delete does to `old`.
    fn fate(&self, call: &Call, old: &Value, options: &DeleteOptions) -> Fate {
        let strategy = &call.row.strategy;
        let mut new = old.clone();
        let finalizers = finalizers_after(old, options, strategy.orphans_by_default());
        if finalizers != meta::list_of_texts(old, "finalizers") {
            meta::metadata(&mut new).insert("finalizers".to_owned(), json!(finalizers));
        }
        let held = !finalizers.is_empty() || strategy.holds_deletion(old);
        let now = self.env.now();
        let grace = if meta::text(old, "deletionTimestamp").is_empty() {
            let grace = strategy.grace_period(old, options.grace_period_seconds).unwrap_or(0);
            if grace > 0 || held {
                mark(&mut new, now, grace);
                strategy.prepare_delete(&self.context(call), &mut new);
            }
            grace
        } else {
            shorten(&mut new, old, options.grace_period_seconds)
        };
        match () {
            () if grace == 0 && !held => Fate::Gone,
            () if new == *old => Fate::Pending,
            () => Fate::Marked(new),
        }
    }

    /// Deletes every selected object of a collection.
    pub async fn delete_collection(
        &self,
        call: &Call,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<client::ObjectList, Status> {
        let mut page = ListOptions { limit: COLLECTION_PAGE, ..list.clone() };
        let mut all = client::ObjectList::default();
        loop {
            let found = self.list(call, &page).await?;
            for item in &found.items {
                self.delete_one(call, item, options).await?;
            }
            all.revision = found.revision;
            all.items.extend(found.items);
            if found.continue_token.is_empty() {
                return Ok(all);
            }
            page.continue_token = found.continue_token;
            page.resource_version.clear();
        }
    }

    async fn delete_one(&self, call: &Call, item: &Object, options: &DeleteOptions) -> Result<(), Status> {
        let mut target = call.target.clone();
        target.name = item.meta().name.clone();
        target.namespace = item.meta().namespace.clone();
        let one = self.call_within(&call.caller, "delete", target)?;
        match self.delete(&one, options).await {
            // Somebody else was faster.
            Err(status) if status.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Marks an object as being deleted.
fn mark(value: &mut Value, now: Timestamp, grace_s: i64) {
    let at = now.saturating_add(SignedDuration::from_secs(grace_s)).unwrap_or(now);
    let metadata = meta::metadata(value);
    metadata.insert("deletionTimestamp".to_owned(), json!(meta::time(at)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace_s));
    let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if generation > 0 {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
}

/// A second delete can only shorten the grace. Gives the grace that is left to wait.
fn shorten(new: &mut Value, old: &Value, asked: Option<i64>) -> i64 {
    let pending = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let Some(asked) = asked.map(|asked| asked.max(0)).filter(|asked| *asked < pending) else {
        return pending;
    };
    let planned: Option<Timestamp> = meta::text(old, "deletionTimestamp").parse().ok();
    let sooner = planned.and_then(|at| at.checked_sub(SignedDuration::from_secs(pending - asked)).ok());
    let metadata = meta::metadata(new);
    if let Some(at) = sooner {
        metadata.insert("deletionTimestamp".to_owned(), json!(meta::time(at)));
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(asked));
    asked
}

/// The finalizers that make the garbage collector do what the caller wants with dependents.
fn finalizers_after(old: &Value, options: &DeleteOptions, orphans_by_default: bool) -> Vec<String> {
    let before = meta::list_of_texts(old, "finalizers");
    let had = |finalizer: &str| before.iter().any(|own| own == finalizer);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(policy)) => (policy == Propagation::Orphan, policy == Propagation::Foreground),
        (None, None) if had(ORPHAN) => (true, false),
        (None, None) if had(FOREGROUND) => (false, true),
        (None, None) => (orphans_by_default, false),
    };
    let wanted = [(ORPHAN, orphan), (FOREGROUND, foreground)];
    if wanted.iter().all(|(finalizer, wanted)| had(finalizer) == *wanted) {
        return before;
    }
    let mut after: Vec<String> =
        before.into_iter().filter(|own| own != ORPHAN && own != FOREGROUND).collect();
    after.extend(wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(finalizer, _)| finalizer.to_owned()));
    after
}

fn is_dry(options: &DeleteOptions) -> bool {
    options.dry_run.iter().any(|value| value == "All")
}

fn check_options(options: &DeleteOptions) -> Result<(), Status> {
    let invalid = |detail: &str| {
        Err(Status::failure(422, "Invalid", format!("DeleteOptions.meta.k8s.io \"\" is invalid: {detail}")))
    };
    if options.orphan_dependents.is_some() && options.propagation_policy.is_some() {
        return invalid(
            "propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set",
        );
    }
    match options.dry_run.iter().find(|value| *value != "All") {
        Some(other) => invalid(&format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"")),
        None => Ok(()),
    }
}

fn check_preconditions(call: &Call, options: &DeleteOptions, old: &Object) -> Result<(), Status> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    let name = call.target.name.as_str();
    let differs = |what: &str, asked: &str, found: &str| {
        let detail =
            format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}");
        Err(call.conflict(name, &detail))
    };
    if let Some(uid) = preconditions.uid.as_deref().filter(|uid| *uid != old.meta().uid) {
        return differs("UID", uid, &old.meta().uid);
    }
    let revision = old.revision().to_string();
    match preconditions.resource_version.as_deref().filter(|version| *version != revision) {
        Some(version) => differs("ResourceVersion", version, &revision),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_follow_the_wish() {
        let check = |finalizers: &[&str], policy: Option<Propagation>, default: bool, expected: &[&str]| {
            let old = json!({"metadata": {"finalizers": finalizers}});
            let options = DeleteOptions { propagation_policy: policy, ..DeleteOptions::default() };
            assert_eq!(finalizers_after(&old, &options, default), expected, "{finalizers:?} {policy:?}");
        };
        check(&[], None, false, &[]);
        check(&[], None, true, &["orphan"]);
        check(&["a"], Some(Propagation::Foreground), false, &["a", "foregroundDeletion"]);
        check(&["orphan", "a"], Some(Propagation::Background), false, &["a"]);
        check(&["orphan"], None, false, &["orphan"]);
        check(&["foregroundDeletion"], Some(Propagation::Orphan), false, &["orphan"]);
    }

    #[test]
    fn grace_only_shrinks() {
        let old = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}});
        let shortened = |asked| {
            let mut new = old.clone();
            let grace = shorten(&mut new, &old, asked);
            (grace, meta::text(&new, "deletionTimestamp").to_owned())
        };
        assert_eq!(shortened(None), (30, "2026-01-01T00:00:30Z".to_owned()));
        assert_eq!(shortened(Some(60)), (30, "2026-01-01T00:00:30Z".to_owned()));
        assert_eq!(shortened(Some(10)), (10, "2026-01-01T00:00:10Z".to_owned()));
        assert_eq!(shortened(Some(0)), (0, "2026-01-01T00:00:00Z".to_owned()));
    }
}
