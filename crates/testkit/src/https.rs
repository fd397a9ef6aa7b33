//! The server over HTTPS on loopback.

use std::path::{Path, PathBuf};

use auth::pki::{Authority, CurrentIdentity, Identity, Kubeconfig, KubeconfigUser, Profile, server_config};
use client::Http;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::TestServer;

/// A listener of a test server, its authority and its administrator.
pub struct Https {
    pub url: String,
    authority_pem: String,
    admin: Identity,
    directory: TempDir,
}

impl TestServer {
    /// Serves HTTPS on a free port of loopback until the server is dropped. Can be called once.
    pub async fn https(&self) -> Https {
        let authority = Authority::ephemeral("test", &self.env).expect("keys can be made");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let serving = authority.issue(&Profile::apiserver(names), &self.env).expect("the authority issues");
        let admin = authority.issue(&Profile::admin(), &self.env).expect("the authority issues");
        let authorities = [authority.certificate().clone()];
        let identity = CurrentIdentity::new(&serving).expect("the key is one of ours");
        let tls = server_config(identity, &authorities).expect("the certificates are ours");
        let known =
            auth::X509Authenticator::new(&authorities, self.env.clone()).expect("the authority is ours");
        assert!(self.users.by_certificate.set(known).is_ok(), "https() is called once");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("the listener is bound");
        let (server, shutdown) = (self.server.clone(), self.shutdown.clone());
        tokio::spawn(async move { server.serve(listener, tls, shutdown).await });
        let directory = TempDir::new().expect("the temporary directory is writable");
        let https = Https {
            url: format!("https://{address}"),
            authority_pem: authority.pem().to_owned(),
            admin,
            directory,
        };
        https.write_kubeconfig();
        https
    }
}

impl Https {
    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// A directory that lives as long as this.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A client with the administrator's certificate.
    pub fn admin(&self) -> Http {
        let certificate = (self.admin.certificate_pem.clone(), self.admin.key_pem.clone());
        self.client(client::Server { client_certificate: Some(certificate), ..client::Server::default() })
    }

    /// A client with a token, or an anonymous one.
    pub fn with_token(&self, token: Option<&str>) -> Http {
        self.client(client::Server { token: token.map(str::to_owned), ..client::Server::default() })
    }

    fn client(&self, server: client::Server) -> Http {
        let server = client::Server {
            url: self.url.clone(),
            certificate_authority: self.authority_pem.clone(),
            user_agent: "testkit/v1".to_owned(),
            ..server
        };
        Http::new(&server).expect("the certificates are ours")
    }

    fn write_kubeconfig(&self) {
        let file = Kubeconfig {
            server: &self.url,
            authority_pem: &self.authority_pem,
            cluster: "test",
            user: "admin",
            credentials: KubeconfigUser::Certificate(&self.admin),
        };
        file.write(&self.kubeconfig()).expect("the temporary directory is writable");
    }
}
