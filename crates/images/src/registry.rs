//! The registry protocol (OCI distribution-spec 1.1) as a client that only reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::manifest::accepted_types;
use crate::{Credentials, ImageError, Registries, RegistryConfig};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a single byte.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
const TOKEN_BYTES_MAX: usize = 1 << 20;
/// Where distributions keep the certificates of public authorities.
const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Makes and keeps the HTTP clients, one per certificate file.
pub(crate) struct Connector {
    registries: Registries,
    clients: Mutex<BTreeMap<Option<std::path::PathBuf>, Client>>,
}

/// A place where an image can be had.
#[derive(Clone)]
pub(crate) struct Endpoint {
    client: Client,
    base: Url,
    /// The host in messages.
    pub host: String,
    pub is_mirror: bool,
    configured: Option<Credentials>,
}

/// One registry, one repository, one set of credentials: what a token is valid for.
pub(crate) struct Session {
    endpoint: Endpoint,
    repository: String,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    NotFound(String),
    Denied(String),
    /// Trying again may help.
    Transient(String),
    Other(String),
}

impl Failure {
    pub fn into_error(self, name: &str) -> ImageError {
        let name = name.to_owned();
        match self {
            Self::NotFound(_) => ImageError::NotFound(name),
            Self::Denied(cause) => ImageError::Denied { name, cause },
            Self::Transient(cause) | Self::Other(cause) => ImageError::Registry { name, cause },
        }
    }
}

impl Connector {
    pub fn new(registries: Registries) -> Self {
        Self { registries, clients: Mutex::default() }
    }

    /// Where to look for images of a registry, in order: its mirrors, then itself.
    pub fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, Failure> {
        let config = self.registries.get(registry).cloned().unwrap_or_default();
        let mut endpoints = Vec::new();
        for mirror in &config.mirrors {
            endpoints.push(self.mirror(mirror)?);
        }
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let scheme = if config.plain_http { "http" } else { "https" };
        endpoints.push(self.endpoint(&format!("{scheme}://{host}"), &config, false)?);
        Ok(endpoints)
    }

    fn mirror(&self, mirror: &str) -> Result<Endpoint, Failure> {
        let host = mirror.split_once("://").map_or(mirror, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or(host);
        let config = self.registries.get(host).cloned().unwrap_or_default();
        let scheme = if config.plain_http { "http" } else { "https" };
        let base = if mirror.contains("://") { mirror.to_owned() } else { format!("{scheme}://{mirror}") };
        self.endpoint(&base, &config, true)
    }

    fn endpoint(&self, base: &str, config: &RegistryConfig, is_mirror: bool) -> Result<Endpoint, Failure> {
        let base = Url::parse(base)
            .map_err(|error| Failure::Other(format!("registry address {base:?}: {error}")))?;
        let configured = (!config.username.is_empty()).then(|| Credentials {
            username: config.username.clone(),
            password: config.password.clone(),
            identity_token: String::new(),
        });
        let host = base.host_str().unwrap_or_default().to_owned();
        Ok(Endpoint { client: self.client(config.ca_file.as_deref())?, base, host, is_mirror, configured })
    }

    /// Makes the clients anew when they are needed next.
    pub fn forget_clients(&self) {
        self.clients.lock().clear();
    }

    fn client(&self, ca_file: Option<&Path>) -> Result<Client, Failure> {
        let mut clients = self.clients.lock();
        let key = ca_file.map(Path::to_owned);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build_client(ca_file)?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn build_client(ca_file: Option<&Path>) -> Result<Client, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Other(format!("TLS: {error}")))?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("kobune/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Failure::Other(describe(&error)))
}

/// The machine's own list of authorities, or the one built in where it has none; and the given file's.
fn roots(ca_file: Option<&Path>) -> Result<rustls::RootCertStore, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    for file in SYSTEM_CERTIFICATES {
        let Ok(certificates) = CertificateDer::pem_file_iter(file) else { continue };
        let (_added, _ignored) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        if !roots.is_empty() {
            break;
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = ca_file {
        let failed = |cause: String| Failure::Other(format!("certificate file {}: {cause}", file.display()));
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(roots)
}

impl Endpoint {
    /// The credentials to try here, in order. Those given are for the registry itself, not for its mirrors.
    pub fn attempts(&self, given: &[Credentials]) -> Vec<Option<Credentials>> {
        let given = if self.is_mirror { &[] } else { given };
        let known = given.iter().filter(|c| **c != Credentials::default()).chain(&self.configured);
        known.cloned().map(Some).chain([None]).collect()
    }

    pub fn session(&self, repository: &str, credentials: Option<Credentials>) -> Session {
        Session {
            endpoint: self.clone(),
            repository: repository.to_owned(),
            credentials,
            authorization: Mutex::new(None),
        }
    }
}

impl Session {
    /// The bytes of a manifest or index, by tag or digest.
    pub async fn manifest(&self, reference: &str, max: usize) -> Result<Vec<u8>, Failure> {
        let url = self.url("manifests", reference)?;
        let accept = accepted_types();
        let response =
            self.authorized(|client| client.get(url.clone()).header(ACCEPT, accept.as_str())).await?;
        body(check(response, &self.endpoint.host).await?, max).await
    }

    /// The bytes of a small blob.
    pub async fn small_blob(&self, digest: &str, max: usize) -> Result<Vec<u8>, Failure> {
        body(self.blob(digest, 0).await?.0, max).await
    }

    /// A blob's bytes from an offset on, if the registry can; the offset at which they really begin.
    pub async fn blob(&self, digest: &str, offset: u64) -> Result<(Response, u64), Failure> {
        let url = self.url("blobs", digest)?;
        let range = format!("bytes={offset}-");
        let with_range = |request: RequestBuilder| match offset {
            0 => request,
            _ => request.header(RANGE, range.as_str()),
        };
        let mut response = self.authorized(|client| with_range(client.get(url.clone()))).await?;
        let mut at = url.clone();
        for _ in 0..REDIRECTS_MAX {
            if !response.status().is_redirection() {
                let response = check(response, &self.endpoint.host).await?;
                let start =
                    if response.status() == StatusCode::PARTIAL_CONTENT { range_start(&response) } else { 0 };
                return Ok((response, start));
            }
            let next = self.redirect(&at, &response)?;
            let mut request = with_range(self.endpoint.client.get(next.clone()));
            // A storage service behind the registry has no business with the registry's tokens.
            let authorization = self.authorization.lock().clone();
            if let (Some(header), true) = (authorization, same_origin(&next, &self.endpoint.base)) {
                request = request.header(AUTHORIZATION, header);
            }
            response = send(request).await?;
            at = next;
        }
        Err(Failure::Other(format!("{} redirects too often", self.endpoint.host)))
    }

    fn redirect(&self, from: &Url, response: &Response) -> Result<Url, Failure> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| from.join(location).ok());
        let next =
            next.ok_or_else(|| Failure::Other(format!("{} redirects to nowhere", self.endpoint.host)))?;
        let safe = next.scheme() == "https" || (next.scheme() == "http" && from.scheme() == "http");
        if safe {
            Ok(next)
        } else {
            Err(Failure::Other(format!("{} redirects to an insecure address", self.endpoint.host)))
        }
    }

    fn url(&self, kind: &str, reference: &str) -> Result<Url, Failure> {
        let base = self.endpoint.base.as_str().trim_end_matches('/');
        let base = base.strip_suffix("/v2").unwrap_or(base);
        let url = format!("{base}/v2/{}/{kind}/{reference}", self.repository);
        Url::parse(&url).map_err(|error| Failure::Other(format!("{url}: {error}")))
    }

    /// Sends a request; answers a challenge once.
    async fn authorized(&self, request: impl Fn(&Client) -> RequestBuilder) -> Result<Response, Failure> {
        let with_header = |header: Option<HeaderValue>| {
            let request = request(&self.endpoint.client);
            match header {
                Some(header) => request.header(AUTHORIZATION, header),
                None => request,
            }
        };
        let known = self.authorization.lock().clone();
        let response = send(with_header(known)).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(header) = self.answer(&response).await? else { return Ok(response) };
        *self.authorization.lock() = Some(header.clone());
        send(with_header(Some(header))).await
    }

    async fn answer(&self, response: &Response) -> Result<Option<HeaderValue>, Failure> {
        let challenges =
            response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<(String, BTreeMap<String, String>)> =
            challenges.filter_map(parse_challenge).collect();
        if let Some((_, parameters)) = challenges.iter().find(|(scheme, _)| scheme == "bearer") {
            return self.token(parameters).await.map(Some);
        }
        let basic = challenges.iter().any(|(scheme, _)| scheme == "basic");
        Ok(self.credentials.as_ref().filter(|_| basic).and_then(basic_header))
    }

    async fn token(&self, challenge: &BTreeMap<String, String>) -> Result<HeaderValue, Failure> {
        let realm = challenge.get("realm").map(String::as_str).unwrap_or_default();
        let realm =
            Url::parse(realm).map_err(|error| Failure::Other(format!("token server {realm:?}: {error}")))?;
        if realm.scheme() != "https" && self.endpoint.base.scheme() == "https" {
            return Err(Failure::Other(format!("token server {realm} is not secure")));
        }
        let default_scope = format!("repository:{}:pull", self.repository);
        let scope = challenge.get("scope").unwrap_or(&default_scope);
        let service = challenge.get("service").map(String::as_str).unwrap_or_default();
        let response = send(self.token_request(realm, service, scope)).await?;
        let response = check(response, &self.endpoint.host).await?;
        let bytes = body(response, TOKEN_BYTES_MAX).await?;
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Token {
            token: String,
            access_token: String,
        }
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Other(format!("token server: {error}")))?;
        let text = if token.token.is_empty() { token.access_token } else { token.token };
        secret(&format!("Bearer {text}")).ok_or_else(|| Failure::Other("token server: unusable token".into()))
    }

    fn token_request(&self, mut realm: Url, service: &str, scope: &str) -> RequestBuilder {
        let client = &self.endpoint.client;
        let refresh = self.credentials.as_ref().filter(|credentials| !credentials.identity_token.is_empty());
        if let Some(credentials) = refresh {
            let mut form = Url::parse("form:").expect("a constant address");
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("refresh_token", &credentials.identity_token)
                .append_pair("client_id", "kobune")
                .append_pair("service", service)
                .append_pair("scope", scope);
            let request = client.post(realm).header("content-type", "application/x-www-form-urlencoded");
            return request.body(form.query().unwrap_or_default().to_owned());
        }
        if !service.is_empty() {
            realm.query_pairs_mut().append_pair("service", service);
        }
        for scope in scope.split(' ') {
            realm.query_pairs_mut().append_pair("scope", scope);
        }
        match self.credentials.as_ref().and_then(basic_header) {
            Some(header) => client.get(realm).header(AUTHORIZATION, header),
            None => client.get(realm),
        }
    }
}

fn basic_header(credentials: &Credentials) -> Option<HeaderValue> {
    if credentials.username.is_empty() && credentials.password.is_empty() {
        return None;
    }
    secret(&format!("Basic {}", BASE64.encode(format!("{}:{}", credentials.username, credentials.password))))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn same_origin(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default())
        == (b.scheme(), b.host_str(), b.port_or_known_default())
}

fn range_start(response: &Response) -> u64 {
    let value = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start =
        value.and_then(|value| value.strip_prefix("bytes ")).and_then(|value| value.split('-').next());
    start.and_then(|start| start.parse().ok()).unwrap_or(0)
}

/// `Bearer realm="…",service="…"`: the scheme in lower case and the parameters.
fn parse_challenge(header: &str) -> Option<(String, BTreeMap<String, String>)> {
    let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    let mut parameters = BTreeMap::new();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, remaining) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(name.trim_matches([' ', ',']).to_ascii_lowercase(), value.to_owned());
        rest = remaining.trim_start_matches([',', ' ']);
    }
    Some((scheme.to_ascii_lowercase(), parameters))
}

async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    request.send().await.map_err(|error| Failure::Transient(describe(&error)))
}

/// An error with its causes: reqwest's own text leaves the reason out.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Turns an answer that is none into the reason, with the registry's own words.
async fn check(response: Response, host: &str) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let detail = body(response, 1 << 16).await.ok().and_then(|bytes| registry_message(&bytes));
    let cause = match detail {
        Some(detail) => format!("{host}: {status}: {detail}"),
        None => format!("{host}: {status}"),
    };
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Denied(cause),
        StatusCode::NOT_FOUND => Failure::NotFound(cause),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Failure::Transient(cause),
        status if status.is_server_error() => Failure::Transient(cause),
        _ => Failure::Other(cause),
    })
}

fn registry_message(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Errors = serde_json::from_slice(bytes).ok()?;
    let first = errors.errors.into_iter().next()?;
    Some(format!("{}: {}", first.code, first.message))
}

async fn body(mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::Transient(describe(&error)))? {
        if bytes.len() + chunk.len() > max {
            return Err(Failure::Other(format!("answer of more than {max} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let (scheme, parameters) = parse_challenge(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        )
        .unwrap();
        assert_eq!(scheme, "bearer");
        assert_eq!(parameters["realm"], "https://auth.docker.io/token");
        assert_eq!(parameters["scope"], "repository:a/b:pull,push");
        let (scheme, parameters) = parse_challenge("Basic realm=plain, charset=\"UTF-8\"").unwrap();
        assert_eq!(
            (scheme.as_str(), parameters["realm"].as_str(), parameters["charset"].as_str()),
            ("basic", "plain", "UTF-8")
        );
        assert_eq!(parse_challenge("Negotiate").unwrap().0, "negotiate");
    }
}
