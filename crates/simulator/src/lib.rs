//! Whole control planes under a seed.
//!
//! A world has a real API server on a memory store, the real controllers and scheduler, and fake nodes. It runs on one
//! thread and on paused time, so that minutes pass in moments, and everything in it is a function of the seed: what
//! runs, which links fail and when, who is asked first. Two runs of one seed must write the same history, and after
//! the last fault everything that was asked for must run.
//!
//! It simulates no network and no disk: those are tested with real ones.

mod door;
pub mod judge;
pub mod story;
mod trace;
mod workload;
mod world;

use std::time::Duration;

use env::Env;
use env::jiff::Timestamp;
use tokio::time::Instant;

pub use story::{Event, Fault, Story};
pub use trace::Entry;
use world::World;

/// How long everything may take to recover after the last fault, in simulated time. Pods tolerate a lost node for five
/// minutes.
const PATIENCE: Duration = Duration::from_secs(1200);
/// How often the world is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(5);
/// 1 January 2026.
const START_S: i64 = 1_767_225_600;

/// What a run of a seed came to.
#[derive(Debug)]
pub struct Report {
    /// Every write to the store, in order.
    pub trace: Vec<Entry>,
    /// What must never be, and was.
    pub violations: Vec<String>,
    /// What was still missing when patience ended.
    pub missing: Option<String>,
    /// Simulated time from the last fault to the recovery.
    pub recovered: Duration,
}

impl Report {
    /// What is wrong with the run, if anything.
    pub fn fault(&self) -> Option<String> {
        self.violations.first().cloned().or_else(|| self.missing.clone())
    }

    /// Where two runs differ first.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let differs = |(a, b): &(&Entry, &Entry)| a != b;
        if let Some((a, b)) = self.trace.iter().zip(&other.trace).find(differs) {
            return Some(format!("{a:?}\n{b:?}"));
        }
        let (a, b) = (self.trace.len(), other.trace.len());
        (a != b).then(|| format!("one run wrote {a} times, the other {b} times"))
    }
}

/// Runs the world of a seed.
pub fn run(seed: u64) -> Report {
    in_time(live(seed, None))
}

/// Runs a story, with the rest of the world by a seed.
pub fn tell(seed: u64, story: Story) -> Report {
    in_time(live(seed, Some(story)))
}

fn in_time(life: impl Future<Output = Report>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O can be made");
    runtime.block_on(life)
}

async fn live(seed: u64, story: Option<Story>) -> Report {
    let start = Timestamp::from_second(START_S).expect("the start is within range");
    let env = Env::seeded(seed, start);
    let story = story.unwrap_or_else(|| Story::of(&env));
    tracing::info!(seed, ?story, "a world begins");
    let mut world = World::start(&env, &story).await;
    let begin = Instant::now();
    for event in &story.events {
        tokio::time::sleep_until(begin + event.at).await;
        tracing::info!(at = ?event.at, fault = ?event.fault, "a fault");
        world.suffer(&event.fault).await;
    }
    world.mend().await;
    let last = Instant::now();
    let mut missing = world.judge().await;
    while missing.is_some() && last.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        missing = world.judge().await;
    }
    let recovered = last.elapsed();
    let (trace, violations) = world.end().await;
    Report { trace, violations, missing, recovered }
}
