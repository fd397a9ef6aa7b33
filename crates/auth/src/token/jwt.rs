//! Signed tokens (RFC 7515, compact) with one algorithm, ES256: nothing that a token says chooses another.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::pki::{PkiError, write_private};

/// Longer tokens are refused unread.
const TOKEN_MAX: usize = 16 << 10;

/// Why a text is not a token of ours.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    #[error("it is not a signed token")]
    Malformed,
    #[error("it is signed with an unknown algorithm or key")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its claims are not understood")]
    Claims(#[source] serde_json::Error),
    #[error("the token could not be signed")]
    Signing,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// The key that signs tokens and checks them.
pub struct SigningKey {
    key: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

impl SigningKey {
    /// The key in the PKCS #8 file `path`, which is created if it is not there.
    pub fn load_or_create(path: &Path) -> Result<Self, PkiError> {
        let unusable = || PkiError::Content { what: "ECDSA P-256 key", path: path.to_owned() };
        let pem = match std::fs::read_to_string(path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pem = Self::generate()?;
                write_private(path, pem.as_bytes())?;
                pem
            }
            Err(source) => return Err(PkiError::File { what: "reading", path: path.to_owned(), source }),
        };
        Self::from_pem(&pem).ok_or_else(unusable)
    }

    /// A key that is kept nowhere.
    pub fn ephemeral() -> Result<Self, PkiError> {
        let lost = PkiError::Certificate { what: "reading a new key", cause: "it is malformed".to_owned() };
        Self::from_pem(&Self::generate()?).ok_or(lost)
    }

    fn generate() -> Result<String, PkiError> {
        let key = rcgen::KeyPair::generate();
        let key = key
            .map_err(|error| PkiError::Certificate { what: "generating a key", cause: error.to_string() })?;
        Ok(key.serialize_pem())
    }

    fn from_pem(pem: &str) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .ok()?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Some(Self { key, id, random })
    }

    /// Signs `claims`.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, JwtError> {
        let header = Header { alg: "ES256".to_owned(), kid: self.id.clone() };
        let header = serde_json::to_vec(&header).map_err(JwtError::Claims)?;
        let claims = serde_json::to_vec(claims).map_err(JwtError::Claims)?;
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&self.random, text.as_bytes()).map_err(|_| JwtError::Signing)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key signed.
    pub fn verify<T: DeserializeOwned>(&self, token: &str) -> Result<T, JwtError> {
        let (text, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = text.split_once('.').ok_or(JwtError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
        if header.alg != "ES256" || header.kid != self.id {
            return Err(JwtError::UnknownKey);
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(text.as_bytes(), &decode(signature)?).map_err(|_| JwtError::Signature)?;
        serde_json::from_slice(&decode(claims)?).map_err(JwtError::Claims)
    }

    /// The public key as a JWK set (RFC 7517), served at `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// What a token claims, without a check: only to tell whose token it is.
pub fn peek<T: DeserializeOwned>(token: &str) -> Option<T> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if token.len() > TOKEN_MAX {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_accepted() {
        let key = SigningKey::ephemeral().unwrap();
        let token = key.sign(&json!({"iss": "here"})).unwrap();
        assert_eq!(key.verify::<Value>(&token).unwrap(), json!({"iss": "here"}));
        let parts: Vec<_> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"iss":"there"}"#);
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let cases = [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            String::new(),
            "a.b".to_owned(),
        ];
        for case in cases {
            assert!(key.verify::<Value>(&case).is_err(), "{case}");
        }
        assert!(SigningKey::ephemeral().unwrap().verify::<Value>(&token).is_err());
    }

    #[test]
    fn the_published_key_checks_our_signatures() {
        let key = SigningKey::ephemeral().unwrap();
        let token = key.sign(&json!({"sub": "a"})).unwrap();
        let jwks = key.jwks();
        let coordinate =
            |name: &str| URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let (text, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        public.verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }
}
