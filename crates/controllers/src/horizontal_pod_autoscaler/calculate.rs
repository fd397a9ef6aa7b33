//! How many replicas a metric asks for (`ReplicaCalculator` upstream).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{MetricSpec, MetricTarget};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::observe::Usage;
use crate::shared::pods;

/// A deviation this small is none.
const TOLERANCE: f64 = 0.1;
/// For so long after its start a pod's cpu is not trusted while it is not ready.
const INITIALIZATION_SECONDS: i64 = 300;
const INITIAL_READINESS_SECONDS: i64 = 30;

/// What a metric asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub resource: String,
    pub container: Option<String>,
    pub goal: Goal,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Percent of what is requested.
    Utilization(i64),
    /// Thousandths per pod.
    Average(i64),
}

/// What follows from a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub replicas: i32,
    /// `cpu resource utilization (percentage of request)`.
    pub source: String,
    /// The metric's entry in the status.
    pub shown: Value,
}

type Failure = (&'static str, String);

impl Wanted {
    pub fn read(metric: &MetricSpec) -> Result<Self, Failure> {
        let (resource, container, target) = match (&metric.resource, &metric.container_resource) {
            (Some(metric_of), _) => (&metric_of.name, None, &metric_of.target),
            (None, Some(metric_of)) => {
                (&metric_of.name, Some(metric_of.container.clone()), &metric_of.target)
            }
            (None, None) => {
                let message = format!("no adapter serves metrics of type {}", metric.type_);
                return Err(("FailedGetMetrics", message));
            }
        };
        Ok(Self { resource: resource.clone(), container, goal: Goal::read(target)? })
    }

    fn shown(&self, average_milli: i64, percent: Option<i64>) -> Value {
        let value = match self.resource.as_str() {
            "cpu" => Quantity::from_milli(average_milli),
            _ => Quantity::from_bytes(average_milli / 1000),
        };
        let mut current = json!({"averageValue": value.to_string()});
        if let Some(percent) = percent {
            current["averageUtilization"] = json!(percent);
        }
        match &self.container {
            None => json!({"type": "Resource", "resource": {"name": self.resource, "current": current}}),
            Some(container) => json!({"type": "ContainerResource", "containerResource":
                {"name": self.resource, "container": container, "current": current}}),
        }
    }
}

impl Goal {
    fn read(target: &MetricTarget) -> Result<Self, Failure> {
        if let Some(percent) = target.average_utilization {
            return Ok(Self::Utilization(percent.into()));
        }
        let value = target.average_value.as_ref().and_then(read);
        let missing = || {
            ("FailedGetResourceMetric", "neither a utilization target nor a value target was set".to_owned())
        };
        value.map(|value| Self::Average(value.milli_value())).ok_or_else(missing)
    }
}

fn read(text: &Text) -> Option<Quantity> {
    Quantity::read(&Value::String(text.0.clone()))
}

/// The pods by what can be said of them.
struct Groups<'a> {
    measured: BTreeMap<&'a str, &'a Usage>,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    requests: BTreeMap<&'a str, i64>,
}

/// What a metric asks for, given the pods and what they use.
pub fn propose(
    wanted: &Wanted,
    current: i32,
    pods: &[Arc<Pod>],
    usage: &BTreeMap<String, Usage>,
    now: Timestamp,
) -> Result<Proposal, Failure> {
    let failed = |message: String| {
        ("FailedGetResourceMetric", format!("failed to get {} utilization: {message}", wanted.resource))
    };
    let groups = group(wanted, pods, usage, now).map_err(failed)?;
    if groups.measured.is_empty() {
        return Err(failed("did not receive metrics for targeted pods (pods might be unready)".to_owned()));
    }
    let target = |pod: &str| match wanted.goal {
        Goal::Utilization(percent) => groups.requests.get(pod).copied().unwrap_or(0) * percent / 100,
        Goal::Average(milli) => milli,
    };
    let sum = |values: &mut dyn Iterator<Item = i64>| values.sum::<i64>();
    let used = sum(&mut groups.measured.values().map(|usage| usage.milli));
    let aimed = sum(&mut groups.measured.keys().map(|pod| target(pod)));
    if aimed == 0 {
        return Err(failed("the sum of the requests is zero".to_owned()));
    }
    let requested =
        sum(&mut groups.measured.keys().map(|pod| groups.requests.get(pod).copied().unwrap_or(0)));
    let percent = matches!(wanted.goal, Goal::Utilization(_)).then(|| used * 100 / requested.max(1));
    let count = i64::try_from(groups.measured.len()).unwrap_or(i64::MAX);
    let ratio = used as f64 / aimed as f64;
    let replicas = replicas(&groups, current, ratio, used, aimed, &target);
    let of_container = wanted.container.as_ref().map(|name| format!(" container {name}")).unwrap_or_default();
    let kind = if percent.is_some() { " resource utilization (percentage of request)" } else { " resource" };
    let source = format!("{}{of_container}{kind}", wanted.resource);
    Ok(Proposal { replicas, source, shown: wanted.shown(used / count, percent) })
}

fn is_close(ratio: f64) -> bool {
    (ratio - 1.0).abs() <= TOLERANCE
}

fn replicas(
    groups: &Groups<'_>,
    current: i32,
    ratio: f64,
    used: i64,
    aimed: i64,
    target: &dyn Fn(&str) -> i64,
) -> i32 {
    let rebalance = !groups.unready.is_empty() && ratio > 1.0;
    if groups.missing.is_empty() && !rebalance {
        let scaled = (ratio * groups.measured.len() as f64).ceil() as i32;
        return if is_close(ratio) { current } else { scaled };
    }
    // What is not known counts against the change: as full when shrinking, as idle when growing.
    let missing: i64 = groups.missing.iter().map(|pod| target(pod)).sum();
    let unready: i64 = groups.unready.iter().filter(|_| rebalance).map(|pod| target(pod)).sum();
    let filled = if ratio < 1.0 { missing } else { 0 };
    let careful = (used + filled) as f64 / (aimed + missing + unready).max(1) as f64;
    let turned = (ratio < 1.0 && careful > 1.0) || (ratio > 1.0 && careful < 1.0);
    if is_close(careful) || turned {
        return current;
    }
    let idle = if rebalance { groups.unready.len() } else { 0 };
    let scaled = (careful * (groups.measured.len() + groups.missing.len() + idle) as f64).ceil() as i32;
    if (careful < 1.0 && scaled > current) || (careful > 1.0 && scaled < current) { current } else { scaled }
}

fn group<'a>(
    wanted: &Wanted,
    all: &'a [Arc<Pod>],
    usage: &'a BTreeMap<String, Usage>,
    now: Timestamp,
) -> Result<Groups<'a>, String> {
    let mut groups = Groups {
        measured: BTreeMap::new(),
        unready: BTreeSet::new(),
        missing: BTreeSet::new(),
        requests: BTreeMap::new(),
    };
    for pod in all.iter().filter(|pod| !pods::is_deleting(pod) && pods::phase(pod) != "Failed") {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if matches!(wanted.goal, Goal::Utilization(_)) {
            groups.requests.insert(name, request(pod, wanted)?);
        }
        match usage.get(name) {
            _ if pods::phase(pod) == "Pending" => _ = groups.unready.insert(name),
            None => _ = groups.missing.insert(name),
            Some(usage) if wanted.resource == "cpu" && is_starting(pod, usage, now) => {
                groups.unready.insert(name);
            }
            Some(usage) => _ = groups.measured.insert(name, usage),
        }
    }
    Ok(groups)
}

/// Whether the pod's cpu still says more of its start than of its work.
fn is_starting(pod: &Pod, usage: &Usage, now: Timestamp) -> bool {
    let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(start), Some(ready)) = (start, pods::condition(pod, "Ready")) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(start.0, |time| time.0);
    if now.as_second() - start.0.as_second() < INITIALIZATION_SECONDS {
        return ready.status == "False" || usage.at.as_second() < changed.as_second() + usage.window_seconds;
    }
    ready.status == "False" && changed.as_second() < start.0.as_second() + INITIAL_READINESS_SECONDS
}

fn request(pod: &Pod, wanted: &Wanted) -> Result<i64, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let concerned =
        |container: &&Container| wanted.container.as_ref().is_none_or(|name| *name == container.name);
    let mut sum = 0i64;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    for container in spec.containers.iter().chain(sidecars).filter(concerned) {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let request = requests.and_then(|requests| requests.get(&wanted.resource)).and_then(read);
        let request = request.ok_or_else(|| {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            format!("missing request for {} in container {} of Pod {pod}", wanted.resource, container.name)
        })?;
        sum = sum.saturating_add(request.milli_value());
    }
    Ok(sum)
}
