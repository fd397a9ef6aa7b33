//! Waiting for something to be true of one object.

use client::{Cache, ListOptions, Resources};
use env::Shutdown;
use machinery::{Key, Object, Status};
use tokio::sync::broadcast::error::RecvError;

/// Follows the named cluster-scoped object until `judge` says something of it.
pub async fn until<T>(
    resources: Resources,
    name: &str,
    judge: impl Fn(&Object) -> Option<T>,
) -> Result<T, Status> {
    let options = ListOptions { field_selector: format!("metadata.name={name}"), ..ListOptions::default() };
    let cache = Cache::new(resources, options, Vec::new());
    let mut events = cache.subscribe();
    let stop = Shutdown::new();
    let followed = tokio::spawn({
        let (cache, stop) = (cache.clone(), stop.clone());
        async move { cache.run(stop).await }
    });
    let key = Key::new("", name);
    let judged = loop {
        if let Some(judged) = cache.get(&key).and_then(|object| judge(&object)) {
            break Ok(judged);
        }
        // A receiver that lags looks again just the same.
        if let Err(RecvError::Closed) = events.recv().await {
            break Err(Status::internal(format!("{name} cannot be followed")));
        }
    };
    stop.cancel();
    followed.await.map_err(Status::internal)?;
    judged
}
