//! The history of the store as it is written, and what must hold at every point of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use scheduler::{NodeInfo, PodInfo, Seen, Snapshot};
use testkit::TestServer;
use tokio::task::JoinHandle;

/// One write.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub revision: u64,
    pub key: Arc<str>,
    /// Of the value; 0 for a delete.
    pub hash: u64,
    /// The beginning of the value, for reading.
    pub text: Box<str>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {} {:016x} {}", self.revision, self.key, self.hash, self.text)
    }
}

/// Reads along.
pub struct Trace {
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    entries: Vec<Entry>,
    violations: Vec<String>,
    cluster: Snapshot,
}

impl Trace {
    /// Starts with the first write.
    pub async fn start(server: &TestServer) -> Self {
        let mut watch = server.store.watch("", 1).await.expect("nothing has been forgotten yet");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let reading = shared.clone();
        let task = tokio::spawn(async move {
            while let Some(batch) = watch.recv().await {
                let mut shared = reading.lock();
                match batch {
                    Ok(events) => {
                        for event in &*events {
                            let value = event.new.as_ref().map(|new| &new.value[..]);
                            shared.read(event.revision, &event.key, value);
                        }
                    }
                    Err(error) => shared.violations.push(format!("the trace ended: {error}")),
                }
            }
        });
        Self { shared, task }
    }

    /// Everything that was written, and what must not have been.
    pub fn end(self) -> (Vec<Entry>, Vec<String>) {
        self.task.abort();
        let mut shared = self.shared.lock();
        (std::mem::take(&mut shared.entries), std::mem::take(&mut shared.violations))
    }
}

impl Shared {
    fn read(&mut self, revision: u64, key: &Arc<str>, value: Option<&[u8]>) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let hash = value.map_or(0, |_| hasher.finish());
        let text = String::from_utf8_lossy(value.unwrap_or_default()).into_owned().into_boxed_str();
        self.entries.push(Entry { revision, key: key.clone(), hash, text });
        if let Err(violation) = self.check(key, value) {
            self.violations.push(format!("at revision {revision}: {violation}"));
        }
    }

    /// A pod that has a node keeps it, and no node is promised more than it has.
    fn check(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), String> {
        let object = |value: &[u8]| machinery::Object::from_stored(value.to_vec().into(), 0).map(Arc::new);
        if let Some(name) = key.strip_prefix("/registry/minions/") {
            match value {
                None => self.cluster.remove_node(name),
                Some(value) => {
                    let object = object(value).map_err(|error| error.to_string())?;
                    self.cluster.set_node(NodeInfo::read(&object).map_err(|status| status.to_string())?);
                }
            }
            return Ok(());
        }
        let pod = key.strip_prefix("/registry/pods/").and_then(|pod| pod.split_once('/'));
        let Some((namespace, name)) = pod else { return Ok(()) };
        let key = machinery::Key::new(namespace, name);
        let Some(value) = value else {
            self.cluster.remove_pod(&key);
            return Ok(());
        };
        let object = object(value).map_err(|error| error.to_string())?;
        match PodInfo::read(&object).map_err(|status| status.to_string())? {
            Seen::Placed(pod) => self.placed(pod),
            Seen::Waiting(_) | Seen::Other => {
                self.cluster.remove_pod(&key);
                Ok(())
            }
        }
    }

    fn placed(&mut self, pod: PodInfo) -> Result<(), String> {
        let (key, node) = (pod.key.clone(), pod.node.clone().unwrap_or_default());
        let pod = Arc::new(pod);
        if let Some(before) = self.cluster.place(pod.clone())
            && before.uid() == pod.uid()
        {
            let was = before.node.clone().unwrap_or_default();
            return if was == node { Ok(()) } else { Err(format!("{key} went from {was} to {node}")) };
        }
        let Some(info) = self.cluster.node(&node) else { return Ok(()) };
        let (asked, has) = (info.requested.cpu, info.allocatable.cpu);
        if asked > has {
            Err(format!("{node} is promised {asked}m of {has}m CPU with {key}"))
        } else {
            Ok(())
        }
    }
}
