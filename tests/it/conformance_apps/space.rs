//! A namespace of a cluster under test, and what tests do in it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Cluster;

pub const WEB: &str = "kobune.local/web:latest";
pub const BUSYBOX: &str = "test.local/busybox:1";
/// An image that cannot be had.
pub const MISSING: &str = "test.local/missing:1";
/// How long anything may take that a test waits for; several behaviours share a small machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A namespace.
pub struct Space<'a> {
    pub cluster: &'a Cluster,
    pub namespace: &'a str,
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

/// A script that does nothing until it is told to end.
pub const SLEEP: &str = "trap 'exit 0' TERM; while true; do sleep 0.2; done";

/// A pod template of one container with labels; its pods go at once.
pub fn template(labels: &Value, container: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
}

impl<'a> Space<'a> {
    pub fn create(cluster: &'a Cluster, namespace: &'a str) -> Self {
        cluster.kubectl(&["create", "namespace", namespace]);
        Self { cluster, namespace }
    }

    /// Starts the removal of the namespace.
    pub fn remove(&self) {
        self.cluster.kubectl(&["delete", "namespace", self.namespace, "--wait=false"]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.command("1.36", "kubectl");
        command.args(arguments);
        if !arguments.contains(&"--raw") {
            command.args(["-n", self.namespace]);
        }
        command
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.succeed(self.command(arguments).stdin(Stdio::null()))
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn try_feed(&self, arguments: &[&str], body: &Value) -> Output {
        let mut command = self.command(arguments);
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(body.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn feed(&self, arguments: &[&str], body: &Value) -> Value {
        let output = self.try_feed(arguments, body);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}\n{body}\n{}", self.cluster.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Creates an object and returns what the server made of it.
    pub fn make(&self, body: &Value) -> Value {
        self.feed(&["create", "-o", "json"], body)
    }

    pub fn replace(&self, body: &Value) -> Value {
        self.feed(&["replace", "-o", "json"], body)
    }

    pub fn replace_status(&self, body: &Value) -> Value {
        self.feed(&["replace", "--subresource=status", "-o", "json"], body)
    }

    /// Changes an object and writes it back, again when someone else was faster.
    pub fn update(&self, kind: &str, name: &str, subresource: &str, change: impl Fn(&mut Value)) -> Value {
        let flag = format!("--subresource={subresource}");
        let start = Instant::now();
        loop {
            let mut object = self.get(kind, name);
            change(&mut object);
            let mut arguments = vec!["replace", "-o", "json"];
            if !subresource.is_empty() {
                arguments.push(&flag);
            }
            let output = self.try_feed(&arguments, &object);
            if output.status.success() {
                return serde_json::from_slice(&output.stdout).unwrap();
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(errors.contains("Conflict") && start.elapsed() < PATIENCE, "{errors}\n{object}");
        }
    }

    pub fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])).unwrap()
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let text = self.kubectl(&["get", kind, name, "-o", "json", "--ignore-not-found"]);
        (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
    }

    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kind, "-l", selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// A strategic merge patch.
    pub fn patch(&self, kind: &str, name: &str, patch: &Value) -> Value {
        let text = self.kubectl(&["patch", kind, name, "-p", &patch.to_string(), "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// A merge patch of a subresource.
    pub fn patch_sub(&self, kind: &str, name: &str, subresource: &str, patch: &Value) -> Value {
        let flag = format!("--subresource={subresource}");
        let patch = patch.to_string();
        let text = self.kubectl(&["patch", kind, name, &flag, "--type=merge", "-p", &patch, "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    pub fn raw(&self, path: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", "--raw", path])).unwrap()
    }

    pub fn put_raw(&self, path: &str, body: &Value) -> Value {
        self.feed(&["replace", "--raw", path], body)
    }

    pub fn post_raw(&self, path: &str, body: &Value) -> Output {
        self.try_feed(&["create", "--raw", path], body)
    }

    /// Deletes a collection.
    pub fn delete_collection(&self, path: &str, selector: &str) {
        self.kubectl(&["delete", "--raw", &format!("{path}?labelSelector={}", selector.replace('=', "%3D"))]);
    }

    /// The path of a namespaced collection, `apis/apps/v1` and `deployments`.
    pub fn path(&self, group: &str, resource: &str) -> String {
        format!("/{group}/namespaces/{}/{resource}", self.namespace)
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
            found = space.get(kind, name);
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
        let mut child = self.command(&["get", "--raw", &path]).stdout(Stdio::piped()).spawn().unwrap();
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
