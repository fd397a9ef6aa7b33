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
/// The turn with the best p99 counts: a busy machine takes something away from some and nothing from others.
const TURNS: usize = 5;
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
    let events = extent.pick(500, 200) / TURNS;
    let writer = cluster.http()?;
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        turns.push(one_turn(&writer, epoch, &mut receiver, turn * events..(turn + 1) * events).await?);
    }
    let all = turns.iter().map(|turn| turn.percentile_ms(99)).collect::<Vec<_>>();
    turns.sort_by(|a, b| a.percentile_ms(99).total_cmp(&b.percentile_ms(99)));
    let best = turns.first().ok_or("nothing was measured")?;
    let worst = all.iter().copied().fold(0.0, f64::max);
    let note = format!("from the request, the disk included; best of {TURNS} turns of {events} creates");
    report.add("watch, 100 watchers, p50", best.percentile_ms(50), "ms", note.clone());
    report.add(
        "watch, 100 watchers, p99",
        best.percentile_ms(99),
        "ms",
        format!("{note}, worst {worst:.1} ms"),
    );
    Ok(())
}

/// Creates objects one after the other and waits until every watcher has seen them.
async fn one_turn(
    writer: &Http,
    epoch: Instant,
    seen: &mut mpsc::UnboundedReceiver<Duration>,
    events: std::ops::Range<usize>,
) -> Result<Durations, Failure> {
    let count = events.len();
    for index in events {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": format!("watched-{index}"), "namespace": "default"},
            "data": {"sent": epoch.elapsed().as_nanos().to_string()},
        });
        create(writer, PATH, Bytes::from(body.to_string())).await?;
        tokio::time::sleep(PACE).await;
    }
    let mut taken = Vec::new();
    while taken.len() < count * WATCHERS {
        let next = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await;
        taken.push(next.map_err(|_| "events are missing")?.ok_or("a watch ended")?);
    }
    Ok(Durations::new(taken))
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
