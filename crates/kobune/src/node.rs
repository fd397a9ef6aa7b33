//! A node: images, network, runtime, kubelet, Services and DNS on this machine, wired.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use auth::pki::{CurrentIdentity, server_config};
use auth::{AccessReviewer, Authenticator};
use client::{Caches, Client};
use containers::{Config as RuntimeConfig, EmbeddedRuntime, SandboxNetwork};
use env::Env;
use images::{BuiltinFile, ImageConfig, Images};
use k8s_openapi::api::core::v1::{Node as NodeObject, Service};
use kubelet::{Kubelet, StopMode};
use network::PodNetwork;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::cli::Failure;
use crate::config::Settings;
use crate::graph::Graph;

/// The image that is part of the program.
pub const WEB_IMAGE: &str = "kobune.local/web:latest";

/// Where kubelets are expected; another instance on the machine takes any free port.
pub const KUBELET_PORT: u16 = 10250;
const DNS_PORT: u16 = 53;
/// Where CNI plugins and their configurations are expected.
const CNI_CONFIGURATIONS: &str = "/etc/cni/net.d";
const CNI_PLUGINS: &str = "/opt/cni/bin";

/// What a node needs of the control plane.
pub struct Dependencies {
    pub client: Client,
    pub caches: Caches,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn AccessReviewer>,
    pub authority: CertificateDer<'static>,
    pub serving: Arc<CurrentIdentity>,
}

/// The parts of a node, built and bound, doing nothing yet.
pub struct Node {
    pub runtime: EmbeddedRuntime,
    pub network: PodNetwork,
    images: Images,
    settings: Settings,
    env: Env,
    listener: TcpListener,
}

/// The cgroup below which this instance's pods are.
pub fn cgroup_root(settings: &Settings) -> String {
    format!("/{}", settings.instance)
}

/// The network of this instance's pods.
pub fn network_config(settings: &Settings) -> network::Config {
    let (bridge, device) = match settings.instance.strip_prefix("kobune") {
        Some("") | None => ("kobune0".to_owned(), "flannel".to_owned()),
        Some(other) => (format!("kb{other}"), format!("kb{other}")),
    };
    network::Config {
        bridge,
        device,
        table: settings.instance.clone(),
        pod_cidrs: settings.pod_cidrs.clone(),
        cluster_cidrs: settings.cluster_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
        backend: settings.backend.clone(),
        // A machine without a network has no other nodes.
        node_addresses: Some(settings.node_ip).filter(|address| !address.is_loopback()).into_iter().collect(),
        subnet_file: Some(subnet_file(settings)),
        ..network::Config::default()
    }
}

/// Where flannel writes it; another instance on the machine has its own.
fn subnet_file(settings: &Settings) -> PathBuf {
    match settings.instance.as_str() {
        "kobune" => "/run/flannel/subnet.env".into(),
        _ => settings.data_dir.join("run/subnet.env"),
    }
}

/// Services on this node.
pub fn services_config(settings: &Settings) -> proxy::Config {
    proxy::Config {
        table: format!("{}-services", settings.instance),
        node: settings.node_name.clone(),
        cluster_cidrs: settings.cluster_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
    }
}

impl Node {
    /// Opens image store, network and runtime, adopts what still runs, binds the kubelet's port.
    pub async fn build(settings: &Settings, env: &Env) -> Result<Self, Failure> {
        let images = Images::open(&settings.data_dir, settings.registries.clone(), env)
            .map_err(|e| Failure::chain(&e))?;
        ensure_web_image(&images)?;
        let network = PodNetwork::build(network_config(settings)).map_err(|error| Failure::chain(&error))?;
        let config = RuntimeConfig {
            data_dir: settings.data_dir.clone(),
            cgroup_root: cgroup_root(settings),
            images: Arc::new(images.clone()),
            network: Some(pod_network(settings, &network)?),
            helper: this_executable()?,
            env: env.clone(),
        };
        let runtime = EmbeddedRuntime::open(config).await.map_err(|error| Failure::machine(&error))?;
        let listener = bind_kubelet(settings).await?;
        Ok(Self { runtime, network, images, settings: settings.clone(), env: env.clone(), listener })
    }

    /// Adds the services of a node: `network`, `overlay`, `policies`, `services`, `dns`, `kubelet`.
    pub fn register(
        self,
        graph: &mut Graph,
        on: &Handle,
        dependencies: Dependencies,
        stop_mode: StopMode,
    ) -> Result<(), Failure> {
        let gateways = self.network.gateways();
        self.register_network(graph, on, &dependencies);
        self.register_dns(graph, on, &dependencies.caches, gateways);
        self.register_kubelet(graph, on, dependencies, stop_mode)
    }

    fn register_network(&self, graph: &mut Graph, on: &Handle, dependencies: &Dependencies) {
        let network = self.network.clone();
        graph.add("network", &["cluster"], on, move |ready, shutdown| async move {
            network.prepare().await.map_err(|error| Failure::machine(&error).message)?;
            ready.set();
            shutdown.cancelled().await;
            Ok(())
        });
        let (network, node, caches) =
            (self.network.clone(), self.settings.node_name.clone(), dependencies.caches.clone());
        // The kubelet does not wait for it: it makes the Node that this needs.
        graph.add("overlay", &["network"], on, move |ready, shutdown| async move {
            let overlay = network::Overlay::build(network, &node, &caches)
                .map_err(|error| Failure::chain(&error).message)?;
            let (reached, _first) = tokio::sync::oneshot::channel();
            ready.set();
            overlay.run(reached, shutdown).await;
            Ok(())
        });
        let table = self.network.config().policy_table();
        let (policies, gate) =
            network::Policies::build(&table, &self.settings.node_name, &dependencies.caches);
        self.network.guard(gate);
        graph.add("policies", &["network"], on, move |ready, shutdown| async move {
            ready.set();
            policies.run(shutdown).await.map_err(|error| Failure::chain(&error).message)
        });
        self.register_announcer(graph, on, &dependencies.caches);
        let config = services_config(&self.settings);
        let caches = dependencies.caches.clone();
        graph.add("services", &["network"], on, move |ready, shutdown| async move {
            let proxy =
                proxy::Proxy::build(config, &caches).map_err(|error| Failure::chain(&error).message)?;
            let (synced, first) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                if first.await.is_ok() {
                    ready.set();
                }
            });
            proxy.run(synced, shutdown).await.map_err(|error| Failure::chain(&error).message)
        });
    }

    /// Without a pool there is nothing to announce.
    fn register_announcer(&self, graph: &mut Graph, on: &Handle, caches: &Caches) {
        let settings = &self.settings;
        if settings.load_balancer_pool.is_empty() {
            return;
        }
        let config = network::AnnouncerConfig {
            pool: settings.load_balancer_pool.clone(),
            node: settings.node_name.clone(),
            node_addresses: vec![settings.node_ip],
        };
        let (caches, env) = (caches.clone(), self.env.clone());
        graph.add("load balancer addresses", &["network"], on, move |ready, shutdown| async move {
            let announcer = network::Announcer::build(config, &caches, env)
                .map_err(|error| Failure::chain(&error).message)?;
            ready.set();
            announcer.run(shutdown).await.map_err(|error| Failure::chain(&error).message)
        });
    }

    fn register_dns(&self, graph: &mut Graph, on: &Handle, caches: &Caches, gateways: Vec<IpAddr>) {
        let config = dns::Config {
            listen: gateways.into_iter().map(|address| SocketAddr::new(address, DNS_PORT)).collect(),
            domain: self.settings.cluster_domain.clone(),
            ..dns::Config::default()
        };
        let (caches, env) = (caches.clone(), self.env.clone());
        graph.add("dns", &["network"], on, move |ready, shutdown| async move {
            let dns = dns::Dns::build(config, &caches, env)
                .await
                .map_err(|error| Failure::chain(&error).message)?;
            let (serving, first) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                if first.await.is_ok() {
                    ready.set();
                }
            });
            dns.run(serving, shutdown).await;
            Ok(())
        });
    }

    fn register_kubelet(
        self,
        graph: &mut Graph,
        on: &Handle,
        dependencies: Dependencies,
        stop_mode: StopMode,
    ) -> Result<(), Failure> {
        let settings = &self.settings;
        let port = self.listener.local_addr().map_err(|error| Failure::chain(&error))?.port();
        let config = kubelet::Config {
            addresses: vec![settings.node_ip],
            root: settings.data_dir.join("kubelet"),
            log_root: settings.data_dir.join("log/pods"),
            cluster_dns: vec![settings.service_address(10)],
            cluster_domain: settings.cluster_domain.clone(),
            port,
            labels: settings.node_labels.clone(),
            static_pods: settings.pod_manifest_path.clone(),
            stop_mode,
            shares_machine: settings.shares_machine,
            lease_duration: settings.node_monitor_grace_period,
            ..kubelet::Config::new(settings.node_name.clone())
        };
        let tls = server_config(dependencies.serving, std::slice::from_ref(&dependencies.authority))
            .map_err(|error| Failure::chain(&error))?;
        let server = kubelet::ServerConfig {
            listener: self.listener,
            tls,
            authenticator: dependencies.authenticator,
            authorizer: dependencies.authorizer,
        };
        let given = kubelet::Dependencies {
            env: self.env,
            client: dependencies.client,
            runtime: Arc::new(self.runtime),
            images: Arc::new(self.images),
            services: Some(dependencies.caches.of::<Service>()),
            nodes: Some(dependencies.caches.of::<NodeObject>()),
        };
        graph.add("kubelet", &["network"], on, move |ready, shutdown| async move {
            let kubelet = Kubelet::build(config, given, Some(server))
                .map_err(|error| Failure::chain(&error).message)?;
            let (registered, first) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                if first.await.is_ok() {
                    ready.set();
                }
            });
            kubelet.run(registered, shutdown).await;
            Ok(())
        });
        Ok(())
    }
}

/// What connects pods: the network that the machine is configured for by CNI, or else our own.
fn pod_network(settings: &Settings, own: &PodNetwork) -> Result<Arc<dyn SandboxNetwork>, Failure> {
    let results = settings.data_dir.join("run/cni");
    let found = network::Cni::find(CNI_CONFIGURATIONS.as_ref(), CNI_PLUGINS.as_ref(), &results);
    Ok(match found.map_err(|error| Failure::chain(&error))? {
        Some(cni) => Arc::new(cni),
        None => Arc::new(own.clone()),
    })
}

async fn bind_kubelet(settings: &Settings) -> Result<TcpListener, Failure> {
    let any = |port| {
        SocketAddr::new(if settings.node_ip.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() }, port)
    };
    match TcpListener::bind(any(KUBELET_PORT)).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            let bound = TcpListener::bind(any(0)).await;
            bound.map_err(|error| Failure::new(format!("cannot listen for the kubelet: {error}")))
        }
    }
}

/// This file, also when it was replaced on disk while it runs.
pub fn this_executable() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find the program's own file: {error}")))
}

/// The web image contains this executable and nothing else.
fn ensure_web_image(images: &Images) -> Result<(), Failure> {
    let config = ImageConfig {
        entrypoint: vec!["/kobune".to_owned(), "web".to_owned()],
        exposed_ports: vec!["80/tcp".to_owned()],
        working_directory: "/".to_owned(),
        ..ImageConfig::default()
    };
    let file = BuiltinFile { path: "/kobune".into(), source: this_executable()?, mode: 0o755 };
    images.ensure_builtin(WEB_IMAGE, &config, &[file]).map(drop).map_err(|error| Failure::chain(&error))
}
