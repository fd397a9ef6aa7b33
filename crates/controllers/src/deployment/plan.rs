//! The judgement: which set is next to grow, shrink, come or go.

use client::target_of;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use machinery::Status;
use machinery::selector::labels;
use reconcile::{Action, Plan};

use super::rolling::{self, Resize};
use super::{Observed, Set, revision, scaling, status};
use crate::shared::owners;

/// What to do for a deployment.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let Some(spec) = &observed.view.spec else { return Plan::nothing() };
    if labels::is_empty(&spec.selector) {
        let message = "This deployment is selecting all pods. A non-empty selector is required.".to_owned();
        return Plan {
            actions: vec![Action::warning(observed.reference(), "SelectingAll", message)],
            ..Plan::nothing()
        };
    }
    let deleting = observed.object.meta().deletion_timestamp.is_some();
    let claims = if deleting { Vec::new() } else { claims(observed) };
    if !claims.is_empty() {
        return Plan { actions: claims, ..Plan::nothing() };
    }
    let (present, past) = revision::split(observed);
    let actions = if deleting { Vec::new() } else { act(observed, present.as_ref(), &past) };
    let (status, next) = status::plan(observed, present.as_ref(), &past, now);
    Plan { actions, status, next }
}

/// A replica set of another template has the name that the new one should get: try another name.
pub fn plan_failure(observed: &Observed, failure: &Status, _now: Timestamp) -> Plan {
    let (present, _) = revision::split(observed);
    let taken = failure.is_already_exists() && present.is_none();
    Plan { status: taken.then(|| status::collided(observed)), ..Plan::nothing() }
}

/// Adopts orphans that match and releases sets that do not any more.
fn claims(observed: &Observed) -> Vec<Action> {
    let Some(spec) = &observed.view.spec else { return Vec::new() };
    let deployment = observed.object.meta();
    let claim = |set: &Set| {
        let owned = owners::is_controlled_by(&set.object, &deployment.uid);
        match (owned, labels::matches(&spec.selector, &set.object.meta().labels)) {
            (true, false) => Some(owners::release(target_of::<ReplicaSet>(""), &set.object, &deployment.uid)),
            (false, true) if set.object.meta().deletion_timestamp.is_none() => {
                let reference = owners::controller_reference("apps/v1", "Deployment", deployment);
                Some(owners::adopt(target_of::<ReplicaSet>(""), &set.object, reference))
            }
            _ => None,
        }
    };
    observed.sets.iter().filter_map(claim).collect()
}

fn act(observed: &Observed, present: Option<&Set>, past: &[Set]) -> Vec<Action> {
    let all: Vec<Set> = past.iter().chain(present).cloned().collect();
    if observed.is_paused() || scaling::is_scaling(observed, &all) {
        let mut actions = resizes(observed, &all, scaling::scale(observed, present, past));
        if !observed.is_paused() {
            actions.extend(refresh(observed, present, past));
        }
        return actions;
    }
    let actions = if observed.is_recreate() {
        recreate(observed, present, past)
    } else {
        roll(observed, present, past)
    };
    if actions.is_empty() && status::is_complete(observed, present, past) {
        return clean_up(observed, past);
    }
    actions
}

fn refresh(observed: &Observed, present: Option<&Set>, past: &[Set]) -> Vec<Action> {
    let Some(set) = present else { return Vec::new() };
    let revision = revision::next_revision(present, past);
    revision::refresh(observed, set, revision)
        .into_iter()
        .chain(revision::stamp(observed, revision))
        .collect()
}

fn create(observed: &Observed, past: &[Set]) -> Vec<Action> {
    let replicas = rolling::present_size(observed, 0, past);
    let revision = revision::next_revision(None, past);
    let create = revision::create(observed, replicas, revision);
    let name = match &create {
        Action::Create { body, .. } => body["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let mut actions = vec![create];
    actions.extend(revision::stamp(observed, revision));
    if replicas > 0 {
        actions.push(scaled(observed, &Resize { name, from: 0, to: replicas }));
    }
    actions
}

fn roll(observed: &Observed, present: Option<&Set>, past: &[Set]) -> Vec<Action> {
    let Some(set) = present else { return create(observed, past) };
    let mut actions = refresh(observed, present, past);
    let grown = Resize::new(set, rolling::present_size(observed, set.replicas(), past));
    let resized = match grown {
        Some(grown) => resizes(observed, std::slice::from_ref(set), vec![grown]),
        None => resizes(observed, past, rolling::shrink(observed, present, past)),
    };
    actions.extend(resized);
    actions
}

fn recreate(observed: &Observed, present: Option<&Set>, past: &[Set]) -> Vec<Action> {
    let stop: Vec<Resize> = past.iter().filter_map(|set| Resize::new(set, 0)).collect();
    if !stop.is_empty() {
        return resizes(observed, past, stop);
    }
    if past.iter().any(|set| set.unfinished_pods > 0) {
        return Vec::new();
    }
    let Some(set) = present else { return create(observed, past) };
    let mut actions = refresh(observed, present, past);
    let grown = Resize::new(set, observed.replicas()).into_iter().collect();
    actions.extend(resizes(observed, std::slice::from_ref(set), grown));
    actions
}

fn resizes(observed: &Observed, sets: &[Set], resizes: Vec<Resize>) -> Vec<Action> {
    let mut actions = Vec::new();
    for resize in resizes {
        if let Some(set) = sets.iter().find(|set| set.name() == resize.name) {
            actions.push(revision::resize(observed, set, resize.to));
            actions.push(scaled(observed, &resize));
        }
    }
    actions
}

fn scaled(observed: &Observed, resize: &Resize) -> Action {
    let direction = if resize.to > resize.from { "up" } else { "down" };
    let Resize { name, from, to } = resize;
    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
    Action::event(observed.reference(), "ScalingReplicaSet", message)
}

/// Removes the oldest sets beyond the history limit.
fn clean_up(observed: &Observed, past: &[Set]) -> Vec<Action> {
    let limit = observed.view.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(0);
    let is_idle = |set: &&Set| {
        let status = set.view.status.as_ref();
        let generation = status.and_then(|status| status.observed_generation).unwrap_or(0);
        set.replicas() == 0
            && status.is_none_or(|status| status.replicas == 0)
            && generation >= set.object.meta().generation
            && set.object.meta().deletion_timestamp.is_none()
    };
    let mut idle: Vec<&Set> = past.iter().filter(is_idle).collect();
    idle.sort_by_key(|set| revision::revision(set));
    let surplus = idle.len().saturating_sub(limit);
    let delete = |set: &&Set| Action::delete(target_of::<ReplicaSet>(""), &set.object, None);
    idle[..surplus].iter().map(delete).collect()
}
