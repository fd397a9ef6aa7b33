//! Static pods: manifests in a directory of this machine are pods of this node.
//!
//! Each has its mirror in the API, as upstream's have, and it is the mirror that is run. So a static pod needs the API
//! server to be started (not to go on running), and who deletes the mirror sees the pod end and come back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, CacheEvent, Client, DeleteOptions, Preconditions};
use env::Shutdown;
use k8s_openapi::api::core::v1::Pod;
use linux::inotify::Watcher;
use machinery::{Key, Object};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";
/// How long after the API refused something it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Where manifests are, and what is needed to mirror them.
pub struct StaticPods {
    pub directory: PathBuf,
    pub node: String,
    pub client: Client,
    /// The pods of this node.
    pub cache: Cache,
}

/// What has to change in the API.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<Value>,
    /// Namespace, name and uid of mirrors that are wrong or not wanted any more.
    pub delete: Vec<(String, String, String)>,
}

impl StaticPods {
    /// Mirrors the directory until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let watcher = match self.watcher() {
            Ok(watcher) => watcher,
            Err(error) => {
                return tracing::error!(directory = %self.directory.display(), error = %error.text(), "static pods are not watched");
            }
        };
        let work = async {
            let mut changes = self.cache.subscribe();
            self.cache.synced().await;
            loop {
                let retry = if self.mirror().await { Duration::MAX } else { RETRY };
                tokio::select! {
                    changed = watcher.changed() => if let Err(error) = changed {
                        return tracing::error!(%error, "static pods are not watched any more");
                    },
                    () = mirror_gone(&mut changes) => {}
                    () = tokio::time::sleep(retry) => {}
                }
            }
        };
        shutdown.run_until_cancelled(work).await;
    }

    fn watcher(&self) -> linux::Result<Watcher> {
        let made = std::fs::create_dir_all(&self.directory);
        made.map_err(|error| linux::Error::new(format!("make {}", self.directory.display()), error))?;
        let watcher = Watcher::new()?;
        watcher.watch(&self.directory)?;
        Ok(watcher)
    }

    /// Brings the API in step with the directory; false if something has to be tried again.
    async fn mirror(&self) -> bool {
        let manifests = read(&self.directory);
        let plan = plan(&manifests, &self.cache.all(), &self.node);
        let mut done = true;
        for pod in plan.create {
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
            match self.client.namespaced::<Pod>(namespace).create(&pod).await {
                // The old one is still ending; its end will wake us.
                Err(status) if status.is_already_exists() => {}
                Err(status) => {
                    tracing::warn!(pod = %pod["metadata"]["name"], %status, "static pod not mirrored");
                    done = false;
                }
                Ok(_) => {}
            }
        }
        for (namespace, name, uid) in plan.delete {
            let options = DeleteOptions {
                preconditions: Some(Preconditions { uid: Some(uid), ..Preconditions::default() }),
                ..DeleteOptions::default()
            };
            match self.client.namespaced::<Pod>(&namespace).delete(&name, &options).await {
                Err(status) if !status.is_not_found() => {
                    tracing::warn!(pod = %name, %status, "mirror of a static pod not deleted");
                    done = false;
                }
                _ => {}
            }
        }
        done
    }
}

/// Waits until a mirror has gone from the API.
async fn mirror_gone(changes: &mut tokio::sync::broadcast::Receiver<CacheEvent>) {
    loop {
        match changes.recv().await {
            Ok(CacheEvent::Deleted(object)) if annotation(&object, MIRROR).is_some() => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            // The cache is gone, and with it the kubelet.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn annotation(object: &Object, name: &str) -> Option<String> {
    object.value().pointer("/metadata/annotations")?.get(name)?.as_str().map(str::to_owned)
}

/// The manifests by file name. What cannot be read is left out, and said; hidden files are not looked at.
fn read(directory: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !entry.path().is_file() {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).map_err(|error| error.to_string());
        match text.and_then(|text| manifest(&text)) {
            Ok(pod) => {
                found.insert(name, pod);
            }
            Err(cause) => tracing::warn!(file = name, cause, "no static pod can be made of this"),
        }
    }
    found
}

fn manifest(text: &str) -> Result<Value, String> {
    let mut documents = machinery::yaml::to_values(text).map_err(|error| error.to_string())?;
    documents.retain(|document| !document.is_null());
    match documents.as_slice() {
        [pod] if pod["kind"] == "Pod" && pod["apiVersion"] == "v1" && pod["metadata"]["name"].is_string() => {
            Ok(pod.clone())
        }
        [_] => Err("it is no v1 Pod with a name".to_owned()),
        _ => Err(format!("it has {} documents instead of one", documents.len())),
    }
}

/// Compares the manifests with the mirrors that are there.
pub fn plan(manifests: &BTreeMap<String, Value>, pods: &[Arc<Object>], node: &str) -> Plan {
    let wanted: BTreeMap<Key, Value> =
        manifests.values().map(|pod| mirror_of(pod, node)).map(|pod| (key_of(&pod), pod)).collect();
    let mut plan = Plan::default();
    let mut present = std::collections::BTreeSet::new();
    for object in pods.iter().filter(|object| annotation(object, SOURCE).as_deref() == Some("file")) {
        let meta = object.meta();
        let key = Key::new(&meta.namespace, &meta.name);
        let same = |pod: &Value| {
            pod["metadata"]["annotations"][HASH].as_str() == annotation(object, HASH).as_deref()
        };
        if meta.deletion_timestamp.is_none() && !wanted.get(&key).is_some_and(same) {
            plan.delete.push((meta.namespace.to_string(), meta.name.to_string(), meta.uid.to_string()));
        }
        present.insert(key);
    }
    plan.create = wanted.into_iter().filter(|(key, _)| !present.contains(key)).map(|(_, pod)| pod).collect();
    plan
}

fn key_of(pod: &Value) -> Key {
    let text = |name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
    Key::new(text("namespace"), text("name"))
}

/// The pod that is put into the API for a manifest: named after the node, bound to it, and not driven out by taints.
fn mirror_of(manifest: &Value, node: &str) -> Value {
    let mut pod = manifest.clone();
    let hash = format!("{:016x}", fingerprint(manifest.to_string().as_bytes()));
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    pod["metadata"]["name"] = json!(format!("{name}-{node}"));
    if !pod["metadata"]["namespace"].is_string() {
        pod["metadata"]["namespace"] = json!("default");
    }
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = json!({});
    }
    for (name, value) in [(MIRROR, hash.as_str()), (HASH, &hash), (SOURCE, "file")] {
        pod["metadata"]["annotations"][name] = json!(value);
    }
    pod["spec"]["nodeName"] = json!(node);
    let always = json!({"operator": "Exists", "effect": "NoExecute"});
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(tolerations) => tolerations.push(always),
        None => pod["spec"]["tolerations"] = json!([always]),
    }
    if let Some(pod) = pod.as_object_mut() {
        pod.remove("status");
    }
    pod
}

/// FNV-1a: equal manifests have equal fingerprints; nothing else is asked of it.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, image: &str) -> Value {
        manifest(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}"
        ))
        .unwrap()
    }

    fn stored(mut mirror: Value, deleted: bool) -> Arc<Object> {
        mirror["metadata"]["uid"] = json!("u1");
        if deleted {
            mirror["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(Object::from_value(&mirror, 1).unwrap())
    }

    fn check(manifests: &[Value], present: &[Arc<Object>], create: &[&str], delete: &[&str]) {
        let manifests =
            manifests.iter().map(|pod| (pod["metadata"]["name"].to_string(), pod.clone())).collect();
        let plan = plan(&manifests, present, "n1");
        let created: Vec<_> =
            plan.create.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
        let deleted: Vec<_> = plan.delete.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!((created.as_slice(), deleted.as_slice()), (create, delete));
    }

    #[test]
    fn the_api_follows_the_directory() {
        let (old, new) = (pod("web", "a"), pod("web", "b"));
        let mirror = || mirror_of(&old, "n1");
        check(std::slice::from_ref(&old), &[], &["web-n1"], &[]);
        check(std::slice::from_ref(&old), &[stored(mirror(), false)], &[], &[]);
        check(std::slice::from_ref(&new), &[stored(mirror(), false)], &[], &["web-n1"]);
        check(&[new], &[stored(mirror(), true)], &[], &[]);
        check(&[], &[stored(mirror(), false)], &[], &["web-n1"]);
        let other = json!({"metadata": {"name": "x", "namespace": "default"}});
        check(&[], &[stored(other, false)], &[], &[]);
    }

    #[test]
    fn mirrors() {
        let made = mirror_of(&pod("web", "a"), "n1");
        assert_eq!(
            (&made["metadata"]["namespace"], &made["spec"]["nodeName"]),
            (&json!("default"), &json!("n1"))
        );
        assert_eq!(made["metadata"]["annotations"][MIRROR], made["metadata"]["annotations"][HASH]);
        assert_eq!(made["spec"]["tolerations"], json!([{"operator": "Exists", "effect": "NoExecute"}]));
    }

    #[test]
    fn bad_manifests() {
        for text in
            ["", "kind: Pod", "apiVersion: v1\nkind: Service\nmetadata: {name: x}", "a: [", "a: 1\n---\nb: 2"]
        {
            assert!(manifest(text).is_err(), "{text:?}");
        }
    }
}
