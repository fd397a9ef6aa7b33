//! Service account tokens for projected volumes: requested, kept, and requested anew at 80 % of their life.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::Client;
use env::Env;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use machinery::Status;
use parking_lot::Mutex;
use serde_json::json;

use super::payload::TokenKey;
use crate::machine::time::after;

/// No token is kept longer than this.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

struct Token {
    value: String,
    refresh_at: Timestamp,
}

/// The tokens of this node's pods.
#[derive(Default)]
pub struct Tokens {
    /// By pod uid.
    kept: Mutex<BTreeMap<String, BTreeMap<TokenKey, Token>>>,
}

impl Tokens {
    /// When the first of the pod's tokens must be renewed.
    pub fn refresh_at(&self, uid: &str) -> Option<Timestamp> {
        self.kept.lock().get(uid).and_then(|tokens| tokens.values().map(|token| token.refresh_at).min())
    }

    /// The tokens that `keys` name, fresh enough.
    pub async fn get(
        &self,
        client: &Client,
        env: &Env,
        pod: &Pod,
        keys: &[TokenKey],
    ) -> Result<BTreeMap<TokenKey, String>, Status> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut values = BTreeMap::new();
        for key in keys {
            let now = env.now();
            let known = {
                let kept = self.kept.lock();
                let token = kept.get(&uid).and_then(|tokens| tokens.get(key));
                token.filter(|token| token.refresh_at > now).map(|token| token.value.clone())
            };
            let value = match known {
                Some(known) => known,
                None => self.request(client, pod, &uid, key, now).await?,
            };
            values.insert(key.clone(), value);
        }
        Ok(values)
    }

    async fn request(
        &self,
        client: &Client,
        pod: &Pod,
        uid: &str,
        key: &TokenKey,
        now: Timestamp,
    ) -> Result<String, Status> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let account =
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let audiences: Vec<_> =
            Some(&key.audience).filter(|audience| !audience.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": key.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": uid},
            },
        });
        let answer =
            client.namespaced::<ServiceAccount>(namespace).create_sub(account, "token", &body).await?;
        let answer = answer.value();
        let value =
            answer["status"]["token"].as_str().ok_or_else(|| Status::internal("the token is missing"))?;
        let asked = Duration::from_secs(key.expiration_seconds.max(0).unsigned_abs());
        let life = life(value).map_or(asked, |life| life.min(asked));
        let refresh_at = after(now, (life * 4 / 5).min(MAX_AGE));
        let token = Token { value: value.to_owned(), refresh_at };
        self.kept.lock().entry(uid.to_owned()).or_default().insert(key.clone(), token);
        Ok(value.to_owned())
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.kept.lock().remove(uid);
    }
}

/// How long a token (RFC 7519) is good from when it was made. Both times are by the issuer's clock, from which this
/// node's may differ.
fn life(token: &str) -> Option<Duration> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let seconds = claims["exp"].as_i64()?.checked_sub(claims["iat"].as_i64()?)?;
    Some(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_s_life_is_its_own() {
        let token = |claims: &str| format!("head.{}.signature", URL_SAFE_NO_PAD.encode(claims));
        for (text, wanted) in [
            (token(r#"{"iat": 1000, "exp": 4607}"#), Some(3607)),
            (token(r#"{"iat": 1000, "exp": 999}"#), None),
            (token(r#"{"exp": 4607}"#), None),
            ("nonsense".to_owned(), None),
            ("a.!.c".to_owned(), None),
        ] {
            assert_eq!(life(&text).map(|life| life.as_secs()), wanted, "{text}");
        }
    }
}
