//! The real kubectl against the server, where there is one (`KUBECTL`, or `kubectl` in the path).

use std::io::Write;
use std::process::Stdio;

use auth::User;
use client::Client;
use machinery::Status;
use serde_json::json;
use testkit::{Https, TestServer};
use tokio::process::Command;

struct Kubectl<'a> {
    program: String,
    https: &'a Https,
}

impl<'a> Kubectl<'a> {
    /// `None`, with a word on the terminal, where there is no kubectl.
    async fn find(https: &'a Https) -> Option<Self> {
        let program = std::env::var("KUBECTL").unwrap_or_else(|_unset| "kubectl".to_owned());
        let answer = Command::new(&program).args(["version", "--client"]).output().await;
        if !answer.is_ok_and(|answer| answer.status.success()) {
            eprintln!("skipped: there is no {program}; set KUBECTL");
            return None;
        }
        Some(Self { program, https })
    }

    async fn run(&self, line: &str) -> Result<String, String> {
        self.run_with(line, "").await
    }

    /// Runs a line of words with a file as `-f FILE`.
    async fn run_with(&self, line: &str, manifest: &str) -> Result<String, String> {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if !manifest.is_empty() {
            let path = self.https.directory().join("manifest.yaml");
            std::fs::File::create(&path).and_then(|mut file| file.write_all(manifest.as_bytes())).unwrap();
            words.extend(["-f".to_owned(), path.to_string_lossy().into_owned()]);
        }
        let answer = Command::new(&self.program)
            .args(&words)
            .env("KUBECONFIG", self.https.kubeconfig())
            .env("HOME", self.https.directory())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if answer.status.success() {
            Ok(text(&answer.stdout))
        } else {
            Err(format!("{line}: {}{}", text(&answer.stderr), text(&answer.stdout)))
        }
    }
}

async fn namespace(client: &Client) -> Result<(), Status> {
    let namespaces = client.cluster::<k8s_openapi::api::core::v1::Namespace>();
    namespaces.create(&json!({"metadata": {"name": "default"}})).await.map(drop)
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: nginx, ports: [{containerPort: 80}]}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_is_at_home() {
    let test = TestServer::start().await;
    test.users.add("jane", User::new("jane", &[]));
    namespace(&test.client()).await.unwrap();
    let https = test.https().await;
    let Some(kubectl) = Kubectl::find(&https).await else { return };

    let version = kubectl.run("version").await.unwrap();
    assert!(version.contains("v1.36.0+kobune"), "{version}");
    assert_eq!(kubectl.run_with("apply", DEPLOYMENT).await.unwrap(), "deployment.apps/web created\n");
    assert_eq!(kubectl.run_with("apply", DEPLOYMENT).await.unwrap(), "deployment.apps/web unchanged\n");
    let three = DEPLOYMENT.replace("replicas: 2", "replicas: 3");
    kubectl.run_with("diff", &three).await.unwrap_err();
    assert_eq!(kubectl.run_with("apply", &three).await.unwrap(), "deployment.apps/web configured\n");
    let applied = kubectl.run_with("apply --server-side --force-conflicts", &three).await.unwrap();
    assert_eq!(applied, "deployment.apps/web serverside-applied\n");
    let table = kubectl.run("get deployments").await.unwrap();
    assert!(table.starts_with("NAME") && table.contains("web"), "{table}");
    kubectl.run("scale deployment web --replicas=5").await.unwrap();
    let replicas = kubectl.run("get deployment web -o jsonpath={.spec.replicas}").await.unwrap();
    assert_eq!(replicas, "5");
    kubectl.run("label deployment web tier=front").await.unwrap();
    kubectl.run("set image deployment/web nginx=nginx:2").await.unwrap();
    let explained = kubectl.run("explain deployment.spec.replicas").await.unwrap();
    assert!(explained.contains("replicas <integer>"), "{explained}");
    let resources = kubectl.run("api-resources").await.unwrap();
    assert!(resources.contains("deployments") && resources.contains("poddisruptionbudgets"), "{resources}");
    kubectl.run("create configmap settings --from-literal=a=1").await.unwrap();
    let refused = kubectl.run("create configmap settings --from-literal=a=1").await.unwrap_err();
    assert!(refused.contains("configmaps \"settings\" already exists"), "{refused}");
    let whoami = kubectl.run("auth whoami").await.unwrap();
    assert!(whoami.contains("kubernetes-admin"), "{whoami}");
    assert_eq!(kubectl.run("auth can-i create pods").await.unwrap(), "yes\n");
    let deleted = kubectl.run("delete deployment web").await.unwrap();
    assert!(deleted.starts_with("deployment.apps \"web\" deleted"), "{deleted}");
    let missing = kubectl.run("get deployment web").await.unwrap_err();
    assert!(
        missing.contains("Error from server (NotFound): deployments.apps \"web\" not found"),
        "{missing}"
    );
}
