//! `kobune kubectl`, the built-in client, against a live cluster: every verb it has.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::{Cluster, binary, fetch};

/// The built-in client of a cluster.
struct Client<'a>(&'a Cluster);

impl Client<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("kubectl").args(arguments).env("KUBECONFIG", self.0.kubeconfig()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        self.0.succeed(&mut self.command(arguments))
    }

    /// Runs a command whose output must hold all of these texts.
    #[track_caller]
    fn shows(&self, arguments: &[&str], expected: &[&str]) -> String {
        let text = self.run(arguments);
        for part in expected {
            assert!(text.contains(part), "{arguments:?} should show {part:?}:\n{text}");
        }
        text
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, expected: &str) {
        let output = self.command(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(expected), "{arguments:?}: {text}");
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn information(&self) {
        self.shows(&["version"], &["Client Version: v", "Server Version: v1.36"]);
        self.shows(&["version", "--client", "-o", "json"], &["clientVersion"]);
        self.shows(&["api-resources"], &["NAME", "SHORTNAMES", "deployments", "apps/v1"]);
        self.shows(&["api-resources", "--api-group=apps", "-o", "name"], &["replicasets.apps"]);
        self.shows(&["cluster-info"], &["control plane", "is running at"]);
        self.shows(&["config", "view"], &["kobune", "current-context"]);
        self.shows(&["config", "current-context"], &["kobune"]);
        self.shows(&["explain", "deployment.spec.strategy"], &["rollingUpdate", "DESCRIPTION"]);
        self.fails(&["get", "frobs"], 1, "the server doesn't have a resource type \"frobs\"");
        self.fails(&["get", "pod", "nobody"], 1, "Error from server (NotFound): pods \"nobody\" not found");
    }

    /// The article's own commands.
    fn article(&self) {
        let image = "--image=kobune.local/web:latest";
        let policy = "--image-pull-policy=IfNotPresent";
        let run = ["run", "my-nginx", image, policy, "--replicas=2", "--port=80"];
        self.shows(&run, &["replicationcontroller/my-nginx created"]);
        let pods = self.0.wait_for_pods("run=my-nginx", 2);
        self.shows(&["get", "rc"], &["DESIRED", "my-nginx   2         2         2"]);
        self.shows(&["get", "pods", "-o", "wide"], &["NODE", &pods[0].1, &pods[1].1]);
        self.shows(&["scale", "rc", "my-nginx", "--replicas=4"], &["replicationcontroller/my-nginx scaled"]);
        let pods = self.0.wait_for_pods("run=my-nginx", 4);
        let exposed = ["expose", "rc", "my-nginx", "--port=80", "--type=NodePort"];
        self.shows(&exposed, &["service/my-nginx exposed"]);
        let port = self.run(&["get", "svc", "my-nginx", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
        self.0.until("the service answers", |_| {
            fetch(&format!("127.0.0.1:{port}"))
                .is_ok_and(|answer| pods.iter().any(|(name, _)| *name == answer))
        });
        self.shows(&["describe", "svc", "my-nginx"], &["Selector:", "run=my-nginx", "Endpoints:", &port]);
        self.shows(
            &["describe", "pod", &pods[0].0],
            &["kobune.local/web:latest", "Events:", "Started", "Ready"],
        );
        self.shows(&["describe", "rc", "my-nginx"], &["SuccessfulCreate", "4 desired"]);
        self.shows(&["describe", "nodes"], &["Capacity:", "Allocatable:", "KubeletReady"]);
        self.shows(&["logs", &pods[0].0], &["listens on port 80"]);
        self.port_forward(&pods[0].0);
        self.forms(&pods[0].0);
    }

    /// The forms in which things are shown, and labels.
    fn forms(&self, pod: &str) {
        let json: Value = serde_json::from_str(&self.run(&["get", "pod", pod, "-o", "json"])).unwrap();
        assert_eq!(json["metadata"]["name"], pod);
        self.shows(&["get", "pod", pod, "-o", "yaml"], &["kind: Pod", "apiVersion: v1"]);
        assert_eq!(self.run(&["get", "pod", pod, "-o", "name"]).trim(), format!("pod/{pod}"));
        let names =
            self.run(&["get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}"]);
        assert_eq!(names.lines().count(), 4, "{names}");
        self.shows(&["label", "pod", pod, "tier=front"], &["labeled"]);
        self.fails(&["label", "pod", pod, "tier=back"], 1, "--overwrite");
        self.shows(&["label", "pod", pod, "tier=back", "--overwrite"], &["labeled"]);
        assert_eq!(self.run(&["get", "pods", "-l", "tier=back", "--no-headers"]).lines().count(), 1);
        self.shows(&["get", "pods", "--show-labels"], &["tier=back"]);
        self.shows(&["annotate", "pod", pod, "note=who to call"], &["annotated"]);
        let note = self.run(&["get", "pod", pod, "-o", "jsonpath={.metadata.annotations.note}"]);
        assert_eq!(note, "who to call");
        self.shows(&["patch", "pod", pod, "-p", "{\"metadata\":{\"labels\":{\"tier\":null}}}"], &["patched"]);
        assert_eq!(self.run(&["get", "pods", "-l", "tier", "--no-headers"]), "");
        self.shows(&["get", "pods", "-A", "--sort-by=.metadata.name"], &["NAMESPACE", "default"]);
    }

    fn port_forward(&self, pod: &str) {
        let mut child = self.command(&["port-forward", pod, ":80"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        for _ in 0..3 {
            assert_eq!(fetch(&format!("127.0.0.1:{port}")).unwrap(), pod);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn containers(&self) {
        crate::image::import_busybox(self.0);
        let image = ["--image=test.local/busybox:1", "--image-pull-policy=Never"];
        let script = "trap 'exit 0' TERM; echo ready; while read line; do echo heard $line; done; sleep 3600";
        let run =
            ["run", "box", image[0], image[1], "-i", "--attach=false", "--command", "--", "sh", "-c", script];
        self.shows(&run, &["pod/box created"]);
        self.shows(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"], &["condition met"]);
        assert_eq!(self.run(&["exec", "box", "--", "sh", "-c", "echo $HOSTNAME"]).trim(), "box");
        let failed = self.command(&["exec", "box", "--", "sh", "-c", "exit 7"]).output().unwrap();
        assert_eq!(failed.status.code(), Some(7));
        let mut cat = self.command(&["exec", "-i", "box", "--", "cat"]);
        let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.take().unwrap().write_all(b"there and back").unwrap();
        let mut back = String::new();
        cat.stdout.take().unwrap().read_to_string(&mut back).unwrap();
        assert!(cat.wait().unwrap().success());
        assert_eq!(back, "there and back");
        self.attach();
        self.terminal();
        // It waits for its input, so that it cannot have ended before it is attached to.
        let once = [
            "run",
            "once",
            image[0],
            image[1],
            "--restart=Never",
            "--rm",
            "-i",
            "--command",
            "--",
            "head",
            "-n1",
        ];
        let mut once = self.command(&once);
        let mut once = once.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        once.stdin.take().unwrap().write_all(b"hello\n").unwrap();
        let output = once.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(text.contains("hello") && text.contains("pod \"once\" deleted"), "{text}");
    }

    fn attach(&self) {
        let mut attach = self.command(&["attach", "-i", "box"]);
        let mut attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = attach.stdin.take().unwrap();
        stdin.write_all(b"you\n").unwrap();
        let mut lines = BufReader::new(attach.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "heard you"));
        attach.kill().unwrap();
        attach.wait().unwrap();
        self.shows(&["logs", "box", "--tail=1"], &["heard you"]);
    }

    fn terminal(&self) {
        let remote = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); stty size; sleep 0.1; done; tty";
        let inside = format!(
            "stty rows 33 cols 77; (sleep 2; stty rows 44 cols 88 </dev/tty) & {} kubectl exec -it box -- sh -c '{remote}'",
            binary().display()
        );
        let mut script = Command::new("script");
        // Its input stays open: at the end of it `script` hangs up.
        script.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.env("KUBECONFIG", self.0.kubeconfig()).spawn().unwrap();
        let open = child.stdin.take();
        let mut shown = String::new();
        child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        child.wait().unwrap();
        drop(open);
        for text in ["33 77", "44 88", "/dev/pts/"] {
            assert!(shown.contains(text), "{text}: {shown:?}");
        }
    }

    fn rollouts(&self) {
        let create = ["create", "deployment", "web", "--image=kobune.local/web:latest", "--replicas=2"];
        self.shows(&create, &["deployment.apps/web created"]);
        let pull = "{\"spec\":{\"template\":{\"spec\":{\"terminationGracePeriodSeconds\":1,\"containers\":[{\"name\":\"web\",\
                    \"imagePullPolicy\":\"IfNotPresent\"}]}}}}";
        self.run(&["patch", "deploy", "web", "-p", pull]);
        let settled = || {
            self.shows(&["rollout", "status", "deploy/web", "--timeout=90s"], &["successfully rolled out"]);
        };
        settled();
        self.shows(&["rollout", "restart", "deploy/web"], &["restarted"]);
        settled();
        self.shows(&["rollout", "history", "deploy/web"], &["REVISION"]);
        self.shows(&["rollout", "undo", "deploy/web"], &["rolled back"]);
        settled();
        let restarted = "jsonpath={.spec.template.metadata.annotations}";
        assert_eq!(self.run(&["get", "deploy", "web", "-o", restarted]), "");
        self.shows(&["describe", "deploy", "web"], &["ScalingReplicaSet", "NewReplicaSetAvailable"]);
        self.shows(&["expose", "deploy", "web", "--port=80"], &["service/web exposed"]);
        self.shows(
            &["delete", "deploy,svc", "web"],
            &["deployment.apps \"web\" deleted", "service \"web\" deleted"],
        );
    }

    fn apply(&self) {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n";
        let file = self.file("settings.yaml", text);
        self.shows(&["apply", "-f", &file], &["configmap/settings created"]);
        self.shows(&["apply", "-f", &file], &["configmap/settings unchanged"]);
        let changed = self.file("changed.yaml", &text.replace("blue", "red"));
        self.shows(&["apply", "-f", &changed, "--dry-run=server"], &["configured (server dry run)"]);
        self.shows(&["apply", "-f", &changed], &["configmap/settings configured"]);
        // What client-side apply set is this client's own; to another manager it is a conflict.
        let other = ["apply", "--server-side", "--field-manager=other", "-f", &file];
        self.fails(&other, 1, "conflict");
        let forced = [&other[..], &["--force-conflicts"]].concat();
        self.shows(&forced, &["configmap/settings serverside-applied"]);
        assert_eq!(self.run(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"]), "blue");
        let wrong = self.file("wrong.yaml", &text.replace("\ndata:", "\ndataa:"));
        self.fails(&["apply", "-f", &wrong], 1, "unknown field \"dataa\"");
        self.shows(&["delete", "-f", &file], &["configmap \"settings\" deleted"]);
        self.shows(&["create", "namespace", "team"], &["namespace/team created"]);
        self.run(&["-n", "team", "create", "secret", "generic", "key", "--from-literal=word=xyz"]);
        let word = self.run(&["-n", "team", "get", "secret", "key", "-o", "jsonpath={.data.word}"]);
        assert_eq!(word, "eHl6");
        self.shows(&["delete", "namespace", "team"], &["namespace \"team\" deleted"]);
        self.fails(&["get", "namespace", "team"], 1, "NotFound");
    }

    fn watch_and_delete(&self) {
        let mut watch =
            self.command(&["get", "pods", "-w", "--no-headers"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut follow =
            self.command(&["logs", "-f", "box", "--tail=1"]).stdout(Stdio::piped()).spawn().unwrap();
        self.shows(&["delete", "rc", "my-nginx", "--cascade=foreground"], &["deleted"]);
        self.shows(&["wait", "--for=delete", "pod", "-l", "run=my-nginx", "--timeout=60s"], &[""]);
        self.shows(&["delete", "pod", "box", "--grace-period=1"], &["pod \"box\" deleted"]);
        // Both ends come by themselves: the log's with its container, the watch's never.
        assert!(follow.wait().unwrap().success());
        assert!(lines.into_iter().any(|line| line.contains("Terminating")));
        watch.kill().unwrap();
        watch.wait().unwrap();
    }
}

#[test]
fn the_built_in_client_knows_its_verbs() {
    let cluster = Cluster::up();
    let client = Client(&cluster);
    client.information();
    client.article();
    client.containers();
    client.rollouts();
    client.apply();
    client.watch_and_delete();
}

#[test]
fn every_command_has_examples_and_completes() {
    let text = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let commands = |help: &str| -> Vec<String> {
        let listed =
            help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    for parent in [&[][..], &["kubectl"]] {
        let found = commands(&text(&[parent, &["--help"]].concat()));
        assert!(found.len() > 8, "{found:?}");
        for name in found.iter().filter(|name| *name != "help") {
            let help = text(&[parent, &[name, "--help"]].concat());
            assert!(help.contains("Examples:"), "{parent:?} {name}: {help}");
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&["completion", shell]);
        assert!(["snapshot", "doctor", "port-forward"].iter().all(|name| script.contains(name)), "{shell}");
    }
    let version: Value = serde_json::from_str(&text(&["version", "--output", "json"])).unwrap();
    assert!(version["kubernetes"].as_str().unwrap().starts_with("v1.36"), "{version}");
}
