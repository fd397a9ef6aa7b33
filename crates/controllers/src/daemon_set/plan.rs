//! The judgement: which nodes get a pod, and which pods leave.

use std::collections::BTreeMap;
use std::time::Duration;

use client::target_of;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use machinery::Status;
use machinery::selector::labels;
use reconcile::{Action, Plan};
use serde_json::{Value, json};

use super::fit::{self, Fit};
use super::history::{self, History};
use super::{GENERATION_LABEL, HASH_LABEL, Observed, rolling, status};
use crate::shared::claim::{Claim, ObservedPod};
use crate::shared::{pods, revisions, template};

/// At most this many pods are created or removed in one go (`BurstReplicas` upstream).
const BURST: usize = 250;
/// A pod that failed is replaced when it is so old. Upstream counts the failures of each node in memory instead.
const FAILED_AGE_SECONDS: i64 = 3;

/// One node as the judgement sees it.
pub struct Place {
    pub fit: Fit,
    /// The set's pods there, oldest first.
    pub pods: Vec<ObservedPod>,
}

/// Everything that the parts of the judgement share.
pub struct Context<'a> {
    pub observed: &'a Observed,
    pub history: &'a History<'a>,
    pub places: BTreeMap<String, Place>,
    pub now: Timestamp,
}

/// Pods to remove and nodes to create one on.
#[derive(Default)]
pub struct Changes {
    pub remove: Vec<ObservedPod>,
    pub create: Vec<String>,
    pub events: Vec<Action>,
    pub next: Option<Duration>,
}

/// What to do for a set.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    if labels::is_empty(&observed.spec.selector) {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
        let event = Action::warning(observed.reference(), "SelectingAll", message);
        return Plan { actions: vec![event], ..Plan::nothing() };
    }
    if observed.object.meta().deletion_timestamp.is_some() {
        return Plan::nothing();
    }
    let (ours, mut claims) = claim(observed);
    claims.extend(revisions::adopt(&observed.revisions, observed.object.meta(), &observed.owner_reference()));
    // Revisions do not call for the set by themselves, so it asks to be looked at again.
    let again = Some(Duration::ZERO);
    if !claims.is_empty() {
        return Plan { actions: claims, next: again, ..Plan::nothing() };
    }
    let history = match history::judge(observed) {
        Ok(history) => history,
        Err(create) => return Plan { actions: vec![*create], next: again, ..Plan::nothing() },
    };
    let context = Context { observed, history: &history, places: places(observed, &ours), now };
    let mut changes = context.manage(&ours);
    let nothing_to_manage = changes.remove.is_empty() && changes.create.is_empty();
    if nothing_to_manage && rolling::is_rolling(observed) {
        rolling::roll(&context, &mut changes);
    }
    let (status, next) = status::plan(&context);
    let next = [changes.next, next].into_iter().flatten().min();
    let mut actions: Vec<Action> = history.renumber.clone().into_iter().collect();
    actions.extend(context.actions(changes));
    actions.extend(history::clean_up(observed, &history));
    Plan { actions, status, next }
}

/// Another object has the name that a new revision should get: try another name.
pub fn plan_failure(observed: &Observed, failure: &Status, _now: Timestamp) -> Plan {
    let taken = failure.is_already_exists() && history::judge(observed).is_err();
    Plan { status: taken.then(|| status::collided(observed)), ..Plan::nothing() }
}

fn claim(observed: &Observed) -> (Vec<ObservedPod>, Vec<Action>) {
    let claim = Claim {
        owner: observed.object.meta(),
        selector: &observed.spec.selector,
        collection: target_of::<Pod>(""),
        reference: observed.owner_reference(),
    };
    claim.pods(&observed.pods, |_| true)
}

fn places(observed: &Observed, ours: &[ObservedPod]) -> BTreeMap<String, Place> {
    let mut by_node = observed.by_node(ours);
    let default = k8s_openapi::api::core::v1::PodSpec::default();
    let template = observed.spec.template.spec.as_ref().unwrap_or(&default);
    let mut place = |node: &k8s_openapi::api::core::v1::Node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        let pods = by_node.remove(&name).unwrap_or_default();
        (name, Place { fit: fit::judge(template, node), pods })
    };
    observed.nodes.iter().map(|node| place(node)).collect()
}

impl Context<'_> {
    /// One pod on every node where one should be, none where none may stay.
    fn manage(&self, ours: &[ObservedPod]) -> Changes {
        let mut changes = Changes::default();
        for (node, place) in &self.places {
            if place.fit.should_run && place.pods.is_empty() {
                changes.create.push(node.clone());
            } else if place.fit.may_stay {
                self.thin_out(node, place, &mut changes);
            } else {
                changes.remove.extend(leaving(&place.pods));
            }
        }
        // Pods that wait for a node that is gone.
        let homeless = ours.iter().filter(|(_, pod)| {
            let unscheduled = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
            unscheduled && super::target_node(pod).is_some_and(|node| !self.places.contains_key(&node))
        });
        changes.remove.extend(homeless.filter(|(_, pod)| !pods::is_deleting(pod)).cloned());
        changes
    }

    /// Removes finished pods and all but one of the others; two may stand side by side while one takes over.
    fn thin_out(&self, node: &str, place: &Place, changes: &mut Changes) {
        let mut running = Vec::new();
        for pod in place.pods.iter().filter(|(_, pod)| !pods::is_deleting(pod)) {
            match pods::phase(&pod.1) {
                "Failed" => self.replace_failed(node, pod, changes),
                "Succeeded" => {
                    let message = format!(
                        "Found succeeded daemon pod {} on node {node}, will try to delete it",
                        pod.0.key()
                    );
                    changes.events.push(Action::event(
                        self.observed.reference(),
                        "SucceededDaemonPod",
                        message,
                    ));
                    changes.remove.push(pod.clone());
                }
                _ => running.push(pod),
            }
        }
        if !place.fit.should_run && !place.fit.may_stay || running.len() < 2 {
            return;
        }
        let surging = rolling::limits(self.observed, self.desired()).surge > 0;
        if !surging {
            changes.remove.extend(running[1..].iter().map(|pod| (*pod).clone()));
            return;
        }
        let (updated, past): (Vec<&ObservedPod>, Vec<&ObservedPod>) =
            running.into_iter().partition(|pod| self.is_updated(pod));
        changes.remove.extend(updated.iter().skip(1).map(|pod| (*pod).clone()));
        changes.remove.extend(past.iter().skip(1).map(|pod| (*pod).clone()));
    }

    fn replace_failed(&self, node: &str, pod: &ObservedPod, changes: &mut Changes) {
        let created = pod.1.metadata.creation_timestamp.as_ref().map_or(self.now, |time| time.0);
        let left = FAILED_AGE_SECONDS - (self.now.as_second() - created.as_second());
        if left > 0 {
            let left = Duration::from_secs(left.unsigned_abs());
            changes.next = Some(changes.next.map_or(left, |next| next.min(left)));
            return;
        }
        let message = format!("Found failed daemon pod {} on node {node}, will try to kill it", pod.0.key());
        changes.events.push(Action::warning(self.observed.reference(), "FailedDaemonPod", message));
        changes.remove.push(pod.clone());
    }

    /// How many nodes should run a pod.
    pub fn desired(&self) -> i32 {
        let count = self.places.values().filter(|place| place.fit.should_run).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    }

    pub fn is_updated(&self, pod: &ObservedPod) -> bool {
        self.observed.is_updated(&pod.0, &self.history.hashes)
    }

    fn actions(&self, changes: Changes) -> Vec<Action> {
        let mut actions = changes.events;
        actions.extend(changes.create.iter().take(BURST).map(|node| self.create(node)));
        let collection = target_of::<Pod>("");
        let remove = |(object, _): &ObservedPod| {
            Action::delete(collection.clone(), object, None).announced(self.observed.reference())
        };
        actions.extend(changes.remove.iter().take(BURST).map(remove));
        actions
    }

    fn create(&self, node: &str) -> Action {
        let template = &self.observed.object.value()["spec"]["template"];
        let mut body =
            template::from_json(self.observed.object.meta(), template, self.observed.owner_reference());
        let hash = self.history.present.label(HASH_LABEL).unwrap_or_default();
        body["metadata"]["labels"][HASH_LABEL] = json!(hash);
        if let Some(generation) = self.observed.template_generation() {
            body["metadata"]["labels"][GENERATION_LABEL] = json!(generation);
        }
        bind(&mut body["spec"], node);
        let default = k8s_openapi::api::core::v1::PodSpec::default();
        let spec = self.observed.spec.template.spec.as_ref().unwrap_or(&default);
        let mut tolerations = body["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        for toleration in fit::tolerations(spec) {
            let toleration = serde_json::to_value(toleration).unwrap_or_default();
            // The template may say for how long; a daemon stays.
            let fields = ["key", "operator", "value", "effect"];
            let is_same = |other: &&mut Value| fields.iter().all(|field| other[field] == toleration[field]);
            match tolerations.iter_mut().find(is_same) {
                Some(limited) => *limited = toleration,
                None => tolerations.push(toleration),
            }
        }
        body["spec"]["tolerations"] = Value::Array(tolerations);
        let target = target_of::<Pod>(&self.observed.object.meta().namespace);
        Action::Create { target, body, announce: Some(self.observed.reference()) }
    }
}

fn leaving(pods: &[ObservedPod]) -> impl Iterator<Item = ObservedPod> {
    pods.iter().filter(|(_, pod)| !pods::is_deleting(pod)).cloned()
}

/// Makes the scheduler choose just this node; the template's own terms were judged already.
fn bind(spec: &mut Value, node: &str) {
    let by_name = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    let required = json!({"nodeSelectorTerms": [by_name]});
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = required;
}
