//! Nodes that fall silent: their conditions become `Unknown`, they are tainted, and their pods count as not ready.
//! Silence is counted by the controller's own clock, from when it saw something new of the node.
//! Pods that do not tolerate a `NoExecute` taint are evicted when their toleration ends. When too many nodes are silent
//! at once they keep their pods; see `zones`.

mod evict;
mod sight;
mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Caches, NODE_INDEX, Patch, target_of, typed};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::{Key, Object};
use parking_lot::Mutex;
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan, Reference};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use sight::{Said, Sight};
use zones::{Verdict, Zones, zone_of};

const LEASE_NAMESPACE: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Condition, the status that means trouble, the taint that follows.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The controller. Its keys are nodes.
pub struct NodeLifecycle {
    nodes: Cache,
    leases: Cache,
    pods: Cache,
    grace_period: Duration,
    /// Node → what was seen of it.
    sights: Mutex<BTreeMap<String, Sight>>,
    /// Node → when a `NoExecute` taint that does not say when it was added was first seen.
    seen: Mutex<BTreeMap<String, Vec<Taint>>>,
    /// Nothing before the nodes that are there were looked at, all of them.
    zones: Arc<Mutex<Option<Zones>>>,
}

impl NodeLifecycle {
    /// `grace_period`: how long a node may be silent (`--node-monitor-grace-period` upstream, 40 s).
    pub fn new(caches: &Caches, grace_period: Duration) -> Self {
        Self {
            nodes: caches.of::<Node>(),
            leases: caches.of::<Lease>(),
            pods: caches.of::<Pod>(),
            grace_period,
            sights: Mutex::default(),
            seen: Mutex::default(),
            zones: Arc::default(),
        }
    }

    /// Takes note of how a node is; whether it may be given up, if that is the question.
    fn judge(&self, node: &Node, name: &str, is_healthy: bool) -> Verdict {
        let now = Instant::now();
        let mut zones = self.zones.lock();
        let zones = zones.get_or_insert_with(|| Zones::of(self.nodes.all().iter().filter_map(described)));
        zones.hear(name, &zone_of(node), is_healthy, now, self.grace_period);
        if is_healthy { Verdict::Never } else { zones.judge(name, is_given_up(node), now) }
    }

    /// The node with the time of each `NoExecute` taint; what users add by hand has none. Those of a node that is not
    /// given up are on their way out and count no more.
    fn dated(&self, node: &Node, verdict: Verdict, now: Timestamp) -> Node {
        let mut dated = node.clone();
        let mut seen = self.seen.lock();
        let name = node.metadata.name.clone().unwrap_or_default();
        let known = seen.remove(&name).unwrap_or_default();
        let same = |a: &Taint, b: &Taint| (&a.key, &a.value, &a.effect) == (&b.key, &b.value, &b.effect);
        let mut found = Vec::new();
        for taint in dated.spec.iter_mut().flat_map(|spec| spec.taints.iter_mut().flatten()) {
            if taint.effect == "NoExecute" && taint.time_added.is_none() {
                let before = known.iter().find(|before| same(before, taint));
                taint.time_added = before.and_then(|before| before.time_added.clone()).or(Some(Time(now)));
                found.push(taint.clone());
            }
        }
        if !found.is_empty() {
            seen.insert(name, found);
        }
        if let Some(taints) = dated.spec.as_mut().and_then(|spec| spec.taints.as_mut()) {
            taints.retain(|taint| verdict == Verdict::Now || !gives_up(taint));
        }
        dated
    }

    fn said(&self, node: &Node, name: &str) -> Said {
        let lease = self.leases.get(&Key::new(LEASE_NAMESPACE, name));
        let renewed = lease
            .and_then(|lease| typed::<Lease>(&lease).ok()?.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
        let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Said { created, renewed, reported: condition_time(node, "Ready") }
    }

    /// For how long the node has said nothing new.
    fn silence(&self, node: &Node, name: &str, now: Instant) -> Duration {
        let said = self.said(node, name);
        self.sights.lock().entry(name.to_owned()).or_insert_with(|| Sight::first(said, now)).hear(said, now)
    }

    /// Marks ready pods of a node that was lost as not ready.
    fn contradict(
        &self,
        name: &str,
        ready: Option<&str>,
        pods: &[Arc<Object>],
        now: Timestamp,
    ) -> Vec<Action> {
        let actions: Vec<Action> = pods.iter().filter_map(|pod| unready(pod, now)).collect();
        let mut sights = self.sights.lock();
        let contradicts = |sight: &mut Sight| sight.contradicts(ready == Some("True"), !actions.is_empty());
        if sights.get_mut(name).is_some_and(contradicts) { actions } else { Vec::new() }
    }

    fn forget(&self, name: &str) {
        self.sights.lock().remove(name);
        self.seen.lock().remove(name);
        self.zones.lock().iter_mut().for_each(|zones| zones.forget(name));
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let by_lease = |lease: &Object| match lease.meta().namespace.as_str() {
            LEASE_NAMESPACE => vec![Key::new("", &*lease.meta().name)],
            _ => Vec::new(),
        };
        let nodes = self.nodes.clone();
        // A pod that arrives on a tainted node may have to leave; on a healthy node it is nobody's business here.
        let by_pod = move |pod: &Object| {
            let key = Key::new("", pod.node_name());
            let tainted = nodes.get(&key).is_some_and(|node| has_taints(&node));
            if tainted { vec![key] } else { Vec::new() }
        };
        let (nodes, zones) = (self.nodes.clone(), self.zones.clone());
        // A node that is lost, returns or goes may change what is right for the other ones of its zone.
        let by_zone = move |node: &Object| {
            let mut zones = zones.lock();
            let Some(zones) = zones.as_mut() else { return Vec::new() };
            if nodes.get(&node.key()).is_none() {
                zones.forget(&node.meta().name);
            }
            zones.changed().into_iter().map(|name| Key::new("", name)).collect()
        };
        vec![
            Input::own(self.nodes.clone()),
            Input::new(self.nodes.clone(), by_zone),
            Input::new(self.leases.clone(), by_lease),
            Input::new(self.pods.clone(), by_pod),
        ]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        let Some(object) = self.nodes.get(key) else {
            self.forget(&key.name);
            return Plan::nothing();
        };
        let Ok(node) = typed::<Node>(&object) else { return Plan::nothing() };
        let silent = self.silence(&node, &key.name, Instant::now());
        let mut plan = Plan::nothing();
        let lost = silent >= self.grace_period;
        if lost && status_of(&node, "Ready") != Some("Unknown") {
            plan.status = Some(lose(&object, &node, now));
        }
        if !lost {
            plan.next = Some(self.grace_period.saturating_sub(silent) + Duration::from_millis(100));
        }
        let ready = if lost { Some("Unknown") } else { status_of(&node, "Ready") };
        let verdict = self.judge(&node, &key.name, ready == Some("True"));
        plan.actions.extend(taint(&object, &node, ready, verdict, now));
        let dated = self.dated(&node, verdict, now);
        if ready == Some("True") && !has_taints(&object) {
            self.contradict(&key.name, ready, &[], now);
            return plan;
        }
        let pods = self.pods.indexed(NODE_INDEX, &key.name);
        plan.actions.extend(self.contradict(&key.name, ready, &pods, now));
        let (evictions, next) = evict::plan(&dated, &pods, now);
        plan.actions.extend(evictions);
        let turn = if let Verdict::In(rest) = verdict { Some(rest) } else { None };
        plan.next = [plan.next, next, turn].into_iter().flatten().min();
        plan
    }
}

/// Name, zone, and whether the node says that it is ready.
fn described(object: &Arc<Object>) -> Option<(String, String, bool)> {
    let node = typed::<Node>(object).ok()?;
    Some((object.meta().name.to_string(), zone_of(&node), status_of(&node, "Ready") == Some("True")))
}

/// Whether the taint drives pods from a node because of the node's own state.
fn gives_up(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
}

fn is_given_up(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(gives_up)
}

fn has_taints(node: &Object) -> bool {
    #[derive(Deserialize)]
    struct Tainted {
        spec: Option<Taints>,
    }
    #[derive(Deserialize)]
    struct Taints {
        taints: Option<Vec<IgnoredAny>>,
    }
    let taints = node.part::<Tainted>().ok().and_then(|node| node.spec?.taints);
    taints.is_some_and(|taints| !taints.is_empty())
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a k8s_openapi::api::core::v1::NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn status_of<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    condition(node, kind).map(|condition| condition.status.as_str())
}

fn condition_time(node: &Node, kind: &str) -> Option<Timestamp> {
    condition(node, kind)?.last_heartbeat_time.as_ref().map(|time| time.0)
}

/// Marks all that the node last said of itself as unknown.
fn lose(object: &Object, node: &Node, now: Timestamp) -> Action {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let unknown = |kind: &&str| {
        let known = condition(node, kind).is_some();
        let (reason, message) = if known {
            ("NodeStatusUnknown", "Kubelet stopped posting node status.")
        } else {
            ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
        };
        json!({"type": kind, "status": "Unknown", "reason": reason, "message": message, "lastTransitionTime": time})
    };
    let conditions: Vec<Value> = kinds.iter().map(unknown).collect();
    let mut target = named(target_of::<Node>(""), object);
    target.subresource = "status".to_owned();
    Action::Patch { target, patch: Patch::StrategicMerge(json!({"status": {"conditions": conditions}})) }
}

/// Keeps the node's taints in step with its conditions. `verdict`: whether an unhealthy node is given up.
fn taint(object: &Object, node: &Node, ready: Option<&str>, verdict: Verdict, now: Timestamp) -> Vec<Action> {
    let spec = node.spec.clone().unwrap_or_default();
    let present = spec.taints.unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let state = match ready {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    wanted.extend(state.map(|key| (key, "NoSchedule")));
    wanted.extend(state.filter(|_| verdict == Verdict::Now).map(|key| (key, "NoExecute")));
    let pressed = |(kind, _): &&(&str, &str)| status_of(node, kind) == Some("True");
    wanted.extend(PRESSURES.iter().filter(pressed).map(|(_, taint)| (*taint, "NoSchedule")));
    if spec.unschedulable == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is_wanted = |taint: &&Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> =
        present.iter().filter(|taint| !is_managed(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !present.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let time_added = Some(Time(now));
            taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    }
    if taints == present {
        return Vec::new();
    }
    let mut body = object.value();
    body["spec"]["taints"] = json!(taints);
    let reason = if ready == Some("True") { "NodeReady" } else { "NodeNotReady" };
    let message = format!("Node {} status is now: {reason}", object.meta().name);
    let update = Action::Update { target: named(target_of::<Node>(""), object), body };
    vec![update, Action::event(Reference::new("v1", "Node", object), reason, message)]
}

fn is_managed(taint: &Taint) -> bool {
    let lifecycle = [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str());
    lifecycle || PRESSURES.iter().any(|(_, key)| *key == taint.key)
}

/// A pod on a lost node is not ready, whatever its own last word was. `None`: it does not say that it is.
fn unready(object: &Object, now: Timestamp) -> Option<Action> {
    let pod = typed::<Pod>(object).ok()?;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    let condition = json!({
        "type": "Ready",
        "status": "False",
        "reason": "NodeNotReady",
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let mut target = named(target_of::<Pod>(""), object);
    target.subresource = "status".to_owned();
    Some(Action::Patch {
        target,
        patch: Patch::StrategicMerge(json!({"status": {"conditions": [condition]}})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::testing::{describe_actions, now, object};

    /// The taints that a node is given, as `KEY:EFFECT`.
    fn tainted(spec: Value, conditions: Value, ready: Option<&str>) -> Vec<String> {
        tainted_if(spec, conditions, ready, Verdict::Now)
    }

    fn tainted_if(spec: Value, conditions: Value, ready: Option<&str>, verdict: Verdict) -> Vec<String> {
        let object =
            object(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}, "spec": spec,
            "status": {"conditions": conditions}}));
        let node = typed::<Node>(&object).unwrap();
        let actions = taint(&object, &node, ready, verdict, now());
        let Some(Action::Update { body, .. }) = actions.first() else { return Vec::new() };
        let text = |taint: &Value| {
            format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap())
        };
        let all: Vec<String> = body["spec"]["taints"].as_array().unwrap().iter().map(text).collect();
        if all.is_empty() { vec!["none".to_owned()] } else { all }
    }

    #[test]
    fn taints_follow_conditions() {
        let pressure = json!([{"type": "MemoryPressure", "status": "True"}]);
        let own = json!({"key": "own", "effect": "NoSchedule"});
        let not_ready = json!({"key": NOT_READY, "effect": "NoSchedule"});
        for (spec, conditions, ready, wanted) in [
            (json!({}), json!([]), Some("True"), vec![]),
            (json!({"taints": [own]}), json!([]), Some("True"), vec![]),
            (
                json!({}),
                json!([]),
                Some("Unknown"),
                vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
            ),
            (json!({}), json!([]), Some("False"), vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
            (json!({}), json!([]), None, vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
            (json!({"taints": [own, not_ready]}), json!([]), Some("True"), vec![("own", "NoSchedule")]),
            (json!({"taints": [not_ready]}), json!([]), Some("True"), vec![("none", "")]),
            (json!({"unschedulable": true}), json!([]), Some("True"), vec![(UNSCHEDULABLE, "NoSchedule")]),
            (json!({}), pressure, Some("True"), vec![("node.kubernetes.io/memory-pressure", "NoSchedule")]),
        ] {
            let wanted: Vec<String> = wanted
                .iter()
                .map(
                    |(key, effect)| {
                        if effect.is_empty() { (*key).to_owned() } else { format!("{key}:{effect}") }
                    },
                )
                .collect();
            assert_eq!(tainted(spec.clone(), conditions, ready), wanted, "{spec} {ready:?}");
        }
    }

    #[test]
    fn a_node_that_is_not_given_up_keeps_its_pods() {
        let given_up = json!({"taints": [{"key": UNREACHABLE, "effect": "NoSchedule"},
            {"key": UNREACHABLE, "effect": "NoExecute"}, {"key": "own", "effect": "NoExecute"}]});
        let soft = format!("{UNREACHABLE}:NoSchedule");
        for verdict in [Verdict::Never, Verdict::In(Duration::from_secs(1))] {
            let tainted = |spec: &Value| tainted_if(spec.clone(), json!([]), Some("Unknown"), verdict);
            assert_eq!(tainted(&json!({})).join(" "), soft);
            assert_eq!(tainted(&given_up).join(" "), format!("{soft} own:NoExecute"));
        }
    }

    #[test]
    fn a_silent_node_is_unknown() {
        let object = object(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        let node = typed::<Node>(&object).unwrap();
        let Action::Patch { patch: Patch::StrategicMerge(body), target } = lose(&object, &node, now()) else {
            panic!()
        };
        let conditions = body["status"]["conditions"].as_array().unwrap();
        let reasons: Vec<&str> =
            conditions.iter().map(|condition| condition["reason"].as_str().unwrap()).collect();
        assert_eq!(
            reasons,
            [
                "NodeStatusUnknown",
                "NodeStatusNeverUpdated",
                "NodeStatusNeverUpdated",
                "NodeStatusNeverUpdated"
            ]
        );
        assert_eq!((target.name.as_str(), target.subresource.as_str()), ("x", "status"));
        let ready =
            crate::shared::testing::pod("p", "", json!({}), json!({}), crate::shared::testing::ready());
        let action = unready(&ready.0, now()).unwrap();
        let text = describe_actions(&Plan { actions: vec![action], ..Plan::nothing() });
        assert!(text.starts_with("patch pods/status p:") && text.contains("NodeNotReady"), "{text}");
    }
}
