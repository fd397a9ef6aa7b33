//! The row of a pod in `kubectl get pods`.

use jiff::Timestamp;
use serde_json::Value;

use crate::table_format::{age, none_if_empty};
use crate::value::Access;

#[derive(Default)]
struct Tally {
    restarts: i64,
    last_restart: Option<String>,
    ready: usize,
}

impl Tally {
    fn count(&mut self, status: &Value) {
        self.restarts += status.int("/restartCount").unwrap_or(0);
        let finished = status.text("/lastState/terminated/finishedAt");
        if !finished.is_empty() && self.last_restart.as_deref().is_none_or(|last| last < finished) {
            self.last_restart = Some(finished.to_owned());
        }
    }

    fn restarts_text(&self, now: Timestamp) -> String {
        match &self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, age(now, Some(&Value::String(last.clone()))))
            }
            _ => self.restarts.to_string(),
        }
    }
}

/// The cells, in the order of the columns.
pub fn cells(now: Timestamp, pod: &Value) -> Vec<Value> {
    let (reason, tally) = judge(pod);
    let sidecars =
        pod.items("/spec/initContainers").iter().filter(|c| c.text("/restartPolicy") == "Always").count();
    let total = pod.items("/spec/containers").len() + sidecars;
    [
        pod.text("/metadata/name").to_owned(),
        format!("{}/{total}", tally.ready),
        reason,
        tally.restarts_text(now),
        age(now, pod.pointer("/metadata/creationTimestamp")),
        none_if_empty(pod.text("/status/podIPs/0/ip")),
        none_if_empty(pod.text("/spec/nodeName")),
        none_if_empty(pod.text("/status/nominatedNodeName")),
        readiness_gates(pod),
    ]
    .map(Value::String)
    .to_vec()
}

fn judge(pod: &Value) -> (String, Tally) {
    let phase = pod.text("/status/phase");
    let mut reason = phase.to_owned();
    if !pod.text("/status/reason").is_empty() {
        reason = pod.text("/status/reason").to_owned();
    }
    let conditions = pod.items("/status/conditions");
    if conditions.iter().any(|c| c.text("/type") == "PodScheduled" && c.text("/reason") == "SchedulingGated")
    {
        reason = "SchedulingGated".to_owned();
    }
    let (init_reason, mut tally, sidecars) = judge_init(pod);
    let initialized =
        conditions.iter().any(|c| c.text("/type") == "Initialized" && c.text("/status") == "True");
    let initializing = init_reason.is_some();
    reason = init_reason.unwrap_or(reason);
    if !initializing || initialized {
        tally = Tally { ready: tally.ready, ..sidecars };
        reason = judge_containers(pod, reason, &mut tally);
    }
    let terminal = matches!(phase, "Succeeded" | "Failed");
    if pod.has("/metadata/deletionTimestamp") {
        if pod.text("/status/reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !terminal {
            reason = "Terminating".to_owned();
        }
    }
    (reason, tally)
}

/// The reason while init containers are not done, the tally of all init containers, and that of sidecars.
fn judge_init(pod: &Value) -> (Option<String>, Tally, Tally) {
    let (mut all, mut sidecars) = (Tally::default(), Tally::default());
    let specs = pod.items("/spec/initContainers");
    for (index, status) in pod.items("/status/initContainerStatuses").iter().enumerate() {
        all.count(status);
        let sidecar = specs.iter().any(|spec| {
            spec.text("/name") == status.text("/name") && spec.text("/restartPolicy") == "Always"
        });
        if sidecar {
            sidecars.count(status);
        }
        let terminated = status.at("/state/terminated");
        let waiting = status.text("/state/waiting/reason");
        if terminated.int("/exitCode") == Some(0) {
            continue;
        }
        if sidecar && status.flag("/started") {
            all.ready += usize::from(status.flag("/ready"));
            continue;
        }
        let reason = match waiting {
            _ if !terminated.is_null() => format!("Init:{}", exit_reason(terminated)),
            "" | "PodInitializing" => format!("Init:{index}/{}", specs.len()),
            waiting => format!("Init:{waiting}"),
        };
        return (Some(reason), all, sidecars);
    }
    (None, all, sidecars)
}

fn judge_containers(pod: &Value, mut reason: String, tally: &mut Tally) -> String {
    let mut running = false;
    for status in pod.items("/status/containerStatuses").iter().rev() {
        tally.count(status);
        let waiting = status.text("/state/waiting/reason");
        let terminated = status.at("/state/terminated");
        if !waiting.is_empty() {
            reason = waiting.to_owned();
        } else if !terminated.is_null() {
            reason = exit_reason(terminated);
        } else if status.flag("/ready") && status.has("/state/running") {
            running = true;
            tally.ready += 1;
        }
    }
    if reason == "Completed" && running {
        let ready = pod
            .items("/status/conditions")
            .iter()
            .any(|condition| condition.text("/type") == "Ready" && condition.text("/status") == "True");
        reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
    reason
}

fn exit_reason(terminated: &Value) -> String {
    match (terminated.text("/reason"), terminated.int("/signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated.int("/exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.items("/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let holds = |gate: &&Value| {
        let kind = gate.text("/conditionType");
        pod.items("/status/conditions").iter().any(|c| c.text("/type") == kind && c.text("/status") == "True")
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(status: Value, expected: Expect) {
        let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n",
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}});
        pod["status"] = status;
        if pod["status"]["deleting"].is_boolean() {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let row: Vec<_> = cells("2026-01-01T00:10:00Z".parse().unwrap(), &pod)
            .into_iter()
            .map(|cell| cell.as_str().unwrap().to_owned())
            .collect();
        expected.assert_eq(&row.join(" | "));
    }

    #[test]
    fn the_status_says_what_stands_in_the_way() {
        check(
            json!({"phase": "Pending"}),
            expect!["p | 0/3 | Pending | 0 | 10m | <none> | n | <none> | <none>"],
        );
        check(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            expect!["p | 0/3 | Init:0/2 | 0 | 10m | <none> | n | <none> | <none>"],
        );
        check(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}}]}),
            expect!["p | 0/3 | Init:CrashLoopBackOff | 2 (5m ago) | 10m | <none> | n | <none> | <none>"],
        );
        check(
            json!({"phase": "Running", "podIPs": [{"ip": "10.1.0.2"}], "initContainerStatuses": [
                {"name": "i", "restartCount": 3, "state": {"terminated": {"exitCode": 0}}},
                {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "ready": true, "restartCount": 1, "state": {"running": {}}},
                {"name": "b", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
                "conditions": [{"type": "Ready", "status": "False"}]}),
            expect!["p | 2/3 | NotReady | 1 | 10m | 10.1.0.2 | n | <none> | <none>"],
        );
        check(
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
            expect!["p | 0/3 | Signal:9 | 0 | 10m | <none> | n | <none> | <none>"],
        );
        check(
            json!({"phase": "Running", "deleting": true}),
            expect!["p | 0/3 | Terminating | 0 | 10m | <none> | n | <none> | <none>"],
        );
    }
}
