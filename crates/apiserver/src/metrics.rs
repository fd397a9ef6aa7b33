//! Counters with upstream's names, and their text form.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::Core;

/// Upper bounds of the latency buckets in seconds, a selection of upstream's.
const BUCKETS_S: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Labels come from requests, so their number is bounded; what comes later is counted as `other`.
const SERIES_MAX: usize = 2000;

/// What was observed.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    durations: Mutex<BTreeMap<(String, String), Histogram>>,
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    sum_s: f64,
}

impl Metrics {
    /// Counts an answered request.
    pub fn observe(&self, verb: &str, resource: &str, code: u16, elapsed: Duration) {
        let name = |full: bool| {
            (if full { "other" } else { verb }.to_owned(), if full { "" } else { resource }.to_owned())
        };
        {
            let mut requests = self.requests.lock();
            let (verb, resource) = name(requests.len() >= SERIES_MAX);
            *requests.entry((verb, resource, code)).or_default() += 1;
        }
        let mut durations = self.durations.lock();
        let key = name(durations.len() >= SERIES_MAX);
        let histogram = durations.entry(key).or_default();
        let seconds = elapsed.as_secs_f64();
        histogram.count += 1;
        histogram.sum_s += seconds;
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BUCKETS_S) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// The Prometheus text format.
    pub fn text(&self, core: &Core) -> String {
        let mut out = String::new();
        self.write_requests(&mut out);
        self.write_durations(&mut out);
        write_gauges(core, &mut out);
        out
    }

    fn write_requests(&self, out: &mut String) {
        head(out, "apiserver_request_total", "counter", "Counter of apiserver requests.");
        for ((verb, resource, code), count) in &*self.requests.lock() {
            line(
                out,
                format_args!(
                    "apiserver_request_total{{verb={verb:?},resource={resource:?},code=\"{code}\"}} {count}"
                ),
            );
        }
    }

    fn write_durations(&self, out: &mut String) {
        const NAME: &str = "apiserver_request_duration_seconds";
        head(out, NAME, "histogram", "Response latency distribution in seconds.");
        for ((verb, resource), histogram) in &*self.durations.lock() {
            let labels = format!("verb={verb:?},resource={resource:?}");
            for (count, bound) in histogram.buckets.iter().zip(BUCKETS_S) {
                line(out, format_args!("{NAME}_bucket{{{labels},le=\"{bound}\"}} {count}"));
            }
            line(out, format_args!("{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count));
            line(out, format_args!("{NAME}_sum{{{labels}}} {}", histogram.sum_s));
            line(out, format_args!("{NAME}_count{{{labels}}} {}", histogram.count));
        }
    }
}

fn write_gauges(core: &Core, out: &mut String) {
    let (reads, writes) = core.fairness.taken();
    head(out, "apiserver_current_inflight_requests", "gauge", "Requests that are being served.");
    line(out, format_args!("apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {reads}"));
    line(out, format_args!("apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {writes}"));
    head(out, "apiserver_resource_objects", "gauge", "Number of stored objects by resource.");
    let table = core.table.load();
    for (prefix, count) in core.cache.sizes() {
        if let Some(row) = table.rows().iter().find(|row| row.storage_prefix == prefix) {
            let (group, resource) = (&row.group, &row.resource);
            line(
                out,
                format_args!("apiserver_resource_objects{{group={group:?},resource={resource:?}}} {count}"),
            );
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    out.write_fmt(text).and_then(|()| out.write_char('\n')).unwrap_or_default();
}
