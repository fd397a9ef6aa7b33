//! `podFailurePolicy`: what the failure of a pod means for its job (KEP-3329).

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::Pod;

use crate::shared::pods;

/// What the first rule that matches demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole job fails, with this message.
    FailJob(String),
    /// The pod's index fails without more retries.
    FailIndex,
    Ignore,
    Count,
}

/// Judges a pod that failed. Without a rule that matches it counts.
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    if pods::phase(pod) != "Failed" {
        return Verdict::Count;
    }
    let matched = rules.iter().enumerate().find_map(|(at, rule)| Some((at, rule, matches(rule, pod)?)));
    let Some((at, rule, what)) = matched else { return Verdict::Count };
    match rule.action.as_str() {
        "FailJob" => Verdict::FailJob(format!("{what} matching FailJob rule at index {at}")),
        "FailIndex" => Verdict::FailIndex,
        "Ignore" => Verdict::Ignore,
        _ => Verdict::Count,
    }
}

/// What of the pod matches a rule, in words.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let meta = &pod.metadata;
    let key = format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    );
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = exit_code(codes, pod)?;
        return Some(format!("Container {container} for pod {key} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let found = patterns.iter().find(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        pods::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted)
    })?;
    Some(format!("Pod {key} has condition {}", found.type_))
}

fn exit_code<'a>(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let all = containers.chain(status.init_container_statuses.iter().flatten());
    let concerned =
        all.filter(|container| rule.container_name.as_ref().is_none_or(|name| *name == container.name));
    let code = |container: &'a k8s_openapi::api::core::v1::ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = rule.values.contains(&code);
        let wanted = if rule.operator == "NotIn" { !listed } else { listed };
        (code != 0 && wanted).then_some((container.name.as_str(), code))
    };
    concerned.filter_map(code).next()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(code: i32) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}]}}),
        )
        .unwrap()
    }

    #[test]
    fn rules() {
        let exit = |operator: &str, values: &[i32]| json!({"operator": operator, "values": values});
        let codes = |action: &str, rule: Value| json!({"action": action, "onExitCodes": rule});
        let message = |text: &str| Verdict::FailJob(text.to_owned());
        let disrupted = |action: &str| json!({"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        for (rules, code, wanted) in [
            (json!([]), 1, Verdict::Count),
            (
                json!([codes("FailJob", exit("In", &[1, 3]))]),
                3,
                message("Container c for pod n/p failed with exit code 3 matching FailJob rule at index 0"),
            ),
            (json!([codes("FailJob", exit("In", &[1]))]), 3, Verdict::Count),
            (json!([codes("Ignore", exit("NotIn", &[1]))]), 3, Verdict::Ignore),
            (json!([codes("Ignore", exit("NotIn", &[1]))]), 0, Verdict::Count),
            (json!([codes("FailIndex", exit("In", &[42]))]), 42, Verdict::FailIndex),
            (json!([disrupted("Ignore"), codes("FailJob", exit("In", &[3]))]), 3, Verdict::Ignore),
            (
                json!([codes("Count", exit("In", &[9])), disrupted("FailJob")]),
                3,
                message("Pod n/p has condition DisruptionTarget matching FailJob rule at index 1"),
            ),
        ] {
            let policy = serde_json::from_value(json!({"rules": rules})).unwrap();
            assert_eq!(judge(Some(&policy), &pod(code)), wanted, "{rules} {code}");
        }
    }
}
