use super::*;
use std::path::Path;
use std::time::Duration;

fn open(dir: &Path) -> Arc<dyn Store> {
    store::open(dir, Options::default()).unwrap()
}

fn refusal(dir: &Path) -> StoreError {
    match store::open(dir, Options::default()) {
        Ok(_) => panic!("the store opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_store_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, vec![put("/a", "1"), put("/b", "1")]).await;
    commit(&store, vec![put("/a", "2")]).await;
    let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    commit(&store, vec![Op::Put { key: "/l".into(), value: Bytes::new(), lease: Some(lease) }]).await;
    commit(&store, vec![delete("/b")]).await;
    let before = store.range("", "", None, 0).await.unwrap();
    assert_eq!(before.revision, 5);
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.range("", "", None, 0).await.unwrap(), before);
    assert!(matches!(store.watch("/", 4).await, Err(StoreError::Compacted { oldest: 5 })));
    let mut watch = store.watch("/", 5).await.unwrap();
    assert_eq!(show(&next(&mut watch).await.unwrap()), "r6 -/l");
    assert_eq!(commit(&store, vec![put("/c", "1")]).await, 7);
    drop(store);
    let keys: Vec<_> = open(dir.path()).range("", "", None, 0).await.unwrap().items;
    assert_eq!(keys.iter().map(|item| &*item.key).collect::<Vec<_>>(), ["/a", "/c"]);
}

#[tokio::test]
async fn a_closed_store_has_all_in_its_database_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, vec![put("/a", "1"), put("/b", "2")]).await;
    let before = store.range("", "", None, 0).await.unwrap();
    store.close().await.unwrap();
    let late = store.txn(Vec::new(), vec![put("/c", "3")]).await;
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    assert_eq!(store.range("", "", None, 0).await.unwrap(), before);
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("store.db"), copy.path().join("store.db")).unwrap();
    assert_eq!(open(copy.path()).range("", "", None, 0).await.unwrap(), before);
}

#[tokio::test]
async fn two_openers_get_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    assert!(matches!(refusal(dir.path()), StoreError::InUse(_)));
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, vec![put("/a", "1")]).await;
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let refused = store.txn(vec![at("/a", 7)], vec![put("/a", "2")]).await.unwrap();
    assert!(matches!(refused, Outcome::Mismatch(Some(_))));
    commit(&store, vec![delete("/nothing")]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(files(), before);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let database = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    database.pragma_update(None, "user_version", 7).unwrap();
    drop(database);
    assert!(matches!(refusal(dir.path()), StoreError::NewerFormat { found: 7, known: 2 }));
}

#[tokio::test]
async fn damage_is_found_and_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..50 {
        commit(&store, vec![put(&format!("/key{number}"), &format!("needle{number}").repeat(50))]).await;
    }
    drop(store);
    let file = dir.path().join("store.db");
    let sound = std::fs::read(&file).unwrap();
    let needle = b"needle33needle33";
    let place = sound.windows(needle.len()).position(|window| window == needle).unwrap();
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 4;
        bytes
    };
    let cases = [
        ("a bit of a value", flipped(place)),
        ("the header", flipped(3)),
        ("cut off", sound[..sound.len() / 2].to_vec()),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in cases {
        std::fs::write(&file, bytes).unwrap();
        let error = refusal(dir.path());
        assert!(matches!(error, StoreError::Damaged(_)), "{name}: {error:?}");
        assert!(error.to_string().contains("restore it from a snapshot"), "{name}: {error}");
    }
    std::fs::write(&file, sound).unwrap();
    assert_eq!(open(dir.path()).range("/", "", None, 0).await.unwrap().items.len(), 50);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { quota: Some(1 << 20), ..Options::default() };
    let store = store::open(dir.path(), options).unwrap();
    let value = "x".repeat(50_000);
    let mut watch = store.watch("/", 1).await.unwrap();
    let mut written = 0;
    let error = loop {
        match store.txn(vec![], vec![put(&format!("/{written}"), &value), put("/last", &value)]).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!((10..40).contains(&written), "{written}");
    // Nothing of the refused write is there.
    let range = store.range("/", "", None, 0).await.unwrap();
    assert_eq!((range.items.len(), range.revision), (written + 1, written as u64 + 1));
    commit(&store, vec![delete("/0"), delete("/1"), delete("/2")]).await;
    commit(&store, vec![put("/again", &value)]).await;
    for revision in 2..=range.revision + 2 {
        assert_eq!(next(&mut watch).await.unwrap()[0].revision, revision);
    }
    let before = store.range("", "", None, 0).await.unwrap();
    drop(store);
    assert_eq!(open(dir.path()).range("", "", None, 0).await.unwrap(), before);
}

#[tokio::test]
async fn the_file_stays_small_when_keys_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let value = "x".repeat(4000);
    let size = || {
        let files = ["store.db", "store.log"].map(|name| std::fs::metadata(dir.path().join(name)));
        files.into_iter().map(|file| file.map_or(0, |file| file.len())).sum::<u64>()
    };
    let mut sizes = Vec::new();
    for _round in 0..4 {
        for chunk in 0..30 {
            commit(&store, (0..100).map(|n| put(&format!("/{chunk}/{n}"), &value)).collect()).await;
        }
        for chunk in 0..30 {
            commit(&store, (0..100).map(|n| delete(&format!("/{chunk}/{n}"))).collect()).await;
        }
        store.compact(store.revision().await.unwrap()).await.unwrap();
        sizes.push(size());
    }
    assert!(sizes[3] <= sizes[0] + (1 << 20), "{sizes:?}");
    drop(store);
    let database = std::fs::metadata(dir.path().join("store.db")).unwrap().len();
    assert!(database < 1 << 20, "{database}");
}

/// The files of an open store, as they would be found after a crash.
fn crashed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["store.db", "store.log"] {
        std::fs::copy(dir.join(file), copy.path().join(file)).unwrap();
    }
    copy
}

#[tokio::test]
async fn what_only_the_log_has_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let value = "x".repeat(30_000);
    // More than the log holds, so that a part is in the database; some keys are of both parts.
    for round in 0..300 {
        commit(&store, vec![put(&format!("/{}", round % 50), &value), put("/last", &round.to_string())])
            .await;
        if round % 7 == 0 {
            commit(&store, vec![delete(&format!("/{}", round % 50))]).await;
        }
    }
    let lease = store.grant_lease(Duration::from_secs(100)).await.unwrap();
    let gone = store.grant_lease(Duration::from_secs(100)).await.unwrap();
    commit(&store, vec![Op::Put { key: "/l".into(), value: Bytes::new(), lease: Some(lease) }]).await;
    store.revoke_lease(gone).await.unwrap();
    let copy = crashed(dir.path());
    let again = open(copy.path());
    let all = store.range("", "", None, 0).await.unwrap();
    assert_eq!(again.range("", "", None, 0).await.unwrap(), all);
    assert!(matches!(again.revoke_lease(gone).await, Err(StoreError::NoLease(_))));
    assert!(again.grant_lease(Duration::from_secs(1)).await.unwrap() > gone);
    again.revoke_lease(lease).await.unwrap();
    let revision = commit(&again, vec![put("/after", "1")]).await;
    drop(open(crashed(copy.path()).path()));
    drop(again);
    assert_eq!(open(copy.path()).revision().await.unwrap(), revision);
}

#[tokio::test]
async fn a_damaged_log_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..20 {
        commit(&store, vec![put(&format!("/key{number}"), &format!("needle{number}").repeat(50))]).await;
    }
    let copy = crashed(dir.path());
    let file = copy.path().join("store.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let needle = b"needle7needle7";
    let place = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[place] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    assert!(matches!(refusal(copy.path()), StoreError::Damaged(_)));
}

#[tokio::test]
async fn a_store_of_the_first_format_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, vec![put("/a", "1")]).await;
    let all = store.range("", "", None, 0).await.unwrap();
    drop(store);
    std::fs::remove_file(dir.path().join("store.log")).unwrap();
    let database = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    drop(database);
    assert_eq!(open(dir.path()).range("", "", None, 0).await.unwrap(), all);
}

#[tokio::test]
async fn a_snapshot_can_be_restored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("old"));
    commit(&store, vec![put("/a", "1"), put("/b", "2")]).await;
    let lease = store.grant_lease(Duration::from_secs(100)).await.unwrap();
    commit(&store, vec![Op::Put { key: "/l".into(), value: Bytes::new(), lease: Some(lease) }]).await;
    let file = dir.path().join("snapshot");
    assert_eq!(store.snapshot(&file).await.unwrap(), 3);
    commit(&store, vec![delete("/a")]).await;

    let new = dir.path().join("new");
    assert_eq!(store::restore(&file, &new).unwrap(), 1_000_000_003);
    assert!(store::restore(&file, &new).unwrap_err().to_string().contains("not empty"));
    let restored = open(&new);
    let items = restored.range("", "", None, 0).await.unwrap().items;
    assert_eq!(items, store.range("", "", Some(3), 0).await.unwrap().items);
    restored.revoke_lease(lease).await.unwrap();
    assert_eq!(restored.get("/l").await.unwrap(), None);

    let mut bytes = std::fs::read(&file).unwrap();
    for (name, cut) in [("flipped", false), ("cut", true)] {
        let last = bytes.len() - 40;
        if cut {
            bytes.truncate(last)
        } else {
            bytes[last] ^= 1
        }
        std::fs::write(&file, &bytes).unwrap();
        let error = store::restore(&file, &dir.path().join("never")).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{name}: {error}");
    }
    assert!(!dir.path().join("never").exists());
}
