//! Commands against the real server, over HTTPS.

use std::sync::Arc;

use clap::Parser;
use expect_test::expect;
use testkit::TestServer;

use super::{Buffer, Line};
use crate::session::{Session, Sink};

/// Runs a command line in a namespace; what it printed, and how it failed.
async fn run(http: &Arc<client::Http>, line: &str) -> String {
    let words = std::iter::once("kubectl").chain(line.split_whitespace());
    let parsed = Line::try_parse_from(words).expect("the line can be parsed").kubectl;
    let output = Buffer::default();
    let mut session = Session::over(http.clone(), "work");
    session.out = Sink::new(output.clone());
    session.err = Sink::new(output.clone());
    let failure = parsed.command.run(&session).await.err().map(|error| format!("{error}\n"));
    let text = String::from_utf8_lossy(&output.0.lock()).into_owned();
    text + &failure.unwrap_or_default()
}

/// The transcript of several lines.
async fn transcript(http: &Arc<client::Http>, lines: &str) -> String {
    let mut text = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        text = format!("{text}$ {line}\n{}", run(http, line).await);
    }
    text
}

#[tokio::test]
async fn a_controller_from_beginning_to_end() {
    let test = TestServer::start().await;
    let http = Arc::new(test.https().await.admin());
    let lines = "
        create namespace work
        get rc
        run my-nginx --image=nginx --replicas=2 --port=80
        run my-nginx --image=nginx --replicas=2
        get rc,svc -o name
        get rc my-nginx -o jsonpath={.spec.replicas}:{.spec.template.spec.containers[0].ports}
        scale rc my-nginx --replicas=3 --current-replicas=2
        scale --replicas=5 --current-replicas=2 rc/my-nginx
        label rc my-nginx tier=web
        label rc my-nginx tier=other
        annotate rc/my-nginx note=hello
        get rc -l tier=web -o name
        expose rc my-nginx --port=80
        get svc my-nginx -o jsonpath={.spec.selector}
        patch rc my-nginx -p {\"spec\":{\"replicas\":1}}
        patch rc my-nginx --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/annotations/note\"}]
        wait rc/my-nginx --for=jsonpath={.spec.replicas}=1 --timeout=5s
        create configmap settings --from-literal=a=b
        get cm settings -o jsonpath={.data}
        create deployment web --image=nginx --replicas=2 --dry-run=server
        get deploy
        run web --image=
        delete rc,svc my-nginx
        delete cm --all
        get all
        get nothing.example.com
    ";
    expect![[r#"
        $ create namespace work
        namespace/work created
        $ get rc
        No resources found in work namespace.
        $ run my-nginx --image=nginx --replicas=2 --port=80
        replicationcontroller/my-nginx created
        $ run my-nginx --image=nginx --replicas=2
        Error from server (AlreadyExists): replicationcontrollers "my-nginx" already exists
        $ get rc,svc -o name
        replicationcontroller/my-nginx
        $ get rc my-nginx -o jsonpath={.spec.replicas}:{.spec.template.spec.containers[0].ports}
        2:[{"containerPort":80,"protocol":"TCP"}]$ scale rc my-nginx --replicas=3 --current-replicas=2
        replicationcontroller/my-nginx scaled
        $ scale --replicas=5 --current-replicas=2 rc/my-nginx
        error: Expected replicas to be 2, was 3
        $ label rc my-nginx tier=web
        replicationcontroller/my-nginx labeled
        $ label rc my-nginx tier=other
        error: 'tier' already has a value (web), and --overwrite is false
        $ annotate rc/my-nginx note=hello
        replicationcontroller/my-nginx annotated
        $ get rc -l tier=web -o name
        replicationcontroller/my-nginx
        $ expose rc my-nginx --port=80
        service/my-nginx exposed
        $ get svc my-nginx -o jsonpath={.spec.selector}
        {"run":"my-nginx"}$ patch rc my-nginx -p {"spec":{"replicas":1}}
        replicationcontroller/my-nginx patched
        $ patch rc my-nginx --type=json -p [{"op":"remove","path":"/metadata/annotations/note"}]
        replicationcontroller/my-nginx patched
        $ wait rc/my-nginx --for=jsonpath={.spec.replicas}=1 --timeout=5s
        replicationcontroller/my-nginx condition met
        $ create configmap settings --from-literal=a=b
        configmap/settings created
        $ get cm settings -o jsonpath={.data}
        {"a":"b"}$ create deployment web --image=nginx --replicas=2 --dry-run=server
        deployment.apps/web created (server dry run)
        $ get deploy
        No resources found in work namespace.
        $ run web --image=
        The Pod "web" is invalid: spec.containers[0].image: Required value
        $ delete rc,svc my-nginx
        replicationcontroller "my-nginx" deleted from work namespace
        service "my-nginx" deleted from work namespace
        $ delete cm --all
        configmap "settings" deleted from work namespace
        $ get all
        No resources found in work namespace.
        $ get nothing.example.com
        error: the server doesn't have a resource type "nothing.example.com"
    "#]]
    .assert_eq(&transcript(&http, lines).await);
}

#[tokio::test]
async fn what_the_server_has() {
    let test = TestServer::start().await;
    let http = Arc::new(test.https().await.admin());
    let resources = run(&http, "api-resources --api-group=apps").await;
    expect![[r#"
        NAME                  SHORTNAMES   APIVERSION   NAMESPACED   KIND
        controllerrevisions                apps/v1      true         ControllerRevision
        daemonsets            ds           apps/v1      true         DaemonSet
        deployments           deploy       apps/v1      true         Deployment
        replicasets           rs           apps/v1      true         ReplicaSet
        statefulsets          sts          apps/v1      true         StatefulSet
    "#]]
    .assert_eq(&resources);
    let page = run(&http, "explain deploy.spec.strategy").await;
    expect![[r#"
        GROUP:      apps
        KIND:       Deployment
        VERSION:    v1

        FIELD: strategy <DeploymentStrategy>

        DESCRIPTION:
            <empty>

        FIELDS:
          rollingUpdate	<RollingUpdateDeployment>
          type	<string>

    "#]]
    .assert_eq(&page);
    transcript(&http, "create namespace work\nrun web --image=nginx").await;
    let described = run(&http, "describe pod web").await;
    assert!(described.contains("    Image:        nginx\n"), "{described}");
    let table = run(&http, "get pods -o wide --show-labels --sort-by=.metadata.name").await;
    assert!(table.starts_with("NAME"), "{table}");
    assert!(table.contains("run=web"), "{table}");
    let manifest = run(&http, "get pod web -o yaml").await;
    assert!(manifest.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"), "{manifest}");
}
