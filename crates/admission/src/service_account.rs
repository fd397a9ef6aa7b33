//! ServiceAccount: every pod runs as an account of its namespace, with a token where it expects one.

use std::time::Duration;

use async_trait::async_trait;
use client::WatchOptions;
use env::Env;
use futures::StreamExt;
use machinery::Status;
use resources::core::pod::defaults::mirror_service_account;
use resources::value::{Access, Fill};
use serde_json::{Value, json};

use crate::lookup::{Lookup, is_mirror_pod, target};
use crate::{Attributes, Operation, Plugin};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const TOKEN_SECONDS: i64 = 3607;
const VOLUME_MODE: i64 = 0o644;
/// How long a pod waits for the account of a namespace that was made just now.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct ServiceAccount {
    pub lookup: Lookup,
    pub env: Env,
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if is_mirror_pod(attributes.new_object()) {
            return mirror(attributes);
        }
        let name = match attributes.new_object().text("/spec/serviceAccountName") {
            "" => "default".to_owned(),
            name => name.to_owned(),
        };
        let account = match self.account(attributes.namespace, &name).await? {
            Some(account) => account,
            None => {
                let namespace = attributes.namespace;
                let detail = format!(
                    "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
                );
                return Err(attributes.forbidden(&detail));
            }
        };
        let suffix = self.env.name_suffix(5);
        if let Some(pod) = attributes.object.as_deref_mut() {
            complete(pod, &name, &account, &format!("{VOLUME_PREFIX}{suffix}"));
        }
        Ok(())
    }
}

impl ServiceAccount {
    /// The account; the default one of a young namespace is waited for.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        let found = self.lookup.find("", "serviceaccounts", namespace, name).await?;
        if found.is_some() || name != "default" {
            return Ok(found);
        }
        let options = WatchOptions {
            field_selector: format!("metadata.name={name}"),
            timeout_seconds: PATIENCE.as_secs(),
            ..WatchOptions::default()
        };
        let mut events =
            self.lookup.client().target(target("", "serviceaccounts", namespace)).watch(&options).await?;
        let first = tokio::time::timeout(PATIENCE, async {
            while let Some(event) = events.next().await {
                if let client::WatchEvent::Added(object) = event? {
                    return Ok(Some(object.value()));
                }
            }
            Ok(None)
        });
        first.await.unwrap_or(Ok(None))
    }
}

/// A mirror pod has no identity in the API.
fn mirror(attributes: &Attributes<'_>) -> Result<(), Status> {
    let spec = attributes.new_object().at("/spec");
    if !spec.text("/serviceAccountName").is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    let refers = |volume: &Value| {
        volume.has("/secret")
            || volume.items("/projected/sources").iter().any(|source| source.has("/serviceAccountToken"))
    };
    if spec.items("/volumes").iter().any(refers) {
        return Err(attributes.forbidden("a mirror pod may not reference secrets or service account tokens"));
    }
    Ok(())
}

/// What the account gives to a pod.
fn complete(pod: &mut Value, name: &str, account: &Value, volume: &str) {
    let spec = pod.child("spec");
    spec.set("serviceAccountName", name);
    mirror_service_account(spec);
    let wants_token = |object: &Value| object.at("/automountServiceAccountToken").as_bool();
    if wants_token(spec).or(wants_token(account)).unwrap_or(true) {
        mount_token(spec, volume);
    }
    let secrets = account.items("/imagePullSecrets");
    if spec.items("/imagePullSecrets").is_empty() && !secrets.is_empty() {
        spec.set("imagePullSecrets", secrets.to_vec());
    }
}

fn mount_token(spec: &mut Value, fresh: &str) {
    let existing = spec.items("/volumes").iter().map(|volume| volume.text("/name"));
    let known = existing.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let name = known.clone().unwrap_or_else(|| fresh.to_owned());
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.each(list) {
            let mounts = container.items("/volumeMounts");
            if mounts.iter().any(|mount| mount.text("/mountPath") == MOUNT_PATH) {
                continue;
            }
            let mut mounts = mounts.to_vec();
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            container.set("volumeMounts", mounts);
            used = true;
        }
    }
    if used && known.is_none() {
        let mut volumes = spec.items("/volumes").to_vec();
        volumes.push(token_volume(&name));
        spec.set("volumes", volumes);
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": VOLUME_MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}
    ]}})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_token_is_mounted_where_none_is() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]}});
        complete(&mut pod, "robot", &json!({"imagePullSecrets": [{"name": "s"}]}), "kube-api-access-abcde");
        expect![[r#"{"spec":{"containers":[{"name":"a","volumeMounts":[{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","name":"kube-api-access-abcde","readOnly":true}]},{"name":"b","volumeMounts":[{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","name":"x"}]}],"imagePullSecrets":[{"name":"s"}],"serviceAccount":"robot","serviceAccountName":"robot","volumes":[{"name":"kube-api-access-abcde","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"items":[{"key":"ca.crt","path":"ca.crt"}],"name":"kube-root-ca.crt"}},{"downwardAPI":{"items":[{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"},"path":"namespace"}]}}]}}]}}"#]]
            .assert_eq(&pod.to_string());
    }

    #[test]
    fn the_pod_decides_before_the_account() {
        for (pod, account, mounted) in [
            (json!({}), json!({"automountServiceAccountToken": false}), false),
            (
                json!({"automountServiceAccountToken": true}),
                json!({"automountServiceAccountToken": false}),
                true,
            ),
            (json!({"automountServiceAccountToken": false}), json!({}), false),
        ] {
            let mut spec = pod.clone();
            spec["containers"] = json!([{"name": "a"}]);
            let mut pod = json!({"spec": spec});
            complete(&mut pod, "default", &account, "kube-api-access-abcde");
            assert_eq!(pod["spec"].get("volumes").is_some(), mounted, "{pod}");
        }
    }
}
