//! Who is who, and who may what.

use std::sync::Arc;

use auth::{Masters, Rbac, Union, User};
use bytes::Bytes;
use client::{Caches, Client};
use http::{HeaderName, Method};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReview};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::{Value, json};
use testkit::TestServer;

/// A server that judges by RBAC, in which jane may write cluster roles and read pods.
async fn with_jane() -> TestServer {
    let rbac = Arc::new(Rbac::default());
    let test = TestServer::with_authorizer(Arc::new(Union(vec![Arc::new(Masters), rbac.clone()]))).await;
    let admin = test.client();
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create", "get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    ]);
    admin
        .cluster::<ClusterRole>()
        .create(&json!({"metadata": {"name": "writer"}, "rules": rules}))
        .await
        .unwrap();
    let binding = json!({
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "writer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    admin.cluster::<ClusterRoleBinding>().create(&binding).await.unwrap();
    rbac.start(&Caches::new(admin, test.shutdown().clone()));
    rbac.synced().await;
    test
}

fn jane(test: &TestServer) -> Client {
    test.client_of(User::new("jane", &[]))
}

#[tokio::test]
async fn reviews_answer_as_the_authorizers_do() {
    let test = with_jane().await;
    let asked = |verb: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}});
    for (verb, allowed) in [("get", true), ("delete", false)] {
        let own =
            jane(&test).cluster::<SelfSubjectAccessReview>().create(&json!({"spec": asked(verb)})).await;
        assert_eq!(own.unwrap_err().code, 403, "jane lacks the default role that lets everybody ask");
        let mut spec = asked(verb);
        spec["user"] = json!("jane");
        let review =
            test.client().cluster::<SubjectAccessReview>().create(&json!({"spec": spec})).await.unwrap();
        assert_eq!(review.value()["status"]["allowed"], allowed, "{verb}");
    }
    let whoami = test.client().cluster::<SelfSubjectReview>().create(&json!({})).await.unwrap().value();
    assert_eq!(whoami["status"]["userInfo"]["username"], "admin");
    let neither =
        test.client().cluster::<SubjectAccessReview>().create(&json!({"spec": {"user": "jane"}})).await;
    assert_eq!(neither.unwrap_err().code, 422);
}

#[tokio::test]
async fn anonymous_and_impersonating_callers() {
    let test = with_jane().await;
    let https = test.https().await;
    let get = async |http: &client::Http, path: &str, headers: &[(HeaderName, &str)]| {
        http.fetch(Method::GET, path, headers, Bytes::new()).await
    };
    let anonymous =
        get(&https.with_token(None), "/api/v1/namespaces/default/pods/web", &[]).await.unwrap_err();
    assert_eq!(anonymous.code, 403);
    assert_eq!(
        anonymous.message,
        "pods \"web\" is forbidden: User \"system:anonymous\" cannot get resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let as_jane = [(HeaderName::from_static("impersonate-user"), "jane")];
    let admin = https.admin();
    let missing = get(&admin, "/api/v1/namespaces/default/pods/web", &as_jane).await.unwrap_err();
    assert_eq!(missing.code, 404, "jane may get pods: {missing}");
    let refused = get(&admin, "/api/v1/nodes", &as_jane).await.unwrap_err();
    assert!(refused.message.contains("User \"jane\" cannot list resource \"nodes\""), "{refused}");
    test.users.add("jane-token", User::new("jane", &[]));
    let refused = get(&https.with_token(Some("jane-token")), "/api/v1/nodes", &as_jane).await.unwrap_err();
    assert!(refused.message.contains("cannot impersonate resource \"users\""), "{refused}");
    let version: Value = serde_json::from_slice(&get(&admin, "/version", &[]).await.unwrap()).unwrap();
    assert_eq!(version["minor"], "36");
}
