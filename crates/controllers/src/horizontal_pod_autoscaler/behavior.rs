//! How fast a workload may change its size (KEP-853): stabilization windows and policies in each direction.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec};
use serde_json::Value;

use crate::shared::conditions::condition;

/// What is looked back at is at most an hour old.
const MEMORY_SECONDS: i64 = 3600;
const DOWN_WINDOW_SECONDS: i32 = 300;

/// What was recommended and done in the last hour.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    recommended: Vec<(Timestamp, i32)>,
    changes: Vec<(Timestamp, i32)>,
}

impl Memory {
    /// Remembers that the size changed.
    pub fn scaled(&mut self, change: i32, now: Timestamp) {
        self.changes.push((now, change));
    }

    fn forget(&mut self, now: Timestamp) {
        let is_young = |at: &Timestamp| now.as_second() - at.as_second() <= MEMORY_SECONDS;
        self.recommended.retain(|(at, _)| is_young(at));
        self.changes.retain(|(at, _)| is_young(at));
    }

    fn recommended_since(&self, seconds: i32, now: Timestamp) -> impl Iterator<Item = i32> {
        let since = now.as_second() - i64::from(seconds);
        self.recommended.iter().filter(move |(at, _)| at.as_second() >= since).map(|(_, replicas)| *replicas)
    }

    /// By how many replicas the size grew (or, with -1, shrank) in the last seconds.
    fn changed(&self, sign: i32, seconds: i32, now: Timestamp) -> i32 {
        let since = now.as_second() - i64::from(seconds);
        let recent =
            self.changes.iter().filter(|(at, change)| at.as_second() > since && change.signum() == sign);
        recent.map(|(_, change)| change.abs()).sum()
    }
}

/// The size to go to now, and the condition that says what limits it.
pub fn judge(
    spec: &HorizontalPodAutoscalerSpec,
    current: i32,
    proposed: i32,
    memory: &mut Memory,
    now: Timestamp,
) -> (i32, Vec<Value>) {
    let behavior = spec.behavior.clone().unwrap_or_default();
    memory.forget(now);
    memory.recommended.push((now, proposed));
    let window = |rules: Option<&HPAScalingRules>, default: i32| {
        rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default)
    };
    let up = window(behavior.scale_up.as_ref(), 0);
    let down = window(behavior.scale_down.as_ref(), DOWN_WINDOW_SECONDS);
    let lowest = memory.recommended_since(up, now).min().unwrap_or(proposed);
    let highest = memory.recommended_since(down, now).max().unwrap_or(proposed);
    let stable = current.max(lowest).min(highest.max(lowest));
    let mut shown = Vec::new();
    let stabilized = if stable == proposed {
        condition("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size")
    } else if stable > proposed {
        let message =
            "recent recommendations were higher than current one, applying the highest recent recommendation";
        condition("AbleToScale", "True", "ScaleDownStabilized", message)
    } else {
        let message =
            "recent recommendations were lower than current one, applying the lowest recent recommendation";
        condition("AbleToScale", "True", "ScaleUpStabilized", message)
    };
    shown.push(stabilized);
    let (desired, limited) = limit(spec, current, stable, memory, now);
    shown.push(limited);
    (desired, shown)
}

fn limit(
    spec: &HorizontalPodAutoscalerSpec,
    current: i32,
    wanted: i32,
    memory: &Memory,
    now: Timestamp,
) -> (i32, Value) {
    let behavior = spec.behavior.clone().unwrap_or_default();
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let limited = |reason: &str, message: &str| condition("ScalingLimited", "True", reason, message);
    if wanted > current {
        let fastest = fastest_up(behavior.scale_up.as_ref(), current, memory, now).max(current);
        if wanted > most && most <= fastest {
            return (
                most,
                limited(
                    "TooManyReplicas",
                    "the desired replica count is more than the maximum replica count",
                ),
            );
        }
        if wanted > fastest {
            return (
                fastest,
                limited(
                    "ScaleUpLimit",
                    "the desired replica count is increasing faster than the maximum scale rate",
                ),
            );
        }
    } else if wanted < current {
        let fastest = fastest_down(behavior.scale_down.as_ref(), current, memory, now).min(current);
        if wanted < least && least >= fastest {
            return (
                least,
                limited("TooFewReplicas", "the desired replica count is less than the minimum replica count"),
            );
        }
        if wanted < fastest {
            return (
                fastest,
                limited(
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate",
                ),
            );
        }
    }
    if wanted > most {
        return (
            most,
            limited("TooManyReplicas", "the desired replica count is more than the maximum replica count"),
        );
    }
    if wanted < least {
        return (
            least,
            limited("TooFewReplicas", "the desired replica count is less than the minimum replica count"),
        );
    }
    (
        wanted,
        condition(
            "ScalingLimited",
            "False",
            "DesiredWithinRange",
            "the desired count is within the acceptable range",
        ),
    )
}

fn policies(rules: Option<&HPAScalingRules>, defaults: &[(&str, i32)]) -> Vec<HPAScalingPolicy> {
    let given = rules.and_then(|rules| rules.policies.clone()).unwrap_or_default();
    if !given.is_empty() {
        return given;
    }
    let policy = |(kind, value): &(&str, i32)| HPAScalingPolicy {
        type_: (*kind).to_owned(),
        value: *value,
        period_seconds: 15,
    };
    defaults.iter().map(policy).collect()
}

fn selects(rules: Option<&HPAScalingRules>, choice: &str) -> bool {
    rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max") == choice
}

/// The largest size that the policies allow now.
fn fastest_up(rules: Option<&HPAScalingRules>, current: i32, memory: &Memory, now: Timestamp) -> i32 {
    if selects(rules, "Disabled") {
        return current;
    }
    let allowed = |policy: &HPAScalingPolicy| {
        let start = current - memory.changed(1, policy.period_seconds, now);
        match policy.type_.as_str() {
            "Pods" => start.saturating_add(policy.value),
            _ => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
        }
    };
    let all = policies(rules, &[("Pods", 4), ("Percent", 100)]);
    let sizes = all.iter().map(allowed);
    if selects(rules, "Min") { sizes.min() } else { sizes.max() }.unwrap_or(current)
}

/// The smallest size that the policies allow now.
fn fastest_down(rules: Option<&HPAScalingRules>, current: i32, memory: &Memory, now: Timestamp) -> i32 {
    if selects(rules, "Disabled") {
        return current;
    }
    let allowed = |policy: &HPAScalingPolicy| {
        let start = current + memory.changed(-1, policy.period_seconds, now);
        match policy.type_.as_str() {
            "Pods" => start.saturating_sub(policy.value),
            _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        }
    };
    let all = policies(rules, &[("Percent", 100)]);
    let sizes = all.iter().map(allowed);
    if selects(rules, "Min") { sizes.max() } else { sizes.min() }.unwrap_or(current)
}
