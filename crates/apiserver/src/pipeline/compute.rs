//! The way to a computed row: the same decoding and admission as for a stored one.

use std::sync::Arc;

use client::WriteOptions;
use machinery::{Object, Status};
use serde_json::Value;

use super::admit::Change;
use super::body::{Problems, check_kind};
use super::{Call, meta};
use crate::computed::Computation;
use crate::core::Core;

impl Core {
    pub(super) async fn compute(
        self: &Arc<Self>,
        call: &Call,
        computation: Arc<dyn Computation>,
        mut body: Value,
        problems: Problems,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Status> {
        let (api_version, kind, schema) = self.subresource_type(call);
        check_kind(&mut body, &api_version, &kind)?;
        self.check_schema(call, &schema, &mut body, problems, options)?;
        self.fill(&schema, &mut body);
        if call.row.is_namespaced() {
            meta::match_namespace(&call.row, &mut body, &call.target.namespace)?;
        }
        let (name, dry_run) = (call.target.name.clone(), options.dry_run);
        let mut admitted = body;
        let result = self.compute_admitted(call, &*computation, &mut admitted, options).await;
        self.finish(
            call,
            Change { name: &name, new: Some(&mut admitted), old: None, dry_run },
            result.is_ok(),
        );
        Object::from_wire(result?).map(Arc::new).map_err(Status::internal)
    }

    async fn compute_admitted(
        self: &Arc<Self>,
        call: &Call,
        computation: &dyn Computation,
        body: &mut Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let (name, dry_run) = (call.target.name.as_str(), options.dry_run);
        self.mutate(call, Change { name, new: Some(body), old: None, dry_run }).await?;
        self.validate(call, Change { name, new: Some(body), old: None, dry_run }).await?;
        computation.compute(self, call, body.clone(), options).await
    }
}
