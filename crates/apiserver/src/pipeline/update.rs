//! update, and the loop that every change of a stored object goes through.

use std::sync::Arc;

use client::WriteOptions;
use machinery::{Object, Status, object};
use resources::metadata;
use serde_json::{Value, json};
use store::{Compare, Op, Outcome};

use super::admit::Change;
use super::body::Problems;
use super::{Call, Write, meta};
use crate::cache::store_status;
use crate::core::Core;

/// How often a change that lost a race is made again on the new state.
const TRIES: usize = 5;

/// Makes the new state (in the stored version, defaulted) out of the old object.
pub type Mutation<'a> = dyn Fn(Old<'_>) -> Result<Value, Status> + Send + Sync + 'a;

/// Makes the new state out of the stored object and its value.
pub type Rewriting<'a> = dyn Fn(&Object, Value) -> Result<Value, Status> + Send + Sync + 'a;

/// A stored object that is to be changed, read once for all who look at it.
#[derive(Clone, Copy)]
pub struct Old<'a> {
    pub object: &'a Object,
    /// In the stored version.
    pub value: &'a Value,
}

/// What became of one try.
enum Attempt {
    Done(Arc<Object>),
    /// Another write came first; the present state, if there is one.
    Raced(Option<Arc<Object>>),
}

impl Core {
    /// PUT: replaces the object (or a projection of it).
    pub async fn update(
        self: &Arc<Self>,
        call: &Call,
        body: Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let name = call.target.name.clone();
        if self.is_view(call) {
            let mut body = body;
            meta::match_name(&mut body, &name)?;
            return self.update_view(call, body, problems, options).await;
        }
        let mut value = self.accept(call, body, problems, options)?;
        meta::match_namespace(&call.row, &mut value, &call.target.namespace)?;
        meta::match_name(&mut value, &name)?;
        let creates = call.row.strategy.allows_create_on_update() && call.target.subresource.is_empty();
        if creates && meta::text(&value, "resourceVersion").is_empty() && self.newest(call).await?.is_none() {
            return self.create_accepted(call, value, Write::update(options)).await;
        }
        self.change(call, Write::update(options), &|old| {
            check_preconditions(call, &value, old.object)?;
            Ok(value.clone())
        })
        .await
    }

    /// Changes the stored object, again on the newer state when another write comes first.
    pub(super) async fn change(
        &self,
        call: &Call,
        write: Write<'_>,
        mutation: &Mutation<'_>,
    ) -> Result<Arc<Object>, Status> {
        let name = call.target.name.as_str();
        let mut present = self.newest(call).await?;
        for _ in 0..TRIES {
            let old = present.ok_or_else(|| call.not_found(name))?;
            let value = old.value();
            let new = mutation(Old { object: &old, value: &value })?;
            match self.attempt(call, &old, &value, new, write).await? {
                Attempt::Done(object) => return Ok(self.present(&call.row, &object)),
                Attempt::Raced(newer) => present = newer,
            }
        }
        Err(call.modified(name))
    }

    async fn attempt(
        &self,
        call: &Call,
        old: &Arc<Object>,
        old_value: &Value,
        mut new: Value,
        write: Write<'_>,
    ) -> Result<Attempt, Status> {
        let (name, dry_run) = (call.target.name.as_str(), write.options.dry_run);
        let result = match self.judge_update(call, &mut new, old_value, write).await {
            Ok(()) if new == *old_value && !self.may_go(call, &new) => Ok(Attempt::Done(old.clone())),
            Ok(()) if dry_run => Object::from_value(&new, old.revision())
                .map(|dry| Attempt::Done(Arc::new(dry)))
                .map_err(Status::internal),
            Ok(()) => self.commit(call, old, &new, object::encode(&new)).await,
            Err(refused) => Err(refused),
        };
        let committed = matches!(result, Ok(Attempt::Done(_)));
        self.finish(call, Change { name, new: Some(&mut new), old: Some(old_value), dry_run }, committed);
        result
    }

    /// Everything between defaulting and storing.
    async fn judge_update(
        &self,
        call: &Call,
        new: &mut Value,
        old: &Value,
        write: Write<'_>,
    ) -> Result<(), Status> {
        let (name, dry_run) = (call.target.name.as_str(), write.options.dry_run);
        meta::carry_over(new, old);
        self.mutate(call, Change { name, new: Some(new), old: Some(old), dry_run }).await?;
        meta::carry_over(new, old);
        self.prepare_update(call, new, old);
        self.track(call, new, Some(old), write);
        self.check_update(call, new, old)?;
        self.validate(call, Change { name, new: Some(new), old: Some(old), dry_run }).await
    }

    /// Changes the stored object on the system's own account: no admission, no strategy, no field owners. For
    /// computations whose effect is a change that users cannot make (`binding`).
    pub async fn rewrite(
        &self,
        call: &Call,
        dry_run: bool,
        rewriting: &Rewriting<'_>,
    ) -> Result<Arc<Object>, Status> {
        let name = call.target.name.as_str();
        let mut present = self.newest(call).await?;
        for _ in 0..TRIES {
            let old = present.ok_or_else(|| call.not_found(name))?;
            let new = rewriting(&old, old.value())?;
            // Equal values are equal bytes, and reading the old one again would cost more than writing the new one.
            let body = object::encode(&new);
            if body == *old.stored() {
                return Ok(old);
            }
            if dry_run {
                return Object::from_value(&new, old.revision()).map(Arc::new).map_err(Status::internal);
            }
            match self.commit(call, &old, &new, body).await? {
                Attempt::Done(object) => return Ok(object),
                Attempt::Raced(newer) => present = newer,
            }
        }
        Err(call.modified(name))
    }

    /// Writes the new state, or removes the object when nothing holds it any longer.
    async fn commit(
        &self,
        call: &Call,
        old: &Arc<Object>,
        new: &Value,
        body: bytes::Bytes,
    ) -> Result<Attempt, Status> {
        let written = if self.may_go(call, new) {
            self.remove(call, old).await?
        } else {
            self.put(call, old, body.clone()).await?
        };
        match written {
            Outcome::Committed(revision) => {
                let object = self.cache.written(&call.key(&old.meta().name), body, revision);
                object.map(Attempt::Done).map_err(Status::internal)
            }
            Outcome::Mismatch(present) => {
                let present =
                    present.and_then(|item| Object::from_stored(item.value, item.mod_revision).ok());
                Ok(Attempt::Raced(present.map(Arc::new)))
            }
        }
    }

    /// Replaces the stored bytes if nobody wrote since `old`.
    pub(super) async fn put(&self, call: &Call, old: &Object, body: bytes::Bytes) -> Result<Outcome, Status> {
        let key: Arc<str> = call.key(&old.meta().name).into();
        let compare = vec![Compare { key: key.clone(), mod_revision: old.revision() }];
        let lease = self.lease(call).await?;
        let ops = vec![Op::Put { key, value: body, lease }];
        self.cache.store().txn(compare, ops).await.map_err(|error| store_status(&error))
    }

    /// The lease of objects that expire by themselves.
    pub(super) async fn lease(&self, call: &Call) -> Result<Option<store::LeaseId>, Status> {
        let Some(time_to_live) = call.row.strategy.time_to_live() else { return Ok(None) };
        let lease = self.leases.take(&**self.cache.store(), time_to_live).await;
        lease.map(Some).map_err(|error| store_status(&error))
    }

    /// Removes the stored object if nobody wrote since `old`.
    pub(super) async fn remove(&self, call: &Call, old: &Object) -> Result<Outcome, Status> {
        let key: Arc<str> = call.key(&old.meta().name).into();
        let compare = vec![Compare { key: key.clone(), mod_revision: old.revision() }];
        self.cache.store().txn(compare, vec![Op::Delete { key }]).await.map_err(|error| store_status(&error))
    }

    /// Whether the object is being deleted and nothing holds it: no grace, no finalizers.
    pub(super) fn may_go(&self, call: &Call, value: &Value) -> bool {
        let metadata = &value["metadata"];
        metadata.get("deletionTimestamp").is_some_and(|time| !time.is_null())
            && metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
            && meta::list_of_texts(value, "finalizers").is_empty()
            && !call.row.strategy.holds_deletion(value)
    }

    fn prepare_update(&self, call: &Call, new: &mut Value, old: &Value) {
        let strategy = &call.row.strategy;
        let context = self.context(call);
        match call.target.subresource.as_str() {
            "" | "scale" => strategy.prepare_update(&context, new, old),
            "status" => strategy.prepare_status_update(&context, new, old),
            other => strategy.prepare_subresource_update(&context, other, new, old),
        }
        // Controllers annotate through the status, which says nothing about what is wanted.
        let is_wish = call.target.subresource != "status" && strategy.has_generation();
        if is_wish && strategy.changes_generation(new, old) {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            meta::metadata(new).insert("generation".to_owned(), json!(generation + 1));
        }
    }

    fn check_update(&self, call: &Call, new: &Value, old: &Value) -> Result<(), Status> {
        let row = &call.row;
        let mut errors =
            metadata::validate(new, row.is_namespaced(), &|name| row.strategy.validate_name(name));
        errors.extend(metadata::validate_update(new, old));
        errors.extend(match call.target.subresource.as_str() {
            "" | "scale" => row.strategy.validate_update(new, old),
            "status" => row.strategy.validate_status_update(new, old),
            other => row.strategy.validate_subresource_update(other, new, old),
        });
        if !errors.is_empty() {
            return Err(Status::invalid(&row.group, &row.kind, &call.target.name, &errors));
        }
        row.strategy.warnings(new, Some(old)).into_iter().for_each(|warning| call.warn(warning));
        Ok(())
    }
}

/// What the caller's copy says about the state it was made from.
pub(super) fn check_preconditions(call: &Call, value: &Value, old: &Object) -> Result<(), Status> {
    let name = call.target.name.as_str();
    let uid = meta::text(value, "uid");
    if !uid.is_empty() && uid != old.meta().uid {
        let detail = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old.meta().uid
        );
        return Err(call.conflict(name, &detail));
    }
    match meta::text(value, "resourceVersion") {
        "" | "0" if call.row.strategy.allows_unconditional_update() => Ok(()),
        "" | "0" => {
            let error = machinery::FieldError::invalid(
                "metadata.resourceVersion",
                0,
                "must be specified for an update",
            );
            Err(Status::invalid(&call.row.group, &call.row.kind, name, &[error]))
        }
        version if version == old.revision().to_string() => Ok(()),
        version if version.parse::<u64>().is_err() => {
            let error =
                machinery::FieldError::invalid("metadata.resourceVersion", version, "must be a number");
            Err(Status::invalid(&call.row.group, &call.row.kind, name, &[error]))
        }
        _ => Err(call.modified(name)),
    }
}
