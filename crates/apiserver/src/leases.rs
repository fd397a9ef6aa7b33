//! Leases for objects that expire by themselves (events). Objects written within a minute share one, so that the
//! store is not full of leases.

use std::time::Duration;

use store::{LeaseId, Store, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a lease is handed out; objects live at most this much longer than asked.
const SHARED: Duration = Duration::from_secs(60);

/// The lease that is being handed out.
#[derive(Default)]
pub struct Leases {
    current: Mutex<Option<Current>>,
}

struct Current {
    lease: LeaseId,
    time_to_live: Duration,
    granted: Instant,
}

impl Leases {
    /// A lease that lasts at least `time_to_live` from now.
    pub async fn take(&self, store: &dyn Store, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(known) = &*current
            && known.time_to_live == time_to_live
            && known.granted.elapsed() < SHARED
        {
            return Ok(known.lease);
        }
        let lease = store.grant_lease(time_to_live + SHARED).await?;
        *current = Some(Current { lease, time_to_live, granted: Instant::now() });
        Ok(lease)
    }
}
