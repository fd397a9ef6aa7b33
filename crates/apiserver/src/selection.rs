//! Which objects of a collection a request means: namespace, name, label and field selectors.

use machinery::Status;
use machinery::selector::{FieldSelector, LabelSelector};
use resources::{Resource, Strategy};

use crate::cache::{Change, Entry, EventKind};

/// A parsed selection. Pure: it looks at keys and entries only.
pub struct Selection {
    /// The storage prefix with the namespace, or one key.
    key_prefix: String,
    namespace: String,
    name: String,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Everything of a row in a namespace (empty: all), restricted by selectors in their query form.
    pub fn parse(
        row: &Resource,
        namespace: &str,
        name: &str,
        labels: &str,
        fields: &str,
    ) -> Result<Self, Status> {
        let labels = LabelSelector::parse(labels)
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields = FieldSelector::parse(fields)
            .map_err(|error| Status::bad_request(format!("invalid selector: {fields:?}; {error}")))?;
        check_fields(row, &fields)?;
        let key_prefix = match namespace {
            "" => row.storage_prefix.clone(),
            namespace => format!("{}{namespace}/", row.storage_prefix),
        };
        Ok(Self { key_prefix, namespace: namespace.to_owned(), name: name.to_owned(), labels, fields })
    }

    /// Keys of selected objects begin with this.
    pub fn key_prefix(&self) -> &str {
        &self.key_prefix
    }

    /// Whether more than the namespace restricts the selection.
    pub fn has_selectors(&self) -> bool {
        !self.name.is_empty() || !self.labels.is_empty() || !self.fields.is_empty()
    }

    /// Whether an object is selected.
    pub fn matches(&self, key: &str, entry: &Entry, strategy: &dyn Strategy) -> bool {
        if !key.starts_with(&self.key_prefix) {
            return false;
        }
        let meta = entry.object.meta();
        (self.name.is_empty() || self.name == meta.name)
            && self.labels.matches(&meta.labels)
            && (self.fields.is_empty() || self.fields_match(entry, strategy))
    }

    fn fields_match(&self, entry: &Entry, strategy: &dyn Strategy) -> bool {
        let meta = entry.object.meta();
        self.fields.matches(|field| match field {
            "metadata.name" => meta.name.as_str(),
            "metadata.namespace" => meta.namespace.as_str(),
            other => {
                let known = entry.fields(strategy).iter().find(|(name, _)| *name == other);
                known.map_or("", |(_, value)| value.as_str())
            }
        })
    }

    /// The event that a change is for a watcher of this selection; `None`: it concerns neither state.
    pub fn judge(&self, change: &Change, strategy: &dyn Strategy) -> Option<EventKind> {
        let matches = |entry: &Option<std::sync::Arc<Entry>>| {
            entry.as_ref().is_some_and(|entry| self.matches(&change.key, entry, strategy))
        };
        match (matches(&change.old), matches(&change.new)) {
            (false, false) => None,
            (false, true) => Some(EventKind::Added),
            (true, true) => Some(EventKind::Modified),
            (true, false) => Some(EventKind::Deleted),
        }
    }

    /// The namespace that is selected; empty for all.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

fn check_fields(row: &Resource, fields: &FieldSelector) -> Result<(), Status> {
    let known = row.strategy.field_names();
    for field in fields.fields() {
        let own = matches!(field, "metadata.name") || (field == "metadata.namespace" && row.is_namespaced());
        if !own && !known.contains(&field) {
            return Err(Status::bad_request(format!(
                "Unable to find {:?} that match label selector \"\", field selector {:?}: field label not supported: {field}",
                qualified_kind(row),
                fields.to_string(),
            )));
        }
    }
    Ok(())
}

/// `apps/v1, Resource=deployments`, as upstream prints a resource.
fn qualified_kind(row: &Resource) -> String {
    format!("{}, Resource={}", row.api_version().trim_start_matches('/'), row.resource)
}
