//! What service account tokens say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::User;

/// How far clocks may be apart.
const LEEWAY: i64 = 60;

/// An object that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

/// The private claims, under `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundClaims {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    /// When a client should have asked for a newer token, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The claims of a service account token. Times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: BoundClaims,
    pub nbf: i64,
    pub sub: String,
}

impl Claims {
    /// Whether the token is valid at `now`.
    pub fn check_time(&self, now: i64) -> Result<(), &'static str> {
        if now > self.exp + LEEWAY {
            return Err("service account token has expired");
        }
        if now < self.nbf - LEEWAY {
            return Err("service account token is not valid yet");
        }
        Ok(())
    }

    /// The user that the token stands for.
    pub fn user(&self) -> User {
        let bound = &self.bound;
        let mut user =
            User::service_account(&bound.namespace, &bound.serviceaccount.name, &bound.serviceaccount.uid);
        user.extra = self.extra();
        user
    }

    fn extra(&self) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::new();
        let mut put = |name: &str, value: String| {
            extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value]);
        };
        if !self.jti.is_empty() {
            put("credential-id", format!("JTI={}", self.jti));
        }
        if let Some(pod) = &self.bound.pod {
            put("pod-name", pod.name.clone());
            put("pod-uid", pod.uid.clone());
        }
        if let Some(node) = &self.bound.node {
            put("node-name", node.name.clone());
            put("node-uid", node.uid.clone());
        }
        extra
    }
}
