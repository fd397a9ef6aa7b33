//! Fills Secrets of type `kubernetes.io/service-account-token` with a token of their account, and removes them when
//! the account is gone. Nobody is given such a Secret unasked.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Cache, Caches, Patch, target_of};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use machinery::{Key, Object, Status};
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::{Map, Value, json};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "/metadata/annotations/kubernetes.io~1service-account.name";
const ACCOUNT_UID: &str = "/metadata/annotations/kubernetes.io~1service-account.uid";

/// Signs tokens.
pub trait Signer: Send + Sync {
    /// A token without an end for a service account, good while the Secret holds it.
    fn sign(&self, namespace: &str, secret: &str, account: &str, uid: &str) -> Result<String, Status>;
}

/// The controller.
pub struct TokenSecrets {
    secrets: Cache,
    accounts: Cache,
    certificate: String,
    signer: Arc<dyn Signer>,
}

/// What is to be done about a Secret.
#[derive(Debug, PartialEq)]
enum Judgement {
    Nothing,
    /// Its account is gone, or is another one of the same name.
    Remove,
    /// What it lacks: keys of its data, and the annotation of the account's uid.
    Fill {
        token: bool,
        certificate: bool,
        namespace: bool,
    },
}

impl TokenSecrets {
    pub fn new(caches: &Caches, certificate: String, signer: Arc<dyn Signer>) -> Self {
        Self { secrets: caches.of::<Secret>(), accounts: caches.of::<ServiceAccount>(), certificate, signer }
    }

    fn fill(&self, secret: &Object, account: &Object, wanted: &Judgement) -> Option<Action> {
        let Judgement::Fill { token, certificate, namespace } = wanted else { return None };
        let (meta, owner) = (secret.meta(), account.meta());
        let mut data = Map::new();
        if *token {
            let signed = self.signer.sign(&meta.namespace, &meta.name, &owner.name, &owner.uid);
            let signed =
                signed.inspect_err(|status| tracing::warn!(%status, "a token was not signed")).ok()?;
            data.insert("token".to_owned(), json!(STANDARD.encode(signed)));
        }
        if *certificate {
            data.insert("ca.crt".to_owned(), json!(STANDARD.encode(&self.certificate)));
        }
        if *namespace {
            data.insert("namespace".to_owned(), json!(STANDARD.encode(&meta.namespace)));
        }
        let body = json!({
            "metadata": {
                "uid": meta.uid,
                "resourceVersion": secret.revision().to_string(),
                "annotations": {"kubernetes.io/service-account.uid": owner.uid},
            },
            "data": data,
        });
        Some(Action::Patch { target: named(target_of::<Secret>(""), secret), patch: Patch::Merge(body) })
    }
}

/// The account that a Secret is for; `None`: it is no Secret of a token.
fn account_of(secret: &Value) -> Option<&str> {
    let name = secret.pointer(ACCOUNT).and_then(Value::as_str)?;
    (secret["type"] == TYPE && !name.is_empty()).then_some(name)
}

fn judge(secret: &Value, account_uid: Option<&str>, certificate: &str) -> Judgement {
    let noted = secret.pointer(ACCOUNT_UID).and_then(Value::as_str).unwrap_or_default();
    let Some(account_uid) = account_uid else {
        // An account that was never seen may be on its way.
        return if noted.is_empty() { Judgement::Nothing } else { Judgement::Remove };
    };
    if !noted.is_empty() && noted != account_uid {
        return Judgement::Remove;
    }
    let text = |key: &str| secret["data"][key].as_str().unwrap_or_default();
    let (token, namespace) = (text("token").is_empty(), text("namespace").is_empty());
    let certificate = text("ca.crt") != STANDARD.encode(certificate);
    match token || namespace || certificate || noted.is_empty() {
        true => Judgement::Fill { token, certificate, namespace },
        false => Judgement::Nothing,
    }
}

impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let secrets = self.secrets.clone();
        let of_account = move |account: &Object| {
            let is_of = |secret: &Object| account_of(&secret.value()) == Some(&*account.meta().name);
            let all = secrets.namespace(&account.meta().namespace);
            all.iter().filter(|secret| is_of(secret)).map(|secret| secret.key()).collect()
        };
        vec![Input::own(self.secrets.clone()), Input::new(self.accounts.clone(), of_account)]
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let Some(secret) = self.secrets.get(key) else { return Plan::nothing() };
        let value = secret.value();
        let Some(name) = account_of(&value).filter(|_| secret.meta().deletion_timestamp.is_none()) else {
            return Plan::nothing();
        };
        let account = self.accounts.get(&Key::new(&*key.namespace, name));
        let judgement =
            judge(&value, account.as_ref().map(|account| &*account.meta().uid), &self.certificate);
        let action = match (&judgement, &account) {
            (Judgement::Nothing, _) => None,
            (Judgement::Remove, _) => Some(Action::delete(target_of::<Secret>(""), &secret, None)),
            (fill, Some(account)) => self.fill(&secret, account, fill),
            (_, None) => None,
        };
        Plan { actions: action.into_iter().collect(), ..Plan::nothing() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_what_it_lacks_or_goes() {
        let fill = |token, certificate, namespace| Judgement::Fill { token, certificate, namespace };
        let full = json!({"token": "dA==", "ca.crt": STANDARD.encode("ca"), "namespace": "bg=="});
        let old = json!({"token": "dA==", "ca.crt": "b2xk", "namespace": "bg=="});
        let cases = [
            (json!({}), "", Some("1"), fill(true, true, true)),
            (json!({"token": "dA=="}), "1", Some("1"), fill(false, true, true)),
            (full.clone(), "1", Some("1"), Judgement::Nothing),
            (full.clone(), "", Some("1"), fill(false, false, false)),
            (old, "1", Some("1"), fill(false, true, false)),
            (full.clone(), "1", Some("2"), Judgement::Remove),
            (json!({}), "", None, Judgement::Nothing),
            (full, "1", None, Judgement::Remove),
        ];
        for (data, noted, account, expected) in cases {
            let annotations = json!({"kubernetes.io/service-account.uid": noted});
            let secret = json!({"metadata": {"annotations": annotations}, "data": data});
            assert_eq!(judge(&secret, account, "ca"), expected, "{secret}");
        }
    }

    #[test]
    fn only_secrets_of_tokens_are_touched() {
        let secret = |kind: &str, name: &str| json!({"type": kind, "metadata": {"annotations": {"kubernetes.io/service-account.name": name}}});
        assert_eq!(account_of(&secret(TYPE, "a")), Some("a"));
        assert_eq!(account_of(&secret("Opaque", "a")), None);
        assert_eq!(account_of(&secret(TYPE, "")), None);
    }
}
