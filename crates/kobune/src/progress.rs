//! Progress of a start, line by line with the time since the beginning.

use std::time::Duration;

use tokio::time::Instant;

/// Prints to standard error, so that standard output stays for results.
pub struct Progress {
    since: Instant,
}

impl Progress {
    pub fn start() -> Self {
        Self { since: Instant::now() }
    }

    /// `[ 0.12s] what`.
    pub fn say(&self, what: impl std::fmt::Display) {
        eprintln!("[{:>7.3}s] {what}", self.elapsed().as_secs_f64());
    }

    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}
