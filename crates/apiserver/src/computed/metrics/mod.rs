//! `metrics.k8s.io`: what nodes and pods use, asked of the kubelets when somebody wants to know and kept for upstream's
//! 15 seconds. Nothing is stored, nothing can be watched, and nobody is asked while nobody reads.

mod collector;
mod page;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::{ListOptions, ObjectList, Target};
use machinery::{Object, Status};
use serde::Deserialize;

use super::View;
use crate::core::Core;
use crate::pipeline::Call;
use collector::{Collector, FRESH, INCOMPLETE};
use usage::Rates;

/// The metrics of nodes.
pub(super) struct NodeMetrics(pub Arc<Collector>);
/// The metrics of pods.
pub(super) struct PodMetrics(pub Arc<Collector>);

/// Both views of one collector.
pub(super) fn views() -> (NodeMetrics, PodMetrics) {
    let collector = Arc::new(Collector::default());
    (NodeMetrics(collector.clone()), PodMetrics(collector))
}

#[async_trait]
impl View for NodeMetrics {
    async fn list(&self, core: &Core, call: &Call, options: &ListOptions) -> Result<ObjectList, Status> {
        let list = objects(core, call, "nodes", options).await?;
        let items = self.metrics(core, &list.items).await?;
        Ok(ObjectList { items, revision: list.revision, ..ObjectList::default() })
    }

    async fn get(&self, core: &Core, call: &Call) -> Result<Arc<Object>, Status> {
        let node = object(core, call, "nodes").await?;
        let found = self.metrics(core, &[node]).await?.into_iter().next();
        found.ok_or_else(|| call.not_found(&call.target.name))
    }
}

impl NodeMetrics {
    async fn metrics(&self, core: &Core, nodes: &[Arc<Object>]) -> Result<Vec<Arc<Object>>, Status> {
        let ready: Vec<_> = nodes.iter().filter(|node| is_ready(node)).cloned().collect();
        let rates = self.0.collect(core, &ready, FRESH).await;
        let now = core.env.now();
        let shown = nodes.iter().filter_map(|node| {
            let usage = rates.get(&node.meta().name)?.node?;
            Some(usage::of_node(node, usage, now))
        });
        shown.map(made).collect()
    }
}

#[async_trait]
impl View for PodMetrics {
    async fn list(&self, core: &Core, call: &Call, options: &ListOptions) -> Result<ObjectList, Status> {
        let list = objects(core, call, "pods", options).await?;
        let items = self.metrics(core, call, &list.items).await?;
        Ok(ObjectList { items, revision: list.revision, ..ObjectList::default() })
    }

    async fn get(&self, core: &Core, call: &Call) -> Result<Arc<Object>, Status> {
        let missing = || call.not_found(&format!("{}/{}", call.target.namespace, call.target.name));
        let pod = match object(core, call, "pods").await {
            Err(status) if status.is_not_found() => return Err(missing()),
            other => other?,
        };
        self.metrics(core, call, &[pod]).await?.into_iter().next().ok_or_else(missing)
    }
}

impl PodMetrics {
    async fn metrics(
        &self,
        core: &Core,
        call: &Call,
        pods: &[Arc<Object>],
    ) -> Result<Vec<Arc<Object>>, Status> {
        let placed: Vec<(&Arc<Object>, String)> =
            pods.iter().filter_map(|pod| Some((pod, running_on(pod)?))).collect();
        let names: BTreeSet<&str> = placed.iter().map(|(_, node)| node.as_str()).collect();
        let mut rates = self.rates(core, call, &names, FRESH).await?;
        let key = |pod: &Object| (pod.meta().namespace.clone(), pod.meta().name.clone());
        let lacks = |(pod, node): &&(&Arc<Object>, String)| {
            rates.get(node).is_some_and(|known| !known.pods.contains_key(&key(pod)))
        };
        let incomplete: BTreeSet<&str> = placed.iter().filter(lacks).map(|(_, node)| node.as_str()).collect();
        rates.extend(self.rates(core, call, &incomplete, INCOMPLETE).await?);
        let now = core.env.now();
        let shown = placed.iter().filter_map(|(pod, node)| {
            let containers = rates.get(node)?.pods.get(&key(pod))?;
            Some(usage::of_pod(pod, containers, now))
        });
        shown.map(made).collect()
    }

    /// What the named nodes say.
    async fn rates(
        &self,
        core: &Core,
        call: &Call,
        names: &BTreeSet<&str>,
        fresh: Duration,
    ) -> Result<BTreeMap<String, Arc<Rates>>, Status> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let target = Target { version: "v1".to_owned(), resource: "nodes".to_owned(), ..Target::default() };
        let call = core.call_within(&call.caller, "list", target)?;
        let nodes = core.list(&call, &ListOptions::default()).await?.items;
        let known: BTreeSet<&str> = nodes.iter().map(|node| node.meta().name.as_str()).collect();
        self.0.retain(|name| known.contains(name));
        let asked = nodes.iter().filter(|node| names.contains(node.meta().name.as_str()) && is_ready(node));
        Ok(self.0.collect(core, &asked.cloned().collect::<Vec<_>>(), fresh).await)
    }
}

fn made(metrics: serde_json::Value) -> Result<Arc<Object>, Status> {
    Object::from_value(&metrics, 0).map(Arc::new).map_err(Status::internal)
}

/// The objects that metrics are asked of. Who may read the metrics need not be allowed to read these.
async fn objects(
    core: &Core,
    call: &Call,
    resource: &str,
    options: &ListOptions,
) -> Result<ObjectList, Status> {
    let call = core.call_within(&call.caller, "list", within(call, resource))?;
    let options = ListOptions {
        label_selector: options.label_selector.clone(),
        field_selector: options.field_selector.clone(),
        ..ListOptions::default()
    };
    core.list(&call, &options).await
}

async fn object(core: &Core, call: &Call, resource: &str) -> Result<Arc<Object>, Status> {
    let found = core.call_within(&call.caller, "get", within(call, resource))?;
    match core.get(&found, &ListOptions::default()).await {
        Err(status) if status.is_not_found() => Err(call.not_found(&call.target.name)),
        other => other,
    }
}

/// The same place in the core group.
fn within(call: &Call, resource: &str) -> Target {
    Target {
        group: String::new(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        ..call.target.clone()
    }
}

/// The part of nodes and pods that matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Part {
    spec: Spec,
    status: State,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    phase: String,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

/// The node of a running pod.
fn running_on(pod: &Object) -> Option<String> {
    let part: Part = pod.part().ok()?;
    (part.status.phase == "Running" && !part.spec.node_name.is_empty()).then_some(part.spec.node_name)
}

fn is_ready(node: &Object) -> bool {
    let part: Part = node.part().unwrap_or_default();
    part.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
}
