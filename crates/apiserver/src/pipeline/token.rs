//! The continue token: opaque to clients, valid over restarts, bound to a revision.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use machinery::Status;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContinueToken {
    #[serde(rename = "v")]
    version: String,
    /// The revision of the first page; -1: whatever is current, after the old one was lost.
    #[serde(rename = "rv")]
    revision: i64,
    /// The key of the next object behind the storage prefix.
    start: String,
}

impl ContinueToken {
    /// A token for the objects from `key` on (a full key below `prefix`).
    pub fn new(revision: Option<u64>, prefix: &str, key: &str) -> Self {
        let start = key.strip_prefix(prefix).unwrap_or(key).to_owned();
        let revision = revision.and_then(|revision| i64::try_from(revision).ok()).unwrap_or(-1);
        Self { version: VERSION.to_owned(), revision, start }
    }

    /// Reads a client's token.
    pub fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |detail: &str| Status::bad_request(format!("continue key is not valid: {detail}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(&error.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        match token.version.as_str() {
            VERSION if token.revision == 0 => {
                Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"))
            }
            VERSION if token.start.is_empty() => {
                Err(invalid("encoded start key empty (version meta.k8s.io/v1)"))
            }
            VERSION => Ok(token),
            _ => Err(invalid("server does not recognize this encoded version")),
        }
    }

    pub fn encode(&self) -> String {
        // A struct of strings and a number always serialises.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The revision to read at; `None`: the present one.
    pub fn revision(&self) -> Option<u64> {
        u64::try_from(self.revision).ok()
    }

    /// The full key to start with.
    pub fn start(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.start)
    }

    /// 410 for a revision that is gone, with a token that goes on inconsistently.
    pub fn expired(&self) -> Status {
        let mut status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        );
        status.metadata.continue_token = Self { revision: -1, ..self.clone() }.encode();
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_wire_and_garbage_is_refused() {
        let token = ContinueToken::new(Some(7), "/registry/pods/", "/registry/pods/a/b");
        let read = ContinueToken::decode(&token.encode()).unwrap();
        assert_eq!(
            (read.revision(), read.start("/registry/pods/")),
            (Some(7), "/registry/pods/a/b".to_owned())
        );
        let lost = ContinueToken::decode(&token.expired().metadata.continue_token).unwrap();
        assert_eq!(lost.revision(), None);
        for garbage in ["x", "e30", "!!!", &URL_SAFE_NO_PAD.encode(r#"{"v":"v0","rv":1,"start":"a"}"#)] {
            assert_eq!(ContinueToken::decode(garbage).unwrap_err().code, 400, "{garbage}");
        }
    }
}
