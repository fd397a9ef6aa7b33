//! Metrics in the text format, with upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;

use containers::{ContainerState, ContainerStatus, Usage};

use super::{Answer, Failure, Server, text};
use crate::pods::executor::chain;

/// A metric's text.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string cannot fail.
        let _infallible = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _infallible = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A value with the time it was taken, in milliseconds since 1970.
    fn line_at(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display, at: i64) {
        self.line(name, labels, format_args!("{value} {at}"));
    }
}

fn labels(status: &ContainerStatus) -> [(&'static str, &str); 3] {
    let label = |name: &str| status.config.labels.get(name).map(String::as_str).unwrap_or_default();
    [
        ("container", status.config.name.as_str()),
        ("namespace", label("io.kubernetes.pod.namespace")),
        ("pod", label("io.kubernetes.pod.name")),
    ]
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

const CONTAINER_CPU: &str = "container_cpu_usage_seconds_total";
const CONTAINER_MEMORY: &str = "container_memory_working_set_bytes";
const CONTAINER_START: &str = "container_start_time_seconds";

/// Sums over the containers of each pod.
fn pod_resources(page: &mut Page, usages: &[(ContainerStatus, Usage)], at: i64) {
    let mut pods: BTreeMap<[(&str, &str); 2], (u64, u64)> = BTreeMap::new();
    for (status, usage) in usages {
        let [_, namespace, pod] = labels(status);
        let total = pods.entry([namespace, pod]).or_default();
        total.0 += usage.cpu_nanoseconds;
        total.1 += usage.memory_working_set_bytes;
    }
    let name = "pod_cpu_usage_seconds_total";
    page.head(name, "counter", "Cumulative cpu time consumed by the pod in core-seconds");
    for (labels, (nanoseconds, _)) in &pods {
        page.line_at(name, labels, seconds(*nanoseconds), at);
    }
    let name = "pod_memory_working_set_bytes";
    page.head(name, "gauge", "Current working set of the pod in bytes");
    for (labels, (_, bytes)) in &pods {
        page.line_at(name, labels, bytes, at);
    }
}

impl Server {
    pub(super) async fn metrics(&self) -> Answer {
        let failed = |error: containers::RuntimeError| Failure::internal(chain(&error));
        let sandboxes = self.shared.runtime.sandboxes().await.map_err(failed)?;
        let usages = self.usages().await?;
        let mut page = Page::default();
        page.head("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
        page.line("kubelet_running_pods", &[], sandboxes.iter().filter(|sandbox| sandbox.ready).count());
        page.head("kubelet_running_containers", "gauge", "Number of containers currently running");
        page.line("kubelet_running_containers", &[("container_state", "running")], usages.len());
        page.head("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
        page.line("kubelet_node_name", &[("node", self.shared.node_name.as_str())], 1);
        Ok(text(page.0))
    }

    /// What a metrics server reads: counters of processor time and working sets, each with the time it was taken.
    pub(super) async fn resource_metrics(&self) -> Answer {
        let usages = self.usages().await?;
        let at = self.shared.env.now().as_millisecond();
        let mut page = Page::default();
        page.head(CONTAINER_CPU, "counter", "Cumulative cpu time consumed by the container in core-seconds");
        for (status, usage) in &usages {
            page.line_at(CONTAINER_CPU, &labels(status), seconds(usage.cpu_nanoseconds), at);
        }
        page.head(CONTAINER_MEMORY, "gauge", "Current working set of the container in bytes");
        for (status, usage) in &usages {
            page.line_at(CONTAINER_MEMORY, &labels(status), usage.memory_working_set_bytes, at);
        }
        page.head(CONTAINER_START, "gauge", "Start time of the container since unix epoch in seconds");
        for (status, _) in &usages {
            if let ContainerState::Running { started_at, .. } = &status.state {
                page.line(CONTAINER_START, &labels(status), started_at.as_millisecond() as f64 / 1e3);
            }
        }
        self.node_resources(&mut page, at).await;
        pod_resources(&mut page, &usages, at);
        page.head(
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
        );
        page.line("resource_scrape_error", &[], 0);
        Ok(text(page.0))
    }

    async fn node_resources(&self, page: &mut Page, at: i64) {
        let Some(used) = self.node_usage().await else { return };
        let name = "node_cpu_usage_seconds_total";
        page.head(name, "counter", "Cumulative cpu time consumed by the node in core-seconds");
        page.line_at(name, &[], seconds(used.cpu_nanoseconds), at);
        let name = "node_memory_working_set_bytes";
        page.head(name, "gauge", "Current working set of the node in bytes");
        page.line_at(name, &[], used.memory_bytes, at);
    }

    pub(super) async fn cadvisor_metrics(&self) -> Answer {
        let usages = self.usages().await?;
        let mut page = Page::default();
        let mut family = |name: &str, kind: &str, help: &str, value: fn(&Usage) -> f64| {
            page.head(name, kind, help);
            for (status, usage) in &usages {
                let mut all = labels(status).to_vec();
                all.push(("image", status.config.image.as_str()));
                all.push(("name", status.id.0.as_str()));
                page.line(name, &all, value(usage));
            }
        };
        family(
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |usage| seconds(usage.cpu_nanoseconds),
        );
        family("container_memory_usage_bytes", "gauge", "Current memory usage in bytes.", |usage| {
            usage.memory_usage_bytes as f64
        });
        family("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |usage| {
            usage.memory_working_set_bytes as f64
        });
        family("container_memory_rss", "gauge", "Size of RSS in bytes.", |usage| {
            usage.memory_rss_bytes as f64
        });
        family(
            "container_processes",
            "gauge",
            "Number of processes running inside the container.",
            |usage| usage.pids as f64,
        );
        Ok(text(page.0))
    }

    /// How many probes were made, over all containers.
    pub(super) fn probe_metrics(&self) -> Answer {
        let mut page = Page::default();
        page.head(
            "prober_probe_total",
            "counter",
            "Cumulative number of a liveness, readiness or startup probe for a container by result.",
        );
        for (kind, result, count) in self.shared.prober.counts.all() {
            page.line("prober_probe_total", &[("probe_type", kind), ("result", result)], count);
        }
        Ok(text(page.0))
    }
}
