//! Counters, by upstream's names (CoreDNS).

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the server did so far.
#[derive(Debug, Default)]
pub struct Metrics {
    requests_udp: AtomicU64,
    requests_tcp: AtomicU64,
    /// By response code: NOERROR, SERVFAIL, NXDOMAIN, others.
    responses: [AtomicU64; 4],
    forwarded: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
}

/// A counter of [`Metrics`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Udp,
    Tcp,
    Response(u16),
    Forwarded,
    CacheHit,
    CacheMiss,
}

const CODES: [(&str, Option<u16>); 4] =
    [("NOERROR", Some(0)), ("SERVFAIL", Some(2)), ("NXDOMAIN", Some(3)), ("other", None)];

impl Metrics {
    pub(crate) fn count(&self, what: Count) {
        let counter = match what {
            Count::Udp => &self.requests_udp,
            Count::Tcp => &self.requests_tcp,
            Count::Response(code) => {
                let known = CODES.iter().position(|(_, known)| *known == Some(code));
                &self.responses[known.unwrap_or(CODES.len() - 1)]
            }
            Count::Forwarded => &self.forwarded,
            Count::CacheHit => &self.cache_hits,
            Count::CacheMiss => &self.cache_misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// In the text format of Prometheus.
    pub fn render(&self, out: &mut String) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut family = |name: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a string cannot fail.
            let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for (labels, value) in samples {
                let _infallible = writeln!(out, "{name}{labels} {value}");
            }
        };
        let by_protocol = |(protocol, counter)| (format!("{{proto=\"{protocol}\"}}"), read(counter));
        let requests = [("udp", &self.requests_udp), ("tcp", &self.requests_tcp)].map(by_protocol);
        family("coredns_dns_requests_total", "Counter of DNS requests made per protocol.", &requests);
        let responses: Vec<_> = CODES
            .iter()
            .zip(&self.responses)
            .map(|((code, _), counter)| (format!("{{rcode=\"{code}\"}}"), read(counter)))
            .collect();
        family("coredns_dns_responses_total", "Counter of response status codes.", &responses);
        family(
            "coredns_forward_requests_total",
            "Counter of requests made to upstream.",
            &[(String::new(), read(&self.forwarded))],
        );
        family(
            "coredns_cache_hits_total",
            "The count of cache hits.",
            &[(String::new(), read(&self.cache_hits))],
        );
        family(
            "coredns_cache_misses_total",
            "The count of cache misses.",
            &[(String::new(), read(&self.cache_misses))],
        );
    }
}
