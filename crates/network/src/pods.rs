//! [`PodNetwork`]: connects pods, for the container runtime.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use containers::{PodIdentity, RuntimeError, SandboxId, SandboxNetwork};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::addresses::AddressPool;
use crate::kernel::{Kernel, PodLink};
use crate::plan::{Config, NetworkError, check_overlap, compile, diff, earlier_ranges};
use crate::policy::Gate;

/// Interface names hold 15 characters; with this and 11 digits of the sandbox's identifier they are unique enough.
const LINK_PREFIX: &str = "veth";
const LINK_DIGITS: usize = 11;
const RANGES_WAIT: Duration = Duration::from_secs(20);

/// The network of this node's pods. Cheap to clone.
#[derive(Clone)]
pub struct PodNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Whether the node's ranges are known.
    known: watch::Sender<bool>,
    gate: OnceLock<Gate>,
}

struct State {
    config: Arc<Config>,
    kernel: Kernel,
    /// One of each family configured.
    pools: Vec<AddressPool>,
    prepared: bool,
}

impl PodNetwork {
    /// Checks the configuration and that no network of the machine is in the way; changes nothing yet.
    ///
    /// Without ranges in the configuration, those that the machine's bridge has from an earlier run are taken, and
    /// pods wait until [`PodNetwork::set_ranges`] when there are none.
    pub fn build(mut config: Config) -> Result<Self, NetworkError> {
        config.validate()?;
        let mut kernel = Kernel::open()?;
        let observed = kernel.observe()?;
        check_overlap(&config, &observed)?;
        if config.pod_cidrs.is_empty() {
            config.pod_cidrs = earlier_ranges(&config, &observed);
        }
        let known = watch::Sender::new(!config.pod_cidrs.is_empty());
        let pools = pools(&config);
        let state = Mutex::new(State { config: Arc::new(config), kernel, pools, prepared: false });
        Ok(Self { shared: Arc::new(Shared { state, known, gate: OnceLock::new() }) })
    }

    /// From now on pods are connected when their policies hold. Only the first gate counts.
    pub fn guard(&self, gate: Gate) {
        self.shared.gate.get_or_init(|| gate);
    }

    /// Takes the ranges that the cluster gave this node; no change when it has them already.
    pub async fn set_ranges(&self, ranges: Vec<IpNet>) -> Result<(), NetworkError> {
        self.blocking(move |config, state| {
            if config.pod_cidrs == ranges {
                return state.ensure_prepared(config);
            }
            let config = Arc::new(Config { pod_cidrs: ranges, ..config.clone() });
            config.validate()?;
            state.pools = pools(&config);
            state.config = config.clone();
            state.prepare(&config)
        })
        .await?;
        self.shared.known.send_replace(true);
        Ok(())
    }

    /// Waits until the node's ranges are known.
    pub async fn ranges_known(&self) {
        let mut known = self.shared.known.subscribe();
        // The sender lives as long as `self`.
        let _closed = known.wait_for(|known| *known).await;
    }

    /// Brings the machine into the desired state: bridge, addresses, routes, kernel parameters, rules. Doing so again
    /// changes nothing. The first attached pod does it when nobody did before.
    pub async fn prepare(&self) -> Result<(), NetworkError> {
        self.blocking(|config, state| state.prepare(config)).await
    }

    /// The machine's own address in each family: the pods' gateway.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.config().gateways()
    }

    /// The configuration with the ranges that are in use now.
    pub fn config(&self) -> Arc<Config> {
        self.shared.state.lock().config.clone()
    }

    /// Removes every trace: links, table, namespaces. All steps are tried; the first error is returned.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        self.blocking(|config, state| {
            state.prepared = false;
            state.pools = pools(config);
            state.teardown(config)
        })
        .await
    }

    /// Connects a pod when its policies hold. One that could not be connected keeps no address.
    async fn attach_to(
        &self,
        id: &SandboxId,
        pod: &PodIdentity,
        netns: PathBuf,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let attached = async {
            let sandbox = id.clone();
            let addresses = self.blocking(move |_, state| state.allocate(&sandbox)).await?;
            if let Some(gate) = self.shared.gate.get() {
                gate.admit(id, pod, &addresses).await?;
            }
            let sandbox = id.clone();
            self.blocking(move |config, state| state.attach(config, &sandbox, &netns)).await
        };
        let attached = attached.await;
        if attached.is_err() {
            let sandbox = id.clone();
            self.blocking(move |config, state| state.release_unconnected(config, &sandbox)).await?;
        }
        attached
    }

    /// Netlink answers at once, but tens of pods may want to be attached at the same time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Config, &mut State) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let shared = self.shared.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let mut state = shared.state.lock();
            let config = state.config.clone();
            work(&config, &mut state)
        });
        let joined = joined.await;
        joined.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(NetworkError::Config(format!("the process is stopping: {error}"))),
        })
    }
}

/// Removes every trace of a network that is not running, e.g. for `kobune reset`.
pub fn teardown(config: &Config) -> Result<(), NetworkError> {
    let kernel = Kernel::open()?;
    let mut state = State { config: Arc::new(config.clone()), kernel, pools: Vec::new(), prepared: false };
    state.teardown(config)
}

fn pools(config: &Config) -> Vec<AddressPool> {
    config.pod_cidrs.iter().map(|range| AddressPool::new(*range)).collect()
}

impl State {
    fn prepare(&mut self, config: &Config) -> Result<(), NetworkError> {
        let observed = self.kernel.observe()?;
        let desired = compile(config, &observed);
        for action in diff(&desired, &observed) {
            self.kernel.act(&config.bridge, &action)?;
        }
        self.kernel.set_sysctls(&desired)?;
        self.kernel.apply_table(config)?;
        self.prepared = true;
        Ok(())
    }

    fn ensure_prepared(&mut self, config: &Config) -> Result<(), NetworkError> {
        if self.prepared { Ok(()) } else { self.prepare(config) }
    }

    fn attach(&mut self, config: &Config, id: &SandboxId, netns: &Path) -> Result<Vec<IpAddr>, NetworkError> {
        self.ensure_prepared(config)?;
        let addresses = self.allocate(id)?;
        if !self.is_connected(config, id)? {
            self.connect(config, id, netns)?;
        }
        Ok(addresses)
    }

    fn allocate(&mut self, id: &SandboxId) -> Result<Vec<IpAddr>, NetworkError> {
        let mut addresses = Vec::new();
        for pool in &mut self.pools {
            addresses.push(match pool.of(&id.0) {
                Some(address) => address,
                None => pool.allocate(&id.0)?,
            });
        }
        Ok(addresses)
    }

    fn release_unconnected(&mut self, config: &Config, id: &SandboxId) -> Result<(), NetworkError> {
        if !self.is_connected(config, id)? {
            self.release(id);
        }
        Ok(())
    }

    fn release(&mut self, id: &SandboxId) {
        self.pools.iter_mut().for_each(|pool| pool.release(&id.0));
    }

    fn connect(&mut self, config: &Config, id: &SandboxId, netns: &Path) -> Result<(), NetworkError> {
        let with_gateways = self.pools.iter().filter_map(|pool| {
            let address = IpNet::new(pool.of(&id.0)?, pool.range().prefix_len()).ok()?;
            Some((address, pool.gateway()))
        });
        let addresses: Vec<_> = with_gateways.collect();
        if addresses.is_empty() {
            return Err(NetworkError::Config(format!("sandbox {} has no address", id.0)));
        }
        let name = link_name(id);
        let connected = self
            .kernel
            .connect(netns, &PodLink { name: &name, bridge: &config.bridge, addresses: &addresses });
        if connected.is_err() {
            self.kernel.remove_link(&name)?;
        }
        connected
    }

    fn is_connected(&mut self, config: &Config, id: &SandboxId) -> Result<bool, NetworkError> {
        let name = link_name(id);
        Ok(self.kernel.ports(&config.bridge)?.iter().any(|port| port.name == name))
    }

    fn detach(&mut self, id: &SandboxId) -> Result<(), NetworkError> {
        self.kernel.remove_link(&link_name(id))?;
        self.release(id);
        Ok(())
    }

    fn adopt(&mut self, config: &Config, alive: &[Alive]) -> Result<(), NetworkError> {
        self.ensure_prepared(config)?;
        let wanted: BTreeMap<String, &Alive> =
            alive.iter().map(|sandbox| (link_name(&sandbox.0), sandbox)).collect();
        self.pools.iter_mut().for_each(|pool| *pool = AddressPool::new(pool.range()));
        for (id, _, addresses) in alive {
            self.reserve(id, addresses);
        }
        let ports = self.kernel.ports(&config.bridge)?;
        for port in ports.iter().filter(|port| !wanted.contains_key(&port.name)) {
            tracing::info!(link = port.name, "removing the link of a pod that is gone");
            self.kernel.remove_link(&port.name)?;
        }
        let missing = wanted.iter().filter(|(name, _)| !ports.iter().any(|port| port.name == **name));
        for (_, (id, netns, _)) in missing {
            if let Err(error) = self.connect(config, id, netns) {
                tracing::warn!(sandbox = id.0, %error, "a running pod could not be connected again");
            }
        }
        Ok(())
    }

    fn reserve(&mut self, id: &SandboxId, addresses: &[IpAddr]) {
        for address in addresses {
            let pool = self.pools.iter_mut().find(|pool| pool.range().addr().is_ipv4() == address.is_ipv4());
            if let Some(Err(error)) = pool.map(|pool| pool.reserve(*address, &id.0)) {
                tracing::warn!(sandbox = id.0, %error, "a running pod keeps an address that is not ours to give");
            }
        }
    }

    fn teardown(&mut self, config: &Config) -> Result<(), NetworkError> {
        let mut results = vec![crate::overlay::teardown(config)];
        match self.kernel.ports(&config.bridge) {
            Ok(ports) => results.extend(ports.iter().map(|port| self.kernel.remove_link(&port.name))),
            Err(error) => results.push(Err(error)),
        }
        results.push(self.kernel.remove_link(&config.bridge));
        results.push(self.kernel.delete_table(&config.table));
        results.push(crate::policy::teardown(&config.policy_table()));
        results.into_iter().collect()
    }
}

type Alive = (SandboxId, PathBuf, Vec<IpAddr>);

/// The name of the machine's end of a pod's link.
fn link_name(id: &SandboxId) -> String {
    let digits = id.0.get(..LINK_DIGITS).unwrap_or(&id.0);
    format!("{LINK_PREFIX}{digits}")
}

fn runtime_error(what: String) -> impl FnOnce(NetworkError) -> RuntimeError {
    move |error| RuntimeError::Other { what, cause: chain(&error) }
}

/// An error with all its causes, for an interface that takes text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[async_trait]
impl SandboxNetwork for PodNetwork {
    async fn attach(
        &self,
        id: &SandboxId,
        pod: &PodIdentity,
        netns: &Path,
    ) -> Result<Vec<IpAddr>, RuntimeError> {
        let what = format!("network of pod {}/{}", pod.namespace, pod.name);
        let (id, netns) = (id.clone(), netns.to_owned());
        // The cluster may still be about to give this node its ranges.
        if tokio::time::timeout(RANGES_WAIT, self.ranges_known()).await.is_err() {
            let cause = "the cluster has not given this node a pod range (Node.spec.podCIDR) yet".to_owned();
            return Err(RuntimeError::Other { what, cause });
        }
        self.attach_to(&id, pod, netns).await.map_err(runtime_error(what))
    }

    async fn detach(&self, id: &SandboxId, _netns: &Path) -> Result<(), RuntimeError> {
        let what = format!("network of sandbox {}", id.0);
        let sandbox = id.clone();
        self.blocking(move |_, state| state.detach(&sandbox)).await.map_err(runtime_error(what))?;
        if let Some(gate) = self.shared.gate.get() {
            gate.forget(id).await;
        }
        Ok(())
    }

    async fn adopt(&self, alive: &[Alive]) -> Result<(), RuntimeError> {
        let alive = alive.to_vec();
        let adopted = self.blocking(move |config, state| state.adopt(config, &alive)).await;
        adopted.map_err(runtime_error("network of running pods".to_owned()))
    }
}
