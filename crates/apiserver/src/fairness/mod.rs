//! How many requests are served at a time. Those above the limits are told to come back.
//!
//! Reads and writes are counted apart, so that neither starves the other; long-running requests are not counted, and
//! the cluster's own administrators are never turned away.

mod schemas;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use auth::User;
use auth::user::MASTERS_GROUP;
use machinery::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cache::Cache;
use schemas::Schema;

pub use schemas::Asked;

/// Upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
const READS_MAX: usize = 400;
const WRITES_MAX: usize = 200;
const RETRY_AFTER_S: u32 = 1;

/// Where FlowSchemas and PriorityLevelConfigurations are stored.
const SCHEMAS: &str = "/registry/flowschemas/";
const LEVELS: &str = "/registry/prioritylevelconfigurations/";

/// The counters, and what requests are sorted by.
pub struct Fairness {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    known: ArcSwap<Known>,
}

/// FlowSchemas as they were at some revision.
#[derive(Default)]
struct Known {
    /// The newest changes of schemas and of levels.
    at: (u64, u64),
    schemas: Vec<Schema>,
    /// Uids of levels by name.
    levels: BTreeMap<String, String>,
}

/// What a request belongs to: uids of its FlowSchema and PriorityLevelConfiguration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub schema: String,
    pub level: String,
}

/// The kinds of requests that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    ReadOnly,
    Mutating,
    /// Watches, logs and connections: they hold no place in the queue.
    LongRunning,
}

/// A place that is held while a request runs; `None`: the request is exempt.
pub type Place = Option<OwnedSemaphorePermit>;

impl Default for Fairness {
    fn default() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(READS_MAX)),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
            known: ArcSwap::default(),
        }
    }
}

impl Fairness {
    /// Takes a place or refuses at once.
    pub fn enter(&self, user: &User, class: Class) -> Result<Place, Status> {
        let seats = match class {
            Class::LongRunning => return Ok(None),
            _ if user.is_in(MASTERS_GROUP) => return Ok(None),
            Class::ReadOnly => &self.reads,
            Class::Mutating => &self.writes,
        };
        seats.clone().try_acquire_owned().map(Some).map_err(|_full| {
            Status::too_many_requests("too many requests, please try again later", RETRY_AFTER_S)
        })
    }

    /// What a request belongs to; `None` while there are no schemas.
    pub fn flow(&self, cache: &Cache, asked: Asked<'_>) -> Option<Flow> {
        let known = self.known(cache)?;
        let schema = schemas::find(&known.schemas, asked)?;
        let level = known.levels.get(&schema.level).cloned().unwrap_or_default();
        Some(Flow { schema: schema.uid.clone(), level })
    }

    /// The schemas as they are now, compiled anew when one changed.
    fn known(&self, cache: &Cache) -> Option<Arc<Known>> {
        let (schemas, levels) = (cache.collection(SCHEMAS).ok()?, cache.collection(LEVELS).ok()?);
        let known = self.known.load_full();
        if known.at == (schemas.changed(), levels.changed()) {
            return Some(known);
        }
        let (objects, schemas_at) = schemas.objects();
        let (levels, levels_at) = levels.objects();
        let fresh = Arc::new(Known {
            at: (schemas_at, levels_at),
            schemas: schemas::compiled(objects.iter().map(|object| object.value())),
            levels: levels
                .iter()
                .map(|level| (level.meta().name.clone(), level.meta().uid.clone()))
                .collect(),
        });
        self.known.store(fresh.clone());
        Some(fresh)
    }

    /// How many places are taken: reads, writes.
    pub fn taken(&self) -> (usize, usize) {
        (READS_MAX - self.reads.available_permits(), WRITES_MAX - self.writes.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_means_429_but_not_for_administrators_or_watches() {
        let fairness = Fairness::default();
        let user = User::new("jane", &[]);
        let held: Vec<_> = (0..WRITES_MAX).map(|_| fairness.enter(&user, Class::Mutating).unwrap()).collect();
        let refused = fairness.enter(&user, Class::Mutating).unwrap_err();
        assert_eq!((refused.code, refused.details.as_ref().unwrap().retry_after_seconds), (429, 1));
        assert!(fairness.enter(&user, Class::ReadOnly).is_ok());
        assert!(fairness.enter(&user, Class::LongRunning).is_ok());
        assert!(fairness.enter(&User::system_masters("root"), Class::Mutating).is_ok());
        drop(held);
        assert_eq!(fairness.taken(), (0, 0));
    }
}
