//! Whether everything that was asked for runs: a plain function of what the API says.

use std::collections::BTreeSet;

use serde_json::Value;

/// What the API says.
#[derive(Debug, Default)]
pub struct Picture {
    pub nodes: Vec<Value>,
    pub pods: Vec<Value>,
    pub deployments: Vec<Value>,
    pub stateful_sets: Vec<Value>,
    pub daemon_sets: Vec<Value>,
}

/// What is missing, if anything.
pub fn missing(picture: &Picture, nodes: usize) -> Option<String> {
    let ready: BTreeSet<&str> = picture.nodes.iter().filter(|node| is_sound(node)).map(name).collect();
    if ready.len() != nodes {
        return Some(format!("{} of {nodes} nodes are ready", ready.len()));
    }
    let deployments = picture.deployments.iter().map(|d| replicated("Deployment", d, "updatedReplicas"));
    let sets = picture.stateful_sets.iter().map(|s| replicated("StatefulSet", s, "updatedReplicas"));
    let daemons = picture.daemon_sets.iter().map(|d| on_all_nodes(d, nodes));
    let pods = picture.pods.iter().map(|pod| runs(pod, &ready));
    deployments.chain(sets).chain(daemons).chain(pods).find_map(Result::err)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn is_sound(node: &Value) -> bool {
    is_ready(node) && node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)
}

fn replicated(kind: &str, object: &Value, updated: &str) -> Result<(), String> {
    let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let status = |field: &str| object["status"][field].as_u64().unwrap_or(0);
    let (all, ready, updated) = (status("replicas"), status("readyReplicas"), status(updated));
    let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    if (all, ready, updated) == (wanted, wanted, wanted) && seen {
        return Ok(());
    }
    let name = name(object);
    Err(format!("{kind} {name}: {all} of {wanted} pods, {ready} ready, {updated} updated, seen: {seen}"))
}

fn on_all_nodes(object: &Value, nodes: usize) -> Result<(), String> {
    let ready = object["status"]["numberReady"].as_u64().unwrap_or(0);
    if ready == nodes as u64 && object["status"]["desiredNumberScheduled"] == object["status"]["numberReady"]
    {
        return Ok(());
    }
    Err(format!("DaemonSet {}: {ready} ready on {nodes} nodes", name(object)))
}

fn runs(pod: &Value, nodes: &BTreeSet<&str>) -> Result<(), String> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let problem = if !pod["metadata"]["deletionTimestamp"].is_null() {
        "is being deleted"
    } else if pod["status"]["phase"] != "Running" || !is_ready(pod) {
        "is not ready"
    } else if !nodes.contains(node) {
        "is on no ready node"
    } else {
        return Ok(());
    };
    Err(format!("pod {} on {node:?} {problem}", name(pod)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let node = json!({"metadata": {"name": "n"}, "status": {"conditions": ready}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": ready}});
        let status = json!({"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1});
        let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}, "status": status});
        let picture = |change: &dyn Fn(&mut Picture)| {
            let mut picture = Picture {
                nodes: vec![node.clone()],
                pods: vec![pod.clone()],
                deployments: vec![deployment.clone()],
                ..Picture::default()
            };
            change(&mut picture);
            missing(&picture, 1).unwrap_or_default()
        };
        assert_eq!(picture(&|_| {}), "");
        assert_eq!(picture(&|p| p.nodes[0]["spec"] = json!({"taints": [{}]})), "0 of 1 nodes are ready");
        assert_eq!(
            picture(&|p| p.pods[0]["spec"]["nodeName"] = json!("x")),
            "pod p on \"x\" is on no ready node"
        );
        assert_eq!(picture(&|p| p.pods[0]["status"] = json!({})), "pod p on \"n\" is not ready");
        let short = picture(&|p| p.deployments[0]["status"]["readyReplicas"] = json!(0));
        assert!(short.starts_with("Deployment d: 1 of 1 pods, 0 ready"), "{short}");
    }
}
