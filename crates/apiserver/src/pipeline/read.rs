//! get and list, with upstream's meaning of `resourceVersion` (KEP-365, KEP-1904, KEP-2340).

use std::sync::Arc;

use client::{ListOptions, ObjectList};
use machinery::{Object, Status};
use store::StoreError;

use super::Call;
use super::token::ContinueToken;
use crate::cache::{Entry, store_status};
use crate::core::Core;
use crate::selection::Selection;

/// How recent a read must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevisionMatch {
    /// Everything that was acknowledged before.
    MostRecent,
    /// Whatever is at hand.
    Any,
    NotOlderThan(u64),
    Exact(u64),
    /// The next page of an earlier list.
    Continue,
}

impl RevisionMatch {
    /// Upstream's table of `resourceVersion`, `resourceVersionMatch`, `limit` and `continue`.
    pub fn of(options: &ListOptions) -> Result<Self, Status> {
        let version = options.resource_version.as_str();
        let matching = options.resource_version_match.as_str();
        if !options.continue_token.is_empty() {
            return match (version, matching) {
                ("" | "0", "") => Ok(Self::Continue),
                (_, "") => {
                    Err(Status::bad_request("specifying resource version is not allowed when using continue"))
                }
                _ => Err(invalid_match("resourceVersionMatch is forbidden when continue is provided")),
            };
        }
        if version.is_empty() {
            return match matching {
                "" => Ok(Self::MostRecent),
                _ => {
                    Err(invalid_match("resourceVersionMatch is forbidden unless resourceVersion is provided"))
                }
            };
        }
        let revision = parse_revision(version)?;
        match (matching, revision) {
            ("" | "NotOlderThan", 0) => Ok(Self::Any),
            ("", _) if options.limit > 0 => Ok(Self::Exact(revision)),
            ("" | "NotOlderThan", _) => Ok(Self::NotOlderThan(revision)),
            ("Exact", 0) => {
                Err(invalid_match("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
            }
            ("Exact", _) => Ok(Self::Exact(revision)),
            (other, _) => Err(Status::failure(
                422,
                "Invalid",
                format!(
                    "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                ),
            )),
        }
    }
}

/// A `resourceVersion` of a query.
pub fn parse_revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_not_a_number| {
        Status::bad_request(format!("Invalid value: {text:?}: resourceVersion must be a number"))
    })
}

fn invalid_match(detail: &str) -> Status {
    let message =
        format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: {detail}");
    Status::failure(422, "Invalid", message)
}

impl Core {
    /// One object (or, for a projection, the object it is a view of).
    pub async fn get(&self, call: &Call, options: &ListOptions) -> Result<Arc<Object>, Status> {
        if let Some(view) = self.computations.view(&call.target) {
            return view.get(self, call).await;
        }
        match options.resource_version.as_str() {
            "" => self.cache.settle().await.map(drop)?,
            version => self.cache.wait(parse_revision(version)?).await?,
        }
        let object = self.cached(call)?.ok_or_else(|| call.not_found(&call.target.name))?;
        self.projected(call, &object)
    }

    /// The newest acknowledged state of the call's object.
    pub(super) async fn newest(&self, call: &Call) -> Result<Option<Arc<Object>>, Status> {
        self.cache.settle().await?;
        self.cached(call)
    }

    fn cached(&self, call: &Call) -> Result<Option<Arc<Object>>, Status> {
        let collection = self.cache.collection(&call.row.storage_prefix)?;
        Ok(collection.get(&call.key(&call.target.name)))
    }

    /// A collection, or a page of it.
    pub async fn list(&self, call: &Call, options: &ListOptions) -> Result<ObjectList, Status> {
        if let Some(view) = self.computations.view(&call.target) {
            return view.list(self, call, options).await;
        }
        let selection = self.selection(call, &options.label_selector, &options.field_selector)?;
        let list = match RevisionMatch::of(options)? {
            RevisionMatch::MostRecent => {
                let revision = self.cache.settle().await?;
                self.list_present(call, &selection, options, revision)?
            }
            RevisionMatch::Any => self.list_present(call, &selection, options, self.cache.applied())?,
            RevisionMatch::NotOlderThan(revision) => {
                self.cache.wait(revision).await?;
                self.list_present(call, &selection, options, self.cache.applied())?
            }
            RevisionMatch::Exact(revision) => self
                .list_at(call, &selection, options, revision, "")
                .await
                .map_err(|error| at_status(&error))?,
            RevisionMatch::Continue => self.list_on(call, &selection, options).await?,
        };
        Ok(self.present_list(call, list))
    }

    fn present_list(&self, call: &Call, mut list: ObjectList) -> ObjectList {
        if call.row.is_converted() {
            list.items = list.items.iter().map(|object| self.present(&call.row, object)).collect();
        }
        list
    }

    pub(super) fn selection(&self, call: &Call, labels: &str, fields: &str) -> Result<Selection, Status> {
        Selection::parse(&call.row, &call.target.namespace, &call.target.name, labels, fields)
    }

    fn list_present(
        &self,
        call: &Call,
        selection: &Selection,
        options: &ListOptions,
        revision: u64,
    ) -> Result<ObjectList, Status> {
        let collection = self.cache.collection(&call.row.storage_prefix)?;
        let page = collection.page(selection, "", usize::try_from(options.limit).unwrap_or(usize::MAX));
        // The page may already hold changes that came in the meantime; its revision must not be older.
        let revision = revision.max(page.changed);
        let prefix = &call.row.storage_prefix;
        let token = page.next.map(|key| ContinueToken::new(Some(revision), prefix, &key).encode());
        Ok(page_of(page.objects, revision, token, page.remaining, selection))
    }

    /// The next page: from the cache while nothing changed since the first one, else from the store's history.
    async fn list_on(
        &self,
        call: &Call,
        selection: &Selection,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let token = ContinueToken::decode(&options.continue_token)?;
        let from = token.start(&call.row.storage_prefix);
        if !from.starts_with(selection.key_prefix()) {
            return Err(Status::bad_request("continue key is not valid: it is of another namespace"));
        }
        let revision = match token.revision() {
            Some(revision) => revision,
            None => self.cache.settle().await?,
        };
        match self.list_at(call, selection, options, revision, &from).await {
            Err(StoreError::Compacted { .. }) => Err(token.expired()),
            other => other.map_err(|error| store_status(&error)),
        }
    }

    async fn list_at(
        &self,
        call: &Call,
        selection: &Selection,
        options: &ListOptions,
        revision: u64,
        from: &str,
    ) -> Result<ObjectList, StoreError> {
        let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
        let collection =
            self.cache.collection(&call.row.storage_prefix).map_err(|_no_storage| StoreError::Closed)?;
        let prefix = &call.row.storage_prefix;
        self.cache.check_kept(revision)?;
        if self.cache.applied() >= revision {
            let page = collection.page(selection, from, limit);
            if page.changed <= revision {
                let token = page.next.map(|key| ContinueToken::new(Some(revision), prefix, &key).encode());
                return Ok(page_of(page.objects, revision, token, page.remaining, selection));
            }
        }
        let (objects, next, remaining) =
            self.range_selected(&collection, selection, from, revision, limit).await?;
        let token = next.map(|key| ContinueToken::new(Some(revision), prefix, &key).encode());
        Ok(page_of(objects, revision, token, remaining, selection))
    }

    /// Reads old state from the store until the page is full.
    async fn range_selected(
        &self,
        collection: &crate::cache::Collection,
        selection: &Selection,
        from: &str,
        revision: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Object>>, Option<Arc<str>>, u64), StoreError> {
        let range = self.cache.store().range(selection.key_prefix(), from, Some(revision), 0).await?;
        let mut objects = Vec::new();
        let total = range.items.len();
        for (index, item) in range.items.into_iter().enumerate() {
            let Ok(object) = Object::from_stored(item.value, item.mod_revision) else { continue };
            let entry = Entry::new(Arc::new(object));
            if !selection.matches(&item.key, &entry, collection.strategy()) {
                continue;
            }
            if limit > 0 && objects.len() == limit {
                return Ok((objects, Some(item.key), (total - index) as u64));
            }
            objects.push(entry.object);
        }
        Ok((objects, None, 0))
    }
}

fn page_of(
    items: Vec<Arc<Object>>,
    revision: u64,
    token: Option<String>,
    remaining: u64,
    selection: &Selection,
) -> ObjectList {
    // With selectors nobody knows how many are left without reading them all.
    let counted = token.is_some() && !selection.has_selectors();
    ObjectList {
        items,
        revision,
        continue_token: token.unwrap_or_default(),
        remaining_items: counted.then_some(remaining),
    }
}

fn at_status(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        other => store_status(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_table() {
        let show = |version: &str, matching: &str, limit, token: &str| {
            let options = ListOptions {
                resource_version: version.into(),
                resource_version_match: matching.into(),
                limit,
                continue_token: token.into(),
                ..ListOptions::default()
            };
            RevisionMatch::of(&options).map_err(|status| status.code)
        };
        use RevisionMatch::*;
        let cases = [
            (show("", "", 0, ""), Ok(MostRecent)),
            (show("0", "", 0, ""), Ok(Any)),
            (show("7", "", 0, ""), Ok(NotOlderThan(7))),
            (show("7", "", 5, ""), Ok(Exact(7))),
            (show("", "", 5, "t"), Ok(Continue)),
            (show("7", "", 5, "t"), Err(400)),
            (show("", "Exact", 0, ""), Err(422)),
            (show("0", "Exact", 0, ""), Err(422)),
            (show("7", "Exact", 5, ""), Ok(Exact(7))),
            (show("0", "NotOlderThan", 5, ""), Ok(Any)),
            (show("7", "NotOlderThan", 5, ""), Ok(NotOlderThan(7))),
            (show("7", "Other", 0, ""), Err(422)),
            (show("x", "", 0, ""), Err(400)),
        ];
        for (index, (got, expected)) in cases.into_iter().enumerate() {
            assert_eq!(got, expected, "case {index}");
        }
    }
}
