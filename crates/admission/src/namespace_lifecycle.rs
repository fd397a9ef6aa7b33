//! NamespaceLifecycle: nothing new in namespaces that do not exist or are going away; some namespaces stay.

use async_trait::async_trait;
use machinery::status::Cause;
use machinery::{Object, Status};
use serde::Deserialize;

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
        match self.lookup.object("", "namespaces", "", name).await? {
            None => Err(Status::not_found("", "namespaces", name)),
            Some(namespace) => judge(attributes, &namespace),
        }
    }
}

/// What is read of a namespace for every create.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NamespaceView {
    status: StatusView,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusView {
    phase: String,
}

fn judge(attributes: &Attributes<'_>, namespace: &Object) -> Result<(), Status> {
    let is_terminating = || {
        let read = namespace.part::<NamespaceView>().unwrap_or_default();
        read.status.phase == "Terminating"
    };
    if namespace.meta().deletion_timestamp.is_none() && !is_terminating() {
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
