//! Subresources that show the object as something else: `scale`.

use std::sync::Arc;

use client::WriteOptions;
use machinery::{FieldError, Object, Status};
use serde_json::{Value, json};

use super::body::{Problems, check_kind};
use super::patch::check_is_intent;
use super::update::check_preconditions;
use super::{Call, Write, meta};
use crate::core::Core;

impl Core {
    /// Whether the subresource has another kind than its row.
    pub(super) fn is_view(&self, call: &Call) -> bool {
        call.row.subresource(&call.target.subresource).is_some_and(|sub| sub.kind == "Scale")
    }

    /// The object as the subresource shows it.
    pub(super) fn projected(&self, call: &Call, object: &Arc<Object>) -> Result<Arc<Object>, Status> {
        if !self.is_view(call) {
            return Ok(self.present(&call.row, object));
        }
        let scale = scale_of(call, object)?;
        Object::from_value(&scale, object.revision()).map(Arc::new).map_err(Status::internal)
    }

    /// PUT of a view.
    pub(super) async fn update_view(
        &self,
        call: &Call,
        mut body: Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let (api_version, kind, schema) = self.subresource_type(call);
        check_kind(&mut body, &api_version, &kind)?;
        self.check_schema(call, &schema, &mut body, problems, options)?;
        self.change_view(call, options, &|_, _| Ok(body.clone())).await
    }

    /// Changes the object through its view: `mutation` makes the new view out of the old object and view.
    pub(super) async fn change_view(
        &self,
        call: &Call,
        options: &WriteOptions,
        mutation: &(dyn Fn(&Object, &Value) -> Result<Value, Status> + Send + Sync),
    ) -> Result<Arc<Object>, Status> {
        let changed = self
            .change(call, Write::update(options), &|old| {
                let view = mutation(old.object, &scale_of(call, old.object)?)?;
                check_preconditions(call, &view, old.object)?;
                let replicas = view.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
                check_replicas(call, replicas)?;
                let mut new = old.value.clone();
                call.row.strategy.set_scale(&mut new, replicas);
                Ok(new)
            })
            .await?;
        self.projected(call, &changed)
    }

    /// The intent on the object that an intent on its view means: the same replicas, owned through the subresource.
    pub(super) fn view_intent(
        &self,
        call: &Call,
        mut view: Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let (api_version, kind, schema) = self.subresource_type(call);
        check_is_intent(&mut view, &api_version, &kind)?;
        self.check_schema(call, &schema, &mut view, problems, options)?;
        let row = &call.row;
        let mut intent =
            json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": view["metadata"]});
        meta::match_name(&mut intent, &call.target.name)?;
        meta::match_namespace(row, &mut intent, &call.target.namespace)?;
        if let Some(replicas) = view.pointer("/spec/replicas").and_then(Value::as_i64) {
            check_replicas(call, replicas)?;
            row.strategy.set_scale(&mut intent, replicas);
        }
        Ok(intent)
    }

    /// `apiVersion`, kind and schema name of what a subresource takes.
    pub(super) fn subresource_type(&self, call: &Call) -> (String, String, String) {
        let row = &call.row;
        let Some(sub) = row.subresource(&call.target.subresource) else {
            return (row.api_version(), row.kind.clone(), row.schema.clone());
        };
        let (group, version) = match sub.version.as_str() {
            "" => (row.group.as_str(), row.version.as_str()),
            version => (sub.group.as_str(), version),
        };
        let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        (api_version, sub.kind.clone(), format!("io.k8s.api.{package}.{version}.{}", sub.kind))
    }
}

fn check_replicas(call: &Call, replicas: i64) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
    Err(Status::invalid("autoscaling", "Scale", &call.target.name, &[error]))
}

fn scale_of(call: &Call, object: &Object) -> Result<Value, Status> {
    let value = object.value();
    let (spec, status, selector) = call.row.strategy.scale(&value).ok_or_else(Status::no_such_path)?;
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": spec},
        "status": {"replicas": status, "selector": selector},
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(own) = value["metadata"].get(field) {
            meta::metadata(&mut scale).insert(field.to_owned(), own.clone());
        }
    }
    Ok(scale)
}
