//! Carries plans out, for everybody.

use client::{Caches, Deleted, Target, WriteOptions};
use futures::{StreamExt, stream};
use machinery::Status;

use crate::{Action, Plan, Recorder};

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
    recorder: Recorder,
    manager: String,
}

impl Executor {
    /// `manager` is the field manager of all writes.
    pub fn new(caches: Caches, recorder: Recorder, manager: &str) -> Self {
        Self { caches, recorder, manager: manager.to_owned() }
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
        let transport = self.caches.client().transport();
        let options = WriteOptions { field_manager: self.manager.clone(), ..WriteOptions::default() };
        let (target, object) = match action {
            Action::Create { target, body } => {
                let object = transport.create(&target, body, &options).await?;
                (target, object)
            }
            Action::Update { target, body } => {
                let object = transport.update(&target, body, &options).await?;
                (target, object)
            }
            Action::Patch { target, patch } => {
                let object = transport.patch(&target, patch, &options).await?;
                (target, object)
            }
            Action::Delete { target, options } => match transport.delete(&target, &options).await {
                Ok(Deleted::Now(object) | Deleted::Later(object)) => (target, object),
                Err(status) if status.is_not_found() => return Ok(None),
                Err(status) => return Err(status),
            },
            Action::Event(event) => {
                self.recorder.record(event);
                return Ok(None);
            }
        };
        Ok(Some(Written { revision: object.revision(), target }))
    }

    /// The read-your-writes barrier. What a subresource returns may be another kind with a revision of its own
    /// meaning, so only writes of objects and statuses are waited for.
    async fn seen(&self, written: &Written) {
        if matches!(written.target.subresource.as_str(), "" | "status") {
            self.caches.target(&written.target).reached(written.revision).await;
        }
    }
}
