//! What the chain does to pods and the kinds around them.

use auth::User;
use client::DeleteOptions;
use serde_json::json;

use super::{create, pod, start, target};

#[tokio::test]
async fn a_pod_is_completed() {
    let test = start().await;
    let made = create(&test, "pods", "default", pod("a")).await.unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], spec["volumes"][0]["name"]);
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["status"]["qosClass"], "BestEffort");
    assert_eq!(made["metadata"]["generation"], 1);
    let pods = test.client().target(target("pods", "default"));
    pods.update("a", &made).await.unwrap();
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let test = start().await;
    create(&test, "namespaces", "", json!({"metadata": {"name": "young"}})).await.unwrap();
    let (made, account) = tokio::join!(create(&test, "pods", "young", pod("a")), async {
        tokio::task::yield_now().await;
        create(&test, "serviceaccounts", "young", json!({"metadata": {"name": "default"}})).await
    });
    account.unwrap();
    assert_eq!(made.unwrap()["spec"]["serviceAccountName"], "default");
    let mut other = pod("b");
    other["spec"]["serviceAccountName"] = json!("none");
    assert_eq!(
        create(&test, "pods", "young", other).await.unwrap_err().message,
        "pods \"b\" is forbidden: error looking up service account young/none: serviceaccount \"none\" not found"
    );
}

#[tokio::test]
async fn namespaces_guard_their_content() {
    let test = start().await;
    let missing =
        create(&test, "configmaps", "nowhere", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (404, "namespaces \"nowhere\" not found"));
    let namespaces = test.client().target(target("namespaces", ""));
    let kept = namespaces.delete("default", &DeleteOptions::default()).await.unwrap_err();
    assert_eq!(kept.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
    create(&test, "namespaces", "", json!({"metadata": {"name": "old"}})).await.unwrap();
    namespaces.delete("old", &DeleteOptions::default()).await.unwrap();
    let late = create(&test, "configmaps", "old", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(
        late.message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace old because it is being terminated"
    );
    assert_eq!(late.details.as_ref().unwrap().causes[0].reason, "NamespaceTerminating");
}

#[tokio::test]
async fn quotas_hold() {
    let test = start().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1", "count/configmaps": "1"}}});
    create(&test, "resourcequotas", "default", quota).await.unwrap();
    create(&test, "pods", "default", pod("a")).await.unwrap();
    assert_eq!(
        create(&test, "pods", "default", pod("b")).await.unwrap_err().message,
        "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    let map = |name: &str| json!({"metadata": {"name": name}});
    let both =
        [create(&test, "configmaps", "default", map("a")), create(&test, "configmaps", "default", map("b"))];
    let results = futures::future::join_all(both).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "two at once do not both fit");
    let pods = test.client().target(target("pods", "default"));
    pods.delete("a", &DeleteOptions::default()).await.unwrap();
    create(&test, "pods", "default", pod("b")).await.unwrap();
}

#[tokio::test]
async fn limits_and_security_levels_hold() {
    let test = start().await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    create(&test, "namespaces", "", json!({"metadata": {"name": "strict", "labels": labels}})).await.unwrap();
    create(&test, "serviceaccounts", "strict", json!({"metadata": {"name": "default"}})).await.unwrap();
    let mut privileged = pod("a");
    privileged["spec"]["hostNetwork"] = json!(true);
    assert_eq!(
        create(&test, "pods", "strict", privileged).await.unwrap_err().message,
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let limits = json!([{"type": "Container", "default": {"cpu": "100m"}, "max": {"cpu": "1"}}]);
    create(&test, "limitranges", "strict", json!({"metadata": {"name": "l"}, "spec": {"limits": limits}}))
        .await
        .unwrap();
    let made = create(&test, "pods", "strict", pod("b")).await.unwrap();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"]["cpu"], "100m");
    assert_eq!(resources["requests"]["cpu"], "100m");
}

#[tokio::test]
async fn classes_are_found() {
    let test = start().await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000, "globalDefault": true});
    create(&test, "scheduling.k8s.io/priorityclasses", "", class).await.unwrap();
    let made = create(&test, "pods", "default", pod("a")).await.unwrap();
    assert_eq!(made["spec"]["priority"], 1000);
    assert_eq!(made["spec"]["priorityClassName"], "high");
    let mut unknown = pod("b");
    unknown["spec"]["priorityClassName"] = json!("none");
    assert_eq!(
        create(&test, "pods", "default", unknown).await.unwrap_err().message,
        "pods \"b\" is forbidden: no PriorityClass with name none was found"
    );
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "fast", "annotations": annotations}, "provisioner": "x/y"});
    create(&test, "storage.k8s.io/storageclasses", "", class).await.unwrap();
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let made = create(&test, "persistentvolumeclaims", "default", claim).await.unwrap();
    assert_eq!(made["spec"]["storageClassName"], "fast");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let node = create(&test, "nodes", "", json!({"metadata": {"name": "n"}})).await.unwrap();
    assert_eq!(node["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_hold() {
    let test = start().await;
    let roles =
        test.client_of(User::new("u", &["g"])).target(target("rbac.authorization.k8s.io/roles", "default"));
    let role = |name: &str, verb: &str| json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]});
    roles.create(&role("reader", "get")).await.unwrap();
    assert_eq!(
        roles.create(&role("writer", "create")).await.unwrap_err().message,
        "roles.rbac.authorization.k8s.io \"writer\" is forbidden: user \"u\" (groups=[\"g\", \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"create\"]}"
    );
}
