//! Judges transactions against the state and those staged before them, without touching either.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::state::{Changes, Entry, LeaseRecord, State};
use crate::{Compare, Event, KeyValue, LeaseId, Op, Outcome, Revision, StoreError};

/// Transactions that will become durable together.
pub struct Stage<'a> {
    state: &'a State,
    changes: Changes,
}

impl<'a> Stage<'a> {
    pub fn new(state: &'a State) -> Self {
        Self { state, changes: Changes { revision: state.revision(), ..Changes::default() } }
    }

    /// What is to be made durable.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    fn current(&self, key: &str) -> Option<&Entry> {
        match self.changes.keys.get(key) {
            Some(staged) => staged.as_ref(),
            None => self.state.get(key),
        }
    }

    /// Stages a transaction. The outcome holds once the changes are durable.
    pub fn txn(&mut self, compare: &[Compare], ops: Vec<Op>) -> Result<Outcome, StoreError> {
        for condition in compare {
            let current = self.current(&condition.key).map(|entry| &entry.pair);
            if current.map_or(0, |pair| pair.mod_revision) != condition.mod_revision {
                return Ok(Outcome::Mismatch(current.cloned()));
            }
        }
        self.check(&ops)?;
        let revision = self.changes.revision + 1;
        let events: Vec<Event> = ops.into_iter().filter_map(|op| self.write(op, revision)).collect();
        self.commit(revision, events);
        Ok(Outcome::Committed(self.changes.revision))
    }

    fn check(&self, ops: &[Op]) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        for op in ops {
            let (Op::Put { key, .. } | Op::Delete { key }) = op;
            if !seen.insert(key) {
                return Err(StoreError::DuplicateKey(key.to_string()));
            }
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.state.has_lease(*lease)
            {
                return Err(StoreError::NoLease(*lease));
            }
        }
        Ok(())
    }

    fn write(&mut self, op: Op, revision: Revision) -> Option<Event> {
        let (key, new, lease) = match op {
            Op::Put { key, value, lease } => (key, Some(value), lease),
            Op::Delete { key } => (key, None, None),
        };
        let old = self.current(&key).map(|entry| entry.pair.clone());
        // A key keeps the allocation it was created with.
        let key = old.as_ref().map_or(key, |old| old.key.clone());
        if new.is_none() && old.is_none() {
            return None;
        }
        let new = new.map(|value| KeyValue {
            key: key.clone(),
            value,
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
        });
        self.changes.keys.insert(key.clone(), new.clone().map(|pair| Entry { pair, lease }));
        Some(Event { key, new, old, revision })
    }

    fn commit(&mut self, revision: Revision, events: Vec<Event>) {
        if !events.is_empty() {
            self.changes.revision = revision;
            self.changes.batches.push(Arc::from(events));
        }
    }

    /// Stages a new lease. Lease operations are not mixed with transactions in one stage.
    pub fn grant(&mut self, ttl: std::time::Duration) -> LeaseId {
        let id = self.state.next_lease();
        self.changes.granted = Some(LeaseRecord { id, ttl });
        id
    }

    /// Stages the end of leases; their keys go in one revision.
    pub fn revoke(&mut self, leases: Vec<LeaseId>) -> Result<(), StoreError> {
        let mut keys = BTreeSet::new();
        for lease in &leases {
            keys.extend(self.state.lease_keys(*lease).ok_or(StoreError::NoLease(*lease))?.iter().cloned());
        }
        let revision = self.changes.revision + 1;
        let events: Vec<Event> =
            keys.into_iter().filter_map(|key| self.write(Op::Delete { key }, revision)).collect();
        self.commit(revision, events);
        self.changes.revoked = leases;
        Ok(())
    }
}
