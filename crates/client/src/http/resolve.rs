//! Names to addresses, without the C library: its resolver loads shared objects when it runs, and a static program
//! cannot rely on finding those it was built with.
//!
//! `/etc/hosts` and `/etc/resolv.conf` are read at the first name; addresses and `localhost` need neither.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use http::Uri;
use tokio::net::TcpStream;

/// Resolves the names of one client's server.
#[derive(Clone, Default)]
pub struct Resolver(Arc<OnceLock<TokioResolver>>);

impl Resolver {
    /// Connects to the first address of a URL's host that takes a connection.
    pub async fn dial(&self, uri: &Uri) -> io::Result<TcpStream> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let mut failure = None;
        for address in self.addresses(host).await? {
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(error),
            }
        }
        let nothing = || io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        Err(failure.unwrap_or_else(nothing))
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("resolving {host}: {error}"));
        let found = self.resolver().map_err(|error| failed(&error))?.lookup_ip(host).await;
        Ok(found.map_err(|error| failed(&error))?.iter().collect())
    }

    fn resolver(&self) -> Result<&TokioResolver, hickory_resolver::net::NetError> {
        if let Some(resolver) = self.0.get() {
            return Ok(resolver);
        }
        let mut builder = TokioResolver::builder_tokio()?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build()?;
        Ok(self.0.get_or_init(|| resolver))
    }
}

/// `localhost` and names below it are this machine (RFC 6761), whatever resolvers say.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_localhost_need_no_resolver() {
        let resolver = Resolver::default();
        for (host, expected) in [
            ("192.0.2.1", vec!["192.0.2.1"]),
            ("2001:db8::1", vec!["2001:db8::1"]),
            ("localhost", vec!["127.0.0.1", "::1"]),
            ("LocalHost.", vec!["127.0.0.1", "::1"]),
            ("api.localhost", vec!["127.0.0.1", "::1"]),
        ] {
            let found = resolver.addresses(host).await.unwrap();
            assert_eq!(found.iter().map(IpAddr::to_string).collect::<Vec<_>>(), expected, "{host}");
        }
        assert!(resolver.0.get().is_none());
    }

    #[tokio::test]
    async fn the_next_address_is_tried() {
        let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
        let uri = format!("https://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        assert!(Resolver::default().dial(&uri).await.unwrap().peer_addr().unwrap().is_ipv6());
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_named() {
        let error = Resolver::default().addresses("no-such-host.invalid").await.unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}
