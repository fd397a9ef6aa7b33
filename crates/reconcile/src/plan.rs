//! What a controller wants done: the closed set of actions.

use std::time::Duration;

use client::{DeleteOptions, Patch, Preconditions, Propagation, Target};
use machinery::Object;
use serde_json::Value;

use crate::Reference;

/// One change of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates an object (or posts to the subresource that the target names). With `announce`, success and failure
    /// become events about that object.
    Create {
        target: Target,
        body: Value,
        announce: Option<Reference>,
    },
    /// Replaces an object or subresource; the body's `resourceVersion` guards it.
    Update {
        target: Target,
        body: Value,
    },
    Patch {
        target: Target,
        patch: Patch,
    },
    Delete {
        target: Target,
        options: DeleteOptions,
        announce: Option<Reference>,
    },
    Event(EventAction),
}

/// An event to record.
#[derive(Clone, Debug, PartialEq)]
pub struct EventAction {
    pub about: Reference,
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// What to do about one key, and when to look again without being told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Carried out first, several at a time.
    pub actions: Vec<Action>,
    /// Carried out after all actions, also when some failed.
    pub status: Option<Action>,
    pub next: Option<Duration>,
}

impl Plan {
    pub fn nothing() -> Self {
        Self::default()
    }
}

impl Action {
    /// Deletes exactly this object: another one of the same name stays.
    pub fn delete(target: Target, object: &Object, propagation: Option<Propagation>) -> Self {
        let preconditions = Preconditions { uid: Some(object.meta().uid.clone()), resource_version: None };
        let options = DeleteOptions {
            preconditions: Some(preconditions),
            propagation_policy: propagation,
            ..DeleteOptions::default()
        };
        Self::Delete { target: named(target, object), options, announce: None }
    }

    /// Makes events about `owner` of a create's or delete's outcome.
    pub fn announced(mut self, owner: Reference) -> Self {
        if let Self::Create { announce, .. } | Self::Delete { announce, .. } = &mut self {
            *announce = Some(owner);
        }
        self
    }

    /// A `Normal` event.
    pub fn event(about: Reference, reason: &str, message: String) -> Self {
        Self::Event(EventAction { about, warning: false, reason: reason.to_owned(), message })
    }

    /// A `Warning` event.
    pub fn warning(about: Reference, reason: &str, message: String) -> Self {
        Self::Event(EventAction { about, warning: true, reason: reason.to_owned(), message })
    }
}

/// The target of an object in the collection that `target` names.
pub fn named(target: Target, object: &Object) -> Target {
    Target { namespace: object.meta().namespace.clone(), name: object.meta().name.clone(), ..target }
}

/// The target of a named object in the collection that `target` names.
pub fn named_key(target: Target, namespace: &str, name: &str) -> Target {
    Target { namespace: namespace.to_owned(), name: name.to_owned(), ..target }
}
