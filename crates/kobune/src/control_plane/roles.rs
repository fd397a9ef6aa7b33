//! The default roles and bindings that every cluster has.

use std::collections::BTreeSet;

use client::{Client, ListOptions, Target};
use futures::{StreamExt, TryStreamExt, stream};
use machinery::Status;
use serde_json::Value;

/// How many are written at once; the store makes one durable write of them.
const CONCURRENCY: usize = 64;

/// Creates those that are missing. Those that are there belong to the administrator.
pub async fn ensure(client: &Client) -> Result<(), Status> {
    let objects = auth::bootstrap_objects();
    let mut present = BTreeSet::new();
    for resource in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        let list = client.target(target(resource, "")).list(&ListOptions::default()).await?;
        present.extend(list.items.iter().map(|object| (resource, object.key())));
    }
    let missing = objects.into_iter().filter(|object| {
        let (resource, namespace, name) = place(object);
        !present.contains(&(resource, machinery::Key::new(namespace, name)))
    });
    stream::iter(missing)
        .map(|object| create(client, object))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

async fn create(client: &Client, object: Value) -> Result<(), Status> {
    let (resource, namespace, _) = place(&object);
    match client.target(target(resource, namespace)).create(&object).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

fn place(object: &Value) -> (&'static str, &str, &str) {
    let resource = match object["kind"].as_str() {
        Some("ClusterRole") => "clusterroles",
        Some("ClusterRoleBinding") => "clusterrolebindings",
        Some("Role") => "roles",
        _ => "rolebindings",
    };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (resource, text("/metadata/namespace"), text("/metadata/name"))
}

fn target(resource: &str, namespace: &str) -> Target {
    Target {
        group: "rbac.authorization.k8s.io".to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    }
}
