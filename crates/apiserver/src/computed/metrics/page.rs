//! A kubelet's `/metrics/resource` in the text format. Pure.

use std::collections::BTreeMap;

/// What something had used when the kubelet looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Processor time since the start.
    pub cpu_nanoseconds: u64,
    pub memory_bytes: u64,
    /// When it started, in milliseconds since 1970; 0 when that is not known.
    pub started_ms: i64,
}

/// Namespace and name.
pub type PodName = (String, String);

/// One look at a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// By the node's own clock, in milliseconds since 1970.
    pub at_ms: i64,
    pub node: Option<Reading>,
    /// By pod and container.
    pub pods: BTreeMap<PodName, BTreeMap<String, Reading>>,
}

/// Reads a page; lines of other families are passed over. `now_ms` stands in where the kubelet does not say when it
/// looked.
pub fn read(text: &str, now_ms: i64) -> Sample {
    let mut sample = Sample::default();
    for line in text.lines().filter_map(Line::parse) {
        sample.at_ms = sample.at_ms.max(line.at_ms.unwrap_or(0));
        let Some(reading) = sample.place(&line) else { continue };
        match line.family {
            "node_cpu_usage_seconds_total" | "container_cpu_usage_seconds_total" => {
                reading.cpu_nanoseconds = (line.value * 1e9) as u64;
            }
            "node_memory_working_set_bytes" | "container_memory_working_set_bytes" => {
                reading.memory_bytes = line.value as u64;
            }
            _ => reading.started_ms = (line.value * 1e3) as i64,
        }
    }
    if sample.at_ms == 0 {
        sample.at_ms = now_ms;
    }
    sample
}

impl Sample {
    /// Where the line's value belongs.
    fn place(&mut self, line: &Line<'_>) -> Option<&mut Reading> {
        match line.family {
            "node_cpu_usage_seconds_total" | "node_memory_working_set_bytes" => {
                Some(self.node.get_or_insert_default())
            }
            "container_cpu_usage_seconds_total"
            | "container_memory_working_set_bytes"
            | "container_start_time_seconds" => {
                let pod = (line.label("namespace")?, line.label("pod")?);
                let container = line.label("container")?;
                Some(self.pods.entry(pod).or_default().entry(container).or_default())
            }
            _ => None,
        }
    }
}

/// `FAMILY{NAME="VALUE",…} VALUE [TIME]`. Names of namespaces, pods and containers need no escapes.
struct Line<'a> {
    family: &'a str,
    labels: &'a str,
    value: f64,
    at_ms: Option<i64>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (family, labels, rest) = match line.split_once('{') {
            Some((family, rest)) => {
                let (labels, rest) = rest.split_once('}')?;
                (family, labels, rest)
            }
            None => {
                let (family, rest) = line.split_once(' ')?;
                (family, "", rest)
            }
        };
        let mut words = rest.split_whitespace();
        let value = words.next()?.parse::<f64>().ok().filter(|value| value.is_finite())?;
        Some(Self { family, labels, value, at_ms: words.next().and_then(|word| word.parse().ok()) })
    }

    fn label(&self, name: &str) -> Option<String> {
        let pairs = self.labels.split(',').filter_map(|pair| pair.split_once('='));
        let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
        Some(value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let text = "# HELP node_cpu_usage_seconds_total x\n\
            node_cpu_usage_seconds_total 12.5 1000\n\
            node_memory_working_set_bytes 4.096e+06 1000\n\
            container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 2000\n\
            container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 2048 2000\n\
            container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 1.25\n\
            container_cpu_usage_seconds_total{container=\"\",namespace=\"n\",pod=\"p\"} 1.5\n\
            pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 99 2000\n\
            container_cpu_usage_seconds_total{container=\"d\",namespace=\"n\",pod=\"p\"} NaN\n\
            broken{ 1\nbroken\n";
        let sample = read(text, 7);
        assert_eq!(sample.at_ms, 2000);
        let node = Reading { cpu_nanoseconds: 12_500_000_000, memory_bytes: 4_096_000, started_ms: 0 };
        assert_eq!(sample.node, Some(node));
        let container = Reading { cpu_nanoseconds: 1_500_000_000, memory_bytes: 2048, started_ms: 1250 };
        let containers = BTreeMap::from([("c".to_owned(), container)]);
        assert_eq!(sample.pods, BTreeMap::from([(("n".to_owned(), "p".to_owned()), containers)]));
        assert_eq!(read("", 7), Sample { at_ms: 7, ..Sample::default() });
    }
}
