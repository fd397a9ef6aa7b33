//! The walk of the article and beyond it, with nginx out of a registry and two versions of kubectl: nodes, nginx × 2,
//! × 20, a page from every pod, into pods and out of them, Services, rollouts, apply, deletion.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::{Cluster, fetch};

pub const CONTROLLER: &str = "
apiVersion: v1
kind: ReplicationController
metadata: {name: my-nginx}
spec:
  replicas: 2
  selector: {run: my-nginx}
  template:
    metadata: {labels: {run: my-nginx}}
    spec:
      containers:
      - name: my-nginx
        image: kobune.local/web:latest
        imagePullPolicy: IfNotPresent
        ports: [{containerPort: 80}]
";

/// Says a line ten times a second.
const TALKER: &str = "i=0; trap 'exit 0' TERM; while true; do i=$((i+1)); echo line $i; sleep 0.1; done";

/// One version of kubectl on its way.
struct Walk<'a> {
    cluster: &'a Cluster,
    version: &'static str,
    image: &'a str,
}

impl Walk<'_> {
    fn command(&self) -> Command {
        self.cluster.command(self.version, "kubectl")
    }

    #[track_caller]
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.succeed(self.command().args(arguments).stdin(Stdio::null()))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    fn feed(&self, arguments: &[&str], manifest: &str) -> String {
        self.cluster.feed_to(self.version, arguments, &manifest.replace("IMAGE", self.image))
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.cluster.dir.path().join(name);
        std::fs::write(&path, text.replace("IMAGE", self.image)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn all(&self) {
        self.machine_and_controller();
        self.inside_pods();
        self.terminal();
        self.files();
        self.ports();
        self.services();
        self.watch();
        self.rollout();
        self.apply();
        self.deletion();
        self.namespace();
    }

    fn machine_and_controller(&self) {
        let text = self.kubectl(&["version"]);
        let client = format!("Client Version: v{}", self.version);
        assert!(text.contains(&client) && text.contains("Server Version: v1.36"), "{text}");
        assert!(self.kubectl(&["get", "nodes"]).contains(" Ready "));
        let manifest = CONTROLLER.replace("kobune.local/web:latest", "IMAGE");
        let created = self.feed(&["create"], &manifest);
        assert!(created.contains("replicationcontroller/my-nginx created"), "{created}");
        self.cluster.wait_for_pods("run=my-nginx", 2);
        let pods = self.kubectl(&["get", "pods", "-l", "run=my-nginx", "--no-headers"]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let running = |line: &&str| words(line)[1..4] == ["1/1", "Running", "0"];
        assert_eq!(pods.lines().filter(running).count(), 2, "{pods}");
        let controller = self.kubectl(&["get", "rc", "my-nginx", "--no-headers"]);
        assert_eq!(words(&controller)[..4], ["my-nginx", "2", "2", "2"], "{controller}");
        self.kubectl(&["scale", "--replicas=20", "rc", "my-nginx"]);
        for (name, address) in self.cluster.wait_for_pods("run=my-nginx", 20) {
            assert_eq!(fetch(&format!("{address}:80")).unwrap(), "nginx answers", "{name}");
        }
        self.kubectl(&["scale", "--replicas=2", "rc", "my-nginx"]);
        self.cluster.wait_for_pods("run=my-nginx", 2);
    }

    fn inside_pods(&self) {
        let image = format!("--image={}", self.image);
        self.kubectl(&["run", "box", &image, "--command", "--", "sh", "-c", TALKER]);
        self.kubectl(&["wait", "--for=condition=Ready", "pod/box", "--timeout=90s"]);
        let mut follow = self.command();
        let mut follow = follow.args(["logs", "-f", "box"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(follow.stdout.take().unwrap()).lines().map_while(Result::ok);
        let lines: Vec<String> = lines.take(30).collect();
        follow.kill().unwrap();
        follow.wait().unwrap();
        let expected: Vec<String> = (1..=30).map(|number| format!("line {number}")).collect();
        assert_eq!(lines, expected);
        let failed = self.command().args(["exec", "box", "--", "sh", "-c", "echo oops >&2; exit 7"]).output();
        let failed = failed.unwrap();
        assert_eq!(failed.status.code(), Some(7));
        assert!(String::from_utf8_lossy(&failed.stderr).contains("oops"));
    }

    /// `script` gives kubectl a terminal, which changes its size while the command runs.
    fn terminal(&self) {
        let kubectl = self.command().get_program().to_string_lossy().into_owned();
        let remote = "i=0; while [ $i -lt 50 ]; do i=$((i+1)); stty size; sleep 0.1; done";
        let inside = format!(
            "stty rows 33 cols 77; (sleep 2; stty rows 44 cols 88 </dev/tty) & {kubectl} exec -it box -- sh -c '{remote}'"
        );
        let mut script = Command::new("script");
        // Its input stays open: at the end of it `script` hangs up.
        script.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        script.envs(self.command().get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = script.spawn().unwrap();
        let open = child.stdin.take();
        let mut shown = String::new();
        child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        child.wait().unwrap();
        drop(open);
        assert!(shown.contains("33 77") && shown.contains("44 88"), "{shown:?}");
    }

    fn files(&self) {
        let (there, back) = (self.file("there", &"seven".repeat(60_000)), self.file("back", ""));
        self.kubectl(&["cp", &there, "box:/tmp/file"]);
        self.kubectl(&["cp", "box:/tmp/file", &back]);
        assert!(std::fs::read(&back).unwrap() == std::fs::read(&there).unwrap());
    }

    fn ports(&self) {
        let pod = self.cluster.ready_pods("run=my-nginx").remove(0).0;
        let mut forward = self.command();
        let mut child = forward.args(["port-forward", &pod, ":80"]).stdout(Stdio::piped()).spawn().unwrap();
        // The reader stays until the end: kubectl would die of writing to nobody.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        for _ in 0..3 {
            assert_eq!(fetch(&format!("127.0.0.1:{port}")).unwrap(), "nginx answers");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn services(&self) {
        self.kubectl(&["expose", "rc", "my-nginx", "--port=80"]);
        self.kubectl(&["expose", "rc", "my-nginx", "--port=80", "--name=outside", "--type=NodePort"]);
        let address =
            self.json(&["get", "svc", "my-nginx"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
        let port = self.json(&["get", "svc", "outside"])["spec"]["ports"][0]["nodePort"].clone();
        for target in [format!("{address}:80"), format!("127.0.0.1:{port}")] {
            self.cluster.until(&format!("{target} answers"), |_| {
                fetch(&target).is_ok_and(|answer| answer == "nginx answers")
            });
        }
        let answer = self.kubectl(&["exec", "box", "--", "wget", "-q", "-O", "-", "http://my-nginx.default"]);
        assert_eq!(answer.trim(), "nginx answers");
        let known = self.kubectl(&["exec", "box", "--", "nslookup", "my-nginx.default.svc.cluster.local"]);
        assert!(known.contains(&address), "{known}");
        self.kubectl(&["delete", "svc", "my-nginx", "outside"]);
        self.kubectl(&["delete", "pod", "box"]);
        self.kubectl(&["delete", "rc", "my-nginx"]);
    }

    fn watch(&self) {
        let mut watch = self.command();
        let watch = watch.args(["get", "pods", "-l", "app=web", "-w", "--no-headers"]);
        let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
        self.feed(&["create"], DEPLOYMENT);
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let running =
            lines.map_while(Result::ok).find(|line| line.contains("1/1") && line.contains("Running"));
        watch.kill().unwrap();
        watch.wait().unwrap();
        assert!(running.is_some());
    }

    /// Goes on with the deployment of [`Walk::watch`].
    fn rollout(&self) {
        let settled = || self.kubectl(&["rollout", "status", "deploy/web", "--timeout=90s"]);
        assert!(settled().contains("successfully rolled out"));
        self.kubectl(&["set", "env", "deploy/web", "COLOUR=blue"]);
        settled();
        let environment = "jsonpath={.items[*].spec.containers[0].env[0].value}";
        self.cluster.until("only new pods are left", |_| {
            self.kubectl(&["get", "pods", "-l", "app=web", "-o", environment]) == "blue blue"
        });
        self.kubectl(&["rollout", "undo", "deploy/web"]);
        settled();
        self.cluster.until("only old pods are left", |_| {
            self.kubectl(&["get", "pods", "-l", "app=web", "-o", environment]).is_empty()
        });
        let history = self.kubectl(&["rollout", "history", "deploy/web"]);
        assert!(
            history.contains("\n2 ") && history.contains("\n3 ") && !history.contains("\n1 "),
            "{history}"
        );
        let described = self.kubectl(&["describe", "deploy", "web"]);
        for text in ["NewReplicaSetAvailable", "ScalingReplicaSet", "RollingUpdateStrategy:", self.image] {
            assert!(described.contains(text), "{text}: {described}");
        }
        self.kubectl(&["delete", "deploy", "web"]);
    }

    fn apply(&self) {
        for flags in [&["apply"][..], &["apply", "--server-side", "--force-conflicts"]] {
            self.feed(flags, DEPLOYMENT);
            let before = self.json(&["get", "deploy", "web"])["metadata"]["generation"].clone();
            let again = self.feed(flags, DEPLOYMENT);
            assert!(again.contains("unchanged") || again.contains("serverside-applied"), "{again}");
            assert_eq!(self.json(&["get", "deploy", "web"])["metadata"]["generation"], before);
        }
        let changed = self.file("changed.yaml", &DEPLOYMENT.replace("replicas: 2", "replicas: 5"));
        let diff = self.command().args(["diff", "-f", &changed]).output().unwrap();
        assert_eq!(diff.status.code(), Some(1), "{}", String::from_utf8_lossy(&diff.stderr));
        let text = String::from_utf8_lossy(&diff.stdout).into_owned();
        assert!(text.contains("-  replicas: 2") && text.contains("+  replicas: 5"), "{text}");
        let explained = self.kubectl(&["explain", "deployment.spec.strategy"]);
        assert!(explained.contains("rollingUpdate"), "{explained}");
        self.kubectl(&["delete", "deploy", "web", "--wait"]);
    }

    fn deletion(&self) {
        let names = |kind: &str| self.kubectl(&["get", kind, "-l", "app=web", "-o", "name"]);
        for policy in ["background", "foreground", "orphan"] {
            self.cluster
                .until("nothing is left of before", |_| names("rs").is_empty() && names("pods").is_empty());
            self.feed(&["apply"], DEPLOYMENT);
            self.kubectl(&["rollout", "status", "deploy/web", "--timeout=90s"]);
            self.kubectl(&["delete", "deploy", "web", &format!("--cascade={policy}")]);
            match policy {
                // Its dependents go first, so they are gone when kubectl comes back.
                "foreground" => assert_eq!(names("rs"), ""),
                "orphan" => {
                    self.cluster.until("the orphan has no owner", |_| {
                        let sets = self.json(&["get", "rs", "-l", "app=web"]);
                        sets["items"].as_array().is_some_and(|sets| {
                            sets.len() == 1 && sets[0]["metadata"]["ownerReferences"].is_null()
                        })
                    });
                    self.kubectl(&["delete", "rs", "-l", "app=web"]);
                }
                _ => {}
            }
        }
        self.cluster.until("the pods are gone", |_| names("pods").is_empty());
    }

    fn namespace(&self) {
        self.kubectl(&["create", "namespace", "team"]);
        self.feed(&["apply", "-n", "team"], DEPLOYMENT);
        self.kubectl(&["-n", "team", "create", "configmap", "settings", "--from-literal=a=b"]);
        self.kubectl(&["-n", "team", "rollout", "status", "deploy/web", "--timeout=90s"]);
        self.kubectl(&["-n", "team", "expose", "deploy", "web", "--port=80"]);
        self.kubectl(&["delete", "namespace", "team", "--timeout=90s"]);
        let gone = self.command().args(["get", "namespace", "team"]).output().unwrap();
        assert!(String::from_utf8_lossy(&gone.stderr).contains("NotFound"));
        assert_eq!(self.kubectl(&["get", "all,configmaps", "-n", "team", "-o", "name"]), "");
    }
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
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: web
        image: IMAGE
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
";

fn walk(version: &'static str) {
    let work = tempfile::tempdir().unwrap();
    let (registry, image) = crate::registry::with_nginx(work.path());
    let cluster = Cluster::start("up", &[], &crate::registry::config(&registry));
    Walk { cluster: &cluster, version, image: &image }.all();
    let events = cluster.kubectl(&["get", "events"]);
    assert!(events.contains("Successfully pulled image"), "{events}");
}

#[test]
fn the_walk_with_kubectl_1_36() {
    walk("1.36");
}

#[test]
fn the_walk_with_kubectl_1_37() {
    walk("1.37");
}

#[test]
fn the_demonstration_shows_twenty_answers() {
    let cluster = Cluster::start("up", &["--demo"], "");
    cluster.until("the demonstration is through", |cluster| cluster.log().contains("20 pods answered"));
    assert_eq!(cluster.ready_pods("run=my-nginx").len(), 20);
}
