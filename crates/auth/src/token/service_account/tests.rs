use super::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
struct Shelf(Mutex<BTreeMap<String, Value>>);

impl Shelf {
    fn put(&self, path: &str, value: Value) {
        self.0.lock().insert(path.to_owned(), value);
    }
}

#[async_trait::async_trait]
impl Objects for Shelf {
    async fn find(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        let found = self.0.lock().get(&format!("{resource}/{namespace}/{name}")).cloned();
        Ok(found.map(|value| Arc::new(Object::from_value(&value, 1).unwrap())))
    }
}

fn setup() -> (Arc<Shelf>, ServiceAccountTokens) {
    let env = Env::seeded(1, Timestamp::from_second(1_700_000_000).unwrap());
    let shelf = Arc::new(Shelf::default());
    let meta = |name: &str, uid: &str| json!({"name": name, "namespace": "web", "uid": uid});
    shelf.put("serviceaccounts/web/app", json!({"metadata": meta("app", "sa-1")}));
    shelf.put("nodes//n", json!({"metadata": {"name": "n", "uid": "node-1"}}));
    let spec = json!({"containers": [], "serviceAccountName": "app", "nodeName": "n"});
    shelf.put("pods/web/p", json!({"metadata": meta("p", "pod-1"), "spec": spec}));
    let config = TokenConfig::new("cluster.local");
    let tokens = ServiceAccountTokens::new(SigningKey::ephemeral().unwrap(), config, shelf.clone(), env);
    (shelf, tokens)
}

async fn issue(tokens: &ServiceAccountTokens, spec: Value) -> Result<String, String> {
    let request = json!({"spec": spec});
    let answer = tokens.create("web", "app", &request).await.map_err(|status| status.message.clone())?;
    Ok(answer["status"]["token"].as_str().unwrap().to_owned())
}

async fn verify(tokens: &ServiceAccountTokens, token: &str) -> Result<Verified, String> {
    match tokens.verify(token, tokens.audiences()).await {
        Ok(found) => found.ok_or_else(|| "not ours".to_owned()),
        Err(error) => Err(error.0),
    }
}

fn pod_bound() -> Value {
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "pod-1"});
    json!({"audiences": [], "expirationSeconds": 3607, "boundObjectRef": bound})
}

#[tokio::test(start_paused = true)]
async fn a_token_stands_for_the_account_and_its_pod() {
    let (_shelf, tokens) = setup();
    let token = issue(&tokens, pod_bound()).await.unwrap();
    let user = verify(&tokens, &token).await.unwrap().user;
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:web:app", "sa-1"));
    assert_eq!(user.extra["authentication.kubernetes.io/pod-uid"], ["pod-1"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-name"], ["n"]);
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI="));
    // The default volume's tokens outlive what was asked for.
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    assert!(verify(&tokens, &token).await.is_ok());
    tokio::time::advance(Duration::from_secs(EXTENDED_SECONDS as u64)).await;
    assert_eq!(verify(&tokens, &token).await.unwrap_err(), "service account token has expired");
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_with_what_it_is_bound_to() {
    let (shelf, tokens) = setup();
    let token = issue(&tokens, pod_bound()).await.unwrap();
    let mut pod = shelf.0.lock()["pods/web/p"].clone();
    pod["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z".into();
    shelf.put("pods/web/p", pod.clone());
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(verify(&tokens, &token).await.is_ok());
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(verify(&tokens, &token).await.unwrap_err().contains("deleted"));
    pod["metadata"] = json!({"name": "p", "namespace": "web", "uid": "pod-2"});
    shelf.put("pods/web/p", pod);
    assert!(verify(&tokens, &token).await.unwrap_err().contains("another one"));
    shelf.0.lock().remove("pods/web/p");
    assert!(verify(&tokens, &token).await.unwrap_err().contains("invalidated"));
}

#[tokio::test(start_paused = true)]
async fn requests_are_checked() {
    let (_shelf, tokens) = setup();
    let bound = |reference: Value| json!({"audiences": [], "boundObjectRef": reference});
    let cases = [
        (json!({"audiences": [], "expirationSeconds": 599}), "less than 10 minutes"),
        (json!({"audiences": [], "expirationSeconds": 1i64 << 33}), "larger than 2^32"),
        (bound(json!({"kind": "Pod", "apiVersion": "v1", "name": "x"})), "pods \"x\" not found"),
        (
            bound(json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "z"})),
            "does not match the UID",
        ),
        (bound(json!({"kind": "Job", "apiVersion": "batch/v1", "name": "p"})), "object of type Job.batch"),
    ];
    for (spec, expected) in cases {
        let error = issue(&tokens, spec).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let missing = tokens.create("web", "nobody", &json!({"spec": {"audiences": []}})).await.unwrap_err();
    assert!(missing.is_not_found());
}

#[tokio::test(start_paused = true)]
async fn audiences_are_kept_apart() {
    let (_shelf, tokens) = setup();
    let token = issue(&tokens, json!({"audiences": ["vault"]})).await.unwrap();
    assert!(verify(&tokens, &token).await.unwrap_err().contains("invalid for the target audiences"));
    let found = tokens.verify(&token, &["vault".to_owned(), "x".to_owned()]).await.unwrap().unwrap();
    assert_eq!(found.audiences, ["vault"]);
    assert_eq!(verify(&tokens, "abcdef.0123456789abcdef").await.unwrap_err(), "not ours");
}

#[tokio::test(start_paused = true)]
async fn a_secrets_token_is_good_while_the_secret_holds_it() {
    use base64::Engine;
    let (shelf, tokens) = setup();
    let account =
        shelf.0.lock().iter().find(|(path, _)| path.starts_with("serviceaccounts/web/")).unwrap().1.clone();
    let (name, uid) =
        (account["metadata"]["name"].as_str().unwrap(), account["metadata"]["uid"].as_str().unwrap());
    let token = tokens.issue_for_secret("web", "s", name, uid).unwrap();
    assert!(verify(&tokens, &token).await.unwrap_err().contains("invalidated"));
    let encoded = base64::engine::general_purpose::STANDARD.encode(&token);
    let secret =
        json!({"metadata": {"name": "s", "namespace": "web", "uid": "secret-1"}, "data": {"token": encoded}});
    shelf.put("secrets/web/s", secret.clone());
    let user = tokens.verify(&token, tokens.audiences()).await.unwrap().unwrap().user;
    assert_eq!((user.name, user.uid), (format!("system:serviceaccount:web:{name}"), uid.to_owned()));
    assert!(tokens.verify(&token, &["vault".to_owned()]).await.is_err());
    let mut other = secret;
    other["data"]["token"] = "eA==".into();
    shelf.put("secrets/web/s", other);
    assert!(verify(&tokens, &token).await.unwrap_err().contains("does not match"));
}
