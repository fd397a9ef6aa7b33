//! A child writes and says what was acknowledged; it is killed at a random moment; nothing it said may be gone.

use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ROUNDS: usize = 40;
const WRITERS: usize = 8;
const DIRECTORY: &str = "STORE_CRASH_TEST_DIRECTORY";
const ROUND: &str = "STORE_CRASH_TEST_ROUND";

/// Not a test of its own: what the child process of the test below runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let round: usize = std::env::var(ROUND).unwrap().parse().unwrap();
    let store = store::open(Path::new(&dir), Options::default()).unwrap();
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer, round)));
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Counts a pair of keys up, both in one transaction; the odd writers delete their pair every third time.
async fn write(store: Arc<dyn Store>, writer: usize, round: usize) {
    for count in 0..100_000 {
        let (left, right) = (format!("/w{writer}/left"), format!("/w{writer}/right"));
        let value = format!("{round:03}-{count:06}").repeat(1 + count % 200);
        let gone = writer % 2 == 1 && count % 3 == 2;
        let ops = if gone {
            vec![delete(&left), delete(&right)]
        } else {
            vec![put(&left, &value), put(&right, &value)]
        };
        let revision = commit(&store, ops).await;
        let value = if gone { "" } else { &value[..10] };
        println!("acknowledged {writer} {revision} {value}");
    }
}

fn start(dir: &Path, round: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(DIRECTORY, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the child said, up to its last complete line: writer → (revision, value).
fn kill_after(mut child: Child, wait: Duration) -> BTreeMap<usize, (Revision, String)> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("acknowledged") {
        assert_ne!(out.read_line(&mut text).unwrap(), 0, "the child ended: {text}");
    }
    let reader = std::thread::spawn(move || {
        out.read_to_string(&mut text).unwrap();
        text
    });
    std::thread::sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
    let text = reader.join().unwrap();
    let whole = &text[..text.rfind('\n').unwrap_or(0)];
    let mut said = BTreeMap::new();
    for line in whole.lines().filter_map(|line| line.split("acknowledged ").nth(1)) {
        let mut words = line.split(' ');
        let (writer, revision) = (words.next().unwrap(), words.next().unwrap());
        let value = words.next().unwrap_or("").to_owned();
        said.insert(writer.parse().unwrap(), (revision.parse().unwrap(), value));
    }
    said
}

#[tokio::test]
async fn acknowledged_writes_survive_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let random = env::Env::system();
    let mut highest = 1;
    for round in 0..ROUNDS {
        let wait = Duration::from_micros(random.random_u64() % 60_000);
        let said = kill_after(start(dir.path(), round), wait);
        let store = store::open(dir.path(), Options::default()).unwrap();
        let revision = store.revision().await.unwrap();
        assert!(revision > highest, "round {round}: {revision} after {highest}");
        for (writer, (acknowledged, value)) in said {
            assert!(acknowledged <= revision, "round {round}: {acknowledged} was lost");
            check_pair(&store, writer, acknowledged, &value).await;
        }
        highest = revision;
    }
}

/// Both keys are in the same state, and it is the acknowledged one or a later one.
async fn check_pair(store: &Arc<dyn Store>, writer: usize, acknowledged: Revision, value: &str) {
    let left = store.get(&format!("/w{writer}/left")).await.unwrap();
    let right = store.get(&format!("/w{writer}/right")).await.unwrap();
    let state = |pair: &Option<store::KeyValue>| pair.clone().map(|pair| (pair.mod_revision, pair.value));
    assert_eq!(state(&left), state(&right), "writer {writer}: a transaction was torn");
    match left {
        // A delete leaves no revision behind; it is either the acknowledged one or one in flight.
        None => assert_eq!(writer % 2, 1),
        Some(pair) => {
            assert!(pair.mod_revision >= acknowledged, "writer {writer}: {acknowledged} was lost");
            if pair.mod_revision == acknowledged {
                assert!(pair.value.starts_with(value.as_bytes()));
            } else {
                assert!(value.is_empty() || pair.value[..] > *value.as_bytes());
            }
        }
    }
}
