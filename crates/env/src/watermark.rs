//! A number that only grows, and those who wait for it to.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// How far something has come. Those who wait are woken in the order in which they came; a `watch` channel wakes them
/// in a random one, so that no seed could replay what they do.
#[derive(Debug)]
pub struct Watermark {
    level: AtomicU64,
    raised: Notify,
}

impl Watermark {
    pub fn new(level: u64) -> Self {
        Self { level: AtomicU64::new(level), raised: Notify::new() }
    }

    pub fn level(&self) -> u64 {
        self.level.load(Ordering::Acquire)
    }

    /// Raises the level to at least `level`.
    pub fn raise(&self, level: u64) {
        if self.level.fetch_max(level, Ordering::AcqRel) < level {
            self.raised.notify_waiters();
        }
    }

    /// Waits until the level is at least `level`.
    pub async fn reached(&self, level: u64) {
        while self.level() < level {
            let raised = self.raised.notified();
            tokio::pin!(raised);
            // What is raised between the look and the wait must not be missed.
            raised.as_mut().enable();
            if self.level() < level {
                raised.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn waiters_wake_in_the_order_in_which_they_came() {
        let mark = Arc::new(Watermark::new(1));
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = [5, 3, 4, 5, 2]
            .into_iter()
            .map(|level| {
                let (mark, woken) = (mark.clone(), woken.clone());
                tokio::spawn(async move {
                    mark.reached(level).await;
                    woken.lock().unwrap().push(level);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        mark.raise(4);
        mark.raise(3);
        tokio::task::yield_now().await;
        mark.raise(9);
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!((&**woken.lock().unwrap(), mark.level()), (&[3, 4, 2, 5, 5][..], 9));
    }
}
