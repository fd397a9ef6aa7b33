//! How many requests are served at a time. Those above the limits are told to come back.
//!
//! Reads and writes are counted apart, so that neither starves the other; long-running requests are not counted, and
//! the cluster's own administrators are never turned away.

use std::sync::Arc;

use auth::User;
use auth::user::MASTERS_GROUP;
use machinery::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
const READS_MAX: usize = 400;
const WRITES_MAX: usize = 200;
const RETRY_AFTER_S: u32 = 1;

/// The counters.
pub struct Fairness {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
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
        Self { reads: Arc::new(Semaphore::new(READS_MAX)), writes: Arc::new(Semaphore::new(WRITES_MAX)) }
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
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(fairness.enter(&user, Class::ReadOnly).is_ok());
        assert!(fairness.enter(&user, Class::LongRunning).is_ok());
        assert!(fairness.enter(&User::system_masters("root"), Class::Mutating).is_ok());
        drop(held);
        assert_eq!(fairness.taken(), (0, 0));
    }
}
