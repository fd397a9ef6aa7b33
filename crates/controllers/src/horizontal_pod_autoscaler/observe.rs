//! What pods use, as `metrics.k8s.io` tells it.

use std::collections::BTreeMap;

use client::{Client, ListOptions, Target};
use jiff::Timestamp;
use machinery::Status;
use machinery::quantity::Quantity;
use serde_json::Value;

use super::calculate::Wanted;

/// What one pod uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// In thousandths.
    pub milli: i64,
    pub at: Timestamp,
    pub window_seconds: i64,
}

/// Usage by pod name. A pod whose containers are not all measured is left out.
pub async fn usage(
    client: &Client,
    namespace: &str,
    selector: &str,
    wanted: &Wanted,
) -> Result<BTreeMap<String, Usage>, Status> {
    let target = Target {
        group: "metrics.k8s.io".to_owned(),
        version: "v1beta1".to_owned(),
        resource: "pods".to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    };
    let options = ListOptions { label_selector: selector.to_owned(), ..ListOptions::default() };
    let list = client.transport().list(&target, &options).await?;
    let all = list.items.iter().map(|object| (object.meta().name.clone(), read(&object.value(), wanted)));
    Ok(all.filter_map(|(name, usage)| Some((name, usage?))).collect())
}

/// Reads a `PodMetrics`.
pub fn read(metrics: &Value, wanted: &Wanted) -> Option<Usage> {
    let containers = metrics["containers"].as_array()?;
    let concerned =
        |container: &&Value| wanted.container.as_ref().is_none_or(|name| container["name"] == **name);
    let mut milli = 0i64;
    let mut found = false;
    for container in containers.iter().filter(concerned) {
        milli =
            milli.saturating_add(Quantity::read(container["usage"].get(&wanted.resource)?)?.milli_value());
        found = true;
    }
    let at = metrics["timestamp"].as_str()?.parse().ok()?;
    let window = metrics["window"].as_str().and_then(machinery::duration::parse).unwrap_or(0);
    found.then_some(Usage { milli, at, window_seconds: window / 1_000_000_000 })
}
