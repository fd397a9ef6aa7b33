//! The control plane: store, API server, controllers and scheduler, wired.

mod dns;
mod renewal;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{ClusterFacts, Facts, Server};
use auth::pki::{
    Authority, CurrentIdentity, PkiError, Profile, apiserver_names, client_config, server_config,
};
use auth::token::{BootstrapAuthenticator, LateObjects, ServiceAccountTokens, SigningKey, TokenConfig};
use auth::{Authentication, Masters, NodeAuthorizer, Rbac, Union, User, X509Authenticator};
use client::{Caches, Client, Target};
use env::{Env, Shutdown};
use resources::Table;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::cli::Failure;
use crate::config::Settings;
use crate::graph::Graph;
use crate::join::{self, ClusterParameters};
use renewal::Renewal;

/// `--service-node-port-range` upstream.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Who the control plane's own components are.
pub const SYSTEM_USER: &str = "system:apiserver";

/// The parts of the control plane, built and bound, doing nothing yet.
pub struct ControlPlane {
    pub store: Arc<dyn store::Store>,
    pub server: Server,
    pub authority: Arc<Authority>,
    pub authentication: Arc<Authentication>,
    pub authorizer: Arc<Union>,
    settings: Settings,
    env: Env,
    listener: TcpListener,
    serving: Arc<rustls::ServerConfig>,
    renewals: Vec<Renewal>,
    rbac: Arc<Rbac>,
    node_authorizer: Arc<NodeAuthorizer>,
    objects: Arc<LateObjects>,
    issuer: Arc<tokens::Issuer>,
}

/// Where the control plane keeps its files.
pub fn server_dir(settings: &Settings) -> PathBuf {
    settings.data_dir.join("server")
}

pub fn store_dir(settings: &Settings) -> PathBuf {
    server_dir(settings).join("store")
}

pub fn pki_dir(settings: &Settings) -> PathBuf {
    server_dir(settings).join("pki")
}

fn pki(error: PkiError) -> Failure {
    Failure::chain(&error)
}

impl ControlPlane {
    /// Opens the store, reads or makes keys and certificates, binds the port.
    pub async fn build(settings: &Settings, env: &Env) -> Result<Self, Failure> {
        let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
            let address = settings.listen;
            Failure::new(format!(
                "cannot listen on {address}: {error}; choose another address with --listen HOST:PORT"
            ))
        })?;
        let store =
            store::open(&store_dir(settings), store::Options::default()).map_err(|e| Failure::store(&e))?;
        let dir = pki_dir(settings);
        let authority = Arc::new(Authority::load_or_create(&dir, "ca", "kobune-ca", env).map_err(pki)?);
        let own =
            [settings.node_name.clone(), settings.node_ip.to_string(), settings.listen.ip().to_string()];
        let names = apiserver_names(&[settings.service_address(1)], &settings.cluster_domain, &own);
        let issue = |name, profile| Renewal::issue(authority.clone(), &dir, name, profile, env).map_err(pki);
        let identity = issue("apiserver", Profile::apiserver(names))?;
        let kubelet_client = issue("apiserver-kubelet-client", Profile::kubelet_client())?;
        let trusted = [authority.certificate().clone()];
        let serving = server_config(identity.current.clone(), &trusted).map_err(pki)?;
        let objects = Arc::new(LateObjects::default());
        let (authentication, tokens) = authentication(settings, &authority, &objects, env)?;
        let (rbac, node_authorizer) = (Arc::new(Rbac::default()), Arc::new(NodeAuthorizer::default()));
        let authorizer = Arc::new(Union(vec![Arc::new(Masters), node_authorizer.clone(), rbac.clone()]));
        let issuer = Arc::new(tokens::Issuer::new(tokens, authentication.clone()));
        let config = apiserver::Config {
            env: env.clone(),
            store: store.clone(),
            table: resources::builtin_table(),
            schema: machinery::schema::builtin(),
            authenticator: authentication.clone(),
            authorizer: authorizer.clone(),
            tokens: issuer.clone(),
            kubelet_tls: Some(Arc::new(
                client_config(&trusted, Some(kubelet_client.current.clone())).map_err(pki)?,
            )),
            dialer: Arc::new(apiserver::TcpDialer),
            facts: facts(settings),
        };
        let server = Server::build(config).await.map_err(|error| Failure::chain(&error))?;
        Ok(Self {
            store,
            server,
            authority,
            authentication,
            authorizer,
            settings: settings.clone(),
            env: env.clone(),
            listener,
            serving,
            renewals: vec![identity, kubelet_client],
            rbac,
            node_authorizer,
            objects,
            issuer,
        })
    }

    /// A client within the process.
    pub fn client(&self, user: User) -> Client {
        self.server.client(user)
    }

    /// Writes the administrator's kubeconfig.
    pub fn write_kubeconfig(&self) -> Result<(), Failure> {
        renewal::write_kubeconfig(&self.authority, &self.settings, &self.env).map(drop).map_err(pki)
    }

    /// The certificate that the kubelet beside the control plane serves with; it is renewed with the others.
    pub fn kubelet_identity(&mut self) -> Result<Arc<CurrentIdentity>, Failure> {
        let settings = &self.settings;
        let profile = Profile::kubelet_serving(&settings.node_name, &[settings.node_ip]);
        let renewal =
            Renewal::issue(self.authority.clone(), &pki_dir(settings), "kubelet", profile, &self.env)
                .map_err(pki)?;
        let current = renewal.current.clone();
        self.renewals.push(renewal);
        Ok(current)
    }

    /// Adds the services of the control plane: `api`, `cluster` (what every cluster has is there), `controllers`,
    /// `scheduler`.
    pub fn register(self, graph: &mut Graph, on: &Handle) -> Caches {
        let client = self.client(User::system_masters(SYSTEM_USER));
        let stop_caches = Shutdown::new();
        let caches = Caches::new(client.clone(), stop_caches.clone());
        self.objects.set(client.clone());
        let (server, listener, serving) = (self.server.clone(), self.listener, self.serving);
        graph.add("api", &[], on, move |ready, shutdown| async move {
            let accepting = server.serve(listener, serving, shutdown.clone());
            ready.set();
            let (followed, ()) = tokio::join!(server.run(shutdown), accepting);
            stop_caches.cancel();
            followed.map_err(|error| error.to_string())
        });
        renewal::register(
            graph,
            on,
            self.renewals,
            (self.authority.clone(), self.settings.clone()),
            &self.env,
        );
        let (server, settings, rbac, nodes) =
            (self.server.clone(), self.settings.clone(), self.rbac, self.node_authorizer);
        let (shared, admin, authority_pem) =
            (caches.clone(), client.clone(), self.authority.pem().to_owned());
        let admission = admission::Dependencies {
            client: client.clone(),
            env: self.env.clone(),
            authorizer: self.authorizer.clone(),
            ranges: admission::Ranges {
                addresses: self.settings.service_cidrs.clone(),
                node_ports: NODE_PORTS,
            },
            protects_storage: true,
        };
        graph.add("cluster", &["api"], on, move |ready, shutdown| async move {
            rbac.start(&shared);
            server.set_admission(Arc::new(admission::default_chain(admission)));
            nodes.start(&shared);
            let facts = cluster_facts(&settings);
            let written = async {
                server.bootstrap(&facts).await?;
                let dns = dns::ensure(&admin, settings.service_address(10));
                let parameters = ClusterParameters::of(&settings);
                let joining = join::objects::ensure(&admin, &authority_pem, &parameters);
                tokio::try_join!(dns, joining).map(drop)
            };
            written.await.map_err(|status| status.to_string())?;
            rbac.synced().await;
            ready.set();
            shutdown.cancelled().await;
            Ok(())
        });
        let config = controllers::Config {
            rows: rows(&self.server.table()),
            root_ca: self.authority.pem().to_owned(),
            node_grace_period: self.settings.node_monitor_grace_period,
            node_ranges: self.settings.node_ranges(),
            authority: self.authority.clone(),
            authorizer: self.authorizer.clone(),
            tokens: self.issuer,
            load_balancing: controllers::load_balancer::LoadBalancing {
                pool: self.settings.load_balancer_pool.clone(),
                reserved_ports: vec![self.settings.listen.port(), crate::node::KUBELET_PORT],
            },
        };
        let (server, env, shared) = (self.server.clone(), self.env.clone(), caches.clone());
        graph.add("controllers", &["cluster"], on, move |ready, shutdown| async move {
            let client_of =
                move |_: &str| server.client(User::system_masters("system:kube-controller-manager"));
            ready.set();
            controllers::Controllers::build(config, env, shared, client_of).run(shutdown).await;
            Ok(())
        });
        let (client, env, shared) =
            (self.server.client(User::system_masters("system:kube-scheduler")), self.env, caches.clone());
        graph.add("scheduler", &["cluster"], on, move |ready, shutdown| async move {
            let name = scheduler::driver::NAME;
            let (recorder, writer) = reconcile::Recorder::new(client.clone(), env.clone(), name, "");
            tokio::spawn(writer.run(shutdown.clone()));
            ready.set();
            scheduler::Scheduler::build(&shared, client, recorder, env).run(shutdown).await;
            Ok(())
        });
        caches
    }
}

impl ControlPlane {
    /// What listens for pods where the server's own address is out of their reach: a service that stands on
    /// `network`, so it is added after the node's.
    pub fn gateway(&self) -> Gateway {
        Gateway {
            server: self.server.clone(),
            serving: self.serving.clone(),
            address: SocketAddr::new(self.settings.pods_api_address(), self.settings.listen.port()),
            is_needed: self.settings.listen.ip().is_loopback(),
        }
    }
}

/// The API server's second address.
pub struct Gateway {
    server: Server,
    serving: Arc<rustls::ServerConfig>,
    address: SocketAddr,
    is_needed: bool,
}

impl Gateway {
    pub fn register(self, graph: &mut Graph, on: &Handle) {
        let Self { server, serving, address, is_needed } = self;
        if !is_needed {
            return;
        }
        graph.add("api for pods", &["network"], on, move |ready, shutdown| async move {
            let listener = TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
            ready.set();
            server.serve(listener, serving, shutdown).await;
            Ok(())
        });
    }
}

fn authentication(
    settings: &Settings,
    authority: &Authority,
    objects: &Arc<LateObjects>,
    env: &Env,
) -> Result<(Arc<Authentication>, Arc<ServiceAccountTokens>), Failure> {
    let key = SigningKey::load_or_create(&pki_dir(settings).join("service-account.key")).map_err(pki)?;
    let config = TokenConfig::new(&settings.cluster_domain);
    let audiences = config.audiences.clone();
    let tokens = Arc::new(ServiceAccountTokens::new(key, config, objects.clone(), env.clone()));
    let bootstrap = BootstrapAuthenticator::new(objects.clone(), audiences.clone(), env.clone());
    let certificates =
        X509Authenticator::new(&[authority.certificate().clone()], env.clone()).map_err(pki)?;
    let sorts: Vec<Arc<dyn auth::token::TokenAuthenticator>> = vec![tokens.clone(), Arc::new(bootstrap)];
    Ok((Arc::new(Authentication::new(Some(certificates), sorts, audiences)), tokens))
}

fn facts(settings: &Settings) -> Facts {
    let advertised = format!("{}:{}", settings.node_ip, settings.listen.port());
    Facts { advertised, ..Facts::default() }
}

fn cluster_facts(settings: &Settings) -> ClusterFacts {
    ClusterFacts {
        service_addresses: vec![settings.service_address(1)],
        service_ranges: settings.service_cidrs.iter().map(ToString::to_string).collect(),
        server_addresses: vec![settings.pods_api_address()],
        server_port: settings.listen.port(),
    }
}

/// What controllers walk over: one row per kind that can be listed, watched and deleted.
fn rows(table: &Table) -> controllers::Rows {
    let walkable = |row: &&Arc<resources::Resource>| {
        ["list", "watch", "delete"].iter().all(|verb| row.supports(verb))
            && row.version == row.storage_version
    };
    let mut seen = std::collections::BTreeSet::new();
    let rows = table.rows().iter().filter(walkable).filter(|row| seen.insert(row.storage_prefix.clone()));
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
    controllers::Rows::new(rows.map(row).collect())
}
