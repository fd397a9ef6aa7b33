//! create: of an object, of a collection's new member by generated name, through a computed row.

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

/// How often a generated name that is taken is drawn again, as upstream.
const GENERATE_TRIES: usize = 8;
const SUFFIX_LENGTH: usize = 5;

impl Core {
    /// Creates an object, or asks a computed row.
    pub async fn create(
        self: &Arc<Self>,
        call: &Call,
        body: Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        if let Some(computation) = self.computations.find(&call.target) {
            return self.compute(call, computation, body, problems, options).await;
        }
        let mut value = self.accept(call, body, problems, options)?;
        meta::match_namespace(&call.row, &mut value, &call.target.namespace)?;
        self.create_accepted(call, value, Write::update(options)).await
    }

    /// Creates from a value that was decoded and defaulted, in the stored version.
    pub(super) async fn create_accepted(
        &self,
        call: &Call,
        value: Value,
        write: Write<'_>,
    ) -> Result<Arc<Object>, Status> {
        let base = meta::text(&value, "generateName").to_owned();
        let generates = meta::text(&value, "name").is_empty() && !base.is_empty();
        if !generates {
            return self
                .create_named(call, value, write)
                .await
                .map(|object| self.present(&call.row, &object));
        }
        let mut taken = None;
        for _ in 0..GENERATE_TRIES {
            let mut value = value.clone();
            let name = meta::generated(&base, &self.env.name_suffix(SUFFIX_LENGTH));
            meta::metadata(&mut value).insert("name".to_owned(), json!(name));
            match self.create_named(call, value, write).await {
                Err(status) if status.is_already_exists() => taken = Some(status),
                other => return other.map(|object| self.present(&call.row, &object)),
            }
        }
        Err(taken.unwrap_or_else(|| Status::internal("no name was tried")))
    }

    async fn create_named(
        &self,
        call: &Call,
        mut value: Value,
        write: Write<'_>,
    ) -> Result<Arc<Object>, Status> {
        let name = meta::text(&value, "name").to_owned();
        let dry_run = write.options.dry_run;
        meta::fill_system_fields(&mut value, self.env.uuid(), self.env.now());
        let result = match self.judge_create(call, &name, &mut value, write).await {
            Ok(()) if dry_run => self.pretend_create(call, &name, &value).await,
            Ok(()) => self.store_new(call, &name, &value).await,
            Err(refused) => Err(refused),
        };
        let change = Change { name: &name, new: Some(&mut value), old: None, dry_run };
        self.finish(call, change, result.is_ok());
        result
    }

    /// Everything between defaulting and storing.
    async fn judge_create(
        &self,
        call: &Call,
        name: &str,
        value: &mut Value,
        write: Write<'_>,
    ) -> Result<(), Status> {
        let dry_run = write.options.dry_run;
        self.track_caller(call, value, write);
        self.mutate(call, Change { name, new: Some(value), old: None, dry_run }).await?;
        self.prepare_create(call, value);
        self.check_create(call, name, value)?;
        self.validate(call, Change { name, new: Some(value), old: None, dry_run }).await
    }

    /// Notes what the caller wrote, before admission and the kind itself add to it. Nobody owns a status by creating
    /// an object of a kind that has an endpoint for it.
    fn track_caller(&self, call: &Call, value: &mut Value, write: Write<'_>) {
        let has_endpoint = call.row.subresource("status").is_some();
        let status =
            value.as_object_mut().filter(|_| has_endpoint).and_then(|fields| fields.remove("status"));
        self.track(call, value, None, write);
        if let Some(status) = status {
            value["status"] = status;
        }
    }

    async fn pretend_create(&self, call: &Call, name: &str, value: &Value) -> Result<Arc<Object>, Status> {
        self.cache.settle().await?;
        match self.cache.collection(&call.row.storage_prefix)?.get(&call.key(name)) {
            Some(_) => Err(self.already_exists(call, name)),
            None => Object::from_value(value, 0).map(Arc::new).map_err(Status::internal),
        }
    }

    async fn store_new(&self, call: &Call, name: &str, value: &Value) -> Result<Arc<Object>, Status> {
        let body = object::encode(value);
        let key: Arc<str> = call.key(name).into();
        let compare = vec![Compare { key: key.clone(), mod_revision: 0 }];
        let lease = self.lease(call).await?;
        let ops = vec![Op::Put { key, value: body.clone(), lease }];
        match self.cache.store().txn(compare, ops).await.map_err(|error| store_status(&error))? {
            Outcome::Committed(revision) => {
                self.cache.written(&call.key(name), body, revision).map_err(Status::internal)
            }
            Outcome::Mismatch(_) => Err(self.already_exists(call, name)),
        }
    }

    fn already_exists(&self, call: &Call, name: &str) -> Status {
        Status::already_exists(&call.row.group, &call.row.resource, name)
    }

    fn prepare_create(&self, call: &Call, value: &mut Value) {
        let strategy = &call.row.strategy;
        strategy.prepare_create(&self.context(call), value);
        if strategy.has_generation() {
            meta::metadata(value).insert("generation".to_owned(), json!(1));
        }
    }

    fn check_create(&self, call: &Call, name: &str, value: &Value) -> Result<(), Status> {
        let row = &call.row;
        let mut errors =
            metadata::validate(value, row.is_namespaced(), &|name| row.strategy.validate_name(name));
        errors.extend(row.strategy.validate_create(value));
        if !errors.is_empty() {
            return Err(Status::invalid(&row.group, &row.kind, name, &errors));
        }
        row.strategy.warnings(value, None).into_iter().for_each(|warning| call.warn(warning));
        Ok(())
    }
}
