//! What was read can be written back without a change: defaults, preparation and admission settle.

use serde_json::{Value, json};
use testkit::TestServer;

use super::{create, pod, start, target};

async fn check(test: &TestServer, path: &str, namespace: &str, body: Value) -> Value {
    let name = body["metadata"]["name"].as_str().unwrap().to_owned();
    let made = create(test, path, namespace, body).await.unwrap_or_else(|status| panic!("{path}: {status}"));
    let collection = test.client().target(target(path, namespace));
    let again =
        collection.update(&name, &made).await.unwrap_or_else(|status| panic!("{path}: {status}")).value();
    assert_eq!(again, made, "{path}");
    made
}

#[tokio::test]
async fn objects_settle() {
    let test = start().await;
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx",
        "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}},
        "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}], "volumes": [{"name": "v"}]}});
    let selector = json!({"matchLabels": labels});
    let named = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    check(&test, "pods", "default", pod("x")).await;
    check(&test, "replicationcontrollers", "default", named(json!({"template": template}))).await;
    for kind in ["deployments", "replicasets", "daemonsets"] {
        let path = format!("apps/{kind}");
        check(&test, &path, "default", named(json!({"selector": selector, "template": template}))).await;
    }
    let claims = json!([{"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}]);
    let set = json!({"selector": selector, "template": template, "serviceName": "x", "volumeClaimTemplates": claims});
    check(&test, "apps/statefulsets", "default", named(set)).await;
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let job = check(&test, "batch/jobs", "default", named(json!({"template": once}))).await;
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "x");
    let cron = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": once}}});
    check(&test, "batch/cronjobs", "default", named(cron)).await;
    check(&test, "services", "default", named(json!({"type": "LoadBalancer", "ports": [{"port": 80}]})))
        .await;
}

#[tokio::test]
async fn small_objects_settle() {
    let test = start().await;
    let plain = || json!({"metadata": {"name": "x"}});
    for path in ["configmaps", "secrets", "serviceaccounts", "endpoints", "coordination.k8s.io/leases"] {
        check(&test, path, "default", plain()).await;
    }
    check(&test, "namespaces", "", plain()).await;
    check(&test, "nodes", "", plain()).await;
    let policy = json!({"metadata": {"name": "x"}, "spec": {"podSelector": {}}});
    check(&test, "networking.k8s.io/networkpolicies", "default", policy).await;
    let claim = json!({"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    check(&test, "persistentvolumeclaims", "default", claim).await;
    let volume = json!({"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}});
    check(&test, "persistentvolumes", "", volume).await;
    let budget = json!({"metadata": {"name": "x"}, "spec": {"minAvailable": 1, "selector": {}}});
    check(&test, "policy/poddisruptionbudgets", "default", budget).await;
    let binding = json!({"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "u"}]});
    check(&test, "rbac.authorization.k8s.io/rolebindings", "default", binding).await;
    let scaler = json!({"metadata": {"name": "x"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"}}});
    let made = check(&test, "autoscaling/horizontalpodautoscalers", "default", scaler).await;
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    let event = json!({"metadata": {"name": "x"}, "regarding": {"namespace": "default", "name": "p"}, "note": "n",
        "reason": "R", "action": "A", "type": "Normal", "reportingController": "c", "reportingInstance": "i",
        "eventTime": "2026-01-01T00:00:00.000000Z"});
    let made = check(&test, "events.k8s.io/events", "default", event).await;
    assert_eq!(made["note"], "n");
    let core = test.client().target(target("events", "default")).get("x").await.unwrap().value();
    assert_eq!(core["message"], "n");
    assert_eq!(core["involvedObject"]["name"], "p");
}

#[tokio::test]
async fn a_status_is_written_and_a_generation_counts_specs() {
    let test = start().await;
    let labels = json!({"app": "web"});
    let body = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}});
    let mut made = create(&test, "apps/deployments", "default", body).await.unwrap();
    let deployments = test.client().target(target("apps/deployments", "default"));
    made["status"] = json!({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1});
    made["spec"]["replicas"] = json!(9);
    let mut updated = deployments.update_status("d", &made).await.unwrap().value();
    assert_eq!((&updated["spec"]["replicas"], &updated["status"]["readyReplicas"]), (&json!(1), &json!(1)));
    assert_eq!(updated["metadata"]["generation"], 1);
    updated["spec"]["replicas"] = json!(2);
    let scaled = deployments.update("d", &updated).await.unwrap().value();
    assert_eq!(scaled["metadata"]["generation"], 2);
    let mut wrong = scaled.clone();
    wrong["status"]["readyReplicas"] = json!(5);
    let refused = deployments.update_status("d", &wrong).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Deployment.apps \"d\" is invalid: status.readyReplicas: Invalid value: 5: cannot be greater than status.replicas"
    );
}
