//! The resources that controllers of all kinds walk over: namespaces' contents and owners' dependents.

use client::Target;

/// A resource that can be listed, watched and deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub target: Target,
    pub kind: String,
    pub namespaced: bool,
}

impl Row {
    /// `deployments.apps`, or `pods.` for the core group, as upstream's conditions write it.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.target.resource, self.target.group)
    }
}

/// All rows. Of several versions of one kind only one is listed here.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
}

impl Rows {
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows }
    }

    pub fn all(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    pub fn namespaced(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.namespaced)
    }

    /// The row of an owner reference; versions of one kind are the same row.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Row> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.rows.iter().find(|row| row.kind == kind && row.target.group == group)
    }
}
