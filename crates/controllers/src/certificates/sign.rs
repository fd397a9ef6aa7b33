//! Approved requests get their certificate.

use std::time::Duration;

use auth::pki::{Authority, SigningPolicy};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use env::Env;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;
use serde_json::{Value, json};

use super::approve::{CLIENT_SIGNER, SERVING_SIGNER};

/// Who signs, and for which purposes. The other usages that a TLS certificate may have are the same for all.
const SIGNERS: [(&str, &str); 3] = [
    ("kubernetes.io/kube-apiserver-client", "client auth"),
    (CLIENT_SIGNER, "client auth"),
    (SERVING_SIGNER, "server auth"),
];

/// `--cluster-signing-duration` upstream.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const LIFETIME_MIN: Duration = Duration::from_secs(600);

/// The new status of an approved request; `None` when it is signed already or another's to sign.
pub fn sign(request: &Request, authority: &Authority, env: &Env) -> Option<Value> {
    let spec = &request.spec;
    let (_, purpose) = SIGNERS.iter().find(|(signer, _)| *signer == spec.signer_name)?;
    let signed = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    if signed.is_some_and(|certificate| !certificate.0.is_empty()) {
        return None;
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let fits = |usage: &String| ["digital signature", "key encipherment", purpose].contains(&usage.as_str());
    let certificate = if usages.iter().all(fits) {
        let policy = SigningPolicy::with_usages(usages, lifetime(spec.expiration_seconds));
        let text = String::from_utf8_lossy(&spec.request.0);
        authority.sign_request(&text, &policy, env).map_err(|error| error.to_string())
    } else {
        Err(format!("usages are not among those that {} signs: {}", spec.signer_name, usages.join(", ")))
    };
    Some(match certificate {
        Ok(pem) => json!({"certificate": STANDARD.encode(pem)}),
        Err(message) => failed(request, &message),
    })
}

fn lifetime(asked: Option<i32>) -> Duration {
    let asked = asked.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    asked.map_or(LIFETIME, |asked| asked.clamp(LIFETIME_MIN, LIFETIME))
}

fn failed(request: &Request, message: &str) -> Value {
    let present = request.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions: Vec<Value> = present.iter().map(|condition| json!(condition)).collect();
    conditions.push(
        json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": message}),
    );
    json!({"conditions": conditions})
}
