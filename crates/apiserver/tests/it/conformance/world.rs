//! A whole control plane on a memory store: server, admission, RBAC, tokens and controllers. No node: pods stay
//! unscheduled, and so go at once when they are deleted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auth::pki::Authority;
use auth::token::{LateObjects, ServiceAccountTokens, SigningKey, TokenConfig};
use auth::{
    Authentication, AuthenticationError, Authenticator, Authorizer, Credentials, Masters, Rbac, Union, User,
};
use client::{Caches, Target};
use machinery::Status;
use serde_json::{Value, json};
use testkit::{Https, TestServer};

use super::wire::Wire;

pub struct World {
    pub test: TestServer,
    pub https: Https,
    /// The administrator.
    pub admin: Wire,
    issuer: Arc<Issuer>,
    authorizer: Arc<dyn Authorizer>,
    /// Signs with the same key, but lives years ago.
    stale: ServiceAccountTokens,
    _keys: tempfile::TempDir,
}

/// Tokens of service accounts, and what the test server knows besides.
struct Both {
    tokens: Arc<Authentication>,
    others: Arc<dyn Authenticator>,
}

#[async_trait]
impl Authenticator for Both {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>, AuthenticationError> {
        match credentials.bearer {
            Some(_) => self.tokens.authenticate(credentials).await,
            None => self.others.authenticate(credentials).await,
        }
    }
}

struct Issuer {
    tokens: Arc<ServiceAccountTokens>,
    reviews: Arc<Authentication>,
}

#[async_trait]
impl apiserver::Tokens for Issuer {
    async fn create(&self, namespace: &str, name: &str, request: &Value) -> Result<Value, Status> {
        self.tokens.create(namespace, name, request).await
    }
    async fn review(&self, request: &Value) -> Value {
        self.reviews.review(request).await
    }
    fn discovery(&self) -> Option<Value> {
        Some(self.tokens.discovery())
    }
    fn keys(&self) -> Option<Value> {
        Some(self.tokens.jwks())
    }
}

impl controllers::token_secrets::Signer for Issuer {
    fn sign(&self, namespace: &str, secret: &str, account: &str, uid: &str) -> Result<String, Status> {
        self.tokens.issue_for_secret(namespace, secret, account, uid)
    }
}

impl World {
    /// The server with everything before the store, and the objects that every cluster has.
    pub async fn without_controllers() -> Self {
        let rbac = Arc::new(Rbac::default());
        let authorizer = Arc::new(Union(vec![Arc::new(Masters), rbac.clone()]));
        let objects = Arc::new(LateObjects::default());
        let late = objects.clone();
        let mut signs = None;
        let keys = tempfile::tempdir().unwrap();
        let key = || SigningKey::load_or_create(&keys.path().join("key")).unwrap();
        let about = TokenConfig::new("cluster.local");
        let past = env::Env::seeded(1, "2020-01-01T00:00:00Z".parse().unwrap());
        let stale = ServiceAccountTokens::new(key(), about.clone(), objects.clone(), past);
        let test = TestServer::with_config(authorizer.clone(), |config| {
            let audiences = about.audiences.clone();
            let tokens = Arc::new(ServiceAccountTokens::new(key(), about, late, config.env.clone()));
            let reviews = Arc::new(Authentication::new(None, vec![tokens.clone()], audiences));
            let issuer = Arc::new(Issuer { tokens, reviews: reviews.clone() });
            config.tokens = issuer.clone();
            signs = Some(issuer);
            config.authenticator = Arc::new(Both { tokens: reviews, others: config.authenticator.clone() });
        })
        .await;
        objects.set(test.client());
        rbac.start(&Caches::new(test.client(), test.shutdown().clone()));
        test.server.set_admission(Arc::new(admission::default_chain(admission::Dependencies {
            client: test.client(),
            env: test.env.clone(),
            authorizer: authorizer.clone(),
            ranges: admission::Ranges {
                addresses: vec!["10.96.0.0/16".parse().unwrap()],
                node_ports: 30_000..=32_767,
            },
            protects_storage: false,
        })));
        let facts = apiserver::ClusterFacts {
            service_addresses: vec!["10.96.0.1".parse().unwrap()],
            service_ranges: vec!["10.96.0.0/16".to_owned()],
            server_addresses: vec!["192.0.2.1".parse().unwrap()],
            server_port: 6443,
        };
        test.server.bootstrap(&facts).await.unwrap();
        rbac.synced().await;
        let https = test.https().await;
        let admin = Wire(https.admin());
        Self { test, https, admin, issuer: signs.unwrap(), authorizer, stale, _keys: keys }
    }

    /// With the controllers as well.
    pub async fn start() -> Self {
        let world = Self::without_controllers().await;
        let config = controllers::Config {
            rows: rows(&world.test.server.table()),
            root_ca: "-----BEGIN CERTIFICATE-----".to_owned(),
            node_grace_period: Duration::from_secs(40),
            tokens: world.issuer.clone(),
            authority: Arc::new(Authority::ephemeral("test", &world.test.env).unwrap()),
            authorizer: world.authorizer.clone(),
            load_balancing: controllers::load_balancer::LoadBalancing::default(),
            node_ranges: controllers::node_ipam::NodeRanges { ranges: Vec::new(), first: None },
        };
        let caches = Caches::new(world.test.client(), world.test.shutdown().clone());
        let server = world.test.server.clone();
        let client_of = move |_: &str| server.client(User::system_masters("system:kube-controller-manager"));
        let all = controllers::Controllers::build(config, world.test.env.clone(), caches, client_of);
        tokio::spawn(all.run(world.test.shutdown().clone()));
        world
    }

    /// A namespace of a test's own.
    pub async fn namespace(&self, name: &str) -> String {
        let body = json!({"metadata": {"name": name, "labels": {"made-by": "test"}}});
        self.admin.post("/api/v1/namespaces", &body).await.unwrap();
        format!("/api/v1/namespaces/{name}")
    }

    /// A token of an account that was good for an hour, years ago.
    pub async fn expired_token(&self, account: &str) -> String {
        let made = self.stale.create("default", account, &json!({"spec": {"audiences": []}})).await.unwrap();
        made["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A client that has a bearer token.
    pub fn bearer(&self, token: &str) -> Wire {
        Wire(self.https.with_token(Some(token)))
    }
}

fn rows(table: &resources::Table) -> controllers::Rows {
    let mut seen = std::collections::BTreeSet::new();
    let walkable = table.rows().iter().filter(|row| {
        ["list", "watch", "delete"].iter().all(|verb| row.supports(verb))
            && row.version == row.storage_version
            && seen.insert(row.storage_prefix.clone())
    });
    let row = |row: &Arc<resources::Resource>| controllers::Row {
        target: Target {
            group: row.group.clone(),
            version: row.version.clone(),
            resource: row.resource.clone(),
            ..Target::default()
        },
        kind: row.kind.clone(),
        namespaced: row.is_namespaced(),
    };
    controllers::Rows::new(walkable.map(row).collect())
}
