//! Machines that fail, and come back: what nodes, pods and Services do meanwhile and afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{Fleet, Machine, condition, text};

/// A node counts as lost after this long.
const GRACE: &str = "5s";
const KEY_UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// How long the pods of this Deployment stay on a lost node, longer than nodes that are lost together differ.
const PATIENT_S: u32 = 8;

/// A pod template that leaves a lost node after a second.
fn template(app: &str) -> Value {
    let stay = if app == "patient" { PATIENT_S } else { 1 };
    let leave = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": stay});
    json!({"metadata": {"labels": {"app": app}}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "tolerations": [leave(KEY_UNREACHABLE), leave("node.kubernetes.io/not-ready")],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": app}}}],
        "containers": [{"name": "web", "image": "kobune.local/web:latest", "imagePullPolicy": "IfNotPresent",
            "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}}]}})
}

fn workload(kind: &str, app: &str, replicas: u32) -> Value {
    let mut body = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": app},
        "spec": {"selector": {"matchLabels": {"app": app}}, "template": template(app)}});
    match kind {
        "DaemonSet" => {}
        "StatefulSet" => {
            body["spec"]["replicas"] = json!(replicas);
            body["spec"]["serviceName"] = json!(app);
            body["spec"]["podManagementPolicy"] = json!("Parallel");
        }
        _ => body["spec"]["replicas"] = json!(replicas),
    }
    body
}

fn service(app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}})
}

fn apply(fleet: &Fleet, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    fleet.cluster.feed(&["apply"], &list.to_string());
}

fn settled(fleet: &Fleet, app: &str, count: usize) -> Vec<Value> {
    let mut pods = Vec::new();
    fleet.until(&format!("{count} pods of {app} are ready"), |fleet| {
        pods = fleet.ready_pods(&format!("app={app}"));
        pods.len() == count && fleet.pods(&format!("app={app}")).len() == count
    });
    pods
}

fn node_of(pod: &Value) -> String {
    text(&pod["spec"]["nodeName"])
}

fn uids(pods: &[Value]) -> BTreeSet<String> {
    pods.iter().map(|pod| text(&pod["metadata"]["uid"])).collect()
}

/// Every pod answers every machine, by its address and by the Service.
fn all_reach_all(fleet: &Fleet, app: &str) {
    let address = text(&fleet.find(&["get", "service", app])["spec"]["clusterIP"]);
    let pods = fleet.ready_pods(&format!("app={app}"));
    for machine in &fleet.machines {
        for pod in &pods {
            let (name, ip) = (text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"]));
            let what = format!("{name} ({ip}) on {} answers {}", node_of(pod), machine.name);
            fleet.until(&what, |_| machine.fetch(&ip) == Some(name.clone()));
        }
        fleet.until(&format!("the Service answers {}", machine.name), |_| machine.fetch(&address).is_some());
    }
}

/// What is done to the machines, by name.
type Step = (&'static str, fn(&mut Fleet));

/// Four machines with a Deployment of six, a StatefulSet of four, a DaemonSet and a Service.
fn four_at_work() -> Fleet {
    let fleet = Fleet::of(4, GRACE);
    apply(
        &fleet,
        &[
            workload("Deployment", "web", 6),
            workload("StatefulSet", "state", 4),
            workload("DaemonSet", "everywhere", 0),
            service("web"),
        ],
    );
    settled(&fleet, "everywhere", 4);
    settled(&fleet, "state", 4);
    settled(&fleet, "web", 6);
    all_reach_all(&fleet, "web");
    fleet
}

#[test]
fn nodes_fail_and_come_back() {
    let mut fleet = four_at_work();
    let steps: [Step; 8] = [
        ("a node's name is its own", names_are_taken),
        ("an expired token", expired_token),
        ("a flapping link", flapping_link),
        ("dropped packets", dropped_packets),
        ("a partition", partition),
        ("most nodes are cut off", most_are_cut_off),
        ("the server is away", |fleet| server_away(fleet, Duration::from_secs(15))),
        ("an address changes", address_changes),
    ];
    for (what, step) in steps {
        let start = Instant::now();
        step(&mut fleet);
        eprintln!("{what}: {:.1?}", start.elapsed());
    }
}

#[test]
#[ignore = "takes eleven minutes; fifteen seconds of it are in `nodes_fail_and_come_back`"]
fn the_server_is_away_for_ten_minutes() {
    let mut fleet = four_at_work();
    server_away(&mut fleet, Duration::from_mins(10));
}

fn names_are_taken(fleet: &mut Fleet) {
    let before = fleet.node("m2");
    // As the first machine, which is the server, and as one that joined.
    for name in ["m1", "m2"] {
        let said = fleet.agent_fails(3, name, &fleet.token());
        assert!(
            said.contains(&format!("a node {name} is there already")) && said.contains("--node-name"),
            "{said}"
        );
        assert!(!said.contains("expired"), "{said}");
    }
    let after = fleet.node("m2");
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["status"]["addresses"], after["status"]["addresses"]);
    assert_eq!(
        condition(&before, "Ready")["lastTransitionTime"],
        condition(&after, "Ready")["lastTransitionTime"]
    );
}

/// A token whose time is over is removed, and whoever comes with it is told what to do.
fn expired_token(fleet: &mut Fleet) {
    let token = fleet.cluster.kobune(&["token", "create"]);
    let id = token.split('.').next().unwrap().to_owned();
    let secret = format!("bootstrap-token-{id}");
    let namespace = ["-n", "kube-system"];
    let soon =
        fleet.cluster.succeed(std::process::Command::new("date").args(["-u", "-d", "3 seconds", "+%FT%TZ"]));
    let patch = json!({"stringData": {"expiration": soon.trim()}}).to_string();
    fleet.cluster.kubectl(&[&namespace[..], &["patch", "secret", &secret, "-p", &patch]].concat());
    assert!(fleet.find(&["-n", "kube-system", "get", "secret", &secret]).is_object());
    let gone = |fleet: &Fleet| {
        let output = fleet.cluster.try_kubectl(&["-n", "kube-system", "get", "secret", &secret]);
        String::from_utf8_lossy(&output.stderr).contains("NotFound")
    };
    fleet.within(Duration::from_secs(20), "the expired token is removed", gone);
    let said = fleet.agent_fails(3, "late", token.trim());
    assert!(said.contains("kobune token create"), "{said}");
    assert!(fleet.node("late").is_null());
}

/// A link that comes and goes within the grace period costs no pod.
fn flapping_link(fleet: &mut Fleet) {
    let pods = uids(&fleet.ready_pods("app=web"));
    let since = condition(&fleet.node("m2"), "Ready")["lastTransitionTime"].clone();
    for _ in 0..6 {
        fleet.machines[1].cut();
        std::thread::sleep(Duration::from_millis(400));
        fleet.machines[1].mend();
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert_eq!(condition(&fleet.node("m2"), "Ready")["lastTransitionTime"], since, "the node was never lost");
    assert_eq!(uids(&settled(fleet, "web", 6)), pods);
    all_reach_all(fleet, "web");
}

/// A tenth of the packets of a machine, each way, gets lost.
fn dropped_packets(fleet: &mut Fleet) {
    let pods = uids(&fleet.ready_pods("app=web"));
    let since = condition(&fleet.node("m3"), "Ready")["lastTransitionTime"].clone();
    fleet.machines[2].lose(10);
    std::thread::sleep(Duration::from_secs(8));
    all_reach_all(fleet, "web");
    fleet.machines[2].lose_no_more();
    assert_eq!(condition(&fleet.node("m3"), "Ready")["lastTransitionTime"], since, "the node was never lost");
    assert_eq!(uids(&settled(fleet, "web", 6)), pods);
}

/// Half of the nodes are cut off. Their pods are replaced elsewhere but for those of a StatefulSet, which may still run
/// and are not started twice; when the nodes return, what was given up ends before its successor begins.
fn partition(fleet: &mut Fleet) {
    let cut: BTreeSet<String> = ["m2", "m3"].map(str::to_owned).into();
    let on_cut =
        |pods: Vec<Value>| pods.into_iter().filter(|pod| cut.contains(&node_of(pod))).collect::<Vec<_>>();
    let state = on_cut(fleet.ready_pods("app=state"));
    let daemons = uids(&fleet.ready_pods("app=everywhere"));
    assert!(!state.is_empty() && !on_cut(fleet.ready_pods("app=web")).is_empty());
    fleet.machines[1..=2].iter().for_each(Machine::cut);
    fleet.until("the nodes are lost", |fleet| {
        cut.iter().all(|name| condition(&fleet.node(name), "Ready")["status"] == "Unknown")
    });
    let node = fleet.node("m2");
    assert_eq!(condition(&node, "Ready")["reason"], "NodeStatusUnknown");
    // One every ten seconds.
    fleet.until("the nodes are given up", |fleet| {
        let is_it = |taint: &Value| taint["key"] == KEY_UNREACHABLE && taint["effect"] == "NoExecute";
        cut.iter().all(|name| fleet.node(name)["spec"]["taints"].as_array().unwrap().iter().any(is_it))
    });
    fleet.until("the Deployment has its pods elsewhere", |fleet| {
        let pods = fleet.ready_pods("app=web");
        pods.len() == 6 && pods.iter().all(|pod| !cut.contains(&node_of(pod)))
    });
    // The Service leads only to pods that can be reached.
    let address = text(&fleet.find(&["get", "service", "web"])["spec"]["clusterIP"]);
    fleet.until("the Service forgets the lost pods", |fleet| {
        (0..12).all(|_| fleet.machines[3].fetch(&address).is_some())
    });
    for pod in &state {
        let name = text(&pod["metadata"]["name"]);
        fleet.until("the StatefulSet's pod is given up", |fleet| {
            fleet.find(&["get", "pod", &name])["metadata"]["deletionTimestamp"].is_string()
        });
        let now = fleet.find(&["get", "pod", &name]);
        assert_eq!(now["metadata"]["uid"], pod["metadata"]["uid"], "there is no second one");
        assert_eq!(condition(&now, "Ready")["status"], "False");
        assert!(Machine::runs(&text(&pod["metadata"]["uid"])), "it runs on, cut off");
    }
    fleet.machines[1..=2].iter().for_each(Machine::mend);
    for pod in &state {
        let (name, uid) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]));
        fleet.until("the StatefulSet's pod is replaced", |fleet| {
            let now = fleet.find(&["get", "pod", &name]);
            let is_new = now["metadata"]["uid"].is_string() && now["metadata"]["uid"] != uid.as_str();
            let runs = is_new && now["status"]["phase"] == "Running";
            assert!(!runs || !Machine::runs(&uid), "{name} runs twice");
            runs && condition(&now, "Ready")["status"] == "True"
        });
    }
    fleet.until("the nodes are back", |fleet| cut.iter().all(|name| fleet.ready(name)));
    fleet.until("the nodes take pods again", |fleet| {
        cut.iter().all(|name| fleet.node(name)["spec"]["taints"].as_array().is_none_or(Vec::is_empty))
    });
    settled(fleet, "web", 6);
    settled(fleet, "state", 4);
    // Daemons tolerate the taint: they ran on, and are ready again without a restart.
    assert_eq!(uids(&settled(fleet, "everywhere", 4)), daemons);
    all_reach_all(fleet, "web");
}

/// Three of four nodes fall silent: they are lost, but more likely it is their way to the server, so their pods are left
/// alone until enough of them are back. The others are given up then.
fn most_are_cut_off(fleet: &mut Fleet) {
    apply(fleet, &[workload("Deployment", "patient", 8)]);
    let before = uids(&settled(fleet, "patient", 8));
    let taints = |fleet: &Fleet, name: &str| fleet.node(name)["spec"]["taints"].to_string();
    let cut = ["m2", "m3", "m4"];
    fleet.machines[1..].iter().for_each(Machine::cut);
    fleet.until("the nodes are lost and none is given up", |fleet| {
        cut.iter().all(|name| {
            let taints = taints(fleet, name);
            taints.contains(KEY_UNREACHABLE) && !taints.contains("NoExecute")
        })
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(u64::from(PATIENT_S) + 4) {
        let pods = fleet.pods("app=patient");
        assert_eq!(uids(&pods), before);
        assert!(pods.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null()), "{pods:#?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    fleet.machines[3].mend();
    fleet.until("half of the nodes is enough", |fleet| {
        let pods = fleet.ready_pods("app=patient");
        pods.len() == 8 && pods.iter().all(|pod| ["m1", "m4"].contains(&&*node_of(pod)))
    });
    fleet.machines[1..=2].iter().for_each(Machine::mend);
    fleet.until("the nodes are back", |fleet| cut.iter().all(|name| fleet.ready(name)));
    fleet.cluster.kubectl(&["delete", "deployment", "patient"]);
    settled(fleet, "patient", 0);
    settled(fleet, "web", 6);
    settled(fleet, "state", 4);
    all_reach_all(fleet, "web");
}

/// The server is killed and stays away for longer than the grace period. Pods and Services go on; when it is back, so
/// are the nodes, and no pod was replaced: nobody could have been heard meanwhile.
fn server_away(fleet: &mut Fleet, how_long: Duration) {
    let (web, state) = (fleet.ready_pods("app=web"), uids(&fleet.ready_pods("app=state")));
    let address = text(&fleet.find(&["get", "service", "web"])["spec"]["clusterIP"]);
    fleet.machines[0].kill();
    let start = Instant::now();
    while start.elapsed() < how_long {
        for machine in &fleet.machines[1..] {
            assert!(machine.fetch(&address).is_some(), "the Service answers {}", machine.name);
        }
        for pod in &web {
            let ip = text(&pod["status"]["podIP"]);
            assert_eq!(fleet.machines[1].fetch(&ip), Some(text(&pod["metadata"]["name"])), "{ip}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(fleet.machines[1..].iter_mut().all(Machine::is_running), "agents wait");
    fleet.start_server(GRACE);
    fleet.until("the server is back", |fleet| fleet.ready("m1"));
    fleet.until("the nodes are back", |fleet| ["m2", "m3", "m4"].iter().all(|name| fleet.ready(name)));
    assert_eq!(uids(&settled(fleet, "web", 6)), uids(&web));
    assert_eq!(uids(&settled(fleet, "state", 4)), state);
    // What is asked for now is done everywhere.
    fleet.cluster.kubectl(&["rollout", "restart", "daemonset/everywhere"]);
    fleet.cluster.kubectl(&["rollout", "status", "daemonset/everywhere", "--timeout=90s"]);
}

/// A machine comes back under another address: the node says so, and its pods are reached there.
fn address_changes(fleet: &mut Fleet) {
    let pods = uids(&fleet.ready_pods("app=web"));
    let new = "10.45.0.99".to_owned();
    fleet.machines[3].kill();
    let old = std::mem::replace(&mut fleet.machines[3].address, new.clone());
    fleet.machines[3].ip(&format!("address delete {old}/24 dev eth0"));
    fleet.machines[3].ip(&format!("address add {new}/24 dev eth0"));
    fleet.machines[3].ip("route replace default via 10.45.0.1");
    fleet.start_agent(3);
    fleet.until("the node has its new address", |fleet| {
        let addresses = fleet.node("m4")["status"]["addresses"].clone();
        addresses.as_array().is_some_and(|all| all.iter().any(|one| one["address"] == new.as_str()))
    });
    fleet.until("the node is ready", |fleet| fleet.ready("m4"));
    assert_eq!(uids(&settled(fleet, "web", 6)), pods, "no pod was replaced");
    all_reach_all(fleet, "web");
    // The kubelet serves under the new address with a certificate for it.
    let there = fleet.ready_pods("app=everywhere").into_iter().find(|pod| node_of(pod) == "m4").unwrap();
    fleet.cluster.kubectl(&["logs", &text(&there["metadata"]["name"])]);
}

/// Of two machines that join under one name at the same moment one becomes the node, and the other is told why not. Asked
/// again, the one that is the node still is, and the other one joins under another name.
#[test]
fn two_machines_ask_for_one_name() {
    let mut fleet = Fleet::with_idle(3, "40s");
    fleet.machines[2].name = "m2".to_owned();
    fleet.start_agent(1);
    fleet.start_agent(2);
    let start = Instant::now();
    let running = loop {
        let running: Vec<usize> = (1..=2).filter(|index| fleet.machines[*index].is_running()).collect();
        if running.len() < 2 {
            break running;
        }
        assert!(start.elapsed() < crate::cluster::PATIENCE, "both go on");
        std::thread::sleep(Duration::from_millis(50));
    };
    let [winner] = running[..] else { panic!("none is left") };
    let loser = 3 - winner;
    let said = fleet.machines[loser].log();
    assert!(said.contains("as m2") || said.contains("a node m2 is there already"), "{said}");
    assert!(said.contains("--node-name"), "{said}");
    fleet.until("the node is ready", |fleet| fleet.ready("m2"));
    let is_the_winner = |fleet: &Fleet| {
        let addresses = fleet.node("m2")["status"]["addresses"].clone();
        addresses
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["address"] == fleet.machines[winner].address.as_str())
    };
    assert!(is_the_winner(&fleet));
    // A start on the same data is the same machine.
    fleet.machines[winner].kill();
    fleet.start_agent(winner);
    fleet.machines[loser].name = "m3".to_owned();
    fleet.start_agent(loser);
    fleet.until("both are nodes", |fleet| fleet.ready("m2") && fleet.ready("m3"));
    assert!(is_the_winner(&fleet) && fleet.machines[1..].iter_mut().all(Machine::is_running));
}

/// `kubectl drain` and `cordon` with a DaemonSet and a PodDisruptionBudget.
#[test]
fn nodes_are_drained_and_used_again() {
    let fleet = Fleet::of(3, "40s");
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "web"}}}});
    let lonely = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lonely"}, "spec": {
        "nodeName": "m2", "terminationGracePeriodSeconds": 0, "containers": template("x")["spec"]["containers"]}});
    apply(
        &fleet,
        &[workload("Deployment", "web", 4), workload("DaemonSet", "everywhere", 0), budget, lonely],
    );
    settled(&fleet, "everywhere", 3);
    let before = settled(&fleet, "web", 4);
    assert!(before.iter().any(|pod| node_of(pod) == "m2"));
    fleet.until("the budget counts", |fleet| {
        fleet.find(&["get", "pdb", "web"])["status"]["disruptionsAllowed"] == 1
    });
    // What would be lost, or come back at once, is not touched unasked.
    let refused = fleet.cluster.kubectl_fails(&["drain", "m2"]);
    assert!(refused.contains("DaemonSet-managed Pods") && refused.contains("--force"), "{refused}");
    fleet.cluster.kubectl(&["uncordon", "m2"]);
    // A disruption at a time: the budget is kept all the while.
    let mut drain = fleet.cluster.command("1.36", "kubectl");
    let mut drain =
        drain.args(["drain", "m2", "--ignore-daemonsets", "--force", "--timeout=90s"]).spawn().unwrap();
    let status = loop {
        let ready = fleet.ready_pods("app=web").len();
        assert!(ready >= 3, "{ready} pods are ready");
        match drain.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    assert!(status.success());
    assert_eq!(fleet.node("m2")["spec"]["unschedulable"], true);
    assert!(settled(&fleet, "web", 4).iter().all(|pod| node_of(pod) != "m2"));
    assert!(fleet.find(&["get", "pod", "lonely"]).is_null());
    settled(&fleet, "everywhere", 3);
    // A budget that allows nothing holds a drain up.
    let whole = json!({"spec": {"minAvailable": 4}}).to_string();
    fleet.cluster.kubectl(&["patch", "pdb", "web", "-p", &whole]);
    fleet.until("nothing is allowed", |fleet| {
        fleet.find(&["get", "pdb", "web"])["status"]["disruptionsAllowed"] == 0
    });
    let held = fleet.cluster.kubectl_fails(&["drain", "m3", "--ignore-daemonsets", "--timeout=3s"]);
    assert!(held.contains("Cannot evict pod as it would violate the pod's disruption budget"), "{held}");
    assert_eq!(settled(&fleet, "web", 4).len(), 4);
    fleet.cluster.kubectl(&["uncordon", "m2", "m3"]);
    fleet.until("the nodes take pods again", |fleet| {
        ["m2", "m3"]
            .iter()
            .all(|name| fleet.node(name)["spec"]["taints"].as_array().is_none_or(Vec::is_empty))
    });
    fleet.cluster.kubectl(&["scale", "deployment/web", "--replicas=9"]);
    assert!(settled(&fleet, "web", 9).iter().any(|pod| node_of(pod) == "m2"));
}
