//! Kinds of which only the API is asked for: found, made, read, watched, changed and removed.

use serde_json::{Value, json};

use super::Lab;

pub fn check(lab: &Lab) {
    endpoint_slices(lab);
    ingresses(lab);
    ingress_classes(lab);
    addresses(lab);
    ranges(lab);
}

struct Kind<'a> {
    lab: &'a Lab,
    group: &'a str,
    resource: &'a str,
    namespaced: bool,
}

impl Kind<'_> {
    fn path(&self) -> String {
        let scope = if self.namespaced { "namespaces/default/" } else { "" };
        format!("/apis/{}/v1/{scope}{}", self.group, self.resource)
    }

    fn raw(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.lab.cluster.kubectl(arguments)).unwrap()
    }

    fn discovered(&self) {
        let groups = self.raw(&["get", "--raw", "/apis"]);
        assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == self.group));
        let group = self.raw(&["get", "--raw", &format!("/apis/{}", self.group)]);
        assert!(group["versions"].as_array().unwrap().iter().any(|version| version["version"] == "v1"));
        let resources = self.raw(&["get", "--raw", &format!("/apis/{}/v1", self.group)]);
        assert!(
            resources["resources"].as_array().unwrap().iter().any(|found| found["name"] == self.resource)
        );
    }

    fn list(&self) -> Vec<Value> {
        let path = format!("{}?labelSelector=special%3Dyes", self.path());
        self.raw(&["get", "--raw", &path])["items"].as_array().unwrap().clone()
    }

    /// The types of the events since a revision, as far as they are there.
    fn watched(&self, since: &str) -> Vec<String> {
        let path = format!(
            "{}?watch=true&timeoutSeconds=1&labelSelector=special%3Dyes&resourceVersion={since}",
            self.path()
        );
        let text = self.lab.cluster.kubectl(&["get", "--raw", &path]);
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter_map(|event| Some(event["type"].as_str()?.to_owned()))
            .filter(|kind| kind != "BOOKMARK")
            .collect()
    }

    /// Makes three from a template with a free name, and goes through all verbs.
    fn all_verbs(&self, bodies: [Value; 3]) {
        self.discovered();
        let revision = self.raw(&["get", "--raw", &self.path()])["metadata"]["resourceVersion"].clone();
        bodies.iter().for_each(|body| self.lab.create(body));
        let listed = self.list();
        assert_eq!(listed.len(), 3);
        if self.namespaced {
            let everywhere = format!("/apis/{}/v1/{}?labelSelector=special%3Dyes", self.group, self.resource);
            assert_eq!(self.raw(&["get", "--raw", &everywhere])["items"].as_array().unwrap().len(), 3);
        }
        let name = listed[0]["metadata"]["name"].as_str().unwrap();
        let one = format!("{}.{}/{name}", self.resource, self.group);
        self.lab.cluster.kubectl(&[
            "patch",
            &one,
            "--type=merge",
            "-p",
            r#"{"metadata":{"annotations":{"patched":"true"}}}"#,
        ]);
        let mut read = self.lab.cluster.json(&["get", &one]);
        assert_eq!(read["metadata"]["annotations"]["patched"], "true");
        read["metadata"]["annotations"]["updated"] = json!("true");
        self.lab.cluster.feed(&["replace"], &read.to_string());
        assert_eq!(self.list()[0]["metadata"]["annotations"]["updated"], "true");
        self.lab.cluster.kubectl(&["delete", &one]);
        self.lab.until("one is gone", |_| self.list().len() == 2);
        let collection = format!("{}?labelSelector=special%3Dyes", self.path());
        self.lab.cluster.kubectl(&["delete", "--raw", &collection]);
        self.lab.until("all are gone", |_| self.list().is_empty());
        let events = self.watched(revision.as_str().unwrap());
        let count = |kind: &str| events.iter().filter(|event| *event == kind).count();
        assert_eq!((count("ADDED"), count("DELETED")), (3, 3), "{events:?}");
        assert!(count("MODIFIED") >= 2, "{events:?}");
    }
}

fn three(make: impl Fn(usize) -> Value) -> [Value; 3] {
    [1, 2, 3].map(|number| {
        let mut value = make(number);
        value["metadata"]["labels"]["special"] = json!("yes");
        value
    })
}

// conformance: [sig-network] EndpointSlice should support creating EndpointSlice API operations
fn endpoint_slices(lab: &Lab) {
    let kind = Kind { lab, group: "discovery.k8s.io", resource: "endpointslices", namespaced: true };
    kind.all_verbs(three(|number| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("e2e-{number}")}, "endpoints": [{"addresses": ["1.2.3.4"]}]})
    }));
}

fn ingress(number: usize) -> Value {
    let backend = json!({"service": {"name": "default-backend", "port": {"number": 80}}});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": format!("e2e-{number}")},
        "spec": {"defaultBackend": backend, "rules": [{"host": "foo.bar.com",
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
}

// conformance: [sig-network] Ingress API should support creating Ingress API operations
fn ingresses(lab: &Lab) {
    let kind = Kind { lab, group: "networking.k8s.io", resource: "ingresses", namespaced: true };
    kind.all_verbs(three(ingress));
    lab.create(&ingress(9));
    let patch = r#"{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"loadBalancer":{"ingress":[{"ip":"169.1.1.1"}]}}}"#;
    lab.cluster.kubectl(&["patch", "ingress", "e2e-9", "--subresource=status", "--type=merge", "-p", patch]);
    let mut read = lab.cluster.json(&["get", "ingress", "e2e-9", "--subresource=status"]);
    assert_eq!(read["status"]["loadBalancer"]["ingress"][0]["ip"], "169.1.1.1");
    assert_eq!(read["metadata"]["annotations"]["patchedstatus"], "true");
    read["status"]["loadBalancer"]["ingress"] = json!([{"ip": "169.1.1.2"}]);
    lab.cluster.feed(&["replace", "--subresource=status"], &read.to_string());
    assert_eq!(lab.field("ingress/e2e-9", ".status.loadBalancer.ingress[0].ip"), "169.1.1.2");
    lab.delete(&["ingress/e2e-9"]);
}

// conformance: [sig-network] IngressClass API should support creating IngressClass API operations
fn ingress_classes(lab: &Lab) {
    let kind = Kind { lab, group: "networking.k8s.io", resource: "ingressclasses", namespaced: false };
    kind.all_verbs(three(|number| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": format!("e2e-{number}")}, "spec": {"controller": "example.com/controller"}})
    }));
}

// conformance: [sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations
fn addresses(lab: &Lab) {
    let kind = Kind { lab, group: "networking.k8s.io", resource: "ipaddresses", namespaced: false };
    kind.all_verbs(three(|number| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": format!("192.168.{number}.7"), "labels": {"ipaddress.kubernetes.io/managed-by": "e2e"}},
            "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}}})
    }));
}

// conformance: [sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations
fn ranges(lab: &Lab) {
    let own = lab.cluster.json(&["get", "servicecidr", "kubernetes"]);
    assert!(!own["spec"]["cidrs"].as_array().unwrap().is_empty());
    let kind = Kind { lab, group: "networking.k8s.io", resource: "servicecidrs", namespaced: false };
    let range = |number: usize| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": format!("e2e-{number}")}, "spec": {"cidrs": [format!("10.{}.0.0/24", 200 + number)]}})
    };
    kind.all_verbs(three(range));
    lab.create(&range(9));
    let condition = |reason: &str| {
        json!([{"type": "Test", "status": "True", "reason": reason, "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    };
    let patch = json!({"status": {"conditions": condition("Patched")}}).to_string();
    lab.cluster.kubectl(&[
        "patch",
        "servicecidr",
        "e2e-9",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
    let mut read = lab.cluster.json(&["get", "servicecidr", "e2e-9", "--subresource=status"]);
    assert!(read["status"]["conditions"].to_string().contains("Patched"), "{read}");
    read["status"]["conditions"] = condition("Updated");
    lab.cluster.feed(&["replace", "--subresource=status"], &read.to_string());
    assert!(lab.field("servicecidr/e2e-9", ".status.conditions").contains("Updated"));
    lab.delete(&["servicecidr/e2e-9"]);
}
