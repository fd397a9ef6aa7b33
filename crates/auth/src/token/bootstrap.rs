//! The tokens with which nodes join: Secrets of type `bootstrap.kubernetes.io/token` in `kube-system`.

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use env::Env;
use env::jiff::Timestamp;
use serde_json::{Value, json};

use super::objects::Objects;
use super::{TokenAuthenticator, Verified};
use crate::user::BOOTSTRAPPERS_GROUP;
use crate::{AuthenticationError, User};

const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// `ID.SECRET`: 6 and 16 lower-case letters and digits.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

impl BootstrapToken {
    pub fn random(env: &Env) -> Self {
        Self { id: letters(env, ID_LENGTH), secret: letters(env, SECRET_LENGTH) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name of its Secret in `kube-system`.
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }

    /// The Secret that makes the token valid, until `expiration` if there is one.
    pub fn to_secret(
        &self,
        expiration: Option<Timestamp>,
        description: &str,
        extra_groups: &[String],
    ) -> Value {
        let encode = |text: &str| STANDARD.encode(text);
        let mut data = json!({
            "token-id": encode(&self.id),
            "token-secret": encode(&self.secret),
            "usage-bootstrap-authentication": encode("true"),
            "usage-bootstrap-signing": encode("true"),
        });
        if !description.is_empty() {
            data["description"] = encode(description).into();
        }
        if let Some(expiration) = expiration {
            data["expiration"] = encode(&expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).into();
        }
        if !extra_groups.is_empty() {
            data["auth-extra-groups"] = encode(&extra_groups.join(",")).into();
        }
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
            "metadata": {"name": self.secret_name(), "namespace": NAMESPACE}, "data": data,
        })
    }
}

impl std::fmt::Display for BootstrapToken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.id, self.secret)
    }
}

impl std::fmt::Debug for BootstrapToken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "BootstrapToken({}.…)", self.id)
    }
}

impl FromStr for BootstrapToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid =
            |part: &str, length| part.len() == length && part.bytes().all(|byte| ALPHABET.contains(&byte));
        match text.split_once('.') {
            Some((id, secret)) if valid(id, ID_LENGTH) && valid(secret, SECRET_LENGTH) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => Err("a bootstrap token is 6 and 16 lower-case letters and digits with a dot between"),
        }
    }
}

fn letters(env: &Env, length: usize) -> String {
    // 2^64 is so much larger than 36 that the bias of the remainder does not matter.
    let letter = |_| char::from(ALPHABET[(env.random_u64() % ALPHABET.len() as u64) as usize]);
    (0..length).map(letter).collect()
}

/// Authenticates `system:bootstrap:ID` in `system:bootstrappers`.
pub struct BootstrapAuthenticator {
    objects: Arc<dyn Objects>,
    audiences: Vec<String>,
    env: Env,
}

impl BootstrapAuthenticator {
    /// The tokens are good for `audiences`, those of the API server.
    pub fn new(objects: Arc<dyn Objects>, audiences: Vec<String>, env: Env) -> Self {
        Self { objects, audiences, env }
    }
}

#[async_trait]
impl TokenAuthenticator for BootstrapAuthenticator {
    async fn verify(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Verified>, AuthenticationError> {
        let Ok(token) = token.parse::<BootstrapToken>() else { return Ok(None) };
        let audiences: Vec<_> =
            audiences.iter().filter(|name| self.audiences.contains(name)).cloned().collect();
        if audiences.is_empty() {
            return Ok(None);
        }
        let found = self.objects.find("secrets", NAMESPACE, &token.secret_name()).await;
        let Some(secret) = found.map_err(|status| AuthenticationError(status.to_string()))? else {
            return Ok(None);
        };
        let groups = judge(&token, &secret.value(), self.env.now())
            .map_err(|why| AuthenticationError(why.to_owned()))?;
        let groups: Vec<_> = groups.iter().map(String::as_str).collect();
        Ok(Some(Verified { user: User::new(format!("system:bootstrap:{}", token.id), &groups), audiences }))
    }
}

/// The groups of the token's user, or why the Secret does not make the token valid.
fn judge(token: &BootstrapToken, secret: &Value, now: Timestamp) -> Result<Vec<String>, &'static str> {
    let field = |name: &str| {
        let encoded = secret["data"][name].as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    };
    if secret["type"] != SECRET_TYPE || !secret["metadata"]["deletionTimestamp"].is_null() {
        return Err("the secret of the token is no token");
    }
    if field("token-id").as_deref() != Some(token.id()) {
        return Err("the secret belongs to another token");
    }
    // As long as the lengths agree, the time tells nothing about where the first difference is.
    let stored = field("token-secret").unwrap_or_default();
    let difference = stored.bytes().zip(token.secret.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    if stored.len() != token.secret.len() || difference != 0 {
        return Err("the secret part of the token is wrong");
    }
    if let Some(expiration) = field("expiration") {
        let expiration: Timestamp =
            expiration.parse().map_err(|_| "the expiration of the token is not a time")?;
        if expiration <= now {
            return Err("the token has expired");
        }
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return Err("the token is not for authentication");
    }
    let mut groups = vec![BOOTSTRAPPERS_GROUP.to_owned()];
    for group in field("auth-extra-groups").unwrap_or_default().split(',').filter(|group| !group.is_empty()) {
        if !group.starts_with("system:bootstrappers:") {
            return Err("an extra group of the token does not start with system:bootstrappers:");
        }
        groups.push(group.to_owned());
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_makes_its_token_valid() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let other: BootstrapToken = "abcdef.0123456789abcdee".parse().unwrap();
        let group = "system:bootstrappers:workers".to_owned();
        let secret = token.to_secret(Some(now), "", std::slice::from_ref(&group));
        let before = Timestamp::from_second(1_699_999_999).unwrap();
        assert_eq!(judge(&token, &secret, before), Ok(vec!["system:bootstrappers".to_owned(), group]));
        assert_eq!(judge(&token, &secret, now), Err("the token has expired"));
        assert_eq!(judge(&other, &secret, before), Err("the secret part of the token is wrong"));
        let mut unusable = secret.clone();
        unusable["data"]["usage-bootstrap-authentication"] = STANDARD.encode("false").into();
        assert!(judge(&token, &unusable, before).is_err());
        let greedy = token.to_secret(None, "", &["system:masters".to_owned()]);
        assert!(judge(&token, &greedy, before).is_err());
    }

    #[tokio::test]
    async fn random_tokens_parse() {
        let env = Env::seeded(3, Timestamp::UNIX_EPOCH);
        let token = BootstrapToken::random(&env);
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!("ABCDEF.0123456789abcdef".parse::<BootstrapToken>().is_err());
    }
}
