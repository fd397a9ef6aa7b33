//! One kind's whole life through the API: every verb once, as the conformance list asks of many kinds.

use serde_json::{Value, json};

use crate::space::{Rest, with};

/// A collection's path and an object that can be made many times under other names.
pub struct Kind<'a> {
    pub rest: &'a Rest,
    /// `/apis/GROUP/VERSION[/namespaces/NS]/RESOURCE`.
    pub path: String,
    pub object: Value,
}

impl Kind<'_> {
    fn named(&self, name: &str, label: &str) -> Value {
        let mut object = self.object.clone();
        object["metadata"] = with(object["metadata"].clone(), json!({"name": name}));
        if object["metadata"]["labels"].is_null() {
            object["metadata"]["labels"] = json!({});
        }
        object["metadata"]["labels"]["life"] = json!(label);
        object
    }

    fn one(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn listed(&self, path: &str, label: &str) -> Vec<Value> {
        let list = self.rest.get(&format!("{path}?labelSelector=life%3D{label}"));
        list["items"].as_array().unwrap().clone()
    }

    /// The group, version and resource are in the discovery documents.
    pub fn is_discovered(&self) {
        let parts: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        let resource = parts.last().unwrap();
        let document = if parts[0] == "api" {
            "/api/v1".to_owned()
        } else {
            let groups = self.rest.get("/apis");
            let all = groups["groups"].as_array().unwrap();
            let group = all.iter().find(|group| group["name"] == parts[1]).expect("the group");
            let versions = group["versions"].as_array().unwrap();
            assert!(versions.iter().any(|version| version["version"] == parts[2]), "{group}");
            assert_eq!(self.rest.get(&format!("/apis/{}", parts[1]))["name"], parts[1]);
            format!("/apis/{}/{}", parts[1], parts[2])
        };
        let list = self.rest.get(&document);
        let found = list["resources"].as_array().unwrap().iter().find(|one| one["name"] == **resource);
        let verbs = found.unwrap_or_else(|| panic!("{resource} is not in {document}"))["verbs"].clone();
        for verb in ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"] {
            assert!(verbs.as_array().unwrap().iter().any(|one| one == verb), "{resource}: {verb}");
        }
    }

    /// Create, get, list (here and everywhere), watch, patch, update, delete, delete a collection.
    /// `change` is a merge patch besides the metadata that the kind allows.
    pub fn lives(&self, label: &str, change: Value) {
        self.is_discovered();
        let version = self.rest.get(&self.path)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let first = format!("{label}-1");
        let created = self.rest.ok("POST", &self.path, Some(&self.named(&first, label)));
        assert_eq!(self.rest.get(&self.one(&first))["metadata"]["uid"], created["metadata"]["uid"]);
        assert_eq!(self.listed(&self.path, label).len(), 1);
        if let Some((before, after)) = self.path.split_once("/namespaces/") {
            let everywhere = format!("{before}/{}", after.rsplit('/').next().unwrap());
            assert_eq!(self.listed(&everywhere, label).len(), 1);
        }
        let patch = with(change, json!({"metadata": {"annotations": {"patched": "true"}}}));
        let patched = self.rest.ok("PATCH", &self.one(&first), Some(&patch));
        assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
        let change = |object: &mut Value| object["metadata"]["annotations"]["updated"] = json!("true");
        let updated = self.replaced(&self.one(&first), change);
        assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
        self.rest.ok("DELETE", &self.one(&first), None);
        self.goes(&first);
        for number in 2..4 {
            self.rest.ok("POST", &self.path, Some(&self.named(&format!("{label}-{number}"), label)));
        }
        assert_eq!(self.listed(&self.path, label).len(), 2);
        self.rest.ok("DELETE", &format!("{}?labelSelector=life%3D{label}", self.path), None);
        for number in 2..4 {
            self.goes(&format!("{label}-{number}"));
        }
        assert!(self.listed(&self.path, label).is_empty());
        self.was_watched(&version, label);
    }

    /// Replaces what is there, again if somebody else was quicker.
    fn replaced(&self, path: &str, change: impl Fn(&mut Value)) -> Value {
        for _ in 0..20 {
            let mut object = self.rest.get(path);
            change(&mut object);
            match self.rest.call("PUT", path, Some(&object)) {
                (200, answer) => return answer,
                (code, answer) => assert_eq!(code, 409, "{path}: {answer}"),
            }
        }
        panic!("always a conflict at {path}");
    }

    /// Finalizers of controllers may make it take a moment.
    fn goes(&self, name: &str) {
        let start = std::time::Instant::now();
        while self.rest.call("GET", &self.one(name), None).0 != 404 {
            assert!(start.elapsed() < crate::cluster::PATIENCE, "{} stays", self.one(name));
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn was_watched(&self, version: &str, label: &str) {
        let query =
            format!("?watch=1&labelSelector=life%3D{label}&resourceVersion={version}&timeoutSeconds=1");
        let events = self.rest.lines(&format!("{}{query}", self.path));
        let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        for kind in ["ADDED", "MODIFIED", "DELETED"] {
            assert!(kinds.contains(&kind), "{kind} not in {kinds:?}");
        }
    }

    /// The status can be read, patched and replaced by itself, and a status change leaves the rest alone.
    pub fn has_status(&self, name: &str, status: Value) {
        let created = self.rest.ok("POST", &self.path, Some(&self.named(name, "status")));
        let path = format!("{}/status", self.one(name));
        assert_eq!(self.rest.get(&path)["metadata"]["uid"], created["metadata"]["uid"]);
        let patch = json!({"metadata": {"annotations": {"patched": "status"}}, "status": status});
        let patched = self.rest.ok("PATCH", &path, Some(&patch));
        for (field, value) in status.as_object().unwrap() {
            assert!(contains(&patched["status"][field], value), "{field}: {}", patched["status"]);
        }
        let updated =
            self.replaced(&path, |object| object["metadata"]["labels"]["status"] = json!("updated"));
        assert!(updated["status"].is_object());
        self.rest.ok("DELETE", &self.one(name), None);
        self.goes(name);
    }
}

/// Whether `value` has all of `part`.
fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|value| contains(value, part)))
        }
        (Value::Array(values), Value::Array(parts)) => {
            parts.iter().all(|part| values.iter().any(|value| contains(value, part)))
        }
        (value, part) => value == part,
    }
}
