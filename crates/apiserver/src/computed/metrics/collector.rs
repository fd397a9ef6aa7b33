//! Asks kubelets what they have used, when somebody wants to know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use machinery::{Object, Status};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::page::{self, Sample};
use super::usage::{self, Rates};
use crate::connect;
use crate::core::Core;

/// An answer of a node is good for so long: a little less than upstream's 15 s, so that who asks every 15 s always
/// gets new numbers.
pub const FRESH: Duration = Duration::from_secs(14);
/// An answer in which a running pod is missing, most likely because it runs only now, is good for so long.
pub const INCOMPLETE: Duration = Duration::from_secs(1);
/// Two looks at a node that are further apart would tell of the past.
const APART_MAX_MS: i64 = 60_000;
/// How long is measured when there is no earlier look.
const MEASURED: Duration = Duration::from_secs(1);
/// A kubelet that takes longer is left out.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const ASKED_AT_ONCE: usize = 16;
/// Far more than the page of a node with as many pods as fit.
const PAGE_MAX: usize = 8 << 20;

/// What is remembered of the nodes. Nothing runs and nothing is asked unless somebody reads metrics.
#[derive(Default)]
pub struct Collector {
    nodes: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Known>>>>,
}

#[derive(Default)]
struct Known {
    last: Option<Sample>,
    /// When the node was asked last, and what came of it; none if it did not answer.
    answer: Option<(Instant, Option<Arc<Rates>>)>,
}

impl Collector {
    /// What the nodes and their pods use, by node; earlier answers serve when they are not older than `fresh`. Nodes that
    /// are not ready or do not answer are left out.
    pub async fn collect(
        &self,
        core: &Core,
        nodes: &[Arc<Object>],
        fresh: Duration,
    ) -> BTreeMap<String, Arc<Rates>> {
        let asked: Vec<_> = nodes.iter().cloned().map(|node| self.ask_named(core, node, fresh)).collect();
        let answers = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        answers.filter_map(|answer| async { answer }).collect().await
    }

    /// Forgets nodes that are gone.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.nodes.lock().retain(|name, _| exists(name));
    }

    async fn ask_named(
        &self,
        core: &Core,
        node: Arc<Object>,
        fresh: Duration,
    ) -> Option<(String, Arc<Rates>)> {
        let rates = self.ask(core, &node, fresh).await?;
        Some((node.meta().name.clone(), rates))
    }

    /// Who asks while another's question is under way waits for its answer.
    async fn ask(&self, core: &Core, node: &Object, fresh: Duration) -> Option<Arc<Rates>> {
        let known = self.nodes.lock().entry(node.meta().name.clone()).or_default().clone();
        let mut known = known.lock().await;
        if let Some((at, answer)) = &known.answer
            && at.elapsed() < fresh
        {
            return answer.clone();
        }
        let measured = measure(core, node, &mut known.last).await;
        let answer = measured.inspect_err(|error| {
            tracing::debug!(node = node.meta().name, %error, "a node's metrics could not be read");
        });
        let answer = answer.ok().map(Arc::new);
        known.answer = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// What was used since the last look, or in the coming second if that was long ago.
async fn measure(core: &Core, node: &Object, last: &mut Option<Sample>) -> Result<Rates, Status> {
    let value = node.value();
    let mut newest = look(core, &value).await?;
    let near = |old: &Sample| (1..=APART_MAX_MS).contains(&(newest.at_ms - old.at_ms));
    let old = match last.take().filter(near) {
        Some(old) => old,
        None => {
            tokio::time::sleep(MEASURED).await;
            let again = look(core, &value).await?;
            std::mem::replace(&mut newest, again)
        }
    };
    let rates = usage::between(&old, &newest);
    *last = Some(newest);
    Ok(rates)
}

async fn look(core: &Core, node: &Value) -> Result<Sample, Status> {
    let page = connect::kubelet_page(core, node, "/metrics/resource", PAGE_MAX);
    let page = tokio::time::timeout(ANSWER_MAX, page)
        .await
        .map_err(|_elapsed| Status::service_unavailable("the kubelet takes too long to answer"))??;
    Ok(page::read(&String::from_utf8_lossy(&page), core.env.now().as_millisecond()))
}
