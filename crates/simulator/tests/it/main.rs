//! Worlds of many seeds. `KOBUNE_SEED=N` runs that seed alone and tells its story.

use std::time::Duration;

use simulator::{Event, Fault, Report, Story};

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

/// When nodes are cut off.
const CUT_S: u64 = 60;
/// By then whoever had to leave them has left: 40 s until they are lost, 300 s that pods stay, and 10 s per node.
const LEFT_S: u64 = CUT_S + 500;

fn at(second: u64, fault: Fault) -> Event {
    Event { at: Duration::from_secs(second), fault }
}

fn story(nodes: usize, zones: usize, events: Vec<Event>) -> Story {
    Story { nodes, zones, replicas: 10, clocks: Vec::new(), events }
}

/// The nodes that a pod was driven from.
fn evicted_from(report: &Report) -> std::collections::BTreeSet<usize> {
    let evictions = report.trace.iter().filter(|entry| entry.text.contains("DeletionByTaintManager"));
    let node = |text: &str| {
        let name = text.split("\"nodeName\":\"fake-").nth(1)?;
        name.split('"').next()?.parse().ok()
    };
    evictions.map(|entry| node(&entry.text).expect("a pod that is evicted has a node")).collect()
}

#[test]
fn most_nodes_of_a_zone_are_not_given_up() {
    for (nodes, zones, lost, evicted) in [
        (6, 0, vec![4], vec![4]),
        (6, 0, vec![0, 1, 2], vec![0, 1, 2]),
        (6, 0, vec![0, 1, 2, 3], vec![]),
        (6, 0, vec![0, 1, 2, 3, 4, 5], vec![]),
        // The even ones are in one zone, the odd ones in the other.
        (6, 2, vec![0, 2, 4], vec![0, 2, 4]),
        (10, 2, vec![0, 1, 2, 4, 6], vec![1]),
    ] {
        let cut = lost.iter().map(|node| at(CUT_S, Fault::Cut(*node)));
        let mend = lost.iter().map(|node| at(LEFT_S, Fault::Mend(*node)));
        let report = simulator::tell(1, story(nodes, zones, cut.chain(mend).collect()));
        assert_eq!(report.fault(), None, "{lost:?} of {nodes}");
        assert_eq!(Vec::from_iter(evicted_from(&report)), evicted, "{lost:?} of {nodes}");
    }
}

#[test]
fn nodes_are_given_up_when_enough_others_return() {
    let cut = (0..5).map(|node| at(CUT_S, Fault::Cut(node)));
    let some = [1, 3].map(|node| at(LEFT_S, Fault::Mend(node)));
    let rest = [0, 2, 4].map(|node| at(LEFT_S * 2, Fault::Mend(node)));
    let report = simulator::tell(1, story(6, 0, cut.chain(some).chain(rest).collect()));
    assert_eq!(report.fault(), None);
    assert_eq!(Vec::from_iter(evicted_from(&report)), [0, 2, 4]);
}

#[test]
fn a_clock_an_hour_off_changes_nothing() {
    let events =
        || vec![at(CUT_S, Fault::Cut(5)), at(LEFT_S, Fault::Mend(5)), at(LEFT_S * 2, Fault::Mend(5))];
    let wrong = Story { clocks: vec![3600, -3600, 3600, -3600, 0, 3600], ..story(6, 0, events()) };
    for story in [story(6, 0, events()), wrong] {
        let clocks = story.clocks.clone();
        let report = simulator::tell(1, story);
        assert_eq!(report.fault(), None, "{clocks:?}");
        assert_eq!(Vec::from_iter(evicted_from(&report)), [5], "{clocks:?}");
        let lost = |entry: &&simulator::Entry| {
            entry.key.starts_with("/registry/minions/")
                && entry.text.contains("node.kubernetes.io/unreachable")
        };
        let names: std::collections::BTreeSet<&str> =
            report.trace.iter().filter(lost).filter_map(|entry| entry.key.rsplit('/').next()).collect();
        assert_eq!(Vec::from_iter(names), ["fake-5"], "{clocks:?}");
    }
}
