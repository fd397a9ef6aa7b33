//! The verbs, the same for every row and every caller.
//!
//! authorize → decode → strict check → default → mutating admission → prepare → validate → validating admission →
//! dry run? → store. A [`Call`] is the proof that the first step was taken.

mod admit;
mod body;
mod compute;
mod create;
mod delete;
pub mod meta;
mod patch;
mod projection;
mod read;
mod token;
mod update;
mod watch;

use std::borrow::Cow;
use std::sync::Arc;

pub use body::Problems;

use auth::{Attributes, User};
use client::{Target, WriteOptions};
use machinery::{Object, Status};
use parking_lot::Mutex;
use resources::{Context, Resource};
use serde_json::Value;

use crate::core::Core;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: User,
    /// The `User-Agent`; names the field manager when nothing else does.
    pub agent: String,
}

/// An authorized request for a resource.
pub struct Call {
    pub caller: Arc<Caller>,
    pub row: Arc<Resource>,
    pub target: Target,
    pub verb: &'static str,
    warnings: Mutex<Vec<String>>,
}

/// What a verb is about besides its target, for authorizers that look at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selectors<'a> {
    pub labels: &'a str,
    pub fields: &'a str,
}

/// A write on its way through the steps between defaulting and storing.
#[derive(Clone, Copy)]
struct Write<'a> {
    options: &'a WriteOptions,
    /// A server-side apply, which does its own bookkeeping of field owners.
    applies: bool,
}

impl<'a> Write<'a> {
    fn update(options: &'a WriteOptions) -> Self {
        Self { options, applies: false }
    }
}

impl Call {
    /// Advice for the caller, sent as `Warning` headers.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The advice so far.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }

    /// The store's key of an object of the row.
    pub fn key(&self, name: &str) -> String {
        self.row.storage_key(&self.target.namespace, name)
    }

    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.row.group, &self.row.resource, name)
    }

    pub fn modified(&self, name: &str) -> Status {
        Status::modified(&self.row.group, &self.row.resource, name)
    }

    pub fn conflict(&self, name: &str, detail: &str) -> Status {
        Status::conflict(&self.row.group, &self.row.resource, name, detail)
    }

    pub fn bad_request(&self, detail: impl Into<String>) -> Status {
        Status::bad_request(detail)
    }
}

impl Core {
    /// Authorizes a request and finds its row.
    pub fn authorize(
        &self,
        caller: &Arc<Caller>,
        verb: &'static str,
        target: &Target,
        selectors: Selectors<'_>,
    ) -> Result<Call, Status> {
        let row = self.table.load().find(&target.group, &target.version, &target.resource).cloned();
        self.judge(&attributes(&caller.user, verb, target, selectors))?;
        let row = row.ok_or_else(Status::no_such_path)?;
        check_supported(&row, verb, target)?;
        Ok(Call { caller: caller.clone(), row, target: target.clone(), verb, warnings: Mutex::default() })
    }

    /// Asks the authorizers; a refusal has upstream's text.
    pub fn judge(&self, attributes: &Attributes) -> Result<(), Status> {
        let decision = self.authorizer.authorize(attributes);
        if decision.is_allowed() {
            return Ok(());
        }
        let detail = auth::forbidden_detail(attributes, decision.reason());
        if !attributes.is_resource() {
            return Err(Status::failure(403, "Forbidden", format!("forbidden: {detail}")));
        }
        Err(Status::forbidden(&attributes.group, &attributes.resource, &attributes.name, &detail))
    }

    /// A call on another row with the same caller, already allowed: for what a verb does on the caller's behalf.
    pub fn call_within(
        &self,
        caller: &Arc<Caller>,
        verb: &'static str,
        target: Target,
    ) -> Result<Call, Status> {
        let row = self.table.load().find(&target.group, &target.version, &target.resource).cloned();
        let row = row.ok_or_else(Status::no_such_path)?;
        Ok(Call { caller: caller.clone(), row, target, verb, warnings: Mutex::default() })
    }

    fn context(&self, call: &Call) -> Context {
        let user = &call.caller.user;
        Context { now: self.env.now(), user: user.name.clone(), groups: user.groups.clone() }
    }

    /// The stored object as a caller of this row's version sees it.
    pub fn present(&self, row: &Resource, object: &Arc<Object>) -> Arc<Object> {
        if !row.is_converted() {
            return object.clone();
        }
        let stored = object.value();
        let value = served(row, &stored);
        Object::from_value(&value, object.revision()).map_or_else(|_| object.clone(), Arc::new)
    }
}

/// A value of the stored version in the row's version.
pub fn served<'a>(row: &Resource, stored: &'a Value) -> Cow<'a, Value> {
    let mut value = Cow::Borrowed(stored);
    if row.is_converted() {
        row.strategy.from_storage(&row.version, value.to_mut());
    }
    value
}

/// From the row's version to the stored one.
pub fn to_storage(row: &Resource, value: &mut Value) {
    if row.is_converted() {
        row.strategy.to_storage(&row.version, value);
    }
}

/// What authorizers are asked.
pub fn attributes(user: &User, verb: &str, target: &Target, selectors: Selectors<'_>) -> Attributes {
    // A namespace is in its own scope, so that a role in it can allow to read it.
    let own_scope = target.group.is_empty() && target.resource == "namespaces";
    Attributes {
        user: user.clone(),
        verb: verb.to_owned(),
        group: target.group.clone(),
        version: target.version.clone(),
        resource: target.resource.clone(),
        subresource: target.subresource.clone(),
        namespace: if own_scope { target.name.clone() } else { target.namespace.clone() },
        name: target.name.clone(),
        path: String::new(),
        field_selector: selectors.fields.to_owned(),
        label_selector: selectors.labels.to_owned(),
    }
}

fn check_supported(row: &Resource, verb: &str, target: &Target) -> Result<(), Status> {
    let not_allowed = || {
        let message = "the server does not allow this method on the requested resource";
        Err(Status::failure(405, "MethodNotAllowed", message))
    };
    let named = !target.name.is_empty();
    if row.is_namespaced() && target.namespace.is_empty() && (named || verb == "create") {
        return if named { Err(Status::no_such_path()) } else { not_allowed() };
    }
    if !row.is_namespaced() && !target.namespace.is_empty() {
        return Err(Status::no_such_path());
    }
    if target.subresource.is_empty() {
        return if row.supports(verb) && (verb != "create" || !named) { Ok(()) } else { not_allowed() };
    }
    let Some(subresource) = row.subresource(&target.subresource) else { return Err(Status::no_such_path()) };
    // Connectors take any method; their list of verbs says which are announced.
    if subresource.verbs.iter().any(|known| known == verb) { Ok(()) } else { not_allowed() }
}
