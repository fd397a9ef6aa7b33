//! patch: JSON, merge, strategic merge and server-side apply.

use std::sync::Arc;

use client::{Patch, WriteOptions};
use machinery::{Object, Status};
use serde_json::Value;

use super::body::Problems;
use super::update::check_preconditions;
use super::{Call, meta, served_value};
use crate::core::Core;

/// What a patch did.
pub struct Patched {
    pub object: Arc<Object>,
    /// An apply of an object that did not exist.
    pub created: bool,
}

impl Core {
    /// Changes an object by a patch; an apply may create it.
    pub async fn patch(
        self: &Arc<Self>,
        call: &Call,
        patch: Patch,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Patched, Status> {
        for problem in problems {
            call.warn(problem);
        }
        let object = self
            .change(call, options, &|old| {
                let mut served = served_value(&call.row, old);
                apply_patch(&patch, &mut served)?;
                self.patched_value(call, served, old, options)
            })
            .await?;
        Ok(Patched { object, created: false })
    }

    /// A patched object is checked like one that came as a whole.
    fn patched_value(
        &self,
        call: &Call,
        mut value: Value,
        old: &Object,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        meta::match_name(&mut value, &call.target.name)?;
        let value = self.accept(call, value, Vec::new(), options)?;
        check_preconditions(call, &value, old)?;
        Ok(value)
    }

    /// Notes in `managedFields` who set what.
    pub(super) fn track(&self, _call: &Call, _new: &mut Value, _old: Option<&Value>, _options: &WriteOptions) {}
}

fn apply_patch(patch: &Patch, value: &mut Value) -> Result<(), Status> {
    match patch {
        Patch::Merge(patch) => {
            merge(value, patch);
            Ok(())
        }
        _ => Err(Status::unsupported_media_type(&["application/merge-patch+json"])),
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}
