//! Whole commands against a server that answers from a script.

mod server;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use expect_test::{Expect, expect};
use futures::StreamExt;
use futures::stream::BoxStream;
use machinery::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Kubectl;
use crate::api::{Api, Request};
use crate::session::{Session, Sink};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    kubectl: Kubectl,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Answers requests in the order of a script and writes down what was sent.
struct Script {
    answers: Mutex<VecDeque<(&'static str, Result<Value, Status>)>>,
    transcript: Buffer,
}

impl Script {
    fn answer(&self, line: &str) -> Result<Value, Status> {
        let (expected, answer) =
            self.answers.lock().pop_front().unwrap_or_else(|| panic!("unexpected {line}"));
        assert!(line.starts_with(expected), "expected {expected}, got {line}");
        writeln!(self.transcript.clone(), "> {line}").expect("memory can be written");
        answer
    }
}

fn discovery(path: &str) -> Value {
    let resource = |resource: &str,
                    kind: &str,
                    short: &str,
                    group: &str,
                    scope: &str,
                    categories: &[&str]| {
        json!({"resource": resource, "responseKind": {"group": group, "version": "v1", "kind": kind},
            "singularResource": kind.to_lowercase(), "scope": scope, "shortNames": [short], "categories": categories,
            "verbs": ["get", "list", "create", "delete", "patch", "update", "watch"],
            "subresources": [{"subresource": "scale"}]})
    };
    let groups = match path {
        "/api" => json!([{"metadata": {}, "versions": [{"version": "v1", "resources": [
            resource("namespaces", "Namespace", "ns", "", "Cluster", &[]),
            resource("pods", "Pod", "po", "", "Namespaced", &["all"]),
            resource("replicationcontrollers", "ReplicationController", "rc", "", "Namespaced", &["all"]),
            resource("services", "Service", "svc", "", "Namespaced", &["all"]),
        ]}]}]),
        _ => json!([{"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
            resource("deployments", "Deployment", "deploy", "apps", "Namespaced", &["all"]),
        ]}]}]),
    };
    json!({"kind": "APIGroupDiscoveryList", "items": groups})
}

#[async_trait]
impl Api for Script {
    async fn fetch(&self, request: Request<'_>) -> Result<Bytes, Status> {
        if request.path == "/api" || request.path == "/apis" {
            return Ok(Bytes::from(discovery(request.path).to_string()));
        }
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let line = format!("{} {} {body}", request.method, request.path);
        self.answer(line.trim_end()).map(|answer| Bytes::from(answer.to_string()))
    }

    async fn stream(&self, path: &str, _: &str) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let events = self.answer(&format!("STREAM {path}"))?;
        let lines: Vec<_> = match events {
            Value::Array(events) => {
                events.iter().map(|event| Ok(Bytes::from(format!("{event}\n")))).collect()
            }
            text => vec![Ok(Bytes::from(text.as_str().unwrap_or_default().to_owned()))],
        };
        Ok(futures::stream::iter(lines).boxed())
    }

    async fn upgrade(&self, path: &str, _: &str) -> Result<streaming::Io, Status> {
        Err(Status::bad_request(format!("no upgrade of {path} in a script")))
    }
}

/// Runs a command line; the transcript has requests, output, and the failure.
async fn check(line: &str, answers: Vec<(&'static str, Result<Value, Status>)>, expected: Expect) {
    let words = std::iter::once("kubectl").chain(line.split_whitespace());
    let transcript = Buffer::default();
    let script = Script { answers: Mutex::new(answers.into()), transcript: transcript.clone() };
    let script = Arc::new(script);
    match Line::try_parse_from(words) {
        Err(error) => writeln!(transcript.clone(), "{}", error.kind()).expect("memory can be written"),
        Ok(parsed) => {
            let global = parsed.kubectl.global.clone();
            let mut session = Session::over(script.clone(), global.namespace.as_deref().unwrap_or("default"));
            session.namespace_given = global.namespace.is_some();
            session.out = Sink::new(transcript.clone());
            session.err = Sink::new(transcript.clone());
            if let Err(error) = parsed.kubectl.command.run(&session).await {
                writeln!(transcript.clone(), "{error}\nexit {}", error.exit_code())
                    .expect("memory can be written");
            }
        }
    }
    let left = script.answers.lock().len();
    assert_eq!(left, 0, "requests that were expected did not come");
    expected.assert_eq(&String::from_utf8_lossy(&transcript.0.lock()));
}

fn echo(kind: &str, version: &str, name: &str) -> Result<Value, Status> {
    let metadata = json!({"name": name, "namespace": "default", "uid": "u", "resourceVersion": "7"});
    Ok(json!({"apiVersion": version, "kind": kind, "metadata": metadata}))
}

fn table(rows: &[&[&str]]) -> Result<Value, Status> {
    let rows: Vec<_> = rows.iter().map(|cells| json!({"cells": cells, "object": {}})).collect();
    let columns = json!([{"name": "Name"}, {"name": "Ready"}, {"name": "Status"}]);
    Ok(
        json!({"kind": "Table", "metadata": {"resourceVersion": "5"}, "columnDefinitions": columns, "rows": rows}),
    )
}

#[test]
fn no_two_flags_of_a_command_collide() {
    use clap::CommandFactory;
    Line::command().debug_assert();
}

#[tokio::test]
async fn the_first_command_of_the_article() {
    let answers = vec![("POST", echo("ReplicationController", "v1", "my-nginx"))];
    check("run my-nginx --image=nginx --replicas=2 --port=80", answers, expect![[r#"
        > POST /api/v1/namespaces/default/replicationcontrollers?fieldManager=kubectl-run&fieldValidation=Strict {"apiVersion":"v1","kind":"ReplicationController","metadata":{"labels":{"run":"my-nginx"},"name":"my-nginx"},"spec":{"replicas":2,"selector":{"run":"my-nginx"},"template":{"metadata":{"labels":{"run":"my-nginx"}},"spec":{"containers":[{"image":"nginx","name":"my-nginx","ports":[{"containerPort":80}]}],"restartPolicy":"Always"}}}}
        replicationcontroller/my-nginx created
    "#]]).await;
    let answers = vec![("POST", echo("Pod", "v1", "web"))];
    check("run web --image=nginx --env=A=b -- -c x", answers, expect![[r#"
        > POST /api/v1/namespaces/default/pods?fieldManager=kubectl-run&fieldValidation=Strict {"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"run":"web"},"name":"web"},"spec":{"containers":[{"args":["-c","x"],"env":[{"name":"A","value":"b"}],"image":"nginx","name":"web"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always"}}
        pod/web created
    "#]]).await;
}

#[tokio::test]
async fn tables() {
    check(
        "get po",
        vec![("GET", table(&[&["web", "1/1", "Running"]]))],
        expect![[r#"
        > GET /api/v1/namespaces/default/pods
        NAME   READY   STATUS
        web    1/1     Running
    "#]],
    )
    .await;
    check(
        "get pods -l a=b -A",
        vec![("GET", table(&[]))],
        expect![[r#"
        > GET /api/v1/pods?labelSelector=a%3Db
        No resources found
    "#]],
    )
    .await;
    check(
        "get pods,svc -n x",
        vec![("GET", table(&[&["a", "b", "c"]])), ("GET", table(&[&["d", "e", "f"]]))],
        expect![[r#"
            > GET /api/v1/namespaces/x/pods
            NAME    READY   STATUS
            pod/a   b       c
            > GET /api/v1/namespaces/x/services

            NAME        READY   STATUS
            service/d   e       f
        "#]],
    )
    .await;
    let missing = Err(Status::not_found("apps", "deployments", "web"));
    check(
        "get deploy/web",
        vec![("GET", missing)],
        expect![[r#"
        > GET /apis/apps/v1/namespaces/default/deployments/web
        Error from server (NotFound): deployments.apps "web" not found
        exit 1
    "#]],
    )
    .await;
    check(
        "get nonsense",
        vec![],
        expect![[r#"
        error: the server doesn't have a resource type "nonsense"
        exit 1
    "#]],
    )
    .await;
    check("get pods svc/x", vec![], expect![[r#"
        error: there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'
        exit 1
    "#]]).await;
    let event = json!([{"type": "MODIFIED", "object": table(&[&["web", "0/1", "Terminating"]]).unwrap()}]);
    let answers = vec![("GET", table(&[&["web", "1/1", "Running"]])), ("STREAM", Ok(event))];
    check("get pod web -w", answers, expect![[r#"
        > GET /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb
        NAME   READY   STATUS
        web    1/1     Running
        > STREAM /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb&watch=true&resourceVersion=5
        web    0/1     Terminating
    "#]]).await;
}

#[tokio::test]
async fn objects_in_other_formats() {
    let list = json!({"kind": "PodList", "items": [{"metadata": {"name": "a", "managedFields": []}}]});
    check(
        "get pods -o yaml",
        vec![("GET", Ok(list.clone()))],
        expect![[r#"
        > GET /api/v1/namespaces/default/pods
        apiVersion: v1
        items:
        - apiVersion: v1
          kind: Pod
          metadata:
            name: a
        kind: List
        metadata:
          resourceVersion: ""
    "#]],
    )
    .await;
    check(
        "get pods -o name",
        vec![("GET", Ok(list.clone()))],
        expect![[r#"
        > GET /api/v1/namespaces/default/pods
        pod/a
    "#]],
    )
    .await;
    check(
        "get pods -o jsonpath={.items[*].metadata.name}",
        vec![("GET", Ok(list))],
        expect![[r#"
        > GET /api/v1/namespaces/default/pods
        a"#]],
    )
    .await;
    check(
        "get deploy x -o json",
        vec![("GET", echo("Deployment", "apps/v1", "x"))],
        expect![[r#"
        > GET /apis/apps/v1/namespaces/default/deployments/x
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "x",
                "namespace": "default",
                "resourceVersion": "7",
                "uid": "u"
            }
        }
    "#]],
    )
    .await;
    check("get pods -o nonsense", vec![], expect![[r#"
        error: unable to match a printer suitable for the output format "nonsense", allowed formats are: custom-columns,json,jsonpath,name,wide,yaml
        exit 1
    "#]]).await;
}

#[tokio::test]
async fn deleting_waits_until_the_object_is_gone() {
    let list = json!({"metadata": {"resourceVersion": "8"}, "items": [echo("Pod", "v1", "web").unwrap()]});
    let gone = json!([{"type": "DELETED", "object": echo("Pod", "v1", "web").unwrap()}]);
    let answers = vec![("DELETE", echo("Pod", "v1", "web")), ("GET", Ok(list)), ("STREAM", Ok(gone))];
    check("delete pod web", answers, expect![[r#"
        > DELETE /api/v1/namespaces/default/pods/web {"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}
        pod "web" deleted from default namespace
        > GET /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb
        > STREAM /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb&watch=true&resourceVersion=8
    "#]]).await;
    let missing = || Err(Status::not_found("", "pods", "web"));
    check("delete pod web", vec![("DELETE", missing())], expect![[r#"
        > DELETE /api/v1/namespaces/default/pods/web {"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}
        Error from server (NotFound): pods "web" not found
        exit 1
    "#]]).await;
    check("delete pod web --ignore-not-found", vec![("DELETE", missing())], expect![[r#"
        > DELETE /api/v1/namespaces/default/pods/web {"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}
    "#]]).await;
    check(
        "delete pods",
        vec![],
        expect![[r#"
        error: resource(s) were provided, but no name was specified
        exit 1
    "#]],
    )
    .await;
}

#[tokio::test]
async fn changes() {
    let deployment = || echo("Deployment", "apps/v1", "web");
    check(
        "scale deploy web --replicas=3",
        vec![("GET", deployment()), ("PATCH", deployment())],
        expect![[r#"
            > GET /apis/apps/v1/namespaces/default/deployments/web
            > PATCH /apis/apps/v1/namespaces/default/deployments/web/scale?fieldManager=kubectl {"spec":{"replicas":3}}
            deployment.apps/web scaled
        "#]],
    )
    .await;
    check("label deploy web a=b", vec![("GET", deployment()), ("PATCH", deployment())], expect![[r#"
        > GET /apis/apps/v1/namespaces/default/deployments/web
        > PATCH /apis/apps/v1/namespaces/default/deployments/web?fieldManager=kubectl-label&fieldValidation=Strict {"metadata":{"labels":{"a":"b"}}}
        deployment.apps/web labeled
    "#]])
        .await;
    let mut controller = echo("ReplicationController", "v1", "my-nginx").unwrap();
    controller["spec"] = json!({"selector": {"run": "my-nginx"},
        "template": {"spec": {"containers": [{"ports": [{"containerPort": 80}]}]}}});
    let answers = vec![("GET", Ok(controller)), ("POST", echo("Service", "v1", "my-nginx"))];
    check("expose rc my-nginx --port=80 --type=LoadBalancer", answers, expect![[r#"
        > GET /api/v1/namespaces/default/replicationcontrollers/my-nginx
        > POST /api/v1/namespaces/default/services?fieldManager=kubectl-expose&fieldValidation=Strict {"apiVersion":"v1","kind":"Service","metadata":{"name":"my-nginx"},"spec":{"ports":[{"port":80,"protocol":"TCP","targetPort":80}],"selector":{"run":"my-nginx"},"type":"LoadBalancer"}}
        service/my-nginx exposed
    "#]]).await;
    check("create ns x", vec![("POST", echo("Namespace", "v1", "x"))], expect![[r#"
        > POST /api/v1/namespaces?fieldManager=kubectl-create&fieldValidation=Strict {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}}
        namespace/x created
    "#]]).await;
    check(
        "create deployment x --image=a/b:1 --dry-run=client -o yaml",
        vec![],
        expect![[r#"
            apiVersion: apps/v1
            kind: Deployment
            metadata:
              labels:
                app: x
              name: x
            spec:
              replicas: 1
              selector:
                matchLabels:
                  app: x
              template:
                metadata:
                  labels:
                    app: x
                spec:
                  containers:
                  - image: a/b:1
                    name: b
        "#]],
    )
    .await;
}

#[tokio::test]
async fn logs_of_the_default_container() {
    let mut pod = echo("Pod", "v1", "web").unwrap();
    pod["spec"] = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let answers = vec![("GET", Ok(pod)), ("STREAM", Ok(Value::from("hello\n")))];
    check(
        "logs web --tail=5",
        answers,
        expect![[r#"
        > GET /api/v1/namespaces/default/pods/web
        Defaulted container "a" out of: a, b
        > STREAM /api/v1/namespaces/default/pods/web/log?container=a&tailLines=5
        hello
    "#]],
    )
    .await;
}

#[tokio::test]
async fn apply_makes_changes_and_leaves_alone() {
    let folder = std::env::temp_dir().join(format!("kobune-cli-{}", env::Env::system().uuid()));
    std::fs::create_dir(&folder).expect("a folder for the test");
    let file = folder.join("ns.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n  labels:\n    a: b\n")
        .expect("a file");
    let line = format!("apply -f {}", file.display());
    let missing = Err(Status::not_found("", "namespaces", "x"));
    check(&line, vec![("GET", missing), ("POST", echo("Namespace", "v1", "x"))], expect![[r#"
        > GET /api/v1/namespaces/x
        > POST /api/v1/namespaces?fieldManager=kubectl-client-side-apply&fieldValidation=Strict {"apiVersion":"v1","kind":"Namespace","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"annotations\":{},\"labels\":{\"a\":\"b\"},\"name\":\"x\"}}\n"},"labels":{"a":"b"},"name":"x"}}
        namespace/x created
    "#]]).await;
    let manifest =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b"}}});
    let live = crate::apply::with_last_applied(&manifest);
    check(
        &line,
        vec![("GET", Ok(live.clone()))],
        expect![[r#"
        > GET /api/v1/namespaces/x
        namespace/x unchanged
    "#]],
    )
    .await;
    let mut old = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b", "old": "1"}}});
    old = crate::apply::with_last_applied(&old);
    old["metadata"]["labels"]["other"] = json!("kept");
    check(&line, vec![("GET", Ok(old)), ("PATCH", echo("Namespace", "v1", "x"))], expect![[r#"
        > GET /api/v1/namespaces/x
        > PATCH /api/v1/namespaces/x?fieldManager=kubectl-client-side-apply&fieldValidation=Strict {"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"annotations\":{},\"labels\":{\"a\":\"b\"},\"name\":\"x\"}}\n"},"labels":{"old":null}}}
        namespace/x configured
    "#]]).await;
    std::fs::remove_dir_all(&folder).expect("the test's folder");
}

#[test]
fn switches_may_be_written_with_a_value() {
    use clap::Args;
    let command = || crate::with_switch_values(crate::Kubectl::augment_args(clap::Command::new("kubectl")));
    for (words, stdin, tty, rm) in [
        ("kubectl run a --image=b -it --rm", true, true, true),
        ("kubectl run a --image=b -it --rm=false", true, true, false),
        ("kubectl run a --image=b --stdin=true", true, false, false),
        ("kubectl run a --image=b -ti -- sh -c x", true, true, false),
        ("kubectl run a --image=b", false, false, false),
    ] {
        let matches = command().try_get_matches_from(words.split(' ')).unwrap();
        let run = matches.subcommand_matches("run").unwrap();
        let found = (run.get_flag("stdin"), run.get_flag("tty"), run.get_flag("rm"));
        assert_eq!(found, (stdin, tty, rm), "{words}");
    }
    assert!(command().try_get_matches_from(["kubectl", "get", "pods", "--watch=perhaps"]).is_err());
}

#[tokio::test]
async fn what_is_used() {
    let metrics = |name: &str, cpu: &str, memory: &str| {
        json!({"metadata": {"name": name, "namespace": "default"},
            "containers": [{"name": "a", "usage": {"cpu": cpu, "memory": memory}},
                {"name": "b", "usage": {"cpu": "1m", "memory": "1Mi"}}]})
    };
    let list = || Ok(json!({"items": [metrics("web", "1500u", "2048Ki"), metrics("app", "2", "10Mi")]}));
    check(
        "top pods -l a=b --sum",
        vec![("GET", list())],
        expect![[r#"
            > GET /apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=a%3Db
            NAME   CPU(cores)   MEMORY(bytes)
            app    2001m        11Mi
            web    3m           3Mi
                   2004m        14Mi
        "#]],
    )
    .await;
    check(
        "top po -A --containers --sort-by=memory --no-headers",
        vec![("GET", list())],
        expect![[r#"
            > GET /apis/metrics.k8s.io/v1beta1/pods
            default   app   a     2000m   10Mi
            default   app   b     1m      1Mi
            default   web   a     2m      2Mi
            default   web   b     1m      1Mi
        "#]],
    )
    .await;
    let usage = json!({"cpu": "500m", "memory": "1Gi"});
    let nodes = json!({"items": [{"metadata": {"name": "n1"}, "usage": usage}]});
    let known = |name: &str| json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi"}}});
    check(
        "top nodes",
        vec![("GET", Ok(nodes)), ("GET", Ok(json!({"items": [known("n1"), known("n2")]})))],
        expect![[r#"
            > GET /apis/metrics.k8s.io/v1beta1/nodes
            > GET /api/v1/nodes
            NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)
            n1     500m         25%         1024Mi          25%
            n2     <unknown>    <unknown>   <unknown>       <unknown>
        "#]],
    )
    .await;
}
