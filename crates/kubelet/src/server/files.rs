//! Logs and lists of pods.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use containers::{ContainerId, ContainerState, RuntimeEvent};
use env::Shutdown;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::{Answer, Body, Failure, Server, json};
use crate::logs::read::{self, LogOptions};
use crate::machine::time::after;
use crate::pods::executor::chain;

/// How many pieces of a log may wait for a slow reader.
const PIECES: usize = 4;

/// The parameters of a query; the last of a name wins.
pub(super) fn parameters(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let hex = || std::str::from_utf8(bytes.get(index + 1..index + 3)?).ok();
        match bytes[index] {
            b'+' => out.push(b' '),
            b'%' => match hex().and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
                Some(byte) => {
                    out.push(byte);
                    index += 2;
                }
                None => out.push(b'%'),
            },
            byte => out.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn log_options(query: &str, now: jiff::Timestamp) -> Result<(LogOptions, bool), Failure> {
    let given: BTreeMap<_, _> = parameters(query).into_iter().collect();
    let flag = |name: &str| {
        given.get(name).is_some_and(|value| matches!(value.as_str(), "" | "true" | "1" | "True"))
    };
    let number = |name: &str| match given.get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value
            .parse::<u64>()
            .map(Some)
            .map_err(|_| Failure::bad(format!("invalid value for {name}: {value:?}"))),
    };
    let since_seconds = number("sinceSeconds")?;
    let since_time = match given.get("sinceTime").filter(|value| !value.is_empty()) {
        None => None,
        Some(value) => {
            Some(value.parse().map_err(|_| Failure::bad(format!("invalid sinceTime: {value:?}")))?)
        }
    };
    let since = since_seconds.map(|seconds| {
        let age = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        now.checked_sub(age).unwrap_or_else(|_| after(jiff::Timestamp::UNIX_EPOCH, Default::default()))
    });
    let stream = given.get("stream").map(|stream| stream.to_lowercase());
    let options = LogOptions {
        follow: flag("follow"),
        tail_lines: number("tailLines")?,
        since: since.or(since_time),
        timestamps: flag("timestamps"),
        limit_bytes: number("limitBytes")?,
        stream: stream.filter(|stream| stream != "all" && !stream.is_empty()),
    };
    Ok((options, flag("previous")))
}

impl Server {
    pub(super) async fn container_log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &str,
    ) -> Answer {
        let (options, previous) = log_options(query, self.shared.env.now())?;
        let pod = self.find_pod(namespace, pod)?;
        // Subscribed before looking, so that an end in between is not missed.
        let events = self.shared.runtime.events();
        let status = self.logged_container(&pod, container, previous).await?;
        if !status.log_path.exists() {
            let message = format!("failed to open log file {:?}: no such file or directory", status.log_path);
            return Err(Failure::new(StatusCode::NOT_FOUND, message));
        }
        let ended = self.shutdown.child_token();
        let running = matches!(status.state, ContainerState::Running { .. });
        if options.follow && running {
            let (id, ended, to) = (status.id.clone(), ended.clone(), self.tasks.clone());
            to.spawn(cancel_at_end(events, id, ended));
        } else {
            ended.cancel();
        }
        let (to, from) = mpsc::channel(PIECES);
        let guard = ended.clone().drop_guard();
        self.tasks.spawn(async move {
            read::send(status.log_path, options, ended, to).await;
            drop(guard);
        });
        let mut response = Response::new(stream(from));
        let kind = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        Ok(response)
    }

    /// Node logs are not served: the files of a node may hold what its pods must not see.
    pub(super) fn node_log(&self, _path: &str) -> Answer {
        Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled"))
    }

    pub(super) fn pod_list(&self) -> Value {
        let items: Vec<_> = self.pods.cache().all().iter().map(|object| object.value()).collect();
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
    }

    pub(super) async fn running_pods(&self) -> Answer {
        let text = |error: containers::RuntimeError| Failure::internal(chain(&error));
        let sandboxes = self.shared.runtime.sandboxes().await.map_err(text)?;
        let containers = self.shared.runtime.containers().await.map_err(text)?;
        let items: Vec<_> = sandboxes
            .iter()
            .filter(|sandbox| sandbox.ready)
            .map(|sandbox| {
                let of = containers.iter().filter(|container| {
                    container.sandbox == sandbox.id
                        && matches!(container.state, ContainerState::Running { .. })
                });
                let list: Vec<_> = of
                    .map(|c| json!({"name": c.config.name, "image": c.config.image, "resources": {}}))
                    .collect();
                let pod = &sandbox.config.pod;
                json!({"metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                    "spec": {"containers": list}, "status": {}})
            })
            .collect();
        Ok(json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
    }
}

/// Cancels `ended` when the container has ended.
async fn cancel_at_end(mut events: broadcast::Receiver<RuntimeEvent>, id: ContainerId, ended: Shutdown) {
    let wait = async {
        loop {
            match events.recv().await {
                Ok(RuntimeEvent::Exited { container, .. }) if container == id => return,
                Ok(_) => {}
                // What was missed may have been the end; a reader may then ask again.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            }
        }
    };
    if ended.run_until_cancelled(wait).await.is_some() {
        ended.cancel();
    }
}

fn stream(from: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    let pieces = futures::stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) });
    BodyExt::boxed(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now = jiff::Timestamp::from_second(100).unwrap();
        let read = |query: &str| log_options(query, now).map_err(|failure| failure.message);
        let (options, previous) =
            read("follow=true&tailLines=5&sinceSeconds=40&previous=true&stream=Stderr").unwrap();
        assert!(options.follow && previous);
        assert_eq!(options.tail_lines, Some(5));
        assert_eq!(options.since.unwrap().as_second(), 60);
        assert_eq!(options.stream.as_deref(), Some("stderr"));
        let (options, _) = read("sinceTime=1970-01-01T00%3A00%3A07Z").unwrap();
        assert_eq!(options.since.unwrap().as_second(), 7);
        assert_eq!(read("tailLines=x").unwrap_err(), "invalid value for tailLines: \"x\"");
        assert_eq!(
            parameters("command=a+b&command=%2Fx%"),
            [("command".to_owned(), "a b".to_owned()), ("command".to_owned(), "/x%".to_owned())]
        );
    }
}
