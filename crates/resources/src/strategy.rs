//! How a kind differs from the others. Every method has a default; only kinds that differ override it.
//!
//! Strategies are pure: time, randomness and defaults of the cluster come in through [`Context`].

use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::Value;

/// What a strategy may know besides the objects.
#[derive(Clone, Debug)]
pub struct Context {
    pub now: Timestamp,
    /// The verb's user, for kinds that record it (`certificatesigningrequests`).
    pub user: String,
    pub groups: Vec<String>,
}

/// The kind's own part in the pipeline. Values are whole objects in the stored version.
pub trait Strategy: Send + Sync {
    /// Fills in defaults that depend on other fields; schema defaults are already there.
    fn default(&self, _object: &mut Value) {}

    /// Clears what users cannot set on create (status), sets what the system sets (generation is the pipeline's).
    fn prepare_create(&self, _context: &Context, object: &mut Value) {
        remove(object, "status");
    }

    /// Carries over what users cannot change in an update of the object itself (status).
    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        copy(new, old, "status");
    }

    /// Carries over everything but the status in an update of the status.
    fn prepare_status_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
    }

    /// An update of any other subresource that is a projection of the whole object (`resize`, `approval`,
    /// `ephemeralcontainers`, `finalize`).
    fn prepare_subresource_update(
        &self,
        _context: &Context,
        _subresource: &str,
        _new: &mut Value,
        _old: &Value,
    ) {
    }

    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Checks an update of a projection other than `status`.
    fn validate_subresource_update(&self, _subresource: &str, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Advice sent as `Warning` headers.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Whether a change of `new` against `old` bumps `metadata.generation`. The default: anything but metadata and
    /// status changed.
    fn changes_generation(&self, new: &Value, old: &Value) -> bool {
        let keys = |value: &Value| {
            let mut copy = value.clone();
            for field in ["metadata", "status"] {
                remove(&mut copy, field);
            }
            copy
        };
        self.has_generation() && keys(new) != keys(old)
    }

    /// Whether the kind has `metadata.generation` at all (upstream sets it only where it has a meaning).
    fn has_generation(&self) -> bool {
        false
    }

    /// Field selectors beyond `metadata.name` and `metadata.namespace`: label and value, in the order of
    /// [`Strategy::field_names`]. Takes the stored version.
    fn fields(&self, _object: &Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The names that [`Strategy::fields`] can give, so that an unknown one is a bad request.
    fn field_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// The cells of a table row, in the order of [`crate::columns::columns`]. Takes the stored version.
    fn cells(&self, _now: Timestamp, object: &Value) -> Vec<Value> {
        let field = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
        vec![field("/metadata/name"), field("/metadata/creationTimestamp")]
    }

    /// How many seconds a graceful delete waits; `None`: the kind is deleted at once. `asked` is the caller's wish.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// What the first delete of an object that stays for now changes besides its metadata.
    fn prepare_delete(&self, _context: &Context, _object: &mut Value) {}

    /// Whether something other than `metadata.finalizers` keeps a deleted object (`spec.finalizers`).
    fn holds_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// How long after its last write an object is removed by itself; `None`: never.
    fn time_to_live(&self) -> Option<std::time::Duration> {
        None
    }

    /// Whether deletes orphan dependents when the caller does not say (`Orphan`), or collect them in the background.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Whether PUT of a name that does not exist creates it.
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `resourceVersion` is allowed.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// From another served version to the stored one and back: called with `version` = the served version.
    fn to_storage(&self, _version: &str, _object: &mut Value) {}
    // The object that is converted is the argument.
    #[allow(clippy::wrong_self_convention)]
    fn from_storage(&self, _version: &str, _object: &mut Value) {}

    /// The `scale` subresource: reads `(spec.replicas, status.replicas, selector as text)`; `None`: no such view.
    fn scale(&self, _object: &Value) -> Option<(i64, i64, String)> {
        None
    }

    /// Sets the replicas that a write to `scale` asks for.
    fn set_scale(&self, _object: &mut Value, _replicas: i64) {}

    /// What a computed kind (`tokenreviews`, `bindings`) or the pipeline checks in the name.
    fn validate_name(&self, name: &str) -> Result<(), String> {
        crate::names::dns_subdomain(name)
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

fn copy(new: &mut Value, old: &Value, field: &str) {
    let Some(new) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => new.insert(field.to_owned(), value.clone()),
        None => new.remove(field),
    };
}
