use super::*;
use std::time::Duration;

#[tokio::test]
async fn transactions_compare_and_share_a_revision() {
    let (_dir, stores) = both();
    for store in stores {
        assert_eq!(store.revision().await.unwrap(), 1);
        assert_eq!(commit(&store, vec![put("/a", "1"), put("/b", "1")]).await, 2);
        let outcome = store.txn(vec![at("/a", 2), at("/c", 0)], vec![put("/a", "2")]).await.unwrap();
        assert_eq!(outcome, Outcome::Committed(3));
        let Outcome::Mismatch(Some(found)) =
            store.txn(vec![at("/a", 2)], vec![put("/a", "3")]).await.unwrap()
        else {
            panic!("the key has moved on");
        };
        assert_eq!((found.mod_revision, found.create_revision, &found.value[..]), (3, 2, &b"2"[..]));
        assert_eq!(store.txn(vec![at("/x", 9)], vec![]).await.unwrap(), Outcome::Mismatch(None));
        // What changes nothing has no revision.
        assert_eq!(commit(&store, vec![delete("/nothing")]).await, 3);
        assert_eq!(commit(&store, vec![delete("/a")]).await, 4);
        assert_eq!(store.get("/a").await.unwrap(), None);
        let twice = store.txn(vec![], vec![put("/a", "1"), delete("/a")]).await;
        assert!(matches!(twice, Err(StoreError::DuplicateKey(_))), "{twice:?}");
        assert_eq!(store.revision().await.unwrap(), 4);
    }
}

#[tokio::test]
async fn ranges_page_and_look_back() {
    let (_dir, stores) = both();
    for store in stores {
        commit(&store, vec![put("/p/a", "1"), put("/p/b", "1"), put("/p/d", "1"), put("/q", "1")]).await;
        commit(&store, vec![put("/p/b", "2"), put("/p/c", "2"), delete("/p/d")]).await;
        commit(&store, vec![put("/p/d", "3"), delete("/p/a")]).await;
        let text = |range: store::Range| {
            let items: Vec<_> = range.items.iter().map(|i| format!("{}@{}", i.key, i.mod_revision)).collect();
            format!("{} r{} +{}", items.join(" "), range.revision, range.remaining)
        };
        let cases = [
            (None, "", 0, "/p/b@3 /p/c@3 /p/d@4 r4 +0"),
            (None, "/p/c", 1, "/p/c@3 r4 +1"),
            (Some(4), "", 2, "/p/b@3 /p/c@3 r4 +1"),
            (Some(3), "", 0, "/p/a@2 /p/b@3 /p/c@3 r3 +0"),
            (Some(2), "", 2, "/p/a@2 /p/b@2 r2 +1"),
            (Some(2), "/p/b\0", 0, "/p/d@2 r2 +0"),
            (Some(1), "", 0, " r1 +0"),
        ];
        for (at, from, limit, expected) in cases {
            assert_eq!(text(store.range("/p/", from, at, limit).await.unwrap()), expected, "{at:?} {from}");
        }
        let future = store.range("/p/", "", Some(5), 0).await;
        assert!(matches!(future, Err(StoreError::Future { asked: 5, current: 4 })), "{future:?}");
    }
}

#[tokio::test]
async fn a_watch_sees_each_later_event_once() {
    let (_dir, stores) = both();
    for store in stores {
        commit(&store, vec![put("/p/a", "1")]).await;
        commit(&store, vec![put("/p/b", "1"), put("/q/a", "1")]).await;
        let mut pods = store.watch("/p/", 2).await.unwrap();
        let mut all = store.watch("/", 1).await.unwrap();
        commit(&store, vec![put("/q/b", "1")]).await;
        commit(&store, vec![put("/p/a", "2"), delete("/q/a")]).await;
        commit(&store, vec![delete("/p/b")]).await;
        for expected in ["r3 +/p/b=1", "r5 ~/p/a=2", "r6 -/p/b"] {
            assert_eq!(show(&next(&mut pods).await.unwrap()), expected);
        }
        for expected in ["r2 +/p/a=1", "r3 +/p/b=1 +/q/a=1", "r4 +/q/b=1", "r5 ~/p/a=2 -/q/a", "r6 -/p/b"] {
            assert_eq!(show(&next(&mut all).await.unwrap()), expected);
        }
        assert!(matches!(store.watch("/p/", 7).await, Err(StoreError::Future { .. })));
    }
}

#[tokio::test]
async fn compaction_forgets_history_but_no_live_key() {
    let (_dir, stores) = both();
    for store in stores {
        for number in 0..10 {
            commit(&store, vec![put(&format!("/a{}", number % 3), &number.to_string())]).await;
        }
        let before = store.range("/", "", None, 0).await.unwrap();
        store.compact(9).await.unwrap();
        assert_eq!(store.range("/", "", None, 0).await.unwrap(), before);
        assert!(store.range("/", "", Some(9), 0).await.is_ok());
        let gone = store.range("/", "", Some(8), 0).await;
        assert!(matches!(gone, Err(StoreError::Compacted { oldest: 9 })), "{gone:?}");
        assert!(matches!(store.watch("/", 8).await, Err(StoreError::Compacted { oldest: 9 })));
        assert_eq!(show(&next(&mut store.watch("/", 9).await.unwrap()).await.unwrap()), "r10 ~/a2=8");
        assert!(matches!(store.compact(99).await, Err(StoreError::Future { .. })));
    }
}

#[tokio::test]
async fn history_is_bounded_without_compaction() {
    let store = store::memory(Options { history_events: 5, ..Options::default() });
    for _ in 0..20 {
        commit(&store, vec![put("/a", "1")]).await;
    }
    assert!(matches!(store.watch("/", 15).await, Err(StoreError::Compacted { oldest: 16 })));
    assert!(store.watch("/", 16).await.is_ok());
    let store = store::memory(Options { history_bytes: 1000, ..Options::default() });
    for _ in 0..20 {
        commit(&store, vec![put("/a", &"x".repeat(300))]).await;
    }
    assert!(matches!(store.watch("/", 17).await, Err(StoreError::Compacted { oldest: 18 })));
}

#[tokio::test]
async fn a_slow_watcher_is_told_and_dropped() {
    let store = store::memory(Options::default());
    let mut slow = store.watch("/", 1).await.unwrap();
    for _ in 0..3000 {
        commit(&store, vec![put("/a", "1")]).await;
    }
    let mut seen = 0;
    let end = loop {
        match next(&mut slow).await {
            Ok(batch) => {
                seen += 1;
                assert_eq!(batch[0].revision, seen + 1);
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(end, StoreError::Lagged));
    assert!(seen >= 1000);
    assert!(slow.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn leases_expire_as_one_revision_unless_kept_alive() {
    let store = store::memory(Options::default());
    let lease = store.grant_lease(Duration::from_secs(10)).await.unwrap();
    let leased = |key: &str| Op::Put { key: key.into(), value: Bytes::new(), lease: Some(lease) };
    commit(&store, vec![leased("/a"), leased("/b"), leased("/c"), leased("/d")]).await;
    commit(&store, vec![put("/b", "unleased"), delete("/d")]).await;
    let mut watch = store.watch("/", 3).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    store.keep_alive(lease).await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(store.get("/a").await.unwrap().is_some());
    let before = tokio::time::Instant::now();
    assert_eq!(show(&next(&mut watch).await.unwrap()), "r4 -/a -/c");
    assert!(before.elapsed() <= Duration::from_millis(1100), "{:?}", before.elapsed());
    assert!(matches!(store.keep_alive(lease).await, Err(StoreError::NoLease(_))));
    let refused = store.txn(vec![], vec![leased("/a")]).await;
    assert!(matches!(refused, Err(StoreError::NoLease(_))));
    assert_eq!(store.revision().await.unwrap(), 4);
}

#[tokio::test]
async fn a_lease_can_be_revoked() {
    let (_dir, stores) = both();
    for store in stores {
        let lease = store.grant_lease(Duration::from_secs(1000)).await.unwrap();
        let op = Op::Put { key: "/a".into(), value: Bytes::new(), lease: Some(lease) };
        commit(&store, vec![op]).await;
        store.revoke_lease(lease).await.unwrap();
        assert_eq!(store.get("/a").await.unwrap(), None);
        assert_eq!(store.revision().await.unwrap(), 3);
        assert!(store.revoke_lease(lease).await.is_err());
        assert_ne!(store.grant_lease(Duration::from_secs(1)).await.unwrap(), lease);
    }
}
