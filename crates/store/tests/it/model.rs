//! Random histories against a model that keeps every past state as a whole.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const KEYS: [&str; 6] = ["/a", "/a/b", "/a/c", "/b", "/b/x", "/c"];
const PREFIXES: [&str; 4] = ["", "/a", "/a/", "/b"];

#[derive(Clone, Debug)]
enum Step {
    /// Writes (key → put or delete); whether to compare first, and whether with the right revision.
    Txn {
        writes: Vec<(usize, bool)>,
        compare: Option<(usize, bool)>,
        leased: bool,
    },
    Range {
        prefix: usize,
        from: usize,
        back: u64,
        limit: usize,
    },
    Watch {
        prefix: usize,
        back: u64,
    },
    Compact {
        back: u64,
    },
    Grant,
    Revoke,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.7)), 0..4);
    let compare = prop::option::of((0..KEYS.len(), any::<bool>()));
    let txn = (writes, compare, prop::bool::weighted(0.2));
    let step = prop_oneof![
        12 => txn.prop_map(|(writes, compare, leased)| Step::Txn { writes, compare, leased }),
        5 => (0..PREFIXES.len(), 0..KEYS.len(), 0u64..12, 0usize..4)
            .prop_map(|(prefix, from, back, limit)| Step::Range { prefix, from, back, limit }),
        3 => (0..PREFIXES.len(), 0u64..12).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => (0u64..6).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Grant),
        1 => Just(Step::Revoke),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Clone, Debug, PartialEq)]
struct Value {
    text: String,
    created: Revision,
    modified: Revision,
    lease: Option<u64>,
}

type Snapshot = BTreeMap<&'static str, Value>;

/// Every state there ever was, by revision; `states[0]` is revision 1.
struct Model {
    states: Vec<Snapshot>,
    compacted: Revision,
    lease: Option<u64>,
    counter: u64,
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as u64
    }

    fn state(&self, revision: Revision) -> &Snapshot {
        &self.states[revision as usize - 1]
    }

    fn push(&mut self, state: Snapshot) {
        if &state != self.state(self.revision()) {
            self.states.push(state);
        }
    }

    /// The revision `back` before the present one.
    fn before(&self, back: u64) -> Revision {
        self.revision().saturating_sub(back).max(1)
    }

    /// The events at `revision` as text.
    fn events(&self, prefix: &str, revision: Revision) -> Option<String> {
        let (old, new) = (self.state(revision - 1), self.state(revision));
        let mut words = Vec::new();
        for key in KEYS.iter().filter(|key| key.starts_with(prefix)) {
            match (old.get(key), new.get(key)) {
                (None, Some(new)) => words.push(format!("+{key}={}", new.text)),
                (Some(_), None) => words.push(format!("-{key}")),
                (Some(old), Some(new)) if old != new => words.push(format!("~{key}={}", new.text)),
                _ => {}
            }
        }
        (!words.is_empty()).then(|| format!("r{revision} {}", words.join(" ")))
    }
}

/// An open watch: its prefix and the last revision that was checked.
struct Watching {
    watch: Watch,
    prefix: &'static str,
    seen: Revision,
}

struct Run {
    store: Option<Arc<dyn Store>>,
    dir: Option<tempfile::TempDir>,
    model: Model,
    watches: Vec<Watching>,
}

impl Run {
    fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Txn { writes, compare, leased } => self.txn(writes, compare, leased).await,
            Step::Range { prefix, from, back, limit } => {
                self.range(PREFIXES[prefix], KEYS[from], self.model.before(back), limit).await;
            }
            Step::Watch { prefix, back } => self.watch(PREFIXES[prefix], self.model.before(back)).await,
            Step::Compact { back } => {
                let revision = self.model.before(back);
                self.store().compact(revision).await.unwrap();
                self.model.compacted = self.model.compacted.max(revision);
            }
            Step::Grant => {
                self.model.lease = Some(self.store().grant_lease(Duration::from_secs(3600)).await.unwrap());
            }
            Step::Revoke => self.revoke().await,
            Step::Reopen => self.reopen(),
        }
        assert_eq!(self.store().revision().await.unwrap(), self.model.revision());
        self.check_watches().await;
    }

    async fn txn(&mut self, mut writes: Vec<(usize, bool)>, compare: Option<(usize, bool)>, leased: bool) {
        writes.sort();
        writes.dedup_by_key(|write| write.0);
        let lease = self.model.lease.filter(|_| leased);
        let current = self.model.state(self.model.revision()).clone();
        let condition = compare.map(|(key, right)| {
            let modified = current.get(KEYS[key]).map_or(0, |value| value.modified);
            at(KEYS[key], if right { modified } else { modified + 1000 })
        });
        self.model.counter += 1;
        let text = self.model.counter.to_string();
        let ops = writes.iter().map(|(key, is_put)| match is_put {
            true => Op::Put { key: KEYS[*key].into(), value: text.clone().into(), lease },
            false => delete(KEYS[*key]),
        });
        let outcome = self.store().txn(condition.into_iter().collect(), ops.collect()).await.unwrap();
        if let Some((key, false)) = compare {
            let Outcome::Mismatch(found) = outcome else { panic!("{outcome:?}") };
            assert_eq!(
                found.map(|pair| pair.mod_revision),
                current.get(KEYS[key]).map(|value| value.modified)
            );
            return;
        }
        let mut state = current;
        let revision = self.model.revision() + 1;
        for (key, is_put) in writes {
            let created = state.get(KEYS[key]).map_or(revision, |value| value.created);
            match is_put {
                true => {
                    state.insert(KEYS[key], Value { text: text.clone(), created, modified: revision, lease });
                }
                false => {
                    state.remove(KEYS[key]);
                }
            }
        }
        self.model.push(state);
        assert_eq!(outcome, Outcome::Committed(self.model.revision()));
    }

    async fn range(&mut self, prefix: &str, from: &str, at: Revision, limit: usize) {
        let range = self.store().range(prefix, from, Some(at), limit).await;
        if at < self.model.compacted {
            assert!(matches!(range, Err(StoreError::Compacted { .. })), "{range:?}");
            return;
        }
        let range = range.unwrap();
        let expected: Vec<_> = self
            .model
            .state(at)
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && **key >= from)
            .map(|(key, value)| ((*key).to_owned(), value.text.clone(), value.created, value.modified))
            .collect();
        let found: Vec<_> = range
            .items
            .iter()
            .map(|pair| {
                let text = String::from_utf8_lossy(&pair.value).into_owned();
                (pair.key.to_string(), text, pair.create_revision, pair.mod_revision)
            })
            .collect();
        let size = if limit == 0 { expected.len() } else { limit.min(expected.len()) };
        assert_eq!(found, expected[..size]);
        assert_eq!(range.remaining as usize, expected.len() - size);
    }

    async fn watch(&mut self, prefix: &'static str, after: Revision) {
        let watch = self.store().watch(prefix, after).await;
        if after < self.model.compacted {
            assert!(matches!(watch, Err(StoreError::Compacted { .. })));
            return;
        }
        self.watches.push(Watching { watch: watch.unwrap(), prefix, seen: after });
    }

    async fn check_watches(&mut self) {
        for watching in &mut self.watches {
            for revision in watching.seen + 1..=self.model.revision() {
                if let Some(expected) = self.model.events(watching.prefix, revision) {
                    assert_eq!(show(&next(&mut watching.watch).await.unwrap()), expected);
                }
            }
            watching.seen = self.model.revision();
            assert!(watching.watch.try_recv().is_err());
        }
    }

    async fn revoke(&mut self) {
        let Some(lease) = self.model.lease.take() else { return };
        self.store().revoke_lease(lease).await.unwrap();
        let mut state = self.model.state(self.model.revision()).clone();
        state.retain(|_, value| value.lease != Some(lease));
        self.model.push(state);
    }

    fn reopen(&mut self) {
        if let Some(dir) = &self.dir {
            self.watches.clear();
            self.store = None;
            self.store = Some(store::open(dir.path(), Options::default()).unwrap());
            self.model.compacted = self.model.revision();
        }
    }
}

fn run(steps: Vec<Step>, on_disk: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = on_disk.then(|| tempfile::tempdir().unwrap());
        let store = match &dir {
            Some(dir) => store::open(dir.path(), Options::default()).unwrap(),
            None => store::memory(Options::default()),
        };
        let model = Model { states: vec![Snapshot::new()], compacted: 1, lease: None, counter: 0 };
        let mut run = Run { store: Some(store), dir, model, watches: Vec::new() };
        for step in steps {
            run.step(step).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_follows_the_model(steps in steps()) {
        run(steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn disk_follows_the_model(steps in steps()) {
        run(steps, true);
    }
}
