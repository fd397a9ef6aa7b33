//! TLS for probes: encrypted, and whoever answers is believed, as upstream does for HTTPS probes.

use std::sync::Arc;

use client::http::AnyCertificate;
use rustls::{ClientConfig, Error};

/// A configuration that accepts every certificate. For probes and hooks only.
pub fn trusting() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}
