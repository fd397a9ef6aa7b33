//! The HTTPS door: forms of answers, bad input, discovery.

use bytes::Bytes;
use client::Http;
use futures::StreamExt;
use http::{Method, header};
use http_body_util::BodyExt;
use machinery::Status;
use serde_json::{Value, json};
use testkit::{Https, TestServer};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

async fn start() -> (TestServer, Https, Http) {
    let test = TestServer::start().await;
    let https = test.https().await;
    let admin = https.admin();
    (test, https, admin)
}

async fn get(http: &Http, path: &str, accept: &str) -> Result<Bytes, Status> {
    http.fetch(Method::GET, path, &[(header::ACCEPT, accept)], Bytes::new()).await
}

async fn post(http: &Http, path: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Value, Status> {
    let bytes = http.fetch(Method::POST, path, &[(header::CONTENT_TYPE, content_type)], body.into()).await?;
    Ok(serde_json::from_slice(&bytes).unwrap())
}

fn map(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
        .to_string()
}

#[tokio::test]
async fn bad_input_gets_a_status_that_says_so() {
    let (test, https, admin) = start().await;
    test.users.add("jane-token", auth::User::new("jane", &[]));
    let refused = |outcome: Result<Value, Status>| {
        let status = outcome.unwrap_err();
        (status.code, status.reason.clone(), status.message.clone())
    };
    let json = "application/json";

    let (code, reason, message) = refused(post(&admin, MAPS, "text/plain", "x").await);
    assert_eq!((code, reason.as_str()), (415, "UnsupportedMediaType"), "{message}");
    let (code, reason, _) = refused(post(&admin, MAPS, json, "{").await);
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    let (code, _, _) = refused(post(&admin, MAPS, json, "").await);
    assert_eq!(code, 400);
    let wrong_kind = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#;
    let (code, _, message) = refused(post(&admin, MAPS, json, wrong_kind).await);
    assert_eq!(code, 400, "{message}");
    let elsewhere = r#"{"metadata":{"name":"a","namespace":"other"}}"#;
    let (code, _, message) = refused(post(&admin, MAPS, json, elsewhere).await);
    assert_eq!(code, 400);
    assert_eq!(
        message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let unknown = r#"{"metadata":{"name":"a"},"foo":1}"#;
    let (code, _, message) =
        refused(post(&admin, &format!("{MAPS}?fieldValidation=Strict"), json, unknown).await);
    assert_eq!(code, 400);
    assert!(message.ends_with("strict decoding error: unknown field \"foo\""), "{message}");
    let (code, _, _) = refused(post(&admin, &format!("{MAPS}?dryRun=Some"), json, map("a")).await);
    assert_eq!(code, 422);
    let (code, reason, _) = refused(post(&admin, MAPS, json, vec![b' '; 10 << 20]).await);
    assert_eq!((code, reason.as_str()), (413, "RequestEntityTooLarge"));

    let expired = https.with_token(Some("no-such-token"));
    let (code, reason, message) = refused(post(&expired, MAPS, json, map("a")).await);
    assert_eq!((code, reason.as_str(), message.as_str()), (401, "Unauthorized", "Unauthorized"));
    let not_acceptable = get(&admin, MAPS, "text/html").await.unwrap_err();
    assert_eq!((not_acceptable.code, not_acceptable.reason.as_str()), (406, "NotAcceptable"));
    let nowhere = get(&admin, "/apis/example.com/v1/things", json).await.unwrap_err();
    assert_eq!(
        (nowhere.code, nowhere.message.as_str()),
        (404, "the server could not find the requested resource")
    );
}

#[tokio::test]
async fn unknown_fields_are_warned_of() {
    let (_test, _https, admin) = start().await;
    let body = r#"{"metadata":{"name":"a"},"foo":1,"data":{"a":"1","a":"2"}}"#;
    let answer = admin.send(Method::POST, MAPS, &JSON, Bytes::from_static(body.as_bytes())).await.unwrap();
    let warnings: Vec<_> =
        answer.headers().get_all(header::WARNING).iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    assert_eq!(warnings, [r#"299 - "unknown field \"foo\"""#, r#"299 - "duplicate field \"data.a\"""#]);
    assert_eq!(answer.status(), 201);
}

#[tokio::test]
async fn an_object_has_the_form_that_is_asked_for() {
    let (_test, _https, admin) = start().await;
    post(&admin, MAPS, "application/json", map("one")).await.unwrap();
    let path = format!("{MAPS}/one");
    let yaml = get(&admin, &path, "application/yaml").await.unwrap();
    let text = std::str::from_utf8(&yaml).unwrap();
    assert!(text.contains("kind: ConfigMap"), "{text}");
    let protobuf = get(&admin, &path, "application/vnd.kubernetes.protobuf").await.unwrap();
    assert!(protobuf.starts_with(b"k8s\0"));
    let list = get(&admin, MAPS, "application/vnd.kubernetes.protobuf").await.unwrap();
    assert!(list.starts_with(b"k8s\0") && list.windows(13).any(|bytes| bytes == b"ConfigMapList"));
    let table = get(&admin, MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io").await.unwrap();
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "one");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(
        table["columnDefinitions"].as_array().unwrap().len(),
        table["rows"][0]["cells"].as_array().unwrap().len()
    );
    let partial =
        get(&admin, &path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.unwrap();
    let partial: Value = serde_json::from_slice(&partial).unwrap();
    assert_eq!((partial["kind"].as_str(), partial.get("data")), (Some("PartialObjectMetadata"), None));

    // What came in protobuf and YAML is stored like what came in JSON.
    let renamed = text.replace("name: one", "name: two").replace("resourceVersion", "ignored");
    let made = post(&admin, MAPS, "application/yaml", renamed).await.unwrap();
    assert_eq!(made["data"], json!({"a": "1"}));
    let again = post(&admin, MAPS, "application/vnd.kubernetes.protobuf", protobuf).await.unwrap_err();
    assert!(again.is_already_exists(), "{again}");
}

#[tokio::test]
async fn a_watch_is_lines_of_events() {
    let (_test, _https, admin) = start().await;
    let watch = admin
        .send(Method::GET, &format!("{MAPS}?watch=1&timeoutSeconds=5"), &[], Bytes::new())
        .await
        .unwrap();
    let mut body = watch.into_body().into_data_stream();
    post(&admin, MAPS, "application/json", map("one")).await.unwrap();
    let line = body.next().await.unwrap().unwrap();
    assert!(line.ends_with(b"\n"));
    let event: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("one")));

    let binary = [(header::ACCEPT, "application/vnd.kubernetes.protobuf;stream=watch")];
    let path = format!("{MAPS}?watch=1&resourceVersion=0");
    let watch = admin.send(Method::GET, &path, &binary, Bytes::new()).await.unwrap();
    let chunk = watch.into_body().into_data_stream().next().await.unwrap().unwrap();
    let length = u32::from_be_bytes(chunk[..4].try_into().unwrap());
    assert_eq!(length as usize, chunk.len() - 4);
}

#[tokio::test]
async fn an_expired_watch_says_so_in_an_event() {
    let (test, _https, admin) = start().await;
    post(&admin, MAPS, "application/json", map("one")).await.unwrap();
    let made = post(&admin, MAPS, "application/json", map("two")).await.unwrap();
    let revision: u64 = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    test.server.compact(revision).await.unwrap();
    let event = get(&admin, &format!("{MAPS}?watch=1&resourceVersion=2"), "").await.unwrap();
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn discovery_says_what_the_table_says() {
    let (test, _https, admin) = start().await;
    let read = async |path: &str, accept: &str| -> Value {
        serde_json::from_slice(&get(&admin, path, accept).await.unwrap()).unwrap()
    };
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (core, others) = (read("/api", aggregated).await, read("/apis", aggregated).await);
    let mut found = Vec::new();
    for group in core["items"].as_array().unwrap().iter().chain(others["items"].as_array().unwrap()) {
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                let kind = &resource["responseKind"];
                found.push(format!(
                    "{}/{}/{}",
                    kind["group"].as_str().unwrap(),
                    kind["version"].as_str().unwrap(),
                    resource["resource"].as_str().unwrap()
                ));
            }
        }
    }
    let table = test.server.table();
    let mut expected: Vec<_> =
        table.rows().iter().map(|row| format!("{}/{}/{}", row.group, row.version, row.resource)).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for row in table.rows() {
        let path =
            if row.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", row.api_version()) };
        let document = read(&path, "application/json").await;
        let listed = document["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == *row.resource)
            .unwrap();
        assert_eq!(listed["verbs"], json!(row.verbs), "{path}");
    }
    assert_eq!(read("/version", "").await["gitVersion"], "v1.36.0+kobune");
    assert_eq!(&get(&admin, "/readyz", "").await.unwrap()[..], b"ok");
    let verbose = get(&admin, "/livez?verbose", "").await.unwrap();
    assert!(verbose.ends_with(b"livez check passed\n"));
    assert!(
        get(&admin, "/metrics", "")
            .await
            .unwrap()
            .windows(23)
            .any(|bytes| bytes == b"apiserver_request_total")
    );
    let index = read("/openapi/v3", "").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = read(url, "").await;
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
}
