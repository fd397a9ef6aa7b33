//! The embedded runtime with a real kernel. It needs root, and busybox (Debian's `busybox-static`) for a root file
//! system.
//!
//! There is no test harness: monitors are this executable started again, and must not meet threads of a harness in
//! `main`. `it NAME…` runs the tests whose names contain one of the words.

mod adoption;
mod basics;
mod cleanup;
mod security;
mod streams;
mod world;

use std::time::Instant;

type Test = (&'static str, fn(&tokio::runtime::Runtime));

fn main() {
    if containers::is_helper() {
        containers::helper_main();
    }
    if adoption::is_manager() {
        adoption::manager_main();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let tests: Vec<Test> =
        [basics::TESTS, streams::TESTS, security::TESTS, adoption::TESTS, cleanup::TESTS].concat();
    if arguments.iter().any(|word| word == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if let Some(reason) = world::why_not() {
        println!("skipped: {reason}");
        return;
    }
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut failed = Vec::new();
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name)) {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("the runtime can be built");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&runtime)));
        runtime.shutdown_background();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.0?})", started.elapsed());
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        std::process::exit(1);
    }
}
