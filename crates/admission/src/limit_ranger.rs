//! LimitRanger: a namespace's LimitRanges give pods what they leave open and refuse what goes too far.

use std::collections::BTreeMap;

use async_trait::async_trait;
use machinery::Status;
use resources::core::pod::totals::{self, Amounts, amounts};
use resources::value::{Access, Fill};
use serde_json::Value;

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger {
    pub lookup: Lookup,
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.is("", "pods") || attributes.is("", "persistentvolumeclaims"),
            Operation::Update => {
                attributes.is("", "persistentvolumeclaims")
                    || (attributes.is_resource("", "pods") && attributes.subresource == "resize")
            }
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        let ranges = self.lookup.list("", "limitranges", attributes.namespace).await?;
        let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
        for range in &ranges {
            for item in range.items("/spec/limits").iter().filter(|item| item.text("/type") == "Container") {
                apply_defaults(pod, item);
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let ranges = self.lookup.list("", "limitranges", attributes.namespace).await?;
        for range in &ranges {
            let errors = violations(attributes.new_object(), &attributes.resource.resource, range);
            match errors.as_slice() {
                [] => {}
                [one] => return Err(attributes.forbidden(one)),
                many => return Err(attributes.forbidden(&format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn apply_defaults(pod: &mut Value, item: &Value) {
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod.child("spec").each(list) {
            let name = container.text("/name").to_owned();
            for (source, field, what) in
                [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
            {
                let added = fill(container, item, source, field);
                if !added.is_empty() {
                    notes.push(format!("{} {what} for {word} {name}", added.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.child("metadata").child("annotations").set(ANNOTATION, text);
    }
}

fn fill(container: &mut Value, item: &Value, source: &str, field: &str) -> Vec<String> {
    let missing: Vec<_> = item
        .members(&format!("/{source}"))
        .filter(|(name, _)| container.at(&format!("/resources/{field}")).get(name.as_str()).is_none())
        .map(|(name, quantity)| (name.clone(), quantity.clone()))
        .collect();
    for (name, quantity) in &missing {
        container.child("resources").child(field).set(name, quantity.clone());
    }
    missing.into_iter().map(|(name, _)| name).collect()
}

/// What of an object a range does not allow.
fn violations(object: &Value, resource: &str, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for item in range.items("/spec/limits") {
        match (item.text("/type"), resource) {
            ("Container", "pods") => {
                let containers =
                    object.items("/spec/containers").iter().chain(object.items("/spec/initContainers"));
                for container in containers {
                    let amounts = |field: &str| amounts(container.at(&format!("/resources/{field}")));
                    within(&mut errors, item, &amounts("requests"), &amounts("limits"));
                }
            }
            ("Pod", "pods") => {
                within(&mut errors, item, &totals::of(object, "requests"), &totals::of(object, "limits"))
            }
            ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                let requests = amounts(object.at("/spec/resources/requests"));
                within(&mut errors, item, &requests, &BTreeMap::new());
            }
            _ => {}
        }
    }
    errors
}

fn within(errors: &mut Vec<String>, item: &Value, requests: &Amounts, limits: &Amounts) {
    let kind = item.text("/type");
    for (name, least) in amounts(item.at("/min")) {
        let text = item.at("/min")[&name].as_str().unwrap_or_default();
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => {
                errors.push(format!("minimum {name} usage per {kind} is {text}.  No request is specified"))
            }
            (Some(request), _) if *request < least => {
                errors.push(format!("minimum {name} usage per {kind} is {text}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < least => {
                errors.push(format!("minimum {name} usage per {kind} is {text}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, most) in amounts(item.at("/max")) {
        let text = item.at("/max")[&name].as_str().unwrap_or_default();
        let counted = if kind == "PersistentVolumeClaim" { requests.get(&name) } else { limits.get(&name) };
        match counted {
            None => errors.push(format!("maximum {name} usage per {kind} is {text}.  No limit is specified")),
            Some(limit) if *limit > most => {
                let what = if kind == "PersistentVolumeClaim" { "request" } else { "limit" };
                errors.push(format!("maximum {name} usage per {kind} is {text}, but {what} is {limit}"));
            }
            Some(_) => {}
        }
        if let Some(request) = requests.get(&name).filter(|request| **request > most)
            && kind != "PersistentVolumeClaim"
        {
            errors.push(format!("maximum {name} usage per {kind} is {text}, but request is {request}"));
        }
    }
    ratios(errors, item, requests, limits);
}

fn ratios(errors: &mut Vec<String>, item: &Value, requests: &Amounts, limits: &Amounts) {
    let kind = item.text("/type");
    for (name, most) in amounts(item.at("/maxLimitRequestRatio")) {
        let (Some(request), Some(limit)) = (requests.get(&name), limits.get(&name)) else {
            let why = if requests.contains_key(&name) { "no limit" } else { "no request" };
            errors.push(format!(
                "{name} max limit to request ratio per {kind} is {most}, but {why} is specified or limit is 0"
            ));
            continue;
        };
        let ratio = limit.milli_value() as f64 / (request.milli_value().max(1)) as f64;
        if ratio > most.milli_value() as f64 / 1000.0 {
            errors.push(format!(
                "{name} max limit to request ratio per {kind} is {most}, but provided ratio is {ratio:.6}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_given_and_noted() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "2"}}}]}});
        apply_defaults(
            &mut pod,
            &json!({"default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}),
        );
        expect![[r#"{"metadata":{"annotations":{"kubernetes.io/limit-ranger":"LimitRanger plugin set: cpu request for container a; memory limit for container a"}},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"100m"}}}]}}"#]]
            .assert_eq(&pod.to_string());
    }

    #[test]
    fn limits_are_enforced() {
        let range = json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}},
            {"type": "Pod", "max": {"cpu": "1500m"}}]}});
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}});
        let check =
            |containers: Vec<Value>| violations(&json!({"spec": {"containers": containers}}), "pods", &range);
        assert!(check(vec![container("1")]).is_empty());
        assert_eq!(
            check(vec![container("50m")])[0],
            "minimum cpu usage per Container is 100m, but request is 50m"
        );
        assert_eq!(
            check(vec![container("1"), container("1")]),
            [
                "maximum cpu usage per Pod is 1500m, but limit is 2",
                "maximum cpu usage per Pod is 1500m, but request is 2"
            ]
        );
    }
}
