//! Worlds of many seeds. `KOBUNE_SEED=N` runs that seed alone and tells its story.

use simulator::Report;

/// Runs a seed twice: both must write the same history, break no rule and recover.
fn check(seed: u64) -> Report {
    let (one, two) = (simulator::run(seed), simulator::run(seed));
    if let Some(fault) = one.fault() {
        panic!("seed {seed}: {fault}\nreplay with KOBUNE_SEED={seed}");
    }
    if let Some(difference) = one.difference(&two) {
        panic!("two runs of seed {seed} differ:\n{difference}");
    }
    one
}

fn seeds(from: u64, to: u64) {
    if let Some(seed) = std::env::var("KOBUNE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        tracing_subscriber::fmt().with_env_filter("simulator=info,warn").init();
        let report = check(seed);
        println!("{} writes, recovered after {:?}", report.trace.len(), report.recovered);
        return;
    }
    for seed in from..to {
        let report = check(seed);
        println!("seed {seed}: {} writes, recovered after {:?}", report.trace.len(), report.recovered);
    }
}

#[test]
fn worlds_recover() {
    seeds(0, 12);
}

#[test]
fn more_worlds_recover() {
    // The other half, so that two threads share the work.
    if std::env::var_os("KOBUNE_SEED").is_none() {
        seeds(12, 24);
    }
}

#[test]
fn other_seeds_are_other_worlds() {
    let (one, two) = (simulator::run(1), simulator::run(2));
    assert!(one.difference(&two).is_some());
}
