//! One writer, a hundred watchers: how long an event is on its way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::Http;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::cluster::Machine;
use crate::load::Durations;
use crate::parts::stored::create;
use crate::report::Report;
use crate::{Extent, Failure};

const WATCHERS: usize = 100;
/// Time between two writes.
const PACE: Duration = Duration::from_millis(20);
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// What stands before the time in an event.
const MARK: &[u8] = b"\"sent\":\"";

pub async fn measure(machine: &Machine, extent: Extent, report: &mut Report) -> Result<(), Failure> {
    let cluster = machine.ready().await?;
    let epoch = Instant::now();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for http in cluster.https(WATCHERS)? {
        let watching = open(&http).await?;
        tokio::spawn(follow(http, watching, epoch, sender.clone()));
    }
    drop(sender);
    let events = extent.pick(500, 100);
    let writer = cluster.http()?;
    for index in 0..events {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": format!("watched-{index}"), "namespace": "default"},
            "data": {"sent": epoch.elapsed().as_nanos().to_string()},
        });
        create(&writer, PATH, Bytes::from(body.to_string())).await?;
        tokio::time::sleep(PACE).await;
    }
    let mut taken = Vec::new();
    while taken.len() < events * WATCHERS {
        let next = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await;
        taken.push(next.map_err(|_| "events are missing")?.ok_or("a watch ended")?);
    }
    let taken = Durations::new(taken);
    let note = format!("{events} creates, from the request to the watcher, the disk included");
    report.add("watch, 100 watchers, p50", taken.percentile_ms(50), "ms", note.clone());
    report.add("watch, 100 watchers, p99", taken.percentile_ms(99), "ms", note);
    Ok(())
}

async fn open(http: &Http) -> Result<client::http::Answer, Failure> {
    let path = format!("{PATH}?watch=1&allowWatchBookmarks=true");
    http.send(Method::GET, &path, &[], Bytes::new()).await.map_err(|status| status.to_string().into())
}

/// Reports how long each event took. Keeps its client, whose connection would otherwise close.
async fn follow(
    _http: Http,
    watching: client::http::Answer,
    epoch: Instant,
    sender: mpsc::UnboundedSender<Duration>,
) {
    let mut body = watching.into_body();
    let mut rest = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let now = epoch.elapsed();
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if let Some(sent) = sent_at(&rest[..end])
                && sender.send(now.saturating_sub(sent)).is_err()
            {
                return;
            }
            rest.drain(..=end);
        }
    }
}

fn sent_at(line: &[u8]) -> Option<Duration> {
    let start = line.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = line[start..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_an_event() {
        assert_eq!(sent_at(br#"{"object":{"data":{"sent":"17"}}}"#), Some(Duration::from_nanos(17)));
        assert_eq!(sent_at(br#"{"object":{"data":{}}}"#), None);
    }
}
