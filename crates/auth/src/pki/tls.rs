//! TLS configurations. The crypto provider is always named, never installed for the process.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::{ClientConfig, ResolvesClientCert};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, SignatureScheme};
use rustls_pki_types::CertificateDer;

use super::{Identity, PkiError};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// AES-128 first, as Go's servers have it: as safe for what a session carries, and lists are large.
fn server_provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let name = suite.suite();
        !matches!(
            name,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    Arc::new(provider)
}

/// The certificate of a server or client, which can be replaced while connections are made with it.
#[derive(Debug)]
pub struct CurrentIdentity {
    current: ArcSwap<CertifiedKey>,
}

impl CurrentIdentity {
    pub fn new(identity: &Identity) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(certified(identity)?) }))
    }

    /// New connections get this certificate.
    pub fn replace(&self, identity: &Identity) -> Result<(), PkiError> {
        self.current.store(Arc::new(certified(identity)?));
        Ok(())
    }
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl ResolvesClientCert for CurrentIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey, PkiError> {
    let key = ring::sign::any_supported_type(&identity.key)?;
    Ok(CertifiedKey::new(identity.certificates.clone(), key))
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

/// Checks client certificates against `authorities`; clients without one are let through.
pub fn client_verifier(
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider());
    builder.allow_unauthenticated().build().map_err(|error| PkiError::Certificate {
        what: "the authorities of clients",
        cause: error.to_string(),
    })
}

/// A server for HTTP/2 and HTTP/1.1 that asks clients for a certificate of one of `client_authorities` (empty:
/// does not ask).
pub fn server_config(
    identity: Arc<CurrentIdentity>,
    client_authorities: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, PkiError> {
    let builder =
        ServerConfig::builder_with_provider(server_provider()).with_safe_default_protocol_versions()?;
    let builder = match client_authorities {
        [] => builder.with_no_client_auth(),
        authorities => builder.with_client_cert_verifier(client_verifier(authorities)?),
    };
    let mut config = builder.with_cert_resolver(identity);
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client that trusts `authorities` and shows `identity`. ALPN is left to the caller, as only it knows which
/// protocols it speaks.
pub fn client_config(
    authorities: &[CertificateDer<'static>],
    identity: Option<Arc<CurrentIdentity>>,
) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(authorities)?);
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(identity),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Profile};
    use env::Env;
    use env::jiff::Timestamp;
    use rustls::{ClientConnection, ServerConnection};

    /// Shakes hands in memory; the number of certificates that the server got from the client.
    fn shake_hands(
        server: Arc<ServerConfig>,
        client: ClientConfig,
        name: &str,
    ) -> Result<usize, rustls::Error> {
        let mut client = ClientConnection::new(Arc::new(client), name.to_owned().try_into().unwrap())?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        let suite = server.negotiated_cipher_suite().map(|suite| suite.suite());
        assert_eq!(suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256), "the client's order would be another");
        Ok(server.peer_certificates().map_or(0, <[_]>::len))
    }

    #[tokio::test]
    async fn both_sides_check_each_other() {
        // TLS reads the machine's clock, so the certificates must be valid by it.
        let env = Env::seeded(1, Timestamp::now());
        let authority = Authority::ephemeral("kubernetes", &env).unwrap();
        let foreign = Authority::ephemeral("kubernetes", &env).unwrap();
        let names = crate::pki::apiserver_names(&["10.96.0.1".parse().unwrap()], "cluster.local", &[]);
        let serving = authority.issue(&Profile::apiserver(names), &env).unwrap();
        let serving = CurrentIdentity::new(&serving).unwrap();
        let roots = [authority.certificate().clone()];
        let server = server_config(serving, &roots).unwrap();
        let admin = authority.issue(&Profile::admin(), &env).unwrap();
        let client = |identity: Option<&Identity>| {
            let identity = identity.map(|identity| CurrentIdentity::new(identity).unwrap());
            client_config(&roots, identity).unwrap()
        };
        for name in ["localhost", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"] {
            assert_eq!(shake_hands(server.clone(), client(Some(&admin)), name), Ok(1), "{name}");
        }
        assert_eq!(shake_hands(server.clone(), client(None), "localhost"), Ok(0));
        assert!(shake_hands(server.clone(), client(None), "example.com").is_err());
        // Both authorities have the same name, so this client does offer its certificate.
        let stranger = foreign.issue(&Profile::admin(), &env).unwrap();
        assert!(shake_hands(server.clone(), client(Some(&stranger)), "localhost").is_err());
        let roots = [foreign.certificate().clone()];
        assert!(shake_hands(server, client_config(&roots, None).unwrap(), "localhost").is_err());
    }
}
