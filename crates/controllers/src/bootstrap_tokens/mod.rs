//! Removes the Secrets of bootstrap tokens whose time is over, as upstream's token cleaner does. A token without an end
//! stays; one whose end cannot be read is treated as over, for nobody can say when it is.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Cache, Caches, target_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use machinery::{Key, Object};
use reconcile::{Action, Controller, Input, Plan};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// The controller.
pub struct BootstrapTokens {
    secrets: Cache,
}

impl BootstrapTokens {
    pub fn new(caches: &Caches) -> Self {
        Self { secrets: caches.of::<Secret>() }
    }
}

impl Controller for BootstrapTokens {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    fn inputs(&self) -> Vec<Input> {
        let tokens = |secret: &Object| match secret.meta().namespace.as_str() {
            NAMESPACE => vec![secret.key()],
            _ => Vec::new(),
        };
        vec![Input::new(self.secrets.clone(), tokens)]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        self.secrets.get(key).map_or_else(Plan::nothing, |secret| plan(&secret, now))
    }
}

/// Removes the token now or says when.
fn plan(object: &Object, now: Timestamp) -> Plan {
    let secret = object.value();
    let expiration = secret["data"]["expiration"].as_str().filter(|text| !text.is_empty());
    let Some(expiration) = expiration.filter(|_| secret["type"] == TYPE) else { return Plan::nothing() };
    match left(expiration, now) {
        Some(left) => Plan { next: Some(left), ..Plan::nothing() },
        None => {
            let delete = Action::delete(target_of::<Secret>(""), object, None);
            Plan { actions: vec![delete], ..Plan::nothing() }
        }
    }
}

/// How long the token is still good, from the Secret's encoded time. `None`: no longer.
fn left(expiration: &str, now: Timestamp) -> Option<Duration> {
    let end: Timestamp = String::from_utf8(STANDARD.decode(expiration).ok()?).ok()?.parse().ok()?;
    Duration::try_from(end.duration_since(now)).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::shared::testing::{ago, describe, now, object};

    #[test]
    fn tokens_go_when_their_time_is_over() {
        let until = |text: &str| json!({"token-id": "", "expiration": STANDARD.encode(text)});
        for (kind, data, wanted) in [
            (TYPE, until(&ago(1)), "delete secrets t"),
            (TYPE, until(&ago(0)), "delete secrets t"),
            (TYPE, until(&ago(-90)), "again in 90 s"),
            (TYPE, until("1970-01-01T01:16:40+01:00"), "delete secrets t"),
            (TYPE, until("1970-01-01T01:18:10+01:00"), "again in 90 s"),
            (TYPE, until("tomorrow"), "delete secrets t"),
            (TYPE, until(""), ""),
            (TYPE, json!({}), ""),
            (TYPE, Value::Null, ""),
            ("Opaque", until(&ago(1)), ""),
        ] {
            let secret = object(
                &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t", "namespace": NAMESPACE},
                "type": kind, "data": data}),
            );
            assert_eq!(describe(&plan(&secret, now())), wanted, "{kind} {data}");
        }
    }
}
