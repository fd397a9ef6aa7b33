//! TCP and TLS to the server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::resolve::Resolver;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server is and how to prove oneself.
#[derive(Clone, Default)]
pub struct Server {
    /// `https://HOST:PORT`.
    pub url: String,
    /// PEM; without it no server is trusted.
    pub certificate_authority: String,
    /// PEM chain and key of the client.
    pub client_certificate: Option<(String, String)>,
    /// The client's certificate where it changes while the client lives; goes before `client_certificate`.
    pub client_identity: Option<Arc<dyn ResolvesClientCert>>,
    pub token: Option<String>,
    /// Checked in the server's certificate instead of the host of `url`.
    pub tls_server_name: Option<String>,
    /// Trust whatever certificate the server shows.
    pub insecure_skip_tls_verify: bool,
    pub user_agent: String,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("the server's URL {0:?} is not of the form https://HOST:PORT")]
    Url(String),
    #[error("{what} is not valid PEM: {cause}")]
    Pem { what: &'static str, cause: String },
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("{0:?} cannot be sent in a header")]
    Header(String),
    #[error("the server name {0:?} is not valid")]
    ServerName(String),
}

/// Makes connections to the one server of a client.
#[derive(Clone)]
pub struct Connector {
    tls: Option<TlsConnector>,
    server_name: Option<ServerName<'static>>,
    resolver: Resolver,
}

impl Connector {
    pub fn new(server: &Server) -> Result<Self, HttpError> {
        let uri: Uri = server.url.parse().map_err(|_| HttpError::Url(server.url.clone()))?;
        let host = uri.host().ok_or_else(|| HttpError::Url(server.url.clone()))?;
        let name = server.tls_server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let server_name = ServerName::try_from(name.clone()).map_err(|_| HttpError::ServerName(name))?;
        let tls = match uri.scheme_str() {
            Some("https") => Some(TlsConnector::from(Arc::new(tls_config(server)?))),
            Some("http") => None,
            _ => return Err(HttpError::Url(server.url.clone())),
        };
        Ok(Self { tls, server_name: Some(server_name), resolver: Resolver::default() })
    }

    /// Opens a connection; `alpn_http1` keeps HTTP/2 out, for upgrades.
    pub async fn connect(&self, uri: &Uri, http1_only: bool) -> std::io::Result<Stream> {
        let connecting = async {
            let tcp = self.resolver.dial(uri).await?;
            tcp.set_nodelay(true)?;
            match (&self.tls, &self.server_name) {
                (Some(tls), Some(name)) => {
                    let tls = if http1_only { without_http2(tls) } else { tls.clone() };
                    Ok(Stream::Tls(Box::new(tls.connect(name.clone(), tcp).await?)))
                }
                _ => Ok(Stream::Plain(tcp)),
            }
        };
        let timed_out = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 10 s");
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(timed_out)?
    }
}

fn without_http2(tls: &TlsConnector) -> TlsConnector {
    let mut config = ClientConfig::clone(tls.config());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn tls_config(server: &Server) -> Result<ClientConfig, HttpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if server.insecure_skip_tls_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(super::insecure::AnyCertificate(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("the certificate authority", &server.certificate_authority)? {
            roots.add(certificate)?;
        }
        builder.with_root_certificates(roots)
    };
    let mut config = match (&server.client_identity, &server.client_certificate) {
        (Some(identity), _) => builder.with_client_cert_resolver(identity.clone()),
        (None, None) => builder.with_no_client_auth(),
        (None, Some((chain, key))) => {
            let chain = certificates("the client certificate", chain)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|error| HttpError::Pem { what: "the client key", cause: error.to_string() })?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| HttpError::Pem { what, cause: error.to_string() })
}

/// A connection with or without TLS.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(TokioIo::new(this.connect(&uri, false).await?)) })
    }
}
