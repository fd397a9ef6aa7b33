//! The admission chain's place in the pipeline.

use admission::{Attributes, Operation, Warnings};
use machinery::Status;
use serde_json::Value;

use super::Call;
use crate::core::Core;

/// What one request does to one object, as the chain sees it.
pub(super) struct Change<'a> {
    pub name: &'a str,
    /// Absent for deletes.
    pub new: Option<&'a mut Value>,
    /// Absent for creates.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

impl Core {
    /// Lets the chain change the object. [`Core::finish`] must follow, whatever becomes of the request.
    pub(super) async fn mutate(&self, call: &Call, change: Change<'_>) -> Result<(), Status> {
        let Some(chain) = self.admission.get() else { return Ok(()) };
        let mut attributes = attributes(call, change);
        let result = chain.mutate(&mut attributes).await;
        attributes.warnings.take().into_iter().for_each(|warning| call.warn(warning));
        result
    }

    /// Lets the chain refuse the object.
    pub(super) async fn validate(&self, call: &Call, change: Change<'_>) -> Result<(), Status> {
        let Some(chain) = self.admission.get() else { return Ok(()) };
        let attributes = attributes(call, change);
        let result = chain.validate(&attributes).await;
        attributes.warnings.take().into_iter().for_each(|warning| call.warn(warning));
        result
    }

    /// Tells the chain what became of a request.
    pub(super) fn finish(&self, call: &Call, change: Change<'_>, committed: bool) {
        if let Some(chain) = self.admission.get() {
            let committed = committed && !change.dry_run;
            chain.finish(&attributes(call, change), committed);
        }
    }

    /// Asks the chain about a connection (`exec`, `proxy`) with the connection's options.
    pub async fn admit_connect(&self, call: &Call, options: &mut Value) -> Result<(), Status> {
        let Some(chain) = self.admission.get() else { return Ok(()) };
        let change = Change { name: &call.target.name, new: Some(options), old: None, dry_run: false };
        let mut attributes = attributes(call, change);
        attributes.operation = Operation::Connect;
        let result = match chain.mutate(&mut attributes).await {
            Ok(()) => chain.validate(&attributes).await,
            Err(refused) => Err(refused),
        };
        chain.finish(&attributes, result.is_ok());
        result
    }
}

fn attributes<'a>(call: &'a Call, change: Change<'a>) -> Attributes<'a> {
    let operation = match (&change.new, change.old) {
        (Some(_), None) => Operation::Create,
        (Some(_), Some(_)) => Operation::Update,
        (None, _) => Operation::Delete,
    };
    Attributes {
        operation,
        resource: &call.row,
        subresource: &call.target.subresource,
        namespace: &call.target.namespace,
        name: change.name,
        user: &call.caller.user,
        dry_run: change.dry_run,
        object: change.new,
        old: change.old,
        options: Value::Null,
        warnings: Warnings::default(),
    }
}
