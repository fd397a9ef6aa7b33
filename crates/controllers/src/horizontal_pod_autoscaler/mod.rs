//! HorizontalPodAutoscaler: the size of a workload follows what its pods use.
//!
//! Resource and container metrics are read from `metrics.k8s.io`. Metrics of pods, objects and the outside world need
//! an adapter that serves `custom.metrics.k8s.io`; an autoscaler that asks for them says in its conditions that they
//! cannot be had.

mod behavior;
mod calculate;
mod observe;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use client::{Cache, Caches, Client, Patch, Target, target_of, typed};
use env::{Env, Shutdown};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec};
use k8s_openapi::api::core::v1::Pod;
use machinery::{Key, Object, Status};
use reconcile::{Action, Executor, Plan, Queue, Reconcile, Reference, run_queue};
use serde_json::{Value, json};

use crate::Rows;
use behavior::Memory;
use calculate::Proposal;

/// `--horizontal-pod-autoscaler-sync-period` upstream.
const PERIOD: Duration = Duration::from_secs(15);

/// The controller.
pub struct Autoscalers {
    caches: Caches,
    autoscalers: Cache,
    client: Client,
    executor: Executor,
    rows: Arc<Rows>,
    env: Env,
    /// What the behaviour of each autoscaler looks back at. Lost with the process, which only delays scaling down.
    memories: Mutex<BTreeMap<Key, Memory>>,
}

/// An autoscaler as it is judged.
struct Subject {
    object: Arc<Object>,
    view: Arc<HorizontalPodAutoscaler>,
    spec: HorizontalPodAutoscalerSpec,
}

/// The target's scale subresource.
struct Scale {
    target: Target,
    replicas: i32,
    selector: String,
}

/// What a look at the target and its metrics gave.
#[derive(Debug, Default, PartialEq)]
struct Judgement {
    current: i32,
    desired: i32,
    metrics: Vec<Value>,
    conditions: Vec<Value>,
    events: Vec<(&'static str, String)>,
}

impl Autoscalers {
    pub fn new(caches: &Caches, client: Client, executor: Executor, rows: Arc<Rows>, env: Env) -> Self {
        let autoscalers = caches.of::<HorizontalPodAutoscaler>();
        Self { caches: caches.clone(), autoscalers, client, executor, rows, env, memories: Mutex::default() }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let queue = Arc::new(Queue::default());
        let (cache, added) = (self.autoscalers.clone(), queue.clone());
        let mut changes = cache.subscribe();
        let feeder = tokio::spawn(async move {
            cache.synced().await;
            cache.all().iter().for_each(|object| added.add(object.key()));
            loop {
                match changes.recv().await {
                    // Its own status must not make an autoscaler look again at once.
                    Ok(client::CacheEvent::Modified { old, new })
                        if old.meta().generation == new.meta().generation => {}
                    Ok(event) => added.add(event.object().key()),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                        cache.all().iter().for_each(|object| added.add(object.key()));
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        run_queue("horizontal-pod-autoscaler", queue, Arc::new(self), shutdown).await;
        feeder.abort();
    }

    fn subject(&self, key: &Key) -> Option<Subject> {
        let object = self.autoscalers.get(key).filter(|object| object.meta().deletion_timestamp.is_none())?;
        let view = typed::<HorizontalPodAutoscaler>(&object).ok()?;
        let spec = view.spec.clone();
        Some(Subject { object, view, spec })
    }

    async fn scale(&self, subject: &Subject) -> Result<Scale, Status> {
        let to = &subject.spec.scale_target_ref;
        let api_version = to.api_version.as_deref().unwrap_or("v1");
        let row = self.rows.of_kind(api_version, &to.kind).ok_or_else(|| {
            Status::not_found(
                "",
                &to.kind,
                &format!("no matches for kind {:?} in group {api_version:?}", to.kind),
            )
        })?;
        let target = Target {
            namespace: subject.object.meta().namespace.clone(),
            name: to.name.clone(),
            subresource: "scale".to_owned(),
            ..row.target.clone()
        };
        let scale = self.client.transport().get(&target, &client::ListOptions::default()).await?.value();
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let selector = scale["status"]["selector"].as_str().unwrap_or_default().to_owned();
        Ok(Scale { target, replicas: i32::try_from(replicas).unwrap_or(i32::MAX), selector })
    }

    async fn judge(&self, subject: &Subject, scale: &Scale, now: Timestamp) -> Judgement {
        let mut judgement =
            Judgement { current: scale.replicas, desired: scale.replicas, ..Judgement::default() };
        let least = subject.spec.min_replicas.unwrap_or(1);
        judgement.say(
            "AbleToScale",
            "True",
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        if scale.replicas == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            judgement.say("ScalingActive", "False", "ScalingDisabled", message);
            return judgement;
        }
        if scale.replicas > subject.spec.max_replicas {
            judgement.desired = subject.spec.max_replicas;
        } else if scale.replicas < least {
            judgement.desired = least;
        } else if let Some(proposed) = self.propose(subject, scale, now, &mut judgement).await {
            let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
            let memory = memories.entry(subject.object.key()).or_default();
            let (desired, condition) = behavior::judge(&subject.spec, scale.replicas, proposed, memory, now);
            judgement.desired = desired;
            judgement.conditions.extend(condition);
        }
        judgement
    }

    /// The largest of what the metrics ask for. A metric that cannot be had must not make the workload smaller.
    async fn propose(
        &self,
        subject: &Subject,
        scale: &Scale,
        now: Timestamp,
        judgement: &mut Judgement,
    ) -> Option<i32> {
        let pods = match self.pods(subject, scale) {
            Ok(pods) => pods,
            Err(message) => {
                judgement.fail("InvalidSelector", message);
                return None;
            }
        };
        let (mut largest, mut failure) = (None::<Proposal>, None);
        for metric in subject.spec.metrics.iter().flatten() {
            match self.of_metric(subject, scale, metric, &pods, now).await {
                Ok(proposal) => {
                    judgement.metrics.push(proposal.shown.clone());
                    if largest.as_ref().is_none_or(|largest| proposal.replicas > largest.replicas) {
                        largest = Some(proposal);
                    }
                }
                Err((reason, message)) => failure = failure.or(Some((reason, message))),
            }
        }
        let largest = largest.filter(|largest| failure.is_none() || largest.replicas > scale.replicas);
        match (&largest, failure) {
            (Some(proposal), _) => {
                let message = format!(
                    "the HPA was able to successfully calculate a replica count from {}",
                    proposal.source
                );
                judgement.say("ScalingActive", "True", "ValidMetricFound", &message);
            }
            (None, Some((reason, message))) => {
                judgement.fail(reason, format!("the HPA was unable to compute the replica count: {message}"));
            }
            (None, None) => {}
        }
        largest.map(|proposal| proposal.replicas)
    }

    fn pods(&self, subject: &Subject, scale: &Scale) -> Result<Vec<Arc<Pod>>, String> {
        if scale.selector.is_empty() {
            return Err("the HPA target's scale is missing a selector".to_owned());
        }
        let selector = machinery::selector::LabelSelector::parse(&scale.selector)
            .map_err(|error| format!("the HPA target's scale has an invalid selector: {error}"))?;
        let all = self.caches.of::<Pod>().namespace(&subject.object.meta().namespace);
        let selected = all.iter().filter(|pod| selector.matches(&pod.meta().labels));
        Ok(selected.filter_map(|pod| typed::<Pod>(pod).ok()).collect())
    }

    async fn of_metric(
        &self,
        subject: &Subject,
        scale: &Scale,
        metric: &MetricSpec,
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Result<Proposal, (&'static str, String)> {
        let wanted = calculate::Wanted::read(metric)?;
        let namespace = &subject.object.meta().namespace;
        let usage =
            observe::usage(&self.client, namespace, &scale.selector, &wanted).await.map_err(|status| {
                let message = format!("unable to get metrics for resource {}: {status}", wanted.resource);
                ("FailedGetResourceMetric", format!("failed to get {} usage: {message}", wanted.resource))
            })?;
        calculate::propose(&wanted, scale.replicas, pods, &usage, now)
    }
}

impl Judgement {
    fn say(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        self.conditions.push(crate::shared::conditions::condition(kind, status, reason, message));
    }

    fn fail(&mut self, reason: &'static str, message: String) {
        self.say("ScalingActive", "False", reason, &message);
        self.events.push((reason, message));
    }
}

#[async_trait]
impl Reconcile<Key> for Autoscalers {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Status> {
        let Some(subject) = self.subject(key) else {
            self.memories.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(None);
        };
        let now = self.env.now();
        let about = Reference::new("autoscaling/v2", "HorizontalPodAutoscaler", &subject.object);
        let scale = match self.scale(&subject).await {
            Ok(scale) => scale,
            Err(failure) => {
                let message =
                    format!("the HPA controller was unable to get the target's current scale: {failure}");
                let mut judgement = Judgement::default();
                judgement.say("AbleToScale", "False", "FailedGetScale", &message);
                let event = Action::warning(about, "FailedGetScale", failure.to_string());
                let status = status::plan(&subject.object, &subject.view, &judgement, false, now);
                self.executor.apply(Plan { actions: vec![event], status, next: None }).await?;
                return Ok(Some(PERIOD));
            }
        };
        let judgement = self.judge(&subject, &scale, now).await;
        let mut actions: Vec<Action> = judgement
            .events
            .iter()
            .map(|(reason, message)| Action::warning(about.clone(), reason, message.clone()))
            .collect();
        let rescale = judgement.desired != judgement.current;
        if rescale {
            let body = json!({"spec": {"replicas": judgement.desired}});
            actions.push(Action::Patch { target: scale.target.clone(), patch: Patch::Merge(body) });
            let message = format!("New size: {}; reason: {}", judgement.desired, status::why(&judgement));
            actions.push(Action::event(about, "SuccessfulRescale", message));
            let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
            memories.entry(key.clone()).or_default().scaled(judgement.desired - judgement.current, now);
        }
        let status = status::plan(&subject.object, &subject.view, &judgement, rescale, now);
        self.executor.apply(Plan { actions, status, next: None }).await?;
        Ok(Some(PERIOD))
    }
}

/// The collection of autoscalers.
fn collection() -> Target {
    target_of::<HorizontalPodAutoscaler>("")
}
