//! What tests of several crates share: an API server on a memory store, ready in milliseconds.
//!
//! It is the real server with the real pipeline; only the authenticator knows tokens from a table.

mod https;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use apiserver::{Config, Server};
use async_trait::async_trait;
use auth::{AuthenticationError, Authenticator, Authorizer, Credentials, Decision, User};
use client::Client;
use env::{Env, Shutdown};
use parking_lot::RwLock;

pub use https::Https;

/// A running server; it stops when this is dropped.
pub struct TestServer {
    pub server: Server,
    pub env: Env,
    pub store: Arc<dyn store::Store>,
    pub users: Arc<Users>,
    shutdown: Shutdown,
}

impl TestServer {
    /// Starts a server with the built-in rows that allows everything to everybody.
    pub async fn start() -> Self {
        Self::with_authorizer(Arc::new(AllowAll)).await
    }

    /// Starts a server with the built-in rows and an authorizer.
    pub async fn with_authorizer(authorizer: Arc<dyn Authorizer>) -> Self {
        Self::with_config(authorizer, |_| {}).await
    }

    /// Starts a server whose configuration is changed by `adjust`.
    pub async fn with_config(authorizer: Arc<dyn Authorizer>, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::build(Env::system(), store::memory(store::Options::default()), authorizer, adjust).await
    }

    /// Starts a server in a world of its own, without a real clock or randomness.
    pub async fn in_world(env: Env) -> Self {
        let store = store::memory(store::Options::default());
        Self::build(env, store, Arc::new(AllowAll), |_| {}).await
    }

    /// Starts another server, which allows everything, on the store of this one, which should be shut down.
    pub async fn again(&self) -> Self {
        Self::build(self.env.clone(), self.store.clone(), Arc::new(AllowAll), |_| {}).await
    }

    async fn build(
        env: Env,
        store: Arc<dyn store::Store>,
        authorizer: Arc<dyn Authorizer>,
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let users = Arc::new(Users::default());
        let table = resources::builtin_table();
        let mut config = Config::new(env.clone(), store.clone(), table, users.clone(), authorizer);
        adjust(&mut config);
        let server = Server::build(config).await.expect("a memory store can be read");
        let shutdown = Shutdown::new();
        let running = server.clone();
        let stop = shutdown.clone();
        tokio::spawn(async move { running.run(stop).await });
        Self { server, env, store, users, shutdown }
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.server.client(User::system_masters("admin"))
    }

    /// A client with an identity.
    pub fn client_of(&self, user: User) -> Client {
        self.server.client(user)
    }

    /// Ends when the server is dropped.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Users by bearer token, and by certificate once there is an authority.
#[derive(Default)]
pub struct Users {
    by_token: RwLock<BTreeMap<String, User>>,
    by_certificate: OnceLock<auth::X509Authenticator>,
}

impl Users {
    /// Makes a token known.
    pub fn add(&self, token: &str, user: User) {
        self.by_token.write().insert(token.to_owned(), user);
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>, AuthenticationError> {
        let Some(token) = credentials.bearer else {
            return match self.by_certificate.get() {
                Some(certificates) if !credentials.peer_certificates.is_empty() => {
                    certificates.authenticate(credentials).await
                }
                _ => Ok(None),
            };
        };
        match self.by_token.read().get(token) {
            Some(user) => Ok(Some(user.clone())),
            None => Err(AuthenticationError("unknown token".to_owned())),
        }
    }
}

/// Allows everything.
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize(&self, _attributes: &auth::Attributes) -> Decision {
        Decision::Allow(String::new())
    }
}
