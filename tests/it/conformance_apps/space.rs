//! What the behaviours of workloads do in their namespace, on top of [`crate::space`].

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Cluster;
pub use crate::space::{BUSYBOX, IDLE as SLEEP};

pub const WEB: &str = "kobune.local/web:latest";
/// An image that cannot be had.
pub const MISSING: &str = "test.local/missing:1";
/// How long anything may take that a test waits for; several behaviours share a small machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A namespace.
pub struct Space<'a> {
    pub cluster: &'a Cluster,
    pub namespace: &'a str,
    inner: &'a crate::space::Space<'a>,
}

/// Group, version and resource of what tests call a kind, and whether it is in a namespace.
fn resource(kind: &str) -> (&'static str, &'static str, bool) {
    match kind {
        "pod" | "pods" | "Pod" => ("api/v1", "pods", true),
        "node" => ("api/v1", "nodes", false),
        "pv" | "PersistentVolume" => ("api/v1", "persistentvolumes", false),
        "pvc" => ("api/v1", "persistentvolumeclaims", true),
        "quota" | "ResourceQuota" => ("api/v1", "resourcequotas", true),
        "rc" | "replicationcontrollers" | "ReplicationController" => {
            ("api/v1", "replicationcontrollers", true)
        }
        "rs" | "replicasets" | "ReplicaSet" => ("apis/apps/v1", "replicasets", true),
        "deploy" | "Deployment" => ("apis/apps/v1", "deployments", true),
        "sts" | "StatefulSet" => ("apis/apps/v1", "statefulsets", true),
        "ds" | "DaemonSet" => ("apis/apps/v1", "daemonsets", true),
        "controllerrevision" | "controllerrevisions" | "ControllerRevision" => {
            ("apis/apps/v1", "controllerrevisions", true)
        }
        "job" | "Job" => ("apis/batch/v1", "jobs", true),
        "cronjob" | "cronjobs" | "CronJob" => ("apis/batch/v1", "cronjobs", true),
        "pdb" | "PodDisruptionBudget" => ("apis/policy/v1", "poddisruptionbudgets", true),
        other => panic!("no test uses {other}"),
    }
}

fn encoded(selector: &str) -> String {
    selector.replace('=', "%3D").replace(',', "%2C")
}

/// A container that serves its pod's name.
pub fn web() -> Value {
    json!({"name": "web", "image": WEB, "imagePullPolicy": "IfNotPresent",
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}})
}

/// A container that runs a script.
pub fn script(text: &str) -> Value {
    json!({"name": "c", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", text]})
}

/// A pod template of one container with labels; its pods go at once.
pub fn template(labels: &Value, container: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
}

impl<'a> Space<'a> {
    pub fn of(inner: &'a crate::space::Space<'a>) -> Self {
        Self { cluster: inner.cluster, namespace: &inner.name, inner }
    }

    /// Another namespace, which the caller removes.
    pub fn elsewhere(&self, name: &str) -> crate::space::Space<'a> {
        crate::space::Space::new(self.cluster, self.inner.rest, name)
    }

    fn arguments<'b>(&'b self, arguments: &[&'b str]) -> Vec<&'b str> {
        [&["-n", self.namespace], arguments].concat()
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(&self.arguments(arguments))
    }

    /// The path of a namespaced collection, `apis/apps/v1` and `deployments`.
    pub fn path(&self, group: &str, resource: &str) -> String {
        format!("/{group}/namespaces/{}/{resource}", self.namespace)
    }

    fn collection(&self, kind: &str) -> String {
        let (group, resource, namespaced) = resource(kind);
        if namespaced { self.path(group, resource) } else { format!("/{group}/{resource}") }
    }

    fn object(&self, kind: &str, name: &str, subresource: &str) -> String {
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{}/{name}{slash}{subresource}", self.collection(kind))
    }

    /// Creates an object and returns what the server made of it.
    pub fn make(&self, body: &Value) -> Value {
        self.inner.rest.ok("POST", &self.collection(&text(&body["kind"])), Some(body))
    }

    /// Changes an object and writes it back, again when someone else was faster.
    pub fn update(&self, kind: &str, name: &str, subresource: &str, change: impl Fn(&mut Value)) -> Value {
        let start = Instant::now();
        loop {
            let mut object = self.get(kind, name);
            change(&mut object);
            let (code, answer) =
                self.inner.rest.call("PUT", &self.object(kind, name, subresource), Some(&object));
            if code == 200 {
                return answer;
            }
            assert!(code == 409 && start.elapsed() < PATIENCE, "{code} {answer}\n{object}");
        }
    }

    pub fn get(&self, kind: &str, name: &str) -> Value {
        self.raw(&self.object(kind, name, ""))
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let (code, object) = self.inner.rest.call("GET", &self.object(kind, name, ""), None);
        assert!(matches!(code, 200 | 404), "{code} {object}");
        (code == 200).then_some(object)
    }

    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let list = self.raw(&format!("{}?labelSelector={}", self.collection(kind), encoded(selector)));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// A strategic merge patch.
    pub fn patch(&self, kind: &str, name: &str, patch: &Value) -> Value {
        let (code, object) = self.inner.rest.strategic(&self.object(kind, name, ""), patch);
        assert_eq!(code, 200, "{object}");
        object
    }

    /// A merge patch of a subresource.
    pub fn patch_sub(&self, kind: &str, name: &str, subresource: &str, patch: &Value) -> Value {
        self.inner.rest.ok("PATCH", &self.object(kind, name, subresource), Some(patch))
    }

    /// A JSON patch.
    pub fn patch_json(&self, kind: &str, name: &str, patch: &Value) -> Value {
        self.inner.rest.ok("PATCH", &self.object(kind, name, ""), Some(patch))
    }

    pub fn delete(&self, kind: &str, name: &str) {
        self.inner.rest.ok("DELETE", &self.object(kind, name, ""), None);
    }

    pub fn raw(&self, path: &str) -> Value {
        self.inner.rest.get(path)
    }

    pub fn raw_delete(&self, path: &str) {
        self.inner.rest.ok("DELETE", path, None);
    }

    pub fn put_raw(&self, path: &str, body: &Value) -> Value {
        self.inner.rest.ok("PUT", path, Some(body))
    }

    /// The answer to a POST.
    pub fn post_raw(&self, path: &str, body: &Value) -> (u16, Value) {
        self.inner.rest.call("POST", path, Some(body))
    }

    /// Deletes a collection.
    pub fn delete_collection(&self, path: &str, selector: &str) {
        self.inner.rest.ok(
            "DELETE",
            &format!("{path}?propagationPolicy=Background&labelSelector={}", encoded(selector)),
            None,
        );
    }

    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            if start.elapsed() > PATIENCE {
                let state = self.kubectl(&["get", "all,controllerrevisions,pdb,events", "-o", "wide"]);
                panic!("{}: not within {PATIENCE:?}: {what}\n{state}", self.namespace);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until an object satisfies a condition, and returns it.
    pub fn wait(&self, kind: &str, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        self.until(&format!("{kind} {name}: {what}"), |space| {
            found = space.find(kind, name).unwrap_or_default();
            is_so(&found)
        });
        found
    }

    pub fn wait_gone(&self, kind: &str, name: &str) {
        self.until(&format!("{kind} {name} is gone"), |space| space.find(kind, name).is_none());
    }

    /// Waits until so many pods of a selector are ready and there are no others.
    pub fn wait_ready(&self, selector: &str, count: usize) -> Vec<Value> {
        let mut pods = Vec::new();
        self.until(&format!("{count} pods of {selector} are ready"), |space| {
            pods = space.list("pods", selector);
            pods.len() == count && pods.iter().all(is_ready)
        });
        pods
    }

    /// Watches a collection from now on.
    pub fn watch(&self, path: &str) -> Watch {
        let revision = self.raw(path)["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let path = format!("{path}?watch=1&timeoutSeconds=600&resourceVersion={revision}");
        let mut command = self.cluster.command("1.36", "kubectl");
        let mut child = command.args(["get", "--raw", &path]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { return };
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Watch { child, events }
    }
}

/// A running watch.
pub struct Watch {
    child: Child,
    events: Receiver<Value>,
}

impl Watch {
    /// The next event that satisfies a condition.
    pub fn next(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("no event: {what}"));
            if is_it(&event) {
                return event;
            }
        }
    }

    /// The names of the next `count` objects that are added or deleted (`kind` of event).
    pub fn names(&self, kind: &str, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| text(&self.next(kind, |event| event["type"] == kind)["object"]["metadata"]["name"]))
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = object["status"]["conditions"].as_array()?;
    all.iter().find(|condition| condition["type"] == kind)
}

pub fn has_condition(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

pub fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && has_condition(pod, "Ready")
}

/// The uid of the controller of an object.
pub fn controller(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true).map(|owner| text(&owner["uid"]))
}

/// A condition as tests write it into a status.
pub fn status_condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test"})
}

/// Adds a condition.
pub fn add_condition(object: &mut Value, kind: &str) {
    let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.push(status_condition(kind));
    object["status"]["conditions"] = Value::Array(all);
}
