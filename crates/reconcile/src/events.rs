//! Records `Event` objects. Equal events within ten minutes become one with a count, as upstream's correlator does.

use std::collections::BTreeMap;

use client::{Client, Patch, Target};
use env::{Env, Shutdown};
use jiff::Timestamp;
use machinery::{Object, Status};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::plan::EventAction;

/// Events waiting to be written; more than that are dropped, as events are advice.
const BUFFER: usize = 1024;
/// How many different events are remembered for counting.
const REMEMBERED: usize = 2048;
const AGGREGATION_SECONDS: i64 = 600;

/// What an event is about: `v1.ObjectReference`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// `spec.containers{web}` for events about a container.
    pub field_path: String,
}

impl Reference {
    pub fn new(api_version: &str, kind: &str, object: &Object) -> Self {
        let meta = object.meta();
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: object.revision().to_string(),
            field_path: String::new(),
        }
    }
}

/// Takes events and writes them in the background. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<EventAction>,
}

/// The writing half of a [`Recorder`].
pub struct Writer {
    receiver: mpsc::Receiver<EventAction>,
    client: Client,
    env: Env,
    component: String,
    host: String,
    seen: BTreeMap<Fingerprint, Seen>,
}

type Fingerprint = (Reference, bool, String, String);

struct Seen {
    target: Target,
    count: u64,
    last: Timestamp,
}

impl Recorder {
    /// A recorder for a component (`kubelet` on a host, `replicaset-controller`); run the writer in a task.
    pub fn new(client: Client, env: Env, component: &str, host: &str) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let writer = Writer {
            receiver,
            client,
            env,
            component: component.to_owned(),
            host: host.to_owned(),
            seen: BTreeMap::new(),
        };
        (Self { sender }, writer)
    }

    /// Records an event; never waits.
    pub fn record(&self, event: EventAction) {
        if self.sender.try_send(event).is_err() {
            tracing::debug!("an event was dropped: too many are waiting");
        }
    }

    /// Records an event given by its parts.
    pub fn event(&self, about: &Reference, warning: bool, reason: &str, message: impl Into<String>) {
        let (reason, message) = (reason.to_owned(), message.into());
        self.record(EventAction { about: about.clone(), warning, reason, message });
    }
}

impl Writer {
    /// Writes events until all recorders are gone or `shutdown`.
    pub async fn run(mut self, shutdown: Shutdown) {
        while let Some(Some(event)) = shutdown.run_until_cancelled(self.receiver.recv()).await {
            if let Err(status) = self.write(event).await {
                tracing::debug!(%status, "an event was not written");
            }
        }
    }

    async fn write(&mut self, event: EventAction) -> Result<(), Status> {
        let now = self.env.now();
        let fingerprint = fingerprint(&event);
        if let Some(seen) = self.seen.get_mut(&fingerprint)
            && now.as_second() - seen.last.as_second() < AGGREGATION_SECONDS
        {
            (seen.count, seen.last) = (seen.count + 1, now);
            let body = json!({"count": seen.count, "lastTimestamp": second(now)});
            let target = seen.target.clone();
            match self.client.target(target.clone()).patch(&target.name, Patch::Merge(body)).await {
                Err(status) if status.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        self.create(event, fingerprint, now).await
    }

    async fn create(
        &mut self,
        event: EventAction,
        fingerprint: Fingerprint,
        now: Timestamp,
    ) -> Result<(), Status> {
        let namespace = match event.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let target = Target {
            version: "v1".to_owned(),
            resource: "events".to_owned(),
            namespace: namespace.to_owned(),
            name: format!("{}.{:016x}", event.about.name, self.env.random_u64()),
            ..Target::default()
        };
        let body = self.body(&event, &target, now);
        self.client.target(target.clone()).create(&body).await?;
        if self.seen.len() >= REMEMBERED {
            self.forget_oldest_half();
        }
        self.seen.insert(fingerprint, Seen { target, count: 1, last: now });
        Ok(())
    }

    fn body(&self, event: &EventAction, target: &Target, now: Timestamp) -> Value {
        let about = &event.about;
        let mut involved = json!({"apiVersion": about.api_version, "kind": about.kind, "name": about.name});
        for (field, value) in [
            ("namespace", &about.namespace),
            ("uid", &about.uid),
            ("resourceVersion", &about.resource_version),
            ("fieldPath", &about.field_path),
        ] {
            if !value.is_empty() {
                involved[field] = json!(value);
            }
        }
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = json!(self.host);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": target.name, "namespace": target.namespace},
            "involvedObject": involved,
            "type": if event.warning { "Warning" } else { "Normal" },
            "reason": event.reason,
            "message": event.message,
            "count": 1,
            "firstTimestamp": second(now),
            "lastTimestamp": second(now),
            "source": source,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        })
    }

    fn forget_oldest_half(&mut self) {
        let mut times: Vec<_> = self.seen.values().map(|seen| seen.last).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        self.seen.retain(|_, seen| seen.last > middle);
    }
}

fn fingerprint(event: &EventAction) -> Fingerprint {
    let about = Reference { resource_version: String::new(), ..event.about.clone() };
    (about, event.warning, event.reason.clone(), event.message.clone())
}

/// `metav1.Time`: seconds, UTC.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Keeps a recorder's writer running; for components that own one.
pub fn spawn(client: Client, env: Env, component: &str, host: &str, shutdown: Shutdown) -> Recorder {
    let (recorder, writer) = Recorder::new(client, env, component, host);
    tokio::spawn(writer.run(shutdown));
    recorder
}
