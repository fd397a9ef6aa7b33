//! Which revision the set is at, and which it goes to.

use reconcile::Action;

use super::Observed;
use crate::shared::revisions::{self, New, Revision};

/// The label of a revision's own hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The two revisions of a set; they are the same when nothing is being rolled out.
pub struct History<'a> {
    pub current: &'a Revision,
    pub update: &'a Revision,
    /// Another number for a template that is in use again.
    pub renumber: Option<Action>,
}

/// The revisions of the set, or what creates the missing one.
pub fn judge(observed: &Observed) -> Result<History<'_>, Box<Action>> {
    let data = revisions::data(&observed.object.value());
    let revisions = &observed.revisions;
    let Some(update) = revisions.iter().rev().find(|revision| revision.data == data) else {
        let new = New {
            owner: observed.object.meta(),
            reference: observed.owner_reference(),
            data,
            number: revisions::next_number(revisions),
            collisions: collisions(observed),
            hash_label: HASH_LABEL,
        };
        return Err(Box::new(new.create()));
    };
    let newest = revisions::next_number(revisions) - 1;
    let renumber = (update.number < newest).then(|| revisions::renumber(update, newest + 1));
    let stored = observed.view.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let current = revisions.iter().find(|revision| Some(revision.name()) == stored).unwrap_or(update);
    Ok(History { current, update, renumber })
}

pub fn collisions(observed: &Observed) -> i32 {
    observed.view.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
}

/// Removes revisions that neither the set nor a pod is at.
pub fn clean_up(observed: &Observed, history: &History<'_>) -> Vec<Action> {
    let of_pods = |revision: &Revision| {
        let label = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(super::REVISION_LABEL).is_some_and(|name| name == revision.name())
        };
        observed.pods.iter().any(|(object, _)| label(&object.meta().labels))
    };
    let in_use = |revision: &Revision| {
        revision.name() == history.current.name()
            || revision.name() == history.update.name()
            || of_pods(revision)
    };
    revisions::clean_up(&observed.revisions, observed.spec.revision_history_limit, in_use)
}
