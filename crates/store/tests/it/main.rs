//! The store through its public seam: memory and disk behave alike, and what was acknowledged survives.

mod crash;
mod disk;
mod model;
mod semantics;

use std::sync::Arc;

use bytes::Bytes;
use store::{Compare, Event, Op, Options, Outcome, Revision, Store, StoreError, Watch};

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), lease: None }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: key.into() }
}

fn at(key: &str, mod_revision: Revision) -> Compare {
    Compare { key: key.into(), mod_revision }
}

async fn commit(store: &Arc<dyn Store>, ops: Vec<Op>) -> Revision {
    match store.txn(vec![], ops).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Mismatch(found) => panic!("unconditional, yet {found:?}"),
    }
}

async fn next(watch: &mut Watch) -> Result<Arc<[Event]>, StoreError> {
    let wait = std::time::Duration::from_secs(10);
    tokio::time::timeout(wait, watch.recv()).await.expect("an event is due").expect("the watch is open")
}

/// `r3 +a=1 -b`, one word per event.
fn show(batch: &[Event]) -> String {
    let mut text = format!("r{}", batch[0].revision);
    for event in batch {
        let sign = match (&event.old, &event.new) {
            (None, Some(_)) => '+',
            (Some(_), Some(_)) => '~',
            (Some(_), None) => '-',
            (None, None) => '?',
        };
        text += &format!(" {sign}{}", event.key);
        if let Some(new) = &event.new {
            text += &format!("={}", String::from_utf8_lossy(&new.value));
        }
    }
    text
}

/// A store in memory and one on disk, to which the same happens.
fn both() -> (tempfile::TempDir, [Arc<dyn Store>; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let disk = store::open(&dir.path().join("data"), Options::default()).unwrap();
    (dir, [store::memory(Options::default()), disk])
}
