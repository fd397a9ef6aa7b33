//! Writing one pod's status: only what changed, only the newest, in order, and the deletion last.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Patch, Preconditions};
use containers::PodIdentity;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use machinery::Status;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Pending {
    status: Option<Box<PodStatus>>,
    seen: Option<Box<PodStatus>>,
    delete: bool,
    closed: bool,
}

/// Where a pod's worker leaves what is to be written; only the newest of each is kept.
#[derive(Default)]
pub struct Mailbox {
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Mailbox {
    /// The status as it should be.
    pub fn status(&self, status: Box<PodStatus>) {
        self.pending.lock().status = Some(status);
        self.wake.notify_one();
    }

    /// The status as somebody else left it in the API.
    pub fn seen(&self, status: Box<PodStatus>) {
        self.pending.lock().seen = Some(status);
    }

    /// Remove the object after the last status is written.
    pub fn delete(&self) {
        self.pending.lock().delete = true;
        self.wake.notify_one();
    }

    /// End when everything is written.
    pub fn close(&self) {
        self.pending.lock().closed = true;
        self.wake.notify_one();
    }

    async fn take(&self) -> Pending {
        loop {
            let woken = self.wake.notified();
            {
                let mut pending = self.pending.lock();
                if pending.status.is_some() || pending.delete || pending.closed {
                    return std::mem::take(&mut *pending);
                }
            }
            woken.await;
        }
    }
}

/// The merge that takes the API's status from `before` to `after`; `None` when there is nothing to do.
pub fn patch(before: &PodStatus, after: &PodStatus, uid: &str) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (before, after) = (object(before), object(after));
    let mut changes = Map::new();
    for (field, value) in &after {
        if before.get(field) == Some(value) {
            continue;
        }
        let value = match field.as_str() {
            "conditions" => changed_conditions(before.get(field), value),
            "podIPs" | "hostIPs" => replaced(before.get(field), value),
            _ => value.clone(),
        };
        changes.insert(field.clone(), value);
    }
    for field in before.keys().filter(|field| !after.contains_key(*field)) {
        let gone = ["reason", "message", "podIP", "ephemeralContainerStatuses"].contains(&field.as_str());
        if gone {
            changes.insert(field.clone(), Value::Null);
        }
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

/// Conditions merge by type: those that are new or changed, and the removal of ours that are gone.
fn changed_conditions(before: Option<&Value>, after: &Value) -> Value {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, after) = (list(before), list(Some(after)));
    let mut changes: Vec<Value> =
        after.iter().filter(|condition| !before.contains(condition)).cloned().collect();
    for old in &before {
        let kept = after.iter().any(|new| new["type"] == old["type"]);
        let ours = old["type"].as_str().is_some_and(|type_| type_.starts_with("PodResize"));
        if !kept && ours {
            changes.push(json!({"$patch": "delete", "type": old["type"]}));
        }
    }
    // A field that is gone from a condition must be removed by name.
    for change in &mut changes {
        let Some(old) = before.iter().find(|old| old["type"] == change["type"]) else { continue };
        for field in ["reason", "message"] {
            if old.get(field).is_some() && change.get(field).is_none() && change.get("$patch").is_none() {
                change[field] = Value::Null;
            }
        }
    }
    Value::Array(changes)
}

fn replaced(before: Option<&Value>, after: &Value) -> Value {
    let mut list = after.as_array().cloned().unwrap_or_default();
    if before.is_some() {
        list.insert(0, json!({"$patch": "replace"}));
    }
    Value::Array(list)
}

/// Writes what comes until told to delete or to close, or until the object is gone.
pub async fn run(client: Client, pod: PodIdentity, mut known: PodStatus, mailbox: Arc<Mailbox>) {
    let mut wait = RETRY_FIRST;
    let (mut unwritten, mut delete, mut closed) = (None, false, false);
    loop {
        if unwritten.is_none() && !delete && !closed {
            let pending = mailbox.take().await;
            known = pending.seen.map_or(known, |seen| *seen);
            (unwritten, delete, closed) = (pending.status, pending.delete, pending.closed);
        }
        if let Some(status) = unwritten.take() {
            match write_status(&client, &pod, &known, &status).await {
                Ok(()) => (known, wait) = (*status, RETRY_FIRST),
                Err(error) if is_gone(&client, &pod, &error).await => return,
                Err(error) => {
                    tracing::debug!(pod = %pod.name, %error, "status not written");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                    let newer = std::mem::take(&mut *mailbox.pending.lock());
                    known = newer.seen.map_or(known, |seen| *seen);
                    unwritten = newer.status.or(Some(status));
                    (delete, closed) = (delete || newer.delete, closed || newer.closed);
                    continue;
                }
            }
        }
        if delete {
            return delete_object(&client, &pod).await;
        }
        if closed {
            return;
        }
    }
}

async fn write_status(
    client: &Client,
    pod: &PodIdentity,
    known: &PodStatus,
    status: &PodStatus,
) -> Result<(), Status> {
    let Some(patch) = patch(known, status, &pod.uid) else { return Ok(()) };
    let resources = client.namespaced::<Pod>(&pod.namespace);
    resources.patch_status(&pod.name, Patch::StrategicMerge(patch)).await.map(|_object| ())
}

/// Removes the object if it is still this pod.
async fn delete_object(client: &Client, pod: &PodIdentity) {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
        ..DeleteOptions::default()
    };
    let resources = client.namespaced::<Pod>(&pod.namespace);
    let mut wait = RETRY_FIRST;
    loop {
        match resources.delete(&pod.name, &options).await {
            Ok(_) => return,
            Err(error) if is_gone(client, pod, &error).await => return,
            Err(error) => tracing::debug!(pod = %pod.name, %error, "pod not deleted"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Whether the error means that this pod's object is not there any more. A conflict may also be one with another
/// writer, after which it is tried again.
async fn is_gone(client: &Client, pod: &PodIdentity, error: &Status) -> bool {
    if !error.is_conflict() {
        return error.is_not_found();
    }
    match client.namespaced::<Pod>(&pod.namespace).find(&pod.name).await {
        Ok(Some(object)) => object.meta().uid != pod.uid,
        Ok(None) => true,
        Err(_unknown) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(before: Value, after: Value, expect: Expect) {
        let status = |value| serde_json::from_value::<PodStatus>(value).unwrap();
        let made = patch(&status(before), &status(after), "u");
        expect.assert_eq(&made.map_or("nothing".to_owned(), |patch| patch["status"].to_string()));
    }

    #[test]
    fn only_what_changed() {
        check(json!({"phase": "Pending"}), json!({"phase": "Pending"}), expect!["nothing"]);
        check(
            json!({"phase": "Pending", "reason": "x"}),
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}]}),
            expect![[r#"{"phase":"Running","podIPs":[{"ip":"10.0.0.2"}],"reason":null}"#]],
        );
        check(
            json!({"podIPs": [{"ip": "10.0.0.2"}]}),
            json!({"podIPs": [{"ip": "10.0.0.3"}]}),
            expect![[r#"{"podIPs":[{"$patch":"replace"},{"ip":"10.0.0.3"}]}"#]],
        );
        check(
            json!({"conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "Mine", "status": "True"},
                {"type": "PodResizePending", "status": "True"}]}),
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Mine", "status": "True"}]}),
            expect![[
                r#"{"conditions":[{"reason":null,"status":"True","type":"Ready"},{"$patch":"delete","type":"PodResizePending"}]}"#
            ]],
        );
    }
}
