//! `kill -9`, again and again, with work under way: nothing acknowledged is lost, and pods go on as if nothing happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, fetch};

const ROUNDS: usize = 12;
const WRITERS: usize = 8;

/// Name, container ID and restart count of each pod of the example.
fn containers(cluster: &Cluster) -> BTreeSet<(String, String, i64)> {
    let list = cluster.json(&["get", "pods", "-l", "run=my-nginx"]);
    let one = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&pod["metadata"]["name"]),
            text(&status["containerID"]),
            status["restartCount"].as_i64().unwrap_or(-1),
        )
    };
    list["items"].as_array().unwrap().iter().map(one).collect()
}

fn each_answers(cluster: &Cluster, count: usize) {
    for (name, address) in cluster.wait_for_pods("run=my-nginx", count) {
        assert_eq!(fetch(&format!("{address}:80")).unwrap(), name);
    }
}

/// What the server has said of each object: the count it holds, or `None` once it is deleted. An object whose last
/// write was not answered is in neither state for certain and is not in the map.
type Acknowledged = BTreeMap<String, Option<u64>>;

/// What all writers know.
#[derive(Default)]
struct Ledger {
    sure: Mutex<Acknowledged>,
    revision_max: std::sync::atomic::AtomicU64,
    stop: AtomicBool,
    answered: std::sync::atomic::AtomicUsize,
}

impl Ledger {
    fn note(&self, name: &str, count: Option<u64>, revision: Option<&str>) {
        self.sure.lock().unwrap().insert(name.to_owned(), count);
        self.answered.fetch_add(1, Ordering::Relaxed);
        let revision = revision.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.revision_max.fetch_max(revision, Ordering::Relaxed);
    }

    fn forget(&self, name: &str) {
        self.sure.lock().unwrap().remove(name);
    }
}

/// Creates, counts up and deletes objects of its own until told to stop; goes on to the next object when the server
/// does not answer.
async fn write(maps: Api<ConfigMap>, ledger: Arc<Ledger>, round: usize, writer: usize) {
    for index in 0.. {
        let name = format!("w-{round}-{writer}-{index}");
        let mut count = 0;
        while count < 4 {
            if ledger.stop.load(Ordering::Relaxed) {
                return;
            }
            ledger.forget(&name);
            let answer = match count {
                0 => {
                    let map = json!({"metadata": {"name": name}, "data": {"count": "1"}});
                    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await
                }
                _ => {
                    let patch = Patch::Merge(json!({"data": {"count": (count + 1).to_string()}}));
                    maps.patch(&name, &PatchParams::default(), &patch).await
                }
            };
            let Ok(object) = answer else { break };
            count += 1;
            ledger.note(&name, Some(count), object.metadata.resource_version.as_deref());
        }
        if index % 5 == 4 && count == 4 {
            ledger.forget(&name);
            if maps.delete(&name, &DeleteParams::default()).await.is_ok() {
                ledger.note(&name, None, None);
            }
        }
    }
}

/// Lets writers write until the process is killed in the middle of it.
fn killed_while_writing(cluster: &mut Cluster, ledger: &Arc<Ledger>, round: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    ledger.stop.store(false, Ordering::Relaxed);
    let client = runtime.block_on(cluster.kube());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let maps = Api::default_namespaced(client.clone());
            runtime.spawn(write(maps, ledger.clone(), round, writer))
        })
        .collect();
    let start = ledger.answered.load(Ordering::Relaxed);
    cluster.until("writes are answered", |_| ledger.answered.load(Ordering::Relaxed) > start + 20);
    // Every round dies at another point.
    std::thread::sleep(Duration::from_millis(37 * (round as u64 % 7)));
    cluster.kill();
    ledger.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), writer).await })
            .unwrap()
            .unwrap();
    }
}

fn check(cluster: &Cluster, ledger: &Ledger) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let list = runtime.block_on(async {
        Api::<ConfigMap>::default_namespaced(cluster.kube().await).list(&ListParams::default()).await.unwrap()
    });
    let revision: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
    let newest = ledger.revision_max.load(Ordering::Relaxed);
    assert!(revision >= newest, "the store went back from revision {newest} to {revision}");
    let found: BTreeMap<String, u64> = list
        .items
        .iter()
        .map(|map| {
            let count = map.data.as_ref().and_then(|data| data.get("count")?.parse().ok()).unwrap_or(0);
            (map.metadata.name.clone().unwrap_or_default(), count)
        })
        .collect();
    for (name, count) in ledger.sure.lock().unwrap().iter() {
        assert_eq!(found.get(name).copied(), *count, "{name} is not as it was acknowledged");
    }
}

#[test]
fn killed_at_any_moment_it_loses_nothing_and_adopts_its_pods() {
    let mut cluster = Cluster::start("server", &[], "");
    cluster.feed(&["create"], crate::walk::CONTROLLER);
    cluster.wait_for_pods("run=my-nginx", 2);
    let before = containers(&cluster);
    let ledger = Arc::new(Ledger::default());
    for round in 0..ROUNDS {
        killed_while_writing(&mut cluster, &ledger, round);
        cluster.launch();
        check(&cluster, &ledger);
    }
    let answered = ledger.answered.load(Ordering::Relaxed);
    assert!(answered > ROUNDS * 20, "only {answered} writes");
    assert_eq!(containers(&cluster), before);
    each_answers(&cluster, 2);
}

#[test]
fn killed_while_pods_start_and_stop_it_finishes_both() {
    let mut cluster = Cluster::start("server", &[], "");
    cluster.feed(&["create"], &crate::walk::CONTROLLER.replace("replicas: 2", "replicas: 1"));
    cluster.wait_for_pods("run=my-nginx", 1);
    let first = containers(&cluster);
    // Pods are as old as the seconds of their times say: the others must come in another second.
    std::thread::sleep(Duration::from_secs(1));
    for (round, replicas) in [6, 1, 6, 1, 5, 1, 6, 1].into_iter().enumerate() {
        cluster.kubectl(&["scale", "rc", "my-nginx", &format!("--replicas={replicas}")]);
        std::thread::sleep(Duration::from_millis(45 * round as u64));
        cluster.kill();
        cluster.launch();
        let pods = cluster.wait_for_pods("run=my-nginx", replicas);
        assert_eq!(pods.len(), replicas);
        cluster.until("no other pod is left", |cluster| {
            containers(cluster).len() == replicas && sandboxes(cluster) == replicas
        });
        assert!(
            containers(&cluster).iter().all(|(_, _, restarts)| *restarts == 0),
            "{:?}",
            containers(&cluster)
        );
    }
    // The one that was there from the beginning is the oldest, so it was never the one to go.
    assert_eq!(containers(&cluster), first);
    each_answers(&cluster, 1);
}

/// How many pods the runtime keeps something of.
fn sandboxes(cluster: &Cluster) -> usize {
    std::fs::read_dir(cluster.data().join("containers/sandboxes")).map_or(0, Iterator::count)
}

#[test]
fn the_program_is_replaced_under_running_pods() {
    let mut cluster = Cluster::prepare("server", &[], "");
    let program = cluster.dir.path().join("kobune");
    std::fs::copy(crate::cluster::binary(), &program).unwrap();
    cluster.program = program.clone();
    cluster.launch();
    cluster.feed(&["create"], crate::walk::CONTROLLER);
    cluster.wait_for_pods("run=my-nginx", 2);
    let before = containers(&cluster);
    // As package managers do it: a new file takes the old one's name while the old one runs.
    let new = cluster.dir.path().join("kobune.new");
    std::fs::copy(crate::cluster::binary(), &new).unwrap();
    std::fs::rename(&new, &program).unwrap();
    cluster.kubectl(&["scale", "rc", "my-nginx", "--replicas=3"]);
    cluster.wait_for_pods("run=my-nginx", 3);
    assert_eq!(cluster.interrupt(), Some(0), "{}", cluster.log());
    cluster.launch();
    cluster.wait_for_pods("run=my-nginx", 3);
    assert!(containers(&cluster).is_superset(&before), "{before:?}\n{:?}", containers(&cluster));
    cluster.kubectl(&["scale", "rc", "my-nginx", "--replicas=4"]);
    each_answers(&cluster, 4);
    let name = &cluster.ready_pods("run=my-nginx")[0].0;
    assert!(cluster.kubectl(&["logs", name]).contains("listens on port 80"));
}
