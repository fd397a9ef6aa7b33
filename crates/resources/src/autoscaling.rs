//! HorizontalPodAutoscalers: stored as `v2`; `v1` knows only a cpu target and keeps the rest in annotations.

use jiff::Timestamp;
use machinery::FieldError;
use serde_json::{Value, json};

use crate::check::Errors;
use crate::table_format::plain;
use crate::value::{Access, Fill};
use crate::{Strategy, row};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const SHOWN: usize = 2;

pub struct HorizontalPodAutoscalers;

impl Strategy for HorizontalPodAutoscalers {
    fn default(&self, object: &mut Value) {
        let spec = object.child("spec");
        spec.default_absent("minReplicas", 1);
        if spec.items("/metrics").is_empty() {
            spec.set(
                "metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}]),
            );
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = object.at("/spec");
        let (least, most) = (spec.int("/minReplicas").unwrap_or(1), spec.int("/maxReplicas").unwrap_or(0));
        errors.at_least("spec.minReplicas", Some(least), 1);
        errors.at_least("spec.maxReplicas", Some(most), 1);
        if most < least {
            errors.invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`");
        }
        for field in ["kind", "name"] {
            if spec.text(&format!("/scaleTargetRef/{field}")).is_empty() {
                errors.required(format!("spec.scaleTargetRef.{field}"), "");
            }
        }
        for (index, metric) in spec.items("/metrics").iter().enumerate() {
            let kinds = ["ContainerResource", "External", "Object", "Pods", "Resource"];
            errors.required_one_of(&format!("spec.metrics[{index}].type"), metric.text("/type"), &kinds);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn to_storage(&self, version: &str, object: &mut Value) {
        if version == "v1" {
            object.set("apiVersion", "autoscaling/v2");
            to_v2(object);
        }
    }

    fn from_storage(&self, version: &str, object: &mut Value) {
        if version == "v1" {
            object.set("apiVersion", "autoscaling/v1");
            to_v1(object);
        }
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let target = object.at("/spec/scaleTargetRef");
        vec![
            row::name(object),
            format!("{}/{}", target.text("/kind"), target.text("/name")).into(),
            targets(object).into(),
            row::text(object, "/spec/minReplicas", "<unset>"),
            row::text(object, "/spec/maxReplicas", "0"),
            row::text(object, "/status/currentReplicas", "0"),
            row::created(now, object),
        ]
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric.text("/resource/name") == "cpu" && metric.has("/resource/target/averageUtilization")
}

fn to_v2(object: &mut Value) {
    let mut metrics = take_annotation(object, METRICS);
    if let Some(percent) = object.child("spec").unset("targetCPUUtilizationPercentage") {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percent}}}));
    }
    if !metrics.is_empty() {
        object.child("spec").set("metrics", metrics);
    }
    if let Some(behavior) = annotation(object, BEHAVIOR) {
        object.child("spec").set("behavior", behavior);
    }
    let current = take_annotation(object, CURRENT_METRICS);
    let conditions = take_annotation(object, CONDITIONS);
    let Some(status) = object.existing("status") else { return };
    let mut current = current;
    if let Some(percent) = status.unset("currentCPUUtilizationPercentage") {
        current.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": percent}}}));
    }
    for (field, list) in [("currentMetrics", current), ("conditions", conditions)] {
        if !list.is_empty() {
            status.set(field, list);
        }
    }
}

fn to_v1(object: &mut Value) {
    let spec = object.child("spec");
    let metrics = spec.items("/metrics").to_vec();
    spec.unset("metrics");
    let behavior = spec.unset("behavior");
    if let Some(cpu) = metrics.iter().find(|metric| is_cpu(metric)) {
        let percent = cpu.at("/resource/target/averageUtilization").clone();
        spec.set("targetCPUUtilizationPercentage", percent);
    }
    let others: Vec<_> = metrics.into_iter().filter(|metric| !is_cpu(metric)).collect();
    annotate(object, METRICS, &others.into());
    annotate(object, BEHAVIOR, &behavior.unwrap_or_default());
    let Some(status) = object.existing("status") else { return };
    let current = status.unset("currentMetrics").unwrap_or_default();
    let conditions = status.unset("conditions").unwrap_or_default();
    let cpu = current.items("").iter().find(|metric| metric.text("/resource/name") == "cpu");
    if let Some(percent) = cpu.map(|metric| metric.at("/resource/current/averageUtilization").clone()) {
        status.set("currentCPUUtilizationPercentage", percent);
    }
    annotate(object, CURRENT_METRICS, &current);
    annotate(object, CONDITIONS, &conditions);
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    if !crate::value::is_zero(value) {
        object.child("metadata").child("annotations").set(key, value.to_string());
    }
}

fn annotation(object: &mut Value, key: &str) -> Option<Value> {
    let metadata = object.existing("metadata")?;
    let annotations = metadata.existing("annotations")?;
    let text = annotations.unset(key)?;
    if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        metadata.unset("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn take_annotation(object: &mut Value, key: &str) -> Vec<Value> {
    match annotation(object, key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn targets(object: &Value) -> String {
    let metrics = object.items("/spec/metrics");
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let texts: Vec<_> =
        metrics.iter().enumerate().map(|(index, metric)| target(object, index, metric)).collect();
    match texts.len() {
        count if count > SHOWN => format!("{} + {} more...", texts[..SHOWN].join(", "), count - SHOWN),
        _ => texts.join(", "),
    }
}

fn target(object: &Value, index: usize, metric: &Value) -> String {
    let kind = match metric.text("/type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let current = object.items("/status/currentMetrics").get(index).cloned().unwrap_or_default();
    let current = current.at(&format!("/{kind}")).at("/current");
    let wanted = metric.at(&format!("/{kind}/target"));
    let name = match kind {
        "resource" | "containerResource" => format!("{}: ", metric.text(&format!("/{kind}/name"))),
        _ => String::new(),
    };
    let (field, unit) = match wanted.has("/averageUtilization") {
        true => ("/averageUtilization", "%"),
        false if wanted.has("/averageValue") => ("/averageValue", ""),
        false => ("/value", ""),
    };
    let now = match current.at(field) {
        Value::Null => "<unknown>".to_owned(),
        value => format!("{}{unit}", plain(value)),
    };
    let average = if field == "/averageValue" && name.is_empty() { " (avg)" } else { "" };
    format!("{name}{now}/{}{unit}{average}", plain(wanted.at(field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_version_keeps_what_it_cannot_say() {
        let stored = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
            "metrics": [{"type": "Pods", "pods": {}}, {"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
        let mut old = stored.clone();
        HorizontalPodAutoscalers.from_storage("v1", &mut old);
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(old["spec"].get("metrics").is_none());
        HorizontalPodAutoscalers.to_storage("v1", &mut old);
        assert_eq!(old, stored);
        assert_eq!(targets(&stored), "<unknown>/, cpu: <unknown>/50%");
    }
}
