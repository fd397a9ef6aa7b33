//! NamespaceLifecycle: nothing new in namespaces that do not exist or are going away; some namespaces stay.

use async_trait::async_trait;
use machinery::Status;
use machinery::status::Cause;
use resources::value::Access;
use serde_json::Value;

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Delete => attributes.is("", "namespaces"),
            Operation::Create => {
                !attributes.namespace.is_empty()
                    && attributes.resource.is_namespaced()
                    && attributes.resource.resource != "localsubjectaccessreviews"
            }
            Operation::Update | Operation::Connect => false,
        }
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if attributes.operation == Operation::Delete {
            return match IMMORTAL.contains(&attributes.name) {
                true => Err(attributes.forbidden("this namespace may not be deleted")),
                false => Ok(()),
            };
        }
        let name = attributes.namespace;
        match self.lookup.namespace(name).await? {
            None => Err(Status::not_found("", "namespaces", name)),
            Some(namespace) => judge(attributes, &namespace),
        }
    }
}

fn judge(attributes: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
    if namespace.text("/status/phase") != "Terminating" && !namespace.has("/metadata/deletionTimestamp") {
        return Ok(());
    }
    let name = attributes.namespace;
    let detail = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = attributes.forbidden(&detail);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    Err(status)
}
