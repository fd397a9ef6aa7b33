//! `[sig-auth]` behaviours that need pods which run.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn container(name: &str) -> Value {
    json!({"name": name, "image": "test.local/busybox:1", "command": ["sleep", "3600"]})
}

fn run(cluster: &Cluster, pod: &Value) {
    cluster.feed(&["create"], &pod.to_string());
    let name = pod["metadata"]["name"].as_str().unwrap();
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{name}")]);
}

fn read(cluster: &Cluster, pod: &str, container: &str, path: &str) -> String {
    cluster.kubectl(&["exec", pod, "-c", container, "--", "cat", path])
}

/// The user that a token stands for, by `TokenReview`.
fn reviewed(cluster: &Cluster, token: &str, audiences: &[&str]) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences}});
    let answer = cluster.feed(&["create", "-o", "json"], &review.to_string());
    serde_json::from_str::<Value>(&answer).unwrap()["status"].clone()
}

// conformance: [sig-auth] ServiceAccounts should mount an API token into pods
fn api_token(cluster: &Cluster) {
    cluster.kubectl(&["create", "serviceaccount", "mount-test"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod-service-account"}, "spec": {
        "serviceAccountName": "mount-test", "terminationGracePeriodSeconds": 1,
        "containers": [container("token-test"), container("root-ca-test"), container("namespace-test")]}});
    run(cluster, &pod);
    let token = read(cluster, "pod-service-account", "token-test", &format!("{DIRECTORY}/token"));
    let status = reviewed(cluster, &token, &[]);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:mount-test", "{status}");
    let pods = &status["user"]["extra"]["authentication.kubernetes.io/pod-name"];
    assert_eq!(pods, &json!(["pod-service-account"]));
    let root = read(cluster, "pod-service-account", "root-ca-test", &format!("{DIRECTORY}/ca.crt"));
    let published = cluster.json(&["get", "configmap", "kube-root-ca.crt"]);
    assert_eq!(published["data"]["ca.crt"], root);
    let namespace = read(cluster, "pod-service-account", "namespace-test", &format!("{DIRECTORY}/namespace"));
    assert_eq!(namespace, "default");
    cluster.kubectl(&["delete", "pod", "pod-service-account"]);
}

// conformance: [sig-auth] ServiceAccounts should mount projected service account token
fn projected_token(cluster: &Cluster) {
    let mut test = container("agnhost-container");
    test["volumeMounts"] = json!([{"name": "sa-token-vol", "mountPath": "/test/volume"}]);
    let source =
        json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 3600}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test-pod-token"}, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [test],
        "volumes": [{"name": "sa-token-vol", "projected": {"sources": [source]}}]}});
    run(cluster, &pod);
    let token = read(cluster, "test-pod-token", "agnhost-container", "/test/volume/token");
    assert!(!token.is_empty());
    let status = reviewed(cluster, &token, &["vault"]);
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["vault"])),
        "{status}"
    );
    cluster.kubectl(&["delete", "pod", "test-pod-token"]);
}

/// Verifies the projected token as anybody would who knows nothing but its issuer: the issuer's documents are asked for
/// over TLS, and the token's signature (ES256, RFC 7518) is checked with the key (RFC 7517) that they name.
const VERIFY: &str = r#"
set -e
api=/var/run/secrets/kubernetes.io/serviceaccount
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
decode() {
  text=$(printf %s "$1" | tr '_-' '/+')
  while [ $((${#text} % 4)) -ne 0 ]; do text="$text="; done
  echo "$text" | base64 -d
}
hex() { decode "$1" | xxd -p | tr -d '\n'; }
get() {
  printf 'GET %s HTTP/1.0\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n' "$1" "$host" "$(cat $api/token)" |
    openssl s_client -quiet -verify_return_error -verify_hostname "$host" -CAfile $api/ca.crt -connect "$host:443" |
    tr -d '\r' | sed '1,/^$/d'
}
token=$(cat /var/run/secrets/tokens/sa-token)
head=${token%%.*}; rest=${token#*.}; claims=${rest%%.*}; signature=${rest#*.}
issuer=$(decode "$claims" | field iss)
host=${issuer#https://}
about=$(get /.well-known/openid-configuration)
test "$(echo "$about" | field issuer)" = "$issuer"
keys=$(echo "$about" | field jwks_uri)
kid=$(decode "$head" | field kid)
key=$(get "${keys#$issuer}" | tr '{' '\n' | grep "\"kid\":\"$kid\"")
point=$(hex "$(echo "$key" | field x)")$(hex "$(echo "$key" | field y)")
echo "3059301306072a8648ce3d020106082a8648ce3d03010703420004$point" | xxd -r -p > /tmp/key
numbers=$(hex "$signature")
printf 'asn1=SEQUENCE:pair\n[pair]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' \
  "$(echo "$numbers" | cut -c 1-64)" "$(echo "$numbers" | cut -c 65-128)" > /tmp/pair
openssl asn1parse -genconf /tmp/pair -noout -out /tmp/signature
printf %s "$head.$claims" > /tmp/signed
openssl dgst -sha256 -verify /tmp/key -keyform DER -signature /tmp/signature /tmp/signed
decode "$claims"
"#;

fn import_verifier(cluster: &Cluster, name: &str) {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    crate::image::busybox_root(&root);
    crate::image::add_program(&root, "/usr/bin/openssl");
    let config = json!({"Env": ["PATH=/bin:/usr/bin", "OPENSSL_CONF=/dev/null"]});
    cluster.import(&crate::image::archive(work.path(), name, &root, config));
}

// conformance: [sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer
fn issuer_discovery(cluster: &Cluster) {
    const IMAGE: &str = "test.local/verifier:1";
    import_verifier(cluster, IMAGE);
    let source = json!({"serviceAccountToken": {"path": "sa-token", "expirationSeconds": 7200,
        "audience": "oidc-discovery-test"}});
    let mounts = json!([{"name": "sa-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "oidc-discovery-validator"}, "spec": {
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", VERIFY], "volumeMounts": mounts}],
        "volumes": [{"name": "sa-token", "projected": {"sources": [source]}}]}});
    cluster.feed(&["create"], &pod.to_string());
    let phase = |cluster: &Cluster| {
        let path = "jsonpath={.status.phase}";
        cluster.kubectl(&["get", "pod", "oidc-discovery-validator", "-o", path])
    };
    cluster.until("the verifier ends", |cluster| ["Succeeded", "Failed"].contains(&&*phase(cluster)));
    let said = cluster.kubectl(&["logs", "oidc-discovery-validator"]);
    assert_eq!(phase(cluster), "Succeeded", "{said}");
    assert!(said.contains("Verified OK") && said.contains(r#""aud":["oidc-discovery-test"]"#), "{said}");
}

#[test]
fn pods_have_identities() {
    let cluster = Cluster::up();
    crate::image::import_busybox(&cluster);
    api_token(&cluster);
    projected_token(&cluster);
    issuer_discovery(&cluster);
}
