//! Certificates: authorities, the identities they issue, TLS configurations and kubeconfig files.
//!
//! Keys are ECDSA P-256. Files are private to their owner and appear complete or not at all.

mod authority;
mod files;
mod kubeconfig;
mod profile;
mod request;
mod tls;

pub use authority::{Authority, Identity, SigningPolicy, SigningRequest, public_key_hash, validity};
pub use files::{read, write_private};
pub use kubeconfig::{Kubeconfig, KubeconfigUser};
pub use profile::{Profile, Purpose, apiserver_names};
pub use request::CertificateRequest;
pub use tls::{CurrentIdentity, client_config, client_verifier, server_config};

use std::io;
use std::path::PathBuf;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} holds no usable {what}")]
    Content { what: &'static str, path: PathBuf },
    #[error("{what}: {cause}")]
    Certificate { what: &'static str, cause: String },
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

impl PkiError {
    fn certificate(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |error| Self::Certificate { what, cause: error.to_string() }
    }
}
