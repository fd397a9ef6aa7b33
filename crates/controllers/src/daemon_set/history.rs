//! The revisions of a set: the present template's, and the past ones.

use std::collections::BTreeSet;

use reconcile::Action;

use super::{HASH_LABEL, Observed};
use crate::shared::revisions::{self, New, Revision};

/// The present template's revision.
pub struct History<'a> {
    pub present: &'a Revision,
    /// The hashes of all revisions with the present template; there are several when someone else made one.
    pub hashes: BTreeSet<&'a str>,
    /// Another number for a template that is in use again.
    pub renumber: Option<Action>,
}

/// The revisions of the set, or what creates the missing one.
pub fn judge(observed: &Observed) -> Result<History<'_>, Box<Action>> {
    let data = revisions::data(&observed.object.value());
    let same: Vec<&Revision> = observed.revisions.iter().filter(|revision| revision.data == data).collect();
    let Some(present) = same.last().copied() else {
        let new = New {
            owner: observed.object.meta(),
            reference: observed.owner_reference(),
            data,
            number: revisions::next_number(&observed.revisions),
            collisions: collisions(observed),
            hash_label: HASH_LABEL,
        };
        return Err(Box::new(new.create()));
    };
    let newest = revisions::next_number(&observed.revisions) - 1;
    let renumber = (present.number < newest).then(|| revisions::renumber(present, newest + 1));
    let hashes = same.iter().filter_map(|revision| revision.label(HASH_LABEL)).collect();
    Ok(History { present, hashes, renumber })
}

pub fn collisions(observed: &Observed) -> i32 {
    observed.view.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
}

/// Removes past revisions that no pod has.
pub fn clean_up(observed: &Observed, history: &History<'_>) -> Vec<Action> {
    let of_pod = |hash: &str| {
        let has = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(HASH_LABEL).is_some_and(|label| label == hash)
        };
        observed.pods.iter().any(|(object, _)| has(&object.meta().labels))
    };
    let in_use = |revision: &Revision| {
        let hash = revision.label(HASH_LABEL).unwrap_or_default();
        history.hashes.contains(hash) || of_pod(hash)
    };
    revisions::clean_up(&observed.revisions, observed.spec.revision_history_limit, in_use)
}
