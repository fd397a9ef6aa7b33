//! Identities: service accounts and their tokens, reviews, certificate requests.

use http::HeaderName;
use serde_json::{Value, json};

use super::wire::{MERGE, STRATEGIC, Wire};
use super::world::World;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

// conformance: [sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount
async fn lifecycle(wire: &Wire) {
    let selected = "labelSelector=test-serviceaccount-static%3Dtrue";
    let mut watch = wire.watch(&format!("{ACCOUNTS}?watch=true&{selected}")).await;
    let body =
        json!({"metadata": {"name": "testserviceaccount", "labels": {"test-serviceaccount-static": "true"}}});
    wire.post(ACCOUNTS, &body).await.unwrap();
    watch.until("ADDED", |account| account["metadata"]["name"] == "testserviceaccount").await;
    let path = format!("{ACCOUNTS}/testserviceaccount");
    let patch = json!({"automountServiceAccountToken": false});
    let patched = wire.patch(&path, STRATEGIC, &patch).await.unwrap();
    assert_eq!(patched["automountServiceAccountToken"], false);
    watch.until("MODIFIED", |_| true).await;
    let all = wire.items(&format!("/api/v1/serviceaccounts?{selected}")).await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["automountServiceAccountToken"], false);
    wire.delete(&format!("{ACCOUNTS}?{selected}")).await.unwrap();
    watch.until("DELETED", |account| account["metadata"]["name"] == "testserviceaccount").await;
}

// conformance: [sig-auth] ServiceAccounts should update a ServiceAccount
async fn update(wire: &Wire) {
    let made = wire.post(ACCOUNTS, &json!({"metadata": {"name": "e2e-sa"}})).await.unwrap();
    assert!(made["automountServiceAccountToken"].is_null());
    let mut changed = made;
    changed["automountServiceAccountToken"] = json!(true);
    let updated = wire.put(&format!("{ACCOUNTS}/e2e-sa"), &changed).await.unwrap();
    assert_eq!(updated["automountServiceAccountToken"], true);
}

// conformance: [sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview
async fn tokens(world: &World) {
    let wire = &world.admin;
    let account = wire.post(ACCOUNTS, &json!({"metadata": {"name": "e2e-token"}})).await.unwrap();
    let path = format!("{ACCOUNTS}/e2e-token/token");
    let request = json!({"metadata": {"name": "e2e-token"}, "spec": {}});
    let made = wire.post(&path, &request).await.unwrap();
    let token = made["status"]["token"].as_str().unwrap();
    assert!(!token.is_empty() && made["status"]["expirationTimestamp"].is_string());
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = wire.post(reviews, &json!({"spec": {"token": token}})).await.unwrap();
    let status = &review["status"];
    assert_eq!((&status["authenticated"], status.get("error")), (&json!(true), None), "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:e2e-token");
    assert_eq!(status["user"]["uid"], account["metadata"]["uid"]);
    // The token is good for requests until its account is gone; then it is nobody's.
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let selves = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let own = world.bearer(token).post(selves, &review).await.unwrap();
    assert_eq!(own["status"]["userInfo"]["username"], "system:serviceaccount:default:e2e-token");
    let groups = own["status"]["userInfo"]["groups"].as_array().unwrap();
    assert!(
        groups.contains(&json!("system:serviceaccounts")) && groups.contains(&json!("system:authenticated"))
    );
    wire.delete(&format!("{ACCOUNTS}/e2e-token")).await.unwrap();
    let refused = world.bearer(token).post(selves, &review).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (401, "Unauthorized"));
    let wrong = wire.post(reviews, &json!({"spec": {"token": "no.such.token"}})).await.unwrap();
    assert!(wrong["status"]["authenticated"].is_null() && wrong["status"]["error"].is_string(), "{wrong}");
}

/// The discovery documents and keys that verify a token, and who may read them.
async fn issuer(world: &World) {
    let request = json!({"spec": {"audiences": ["oidc-discovery-test"]}});
    wire_ready(&world.admin).await;
    let made = world.admin.post(&format!("{ACCOUNTS}/default/token"), &request).await.unwrap();
    let audience = made["status"]["token"].as_str().unwrap();
    let refused = world.bearer(audience).get("/.well-known/openid-configuration").await.unwrap_err();
    assert_eq!(refused.code, 401, "the token is for somebody else");
    let made = world.admin.post(&format!("{ACCOUNTS}/default/token"), &json!({"spec": {}})).await.unwrap();
    let pod = world.bearer(made["status"]["token"].as_str().unwrap());
    let about = pod.get("/.well-known/openid-configuration").await.unwrap();
    let issuer = about["issuer"].as_str().unwrap();
    let keys = about["jwks_uri"].as_str().unwrap().strip_prefix(issuer).expect("pods reach the issuer");
    let keys = pod.get(keys).await.unwrap();
    assert_eq!(keys["keys"][0]["use"], "sig");
    assert!(keys["keys"][0]["kid"].is_string() && keys["keys"][0]["alg"].is_string(), "{keys}");
    let anonymous = Wire(world.https.with_token(None));
    assert_eq!(anonymous.get("/.well-known/openid-configuration").await.unwrap_err().code, 403);
}

/// Expired tokens and no tokens at all.
async fn refused_callers(world: &World) {
    let expired = world.expired_token("default").await;
    let refused = world.bearer(&expired).get("/api/v1/namespaces/default/pods").await.unwrap_err();
    assert_eq!(
        (refused.code, refused.reason.as_str(), refused.message.as_str()),
        (401, "Unauthorized", "Unauthorized")
    );
    let anonymous = Wire(world.https.with_token(None));
    let refused = anonymous.get("/api/v1/namespaces/default/pods").await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"));
    assert!(refused.message.contains("User \"system:anonymous\" cannot list resource \"pods\""), "{refused}");
    // What everybody may see.
    assert!(anonymous.get("/version").await.is_ok() && anonymous.get("/healthz").await.is_ok());
}

async fn wire_ready(wire: &Wire) {
    wire.until("the service account", &format!("{ACCOUNTS}/default"), Result::is_ok).await;
}

/// Whether a pod of an account has the token's volume.
async fn mounts(wire: &Wire, account: Option<bool>, pod: Option<bool>) -> bool {
    let mut body = json!({"metadata": {"generateName": "mount-"}});
    if let Some(automount) = account {
        body["automountServiceAccountToken"] = json!(automount);
    }
    let account = wire.post(ACCOUNTS, &body).await.unwrap();
    let mut body = json!({"metadata": {"generateName": "pod-service-account-"},
        "spec": {"serviceAccountName": account["metadata"]["name"], "containers": [{"name": "a", "image": "a:1"}]}});
    if let Some(automount) = pod {
        body["spec"]["automountServiceAccountToken"] = json!(automount);
    }
    let pod = wire.post("/api/v1/namespaces/default/pods", &body).await.unwrap();
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
    mounts.iter().any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount")
}

// conformance: [sig-auth] ServiceAccounts should allow opting out of API token automount
async fn opting_out(wire: &Wire) {
    for (account, pod, expected) in [
        (None, None, true),
        (Some(true), None, true),
        (Some(false), None, false),
        (None, Some(true), true),
        (Some(true), Some(true), true),
        (Some(false), Some(true), true),
        (None, Some(false), false),
        (Some(true), Some(false), false),
        (Some(false), Some(false), false),
    ] {
        assert_eq!(mounts(wire, account, pod).await, expected, "{account:?} {pod:?}");
    }
}

// conformance: [sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace
async fn root_certificate(world: &World) {
    let wire = &world.admin;
    let path = format!("{}/configmaps/kube-root-ca.crt", world.namespace("rooted").await);
    wire.until("it is made", &path, Result::is_ok).await;
    let right = wire.get(&path).await.unwrap();
    wire.delete(&path).await.unwrap();
    wire.until("it is made again", &path, |map| {
        map.as_ref().is_ok_and(|map| map["metadata"]["uid"] != right["metadata"]["uid"])
    })
    .await;
    wire.patch(&path, MERGE, &json!({"data": {"ca.crt": "", "other": "x"}})).await.unwrap();
    wire.until("it is mended", &path, |map| map.as_ref().unwrap()["data"] == right["data"]).await;
}

// conformance: [sig-auth] SubjectReview should support SubjectReview API operations
async fn subject_reviews(world: &World) {
    let wire = &world.admin;
    wire.post(ACCOUNTS, &json!({"metadata": {"name": "e2e-reviewed"}})).await.unwrap();
    let user = "system:serviceaccount:default:e2e-reviewed";
    let impersonated = |path: &'static str| async move {
        let headers = [
            (HeaderName::from_static("impersonate-user"), user),
            (HeaderName::from_static("impersonate-group"), "system:authenticated"),
        ];
        wire.0.fetch(http::Method::GET, path, &headers, bytes::Bytes::new()).await.is_ok()
    };
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]);
    let group = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    wire.post(&format!("{group}/roles"), &json!({"metadata": {"name": "reviewed"}, "rules": rules}))
        .await
        .unwrap();
    let binding = json!({"metadata": {"name": "reviewed"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reviewed"},
        "subjects": [{"kind": "ServiceAccount", "name": "e2e-reviewed", "namespace": "default"}]});
    wire.post(&format!("{group}/rolebindings"), &binding).await.unwrap();
    wire.until("the role counts", "/api/v1/namespaces/default", |_| true).await;
    for (resource, path, expected) in [
        ("configmaps", "/api/v1/namespaces/default/configmaps", true),
        ("secrets", "/api/v1/namespaces/default/secrets", false),
    ] {
        let attributes =
            json!({"verb": "list", "resource": resource, "namespace": "default", "version": "v1"});
        let spec = json!({"resourceAttributes": attributes, "user": user});
        let started = std::time::Instant::now();
        while impersonated(path).await != expected {
            assert!(started.elapsed() < super::wire::PATIENCE, "{resource}");
            tokio::task::yield_now().await;
        }
        for reviews in ["subjectaccessreviews", "namespaces/default/localsubjectaccessreviews"] {
            let path = format!("/apis/authorization.k8s.io/v1/{reviews}");
            let review = wire.post(&path, &json!({"metadata": {"namespace": if reviews.starts_with('n') { "default" } else { "" }}, "spec": spec})).await.unwrap();
            assert_eq!(review["status"]["allowed"], expected, "{reviews} {resource}: {review}");
        }
    }
}

const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// `openssl req -new -newkey ed25519 -subj /CN=e2e-test`, in base64.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlHU01FWUNBUUF3RXpFUk1BOEdBMVVFQXd3SVpUSmxMWFJsYzNRd0tqQUZCZ01yWlhBRElRQTFlUWh4OHh5cQpKOHRqd015Q0g2eDFOZTAvQ1h0T0l6a0prZzJibTZ5b2xLQUFNQVVHQXl0bGNBTkJBS2lvSGQ5amQxNGw1ZFZ6CklZR0FGU3BQck9DckdNK2ZyWlZvTml2b0VCcE9CT0Y5VlljWWdneWg5YjhWb2hQNk0yWDBwdEdVRThZeDk2NjIKaS81ZUlRTT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

fn kinds(csr: &Value) -> Vec<&str> {
    let conditions = csr["status"]["conditions"].as_array();
    conditions.into_iter().flatten().filter_map(|condition| condition["type"].as_str()).collect()
}

// conformance: [sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations
async fn certificate_requests(wire: &Wire) {
    let document = wire.get("/apis/certificates.k8s.io/v1").await.unwrap();
    let names: Vec<_> =
        document["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in [
        "certificatesigningrequests",
        "certificatesigningrequests/approval",
        "certificatesigningrequests/status",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let body = json!({"metadata": {"generateName": "e2e-example-csr-", "labels": {"e2e": "csr"}},
        "spec": {"request": REQUEST, "signerName": "example.com/e2e", "expirationSeconds": 3600,
            "usages": ["digital signature", "key encipherment", "server auth"]}});
    let selected = "labelSelector=e2e%3Dcsr";
    let mut watch = wire.watch(&format!("{CSRS}?watch=true&{selected}")).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(wire.post(CSRS, &body).await.unwrap());
    }
    let path = format!("{CSRS}/{}", made[0]["metadata"]["name"].as_str().unwrap());
    assert_eq!(made[0]["spec"]["username"], "kubernetes-admin");
    assert_eq!(wire.get(&path).await.unwrap()["spec"]["expirationSeconds"], 3600);
    assert_eq!(
        wire.items(&format!("{CSRS}?fieldSelector=spec.signerName%3Dexample.com%2Fe2e")).await.len(),
        3
    );
    let patched =
        wire.patch(&path, MERGE, &json!({"metadata": {"annotations": {"patched": "true"}}})).await.unwrap();
    let mut update = patched;
    update["metadata"]["annotations"]["updated"] = json!("true");
    wire.put(&path, &update).await.unwrap();
    watch.until("MODIFIED", |csr| csr["metadata"]["annotations"]["updated"] == "true").await;
    approval(wire, &format!("{path}/approval")).await;
    certificate(wire, &format!("{path}/status")).await;
    wire.delete(&path).await.unwrap();
    wire.until_gone(&path).await;
    assert_eq!(wire.items(&format!("{CSRS}?{selected}")).await.len(), 2);
    wire.delete(&format!("{CSRS}?{selected}")).await.unwrap();
    assert!(wire.items(&format!("{CSRS}?{selected}")).await.is_empty());
}

async fn approval(wire: &Wire, path: &str) {
    assert_eq!(wire.get(path).await.unwrap()["kind"], "CertificateSigningRequest");
    let patch = json!({"metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let patched = wire.patch(path, MERGE, &patch).await.unwrap();
    assert_eq!(kinds(&patched), ["ApprovalPatch"]);
    assert_eq!(patched["metadata"]["annotations"]["patchedapproval"], "true");
    let mut update = patched;
    let approved =
        json!({"type": "Approved", "status": "True", "reason": "E2E", "message": "Set from an e2e test"});
    update["status"]["conditions"].as_array_mut().unwrap().push(approved);
    let updated = wire.put(path, &update).await.unwrap();
    assert_eq!(kinds(&updated), ["ApprovalPatch", "Approved"]);
}

async fn certificate(wire: &Wire, path: &str) {
    assert_eq!(wire.get(path).await.unwrap()["kind"], "CertificateSigningRequest");
    // The API keeps what a signer writes, whatever it is.
    let certificate = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJQRENCNzZBREFnRUNBaFJIb1RCTzBhZHlkbGFYM3I3SmF3eWQvaDdpVWpBRkJnTXJaWEF3RXpFUk1BOEcKQTFVRUF3d0laVEpsTFhSbGMzUXdJQmNOTWpZeE1USXhNRGd5TVRFMldoZ1BNakV5TmpFd01qZ3dPREl4TVRaYQpNQk14RVRBUEJnTlZCQU1NQ0dVeVpTMTBaWE4wTUNvd0JRWURLMlZ3QXlFQU5Ya0ljZk1jcWlmTFk4RE1naCtzCmRUWHRQd2w3VGlNNUNaSU5tNXVzcUpTalV6QlJNQjBHQTFVZERnUVdCQlJibm80djZERzFjWXJVSG96WWQ3Z0YKbGVaNnB6QWZCZ05WSFNNRUdEQVdnQlJibm80djZERzFjWXJVSG96WWQ3Z0ZsZVo2cHpBUEJnTlZIUk1CQWY4RQpCVEFEQVFIL01BVUdBeXRsY0FOQkFGNUo0MXNTL3ZvWk45MmVvQUFsbllTNlNqVTk0U1hhT0hUcitFT1VzSzBWCi94dEdPcmw4aGZxZVlmTzU2aE0xVElROTRPaTY4bTQvcnFOTEdnQjlXd2s9Ci0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": certificate}});
    let patched = wire.patch(path, MERGE, &patch).await.unwrap();
    assert_eq!(patched["status"]["certificate"], certificate);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let mut update = patched;
    let condition =
        json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"});
    update["status"]["conditions"].as_array_mut().unwrap().push(condition);
    let updated = wire.put(path, &update).await.unwrap();
    assert_eq!(kinds(&updated), ["ApprovalPatch", "Approved", "StatusUpdate"]);
}

/// Tokens in Secrets, as older clients have them.
async fn secrets(world: &World) {
    let wire = &world.admin;
    wire.post(ACCOUNTS, &json!({"metadata": {"name": "old"}})).await.unwrap();
    let path = "/api/v1/namespaces/default/secrets/old-token";
    let body = json!({"metadata": {"name": "old-token", "annotations": {"kubernetes.io/service-account.name": "old"}},
        "type": "kubernetes.io/service-account-token"});
    wire.post("/api/v1/namespaces/default/secrets", &body).await.unwrap();
    wire.until("the secret is filled", path, |secret| {
        let data = &secret.as_ref().unwrap()["data"];
        ["token", "ca.crt", "namespace"].iter().all(|key| data[*key].is_string())
    })
    .await;
    let secret = wire.get(path).await.unwrap();
    let account = wire.get(&format!("{ACCOUNTS}/old")).await.unwrap();
    assert_eq!(
        secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"],
        account["metadata"]["uid"]
    );
    let token = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        secret["data"]["token"].as_str().unwrap(),
    );
    let token = String::from_utf8(token.unwrap()).unwrap();
    let review = json!({"spec": {"token": token}});
    let reviewed = wire.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.unwrap();
    assert_eq!(reviewed["status"]["user"]["username"], "system:serviceaccount:default:old", "{reviewed}");
    wire.delete(&format!("{ACCOUNTS}/old")).await.unwrap();
    wire.until_gone(path).await;
}

#[tokio::test]
async fn accounts_tokens_and_reviews() {
    let world = World::start().await;
    wire_ready(&world.admin).await;
    lifecycle(&world.admin).await;
    update(&world.admin).await;
    tokens(&world).await;
    issuer(&world).await;
    refused_callers(&world).await;
    secrets(&world).await;
    opting_out(&world.admin).await;
    root_certificate(&world).await;
    subject_reviews(&world).await;
    certificate_requests(&world.admin).await;
}
