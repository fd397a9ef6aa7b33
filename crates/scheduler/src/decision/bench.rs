//! How fast decisions are. Printed, never asserted:
//! `cargo test -p scheduler --lib --config 'profile.dev.package."*".opt-level=3' --config profile.dev.opt-level=3 \
//! decisions_per_second -- --ignored --nocapture`.

use std::sync::Arc;

use machinery::selector::LabelSelector;
use serde_json::{Value, json};

use crate::fixture::*;
use crate::{Decision, Defaults, PodInfo, Round, schedule};

fn measure(what: &str, nodes: usize, pods: usize, extra: &Value) {
    let zone = |index: usize| format!("zone-{}", index % 3);
    let large = json!({"cpu": "32", "memory": "256Gi", "pods": "110"});
    let node = |index: usize| {
        let labels = json!({"topology.kubernetes.io/zone": zone(index)});
        let extra = json!({"metadata": {"labels": labels}, "status": {"allocatable": large}});
        node(&format!("n{index}"), extra)
    };
    let mut snapshot = cluster((0..nodes).map(node).collect(), Vec::new());
    let selector = LabelSelector::from_value(&json!({"matchLabels": {"app": "x"}})).unwrap();
    let defaults = Defaults { spread: Some(selector) };
    let waiting: Vec<PodInfo> = (0..pods).map(|index| pod(&format!("p{index}"), extra.clone())).collect();
    let (env, mut round) = (env::Env::system(), Round::default());
    let start = env.now();
    for pod in &waiting {
        round.tie = round.tie.wrapping_add(7);
        let (decision, next) = schedule(&snapshot, pod, &defaults, &round);
        round.start = next;
        let Decision::Bind { node } = decision else { panic!("{decision:?}") };
        snapshot.place(Arc::new(pod.on(&node)));
    }
    let seconds = env.now().duration_since(start).as_secs_f64();
    println!("{what:>24} {nodes:>5} nodes: {:>8.0} pods/s", pods as f64 / seconds);
}

#[test]
#[ignore = "it measures"]
fn decisions_per_second() {
    let requests = json!({"cpu": "100m", "memory": "200Mi"});
    let container = json!([{"name": "c", "image": "i", "resources": {"requests": requests}}]);
    let plain = labelled(json!({"app": "x"}), json!({"containers": container}));
    let term =
        json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}});
    let mut apart = plain.clone();
    apart["spec"]["affinity"] = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}});
    let mut spread = plain.clone();
    spread["spec"]["topologySpreadConstraints"] = json!([{"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]);
    for nodes in [1000, 5000] {
        measure("plain", nodes, 10_000, &plain);
        measure("spread over zones", nodes, 10_000, &spread);
        measure("preferably apart", nodes, 1_000, &apart);
    }
}
