//! What an admission plugin is, and the ordered chain of them.
//!
//! The pipeline calls [`Chain::mutate`] after defaulting, then prepares and validates the object, calls
//! [`Chain::validate`], writes, and at last [`Chain::finish`] with what became of the write. Objects are in the
//! stored version.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use auth::User;
use machinery::Status;
use resources::Resource;
use serde_json::Value;

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

impl Operation {
    /// The word upstream uses in reviews: `CREATE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A request on its way through the chain.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub resource: &'a Resource,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty while a generated name is not known.
    pub name: &'a str,
    pub user: &'a User,
    pub dry_run: bool,
    /// The new object, or the body of a subresource (`Binding`, `Eviction`); absent for deletes.
    pub object: Option<&'a mut Value>,
    /// The present object, for updates and deletes.
    pub old: Option<&'a Value>,
    /// `CreateOptions`, `UpdateOptions`, `DeleteOptions`; null when there are none.
    pub options: Value,
    /// Advice that plugins add; the pipeline sends it as `Warning` headers.
    pub warnings: Warnings,
}

/// Warnings collected while an object is judged.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub fn add(&self, text: impl Into<String>) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(text.into());
    }

    /// Gives what was collected and forgets it.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl Attributes<'_> {
    /// Whether this is about the object itself of a resource, not about a subresource of it.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.is_resource(group, resource) && self.subresource.is_empty()
    }

    /// Whether this is about a resource or one of its subresources.
    pub fn is_resource(&self, group: &str, resource: &str) -> bool {
        self.resource.group == group && self.resource.resource == resource
    }

    /// The new object; null when there is none.
    pub fn new_object(&self) -> &Value {
        self.object.as_deref().unwrap_or(&Value::Null)
    }

    /// The present object; null when there is none.
    pub fn old_object(&self) -> &Value {
        self.old.unwrap_or(&Value::Null)
    }

    /// 403 about this object, with upstream's wording.
    pub fn forbidden(&self, detail: &str) -> Status {
        Status::forbidden(&self.resource.group, &self.resource.resource, self.display_name(), detail)
    }

    /// The name, or what the name will start with.
    pub fn display_name(&self) -> &str {
        let field =
            |pointer: &str| self.new_object().pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        [self.name, field("/metadata/name"), field("/metadata/generateName")]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or("Unknown")
    }
}

/// One admission plugin.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Whether the plugin looks at such requests at all.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// May change the new object.
    async fn mutate(&self, _attributes: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// May only refuse.
    async fn validate(&self, _attributes: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Hears what became of a request that it saw in [`Plugin::mutate`]: `committed` is false when a later step
    /// failed or the request was a dry run. Gives back what was taken.
    fn finish(&self, _attributes: &Attributes<'_>, _committed: bool) {}
}

/// Plugins in order.
#[derive(Clone, Default)]
pub struct Chain {
    plugins: Vec<Arc<dyn Plugin>>,
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// Lets every plugin change the object, in order; the first refusal ends it.
    pub async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.plugins {
            if plugin.handles(attributes) {
                plugin.mutate(attributes).await?;
            }
        }
        Ok(())
    }

    /// Asks every plugin; the first refusal ends it.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        for plugin in &self.plugins {
            if plugin.handles(attributes) {
                plugin.validate(attributes).await?;
            }
        }
        Ok(())
    }

    /// Must be called once for every request that entered [`Chain::mutate`], also when that failed.
    pub fn finish(&self, attributes: &Attributes<'_>, committed: bool) {
        for plugin in self.plugins.iter().rev() {
            if plugin.handles(attributes) {
                plugin.finish(attributes, committed);
            }
        }
    }

    /// The plugins' names in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }
}
