//! The built-in chain in front of a real API server.

mod objects;
mod services;
mod settled;

use std::sync::Arc;

use admission::{Dependencies, Ranges, default_chain};
use auth::{Attributes, Authorizer, Decision};
use client::Target;
use machinery::Status;
use serde_json::{Value, json};
use testkit::TestServer;

/// Everybody may read pods; nothing else is anybody's.
struct Readers;

impl Authorizer for Readers {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        match (attributes.verb.as_str(), attributes.resource.as_str()) {
            ("get", "pods") => Decision::Allow(String::new()),
            _ => Decision::NoOpinion(String::new()),
        }
    }
}

/// A server with the whole chain, the namespace `default` and its service account.
async fn start() -> TestServer {
    let test = TestServer::start().await;
    let chain = default_chain(Dependencies {
        client: test.client(),
        env: test.env.clone(),
        authorizer: Arc::new(Readers),
        ranges: Ranges { addresses: vec!["10.96.0.0/16".parse().unwrap()], node_ports: 30_000..=32_767 },
        protects_storage: true,
    });
    test.server.set_admission(Arc::new(chain));
    let created = create(&test, "namespaces", "", json!({"metadata": {"name": "default"}})).await;
    if let Err(status) = created {
        assert!(status.is_already_exists(), "{status}");
    }
    create(&test, "serviceaccounts", "default", json!({"metadata": {"name": "default"}})).await.unwrap();
    test
}

fn target(path: &str, namespace: &str) -> Target {
    let (group, resource) = path.rsplit_once('/').unwrap_or(("", path));
    Target {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    }
}

async fn create(test: &TestServer, path: &str, namespace: &str, body: Value) -> Result<Value, Status> {
    test.client().target(target(path, namespace)).create(&body).await.map(|object| object.value())
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}
