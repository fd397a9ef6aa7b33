//! Watching, line by line.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use machinery::Status;
use serde_json::Value;

use crate::Error;
use crate::api::with_query;
use crate::selection::Item;
use crate::session::Session;

/// The longest event, in bytes.
const LINE_MAX: usize = 16 << 20;

/// A change.
#[derive(Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub kind: String,
    pub object: Value,
}

/// A watch that is under way.
pub struct Watch {
    parts: BoxStream<'static, Result<Bytes, Status>>,
    buffer: Vec<u8>,
    searched: usize,
}

impl Watch {
    /// Watches a collection from a revision on; `path` carries the selectors.
    pub async fn open(session: &Session, path: &str, revision: &str, accept: &str) -> Result<Self, Error> {
        let path = with_query(path, &[("watch", "true"), ("resourceVersion", revision)]);
        let parts = session.api.stream(&path, accept).await?;
        Ok(Self { parts, buffer: Vec::new(), searched: 0 })
    }

    /// The next change; `None` when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let Some(line) = self.line().await? else { return Ok(None) };
            let mut event: Value = serde_json::from_slice(&line)
                .map_err(|error| Error::usage(format!("an event cannot be read: {error}")))?;
            let object = event["object"].take();
            match event["type"].as_str().unwrap_or_default() {
                "BOOKMARK" => {}
                "ERROR" => {
                    let status: Status = serde_json::from_value(object)
                        .map_err(|error| Error::usage(format!("the watch failed: {error}")))?;
                    return Err(status.into());
                }
                kind => return Ok(Some(Event { kind: kind.to_owned(), object })),
            }
        }
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_MAX {
                return Err(Error::usage("an event of the watch is too long"));
            }
            match self.parts.next().await {
                None => return Ok(None),
                Some(part) => self.buffer.extend_from_slice(&part?),
            }
        }
    }
}

/// What a look at an object led to.
pub enum Verdict<T> {
    Done(T),
    More,
}

/// Looks at an object now and after each change until `judge` has decided. `None` stands for an object that is gone.
pub async fn until<T>(
    session: &Session,
    item: &Item,
    mut judge: impl FnMut(Option<&Value>) -> Result<Verdict<T>, Error>,
) -> Result<T, Error> {
    loop {
        let field = format!("metadata.name={}", item.name);
        let path = with_query(&item.collection(), &[("fieldSelector", &field)]);
        let list = session.get(&path).await?;
        let present = list["items"].as_array().and_then(|items| items.first());
        if let Verdict::Done(result) = judge(present)? {
            return Ok(result);
        }
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let mut watch = Watch::open(session, &path, revision, "application/json").await?;
        while let Some(event) = watch.next().await? {
            let object = (event.kind != "DELETED").then_some(&event.object);
            if let Verdict::Done(result) = judge(object)? {
                return Ok(result);
            }
        }
    }
}
