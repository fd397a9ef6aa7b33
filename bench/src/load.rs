//! Many clients at once, and what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;

/// Calls `work` with 0, 1, 2 … up to `total` from `clients` tasks, each with a client of its own and one call at a
/// time. Returns calls per second.
pub async fn drive<C, W, F>(clients: Vec<C>, total: usize, work: W) -> Result<f64, Failure>
where
    C: Send + Sync + 'static,
    W: Fn(Arc<C>, usize) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), Failure>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for client in clients.into_iter().map(Arc::new) {
        let (next, work) = (next.clone(), work.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= total {
                    return Ok::<(), Failure>(());
                }
                work(client.clone(), index).await?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

/// Some durations in order.
pub struct Durations(Vec<Duration>);

impl Durations {
    pub fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// In milliseconds: the least duration that at least `percent` of all do not exceed.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(rank).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
    }

    pub fn median_ms(&self) -> f64 {
        self.percentile_ms(50)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let all = Durations::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(all.percentile_ms(50).round(), 100.0);
        assert_eq!(all.percentile_ms(99).round(), 198.0);
        assert_eq!(all.percentile_ms(100).round(), 200.0);
        assert_eq!(Durations::new(vec![Duration::from_millis(3)]).median_ms().round(), 3.0);
    }
}
