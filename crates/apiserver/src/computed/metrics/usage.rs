//! From counters at two times to what is used, as the metrics server does it, and its objects. Pure.

use std::collections::BTreeMap;

use env::jiff::Timestamp;
use machinery::quantity::Quantity;
use machinery::{Object, duration};
use serde_json::{Value, json};

use super::page::{PodName, Reading, Sample};
use crate::pipeline::meta;

/// What started within this time may be measured since its start.
const SINCE_START_MAX_MS: i64 = 60_000;

/// What something uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a processor.
    pub nano_cores: u64,
    /// The working set.
    pub memory_bytes: u64,
    /// The end of the time it was measured over, in milliseconds since 1970.
    pub at_ms: i64,
    pub window_ms: i64,
}

/// What a node and its pods use.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub node: Option<Usage>,
    /// By pod and container. Pods of which not every container is measured are left out.
    pub pods: BTreeMap<PodName, BTreeMap<String, Usage>>,
}

/// What was used between two looks at a node.
pub fn between(old: &Sample, new: &Sample) -> Rates {
    let pod = |(name, containers): (&PodName, &BTreeMap<String, Reading>)| {
        let before = old.pods.get(name);
        let measured: Option<BTreeMap<_, _>> = containers
            .iter()
            .map(|(container, reading)| {
                let before = before.and_then(|before| before.get(container));
                let usage = usage(before.map(|before| (*before, old.at_ms)), *reading, new.at_ms)?;
                Some((container.clone(), usage))
            })
            .collect();
        Some((name.clone(), measured?))
    };
    Rates {
        node: new.node.and_then(|node| usage(old.node.map(|before| (before, old.at_ms)), node, new.at_ms)),
        pods: new.pods.iter().filter_map(pod).collect(),
    }
}

fn usage(old: Option<(Reading, i64)>, new: Reading, at_ms: i64) -> Option<Usage> {
    let same = |(old, _): &(Reading, i64)| {
        old.started_ms == new.started_ms && old.cpu_nanoseconds <= new.cpu_nanoseconds
    };
    let (used, since_ms) = match old.filter(same) {
        Some((old, since_ms)) => (new.cpu_nanoseconds - old.cpu_nanoseconds, since_ms),
        None if new.started_ms > 0 && at_ms - new.started_ms <= SINCE_START_MAX_MS => {
            (new.cpu_nanoseconds, new.started_ms)
        }
        None => return None,
    };
    let window_ms = at_ms - since_ms;
    let divisor = u128::try_from(window_ms).ok().filter(|window| *window > 0)?;
    let nano_cores = u64::try_from(u128::from(used) * 1000 / divisor).unwrap_or(u64::MAX);
    Some(Usage { nano_cores, memory_bytes: new.memory_bytes, at_ms, window_ms })
}

/// A `NodeMetrics`.
pub fn of_node(node: &Object, usage: Usage, now: Timestamp) -> Value {
    json!({
        "kind": "NodeMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata(node, now),
        "timestamp": timestamp(usage.at_ms, now),
        "window": window(usage.window_ms),
        "usage": quantities(usage),
    })
}

/// A `PodMetrics`; of the containers the earliest end and the longest window are told.
pub fn of_pod(pod: &Object, containers: &BTreeMap<String, Usage>, now: Timestamp) -> Value {
    let at_ms = containers.values().map(|usage| usage.at_ms).min().unwrap_or_default();
    let longest_ms = containers.values().map(|usage| usage.window_ms).max().unwrap_or_default();
    let container = |(name, usage): (&String, &Usage)| json!({"name": name, "usage": quantities(*usage)});
    json!({
        "kind": "PodMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata(pod, now),
        "timestamp": timestamp(at_ms, now),
        "window": window(longest_ms),
        "containers": containers.iter().map(container).collect::<Vec<_>>(),
    })
}

fn metadata(object: &Object, now: Timestamp) -> Value {
    let meta = object.meta();
    let mut value = json!({"name": meta.name, "creationTimestamp": meta::time(now)});
    if !meta.namespace.is_empty() {
        value["namespace"] = json!(meta.namespace);
    }
    if !meta.labels.is_empty() {
        value["labels"] = json!(meta.labels);
    }
    value
}

fn timestamp(at_ms: i64, now: Timestamp) -> String {
    meta::time(Timestamp::from_millisecond(at_ms).unwrap_or(now))
}

fn window(window_ms: i64) -> String {
    duration::format(window_ms.saturating_mul(1_000_000))
}

fn quantities(usage: Usage) -> Value {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let cpu = Quantity::from_nano(signed(usage.nano_cores)).to_string();
    json!({"cpu": cpu, "memory": Quantity::from_bytes(signed(usage.memory_bytes)).to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(cpu_seconds: u64, started_ms: i64) -> Reading {
        Reading { cpu_nanoseconds: cpu_seconds * 1_000_000_000, memory_bytes: 4096, started_ms }
    }

    #[test]
    fn what_is_used_between_two_looks() {
        let nano = |old: Option<(Reading, i64)>, new: Reading| {
            usage(old, new, 200_000).map(|usage| (usage.nano_cores, usage.window_ms))
        };
        let old = |cpu, started| Some((reading(cpu, started), 185_000));
        assert_eq!(nano(old(10, 5), reading(25, 5)), Some((1_000_000_000, 15_000)));
        assert_eq!(nano(old(10, 0), reading(10, 0)), Some((0, 15_000)));
        // Started anew in between, told by the start or by the counter.
        assert_eq!(nano(old(1, 5), reading(5, 190_000)), Some((500_000_000, 10_000)));
        assert_eq!(nano(old(9, 0), reading(5, 0)), None);
        assert_eq!(nano(None, reading(10, 180_000)), Some((500_000_000, 20_000)));
        assert_eq!(
            nano(None, reading(10, 100_000)),
            None,
            "an average over its life is not what it uses now"
        );
        assert_eq!(usage(old(1, 5), reading(2, 5), 185_000), None, "no time has passed");
    }

    #[test]
    fn a_pod_is_measured_whole_or_not_at_all() {
        let sample = |at_ms, names: &[(&str, u64)]| Sample {
            at_ms,
            node: None,
            pods: BTreeMap::from([(
                ("n".to_owned(), "p".to_owned()),
                names.iter().map(|(name, cpu)| ((*name).to_owned(), reading(*cpu, 5))).collect(),
            )]),
        };
        let old = sample(100_000, &[("a", 1)]);
        assert_eq!(between(&old, &sample(101_000, &[("a", 2)])).pods.len(), 1);
        assert_eq!(between(&old, &sample(101_000, &[("a", 2), ("b", 1)])).pods.len(), 0);
    }

    #[test]
    fn quantities_are_canonical() {
        for (nano, bytes, cpu, memory) in [
            (0, 0, "0", "0"),
            (1_234_567, 1000, "1234567n", "1k"),
            (250_000_000, 2048, "250m", "2Ki"),
            (2_000_000_000, 5 << 30, "2", "5Gi"),
            (5_000, 3 << 20, "5u", "3Mi"),
        ] {
            let usage = Usage { nano_cores: nano, memory_bytes: bytes, at_ms: 0, window_ms: 1 };
            assert_eq!(quantities(usage), json!({"cpu": cpu, "memory": memory}));
        }
    }
}
