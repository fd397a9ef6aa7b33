//! Users out of client certificates: the common name is the name, the organizations are the groups.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use env::Env;
use parking_lot::Mutex;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki::{PkiError, client_verifier};
use crate::{AuthenticationError, Authenticator, Credentials, User};

/// Connections outlive many requests, so the last clients are remembered.
const REMEMBERED: usize = 256;

/// Authenticates by certificates of some authorities. The chain is checked on every connection's first request,
/// its end on each.
pub struct X509Authenticator {
    verifier: Arc<dyn ClientCertVerifier>,
    env: Env,
    known: Mutex<HashMap<[u8; 32], Known>>,
}

#[derive(Clone)]
struct Known {
    user: User,
    /// Seconds since the epoch.
    not_after: i64,
}

impl X509Authenticator {
    pub fn new(authorities: &[CertificateDer<'static>], env: Env) -> Result<Self, PkiError> {
        Ok(Self { verifier: client_verifier(authorities)?, env, known: Mutex::default() })
    }

    fn check(&self, chain: &[CertificateDer<'static>]) -> Result<User, AuthenticationError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(AuthenticationError("no certificate".to_owned()));
        };
        let now = self.env.now().as_second();
        let hash: [u8; 32] = Sha256::digest(leaf).into();
        let known = self.known.lock().get(&hash).cloned();
        if let Some(known) = known
            && now <= known.not_after
        {
            return Ok(known.user);
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        let verified = self.verifier.verify_client_cert(leaf, intermediates, time);
        verified.map_err(|error| AuthenticationError(format!("the client's certificate: {error}")))?;
        let known = read(leaf)
            .ok_or_else(|| AuthenticationError("the client's certificate names nobody".to_owned()))?;
        let mut all = self.known.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(hash, known.clone());
        Ok(known.user)
    }
}

fn read(leaf: &CertificateDer<'_>) -> Option<Known> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
    let groups: Vec<_> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = User::new(name, &groups);
    let digest = Sha256::digest(leaf);
    let id = digest.iter().fold("X509SHA256=".to_owned(), |text, byte| text + &format!("{byte:02x}"));
    user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![id]);
    Some(Known { user, not_after: certificate.validity().not_after.timestamp() })
}

#[async_trait]
impl Authenticator for X509Authenticator {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>, AuthenticationError> {
        if credentials.peer_certificates.is_empty() {
            return Ok(None);
        }
        self.check(credentials.peer_certificates).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Profile};
    use env::jiff::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn certificates_of_the_authority_name_users_until_they_end() {
        let env = Env::seeded(1, Timestamp::from_second(1_700_000_000).unwrap());
        let authority = Authority::ephemeral("kubernetes", &env).unwrap();
        let foreign = Authority::ephemeral("kubernetes", &env).unwrap();
        let authenticator = X509Authenticator::new(&[authority.certificate().clone()], env.clone()).unwrap();
        let ask = async |chain: Vec<CertificateDer<'static>>| {
            let credentials = Credentials { peer_certificates: &chain, bearer: None };
            authenticator
                .authenticate(&credentials)
                .await
                .map(|user| user.map(|user| (user.name, user.groups)))
        };
        let admin = authority.issue(&Profile::admin(), &env).unwrap().certificates;
        let expected = (
            "kubernetes-admin".to_owned(),
            vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        );
        assert_eq!(ask(admin.clone()).await.unwrap(), Some(expected));
        assert_eq!(ask(vec![]).await.unwrap(), None);
        assert!(ask(foreign.issue(&Profile::admin(), &env).unwrap().certificates).await.is_err());
        let server = authority.issue(&Profile::server("x", vec!["x".into()]), &env).unwrap();
        assert!(ask(server.certificates).await.is_err());
        tokio::time::advance(Duration::from_secs(366 * 24 * 3600)).await;
        assert!(ask(admin).await.is_err());
    }
}
