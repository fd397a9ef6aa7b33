//! The outside world as a value: wall clock and randomness.
//!
//! Nothing else in the workspace reads a system clock or a random source, so a whole control plane can run
//! on paused time under a seed and a failure is replayed by that seed. Timers are `tokio::time`'s, which the
//! simulator pauses; the seeded wall clock follows them.

mod watermark;

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

pub use jiff;
/// Tells every task that holds a clone to stop. Cancelling a child leaves its parent running.
pub use tokio_util::sync::CancellationToken as Shutdown;
pub use watermark::Watermark;

/// The letters and digits upstream uses in generated names: no vowels, so no words are formed.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Wall clock and randomness. Cheap to clone; clones share the random stream.
#[derive(Clone)]
pub struct Env {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    random: Mutex<StdRng>,
}

enum Clock {
    System,
    /// Starts at the given time and advances with `tokio::time`.
    Paced {
        start: Timestamp,
        origin: Instant,
    },
}

impl Env {
    /// The machine's clock and a stream of randomness seeded by the operating system.
    pub fn system() -> Self {
        Self::new(Clock::System, StdRng::from_os_rng())
    }

    /// A world that is a function of `seed`: its clock starts at `start` and follows `tokio::time`.
    /// Must be called inside a tokio runtime.
    pub fn seeded(seed: u64, start: Timestamp) -> Self {
        Self::new(Clock::Paced { start, origin: Instant::now() }, StdRng::seed_from_u64(seed))
    }

    fn new(clock: Clock, random: StdRng) -> Self {
        Self { inner: Arc::new(Inner { clock, random: Mutex::new(random) }) }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        match &self.inner.clock {
            Clock::System => Timestamp::now(),
            Clock::Paced { start, origin } => {
                let elapsed =
                    jiff::SignedDuration::try_from(origin.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
                start.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// A uniformly distributed number.
    pub fn random_u64(&self) -> u64 {
        self.random().next_u64()
    }

    /// Fills `bytes` with randomness fit for keys when the environment is [`Env::system`].
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.random().fill_bytes(bytes);
    }

    /// `length` characters from the alphabet upstream uses for generated names.
    pub fn name_suffix(&self, length: usize) -> String {
        let mut random = self.random();
        (0..length)
            .map(|_| char::from(NAME_ALPHABET[random.next_u64() as usize % NAME_ALPHABET.len()]))
            .collect()
    }

    /// A random (version 4) UUID in lower case with hyphens.
    pub fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.fill_random(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn random(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.inner.random.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_seed_replays_names_and_time() {
        let start = Timestamp::UNIX_EPOCH;
        let (a, b) = (Env::seeded(7, start), Env::seeded(7, start));
        assert_eq!((a.name_suffix(5), a.uuid()), (b.name_suffix(5), b.uuid()));
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        assert_eq!(a.now().as_second(), 90);
    }
}
