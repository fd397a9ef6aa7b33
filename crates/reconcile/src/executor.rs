//! Carries plans out, for everybody.

use std::sync::Arc;

use client::{Caches, Client, Deleted, Target, WriteOptions};
use futures::{StreamExt, stream};
use machinery::{Object, Status};

use crate::{Action, Plan, Recorder, Reference};

/// How many actions of one plan are under way at once.
const CONCURRENCY: usize = 16;

/// A write that a cache must show before its key is judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub target: Target,
    pub revision: u64,
}

/// Applies actions through the API.
#[derive(Clone)]
pub struct Executor {
    caches: Caches,
    client: Client,
    recorder: Recorder,
    manager: String,
}

impl Executor {
    /// Writes with `client`, waits for what it wrote in `caches`. `manager` is the field manager of all writes.
    pub fn new(caches: Caches, client: Client, recorder: Recorder, manager: &str) -> Self {
        Self { caches, client, recorder, manager: manager.to_owned() }
    }

    /// Carries out a plan. All actions are tried; the first failure is returned after the status was written.
    /// Returns when the caches have seen every write.
    pub async fn apply(&self, plan: Plan) -> Result<(), Status> {
        let results: Vec<_> = stream::iter(plan.actions)
            .map(|action| self.act(action))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let status = match plan.status {
            Some(action) => self.act(action).await,
            None => Ok(None),
        };
        let mut failure = None;
        for result in results.into_iter().chain([status]) {
            match result {
                Ok(Some(written)) => self.seen(&written).await,
                Ok(None) => {}
                Err(status) => failure = failure.or(Some(status)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn act(&self, action: Action) -> Result<Option<Written>, Status> {
        let transport = self.client.transport();
        let options = WriteOptions { field_manager: self.manager.clone(), ..WriteOptions::default() };
        let (target, object) = match action {
            Action::Create { target, body, announce } => {
                let result = transport.create(&target, body, &options).await;
                self.announce_create(announce, &target, &result);
                (target, result?)
            }
            Action::Update { target, body } => {
                let object = transport.update(&target, body, &options).await?;
                (target, object)
            }
            Action::Patch { target, patch } => {
                let object = transport.patch(&target, patch, &options).await?;
                (target, object)
            }
            Action::Delete { target, options, announce } => {
                let result = transport.delete(&target, &options).await;
                self.announce_delete(announce, &target, &result);
                match result {
                    Ok(Deleted::Now(object) | Deleted::Later(object)) => (target, object),
                    Err(status) if status.is_not_found() => return Ok(None),
                    Err(status) => return Err(status),
                }
            }
            Action::Event(event) => {
                self.recorder.record(event);
                return Ok(None);
            }
        };
        Ok(Some(Written { revision: object.revision(), target }))
    }

    fn announce_create(
        &self,
        owner: Option<Reference>,
        target: &Target,
        result: &Result<Arc<Object>, Status>,
    ) {
        let Some(owner) = owner else { return };
        match result {
            Ok(object) => {
                let message = format!("Created {}: {}", singular(target), object.meta().name);
                self.recorder.event(&owner, false, "SuccessfulCreate", message);
            }
            Err(status) => {
                self.recorder.event(&owner, true, "FailedCreate", format!("Error creating: {status}"))
            }
        }
    }

    fn announce_delete(&self, owner: Option<Reference>, target: &Target, result: &Result<Deleted, Status>) {
        let Some(owner) = owner else { return };
        match result {
            Ok(_) => {
                let message = format!("Deleted {}: {}", singular(target), target.name);
                self.recorder.event(&owner, false, "SuccessfulDelete", message);
            }
            Err(status) => {
                self.recorder.event(&owner, true, "FailedDelete", format!("Error deleting: {status}"))
            }
        }
    }

    /// The read-your-writes barrier. What a subresource returns may be another kind with a revision of its own
    /// meaning, so only writes of objects and statuses are waited for.
    async fn seen(&self, written: &Written) {
        if matches!(written.target.subresource.as_str(), "" | "status") {
            self.caches.target(&written.target).reached(written.revision).await;
        }
    }
}

/// `pod` for `pods`: what events call the thing.
fn singular(target: &Target) -> &str {
    target.resource.strip_suffix('s').unwrap_or(&target.resource)
}
