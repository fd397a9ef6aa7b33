//! NetworkPolicies: which connections pods of this node may have.
//!
//! A pod is connected only when its policies are in the kernel ([`Gate::admit`]), so that they hold from its first
//! packet. While there are no policies nothing is watched but them.

mod compile;
mod model;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use client::{Cache, CacheEvent, Caches};
use containers::{PodIdentity, SandboxId};
use env::Shutdown;
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use machinery::{Key, Object};
use tokio::sync::broadcast::{Receiver, error::RecvError, error::TryRecvError};
use tokio::sync::{mpsc, oneshot};

use crate::NetworkError;
use compile::Attached;
use model::{Pod, Policy, World};
use table::Table;
pub use table::teardown;

/// Pods that wait to be connected.
const WAITING_MAX: usize = 1024;
/// How long a pod waits for what is known of it.
const ADMISSION_WAIT: Duration = Duration::from_secs(20);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Where pods are announced before they are connected. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    sender: mpsc::Sender<Request>,
}

enum Request {
    Admit { id: SandboxId, pod: Key, uid: String, addresses: Vec<IpAddr>, admitted: oneshot::Sender<()> },
    Forget(SandboxId),
}

impl Gate {
    /// Waits until the policies of a pod with these addresses are in the kernel.
    pub(crate) async fn admit(
        &self,
        id: &SandboxId,
        pod: &PodIdentity,
        addresses: &[IpAddr],
    ) -> Result<(), NetworkError> {
        let (admitted, is_admitted) = oneshot::channel();
        let request = Request::Admit {
            id: id.clone(),
            pod: Key::new(&*pod.namespace, &*pod.name),
            uid: pod.uid.clone(),
            addresses: addresses.to_vec(),
            admitted,
        };
        let asked = async {
            self.sender.send(request).await.ok()?;
            is_admitted.await.ok()
        };
        match tokio::time::timeout(ADMISSION_WAIT, asked).await {
            Ok(Some(())) => Ok(()),
            _ => Err(NetworkError::Policy),
        }
    }

    /// A pod that is disconnected.
    pub(crate) async fn forget(&self, id: &SandboxId) {
        if self.sender.send(Request::Forget(id.clone())).await.is_err() {
            tracing::debug!("network policies are not kept any more");
        }
    }
}

/// Keeps the packet filter as the policies want it.
pub struct Policies {
    node: String,
    caches: Caches,
    requests: mpsc::Receiver<Request>,
    state: State,
}

struct State {
    table: Option<Table>,
    table_name: String,
    world: World,
    /// Pods that were announced, until they are disconnected.
    attached: BTreeMap<SandboxId, (Key, String, Vec<IpAddr>)>,
    waiting: Vec<(SandboxId, oneshot::Sender<()>)>,
}

/// Pods and namespaces, watched while there are policies.
struct Peers {
    pod_events: Receiver<CacheEvent>,
    namespace_events: Receiver<CacheEvent>,
}

impl Policies {
    /// With a packet-filter table of that name for the pods of this node; changes nothing yet. The gate is for
    /// [`crate::PodNetwork::guard`]. `caches` must be allowed to watch NetworkPolicies, Pods and Namespaces.
    pub fn build(table: &str, node: &str, caches: &Caches) -> (Self, Gate) {
        let (sender, requests) = mpsc::channel(WAITING_MAX);
        let state = State {
            table: None,
            table_name: table.to_owned(),
            world: World::default(),
            attached: BTreeMap::new(),
            waiting: Vec::new(),
        };
        (Self { node: node.to_owned(), caches: caches.clone(), requests, state }, Gate { sender })
    }

    /// Works until `shutdown`. The rules stay.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), NetworkError> {
        match shutdown.run_until_cancelled(self.work()).await {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(never)) => match never {},
        }
    }

    async fn work(&mut self) -> Result<Infallible, NetworkError> {
        let opened = Table::open(&self.state.table_name);
        self.state.table = Some(opened.map_err(crate::kernel::doing("cannot open a netfilter socket"))?);
        let policies = self.caches.of::<NetworkPolicy>();
        let mut events = policies.subscribe();
        policies.synced().await;
        self.state.read_policies(&policies);
        let (mut peers, mut wait) = (None, RETRY_FIRST);
        loop {
            if !self.state.world.policies.is_empty() && peers.is_none() {
                peers = Some(self.watch_peers().await);
            }
            let again = match self.state.apply(&self.node).await {
                Ok(()) => {
                    wait = RETRY_FIRST;
                    None
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "network policies are not in force"
                    );
                    wait = (wait * 2).min(RETRY_MAX);
                    Some(wait)
                }
            };
            self.changed(&policies, &mut events, &mut peers, again).await;
        }
    }

    async fn watch_peers(&mut self) -> Peers {
        let (pods, namespaces) = (self.caches.of::<ApiPod>(), self.caches.of::<Namespace>());
        let (pod_events, namespace_events) = (pods.subscribe(), namespaces.subscribe());
        pods.synced().await;
        namespaces.synced().await;
        self.state.read_peers(&pods, &namespaces);
        Peers { pod_events, namespace_events }
    }

    /// Waits for changes and takes all that are there.
    async fn changed(
        &mut self,
        policies: &Cache,
        events: &mut Receiver<CacheEvent>,
        peers: &mut Option<Peers>,
        again: Option<Duration>,
    ) {
        let retry = async {
            match again {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let state = &mut self.state;
        tokio::select! {
            () = retry => {}
            event = events.recv() => {
                if !take(event, events, |event| state.note_policy(event)) {
                    *events = policies.subscribe();
                    state.read_policies(policies);
                }
            }
            request = self.requests.recv() => {
                // The gate may be gone; what is there is still kept.
                match request {
                    Some(request) => state.note_request(request),
                    None => std::future::pending().await,
                }
                while let Ok(request) = self.requests.try_recv() {
                    state.note_request(request);
                }
            }
            missed = peer_changes(peers, state) => {
                if missed {
                    *peers = None;
                }
            }
        }
    }
}

/// Takes changes of pods and namespaces; true when some were missed.
async fn peer_changes(peers: &mut Option<Peers>, state: &mut State) -> bool {
    let Some(peers) = peers else { return std::future::pending().await };
    tokio::select! {
        event = peers.pod_events.recv() => {
            !take(event, &mut peers.pod_events, |event| state.note_pod(event))
        }
        event = peers.namespace_events.recv() => {
            !take(event, &mut peers.namespace_events, |event| state.note_namespace(event))
        }
    }
}

/// Handles an event and those that are there already; false when some were missed.
fn take(
    first: Result<CacheEvent, RecvError>,
    events: &mut Receiver<CacheEvent>,
    mut note: impl FnMut(&CacheEvent),
) -> bool {
    let Ok(first) = first else { return false };
    note(&first);
    loop {
        match events.try_recv() {
            Ok(event) => note(&event),
            Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => return false,
            Err(TryRecvError::Empty) => return true,
        }
    }
}

impl State {
    fn read_policies(&mut self, policies: &Cache) {
        let read = |object: &Object| (object.key(), Policy::read(object));
        self.world.policies = policies.all().iter().map(|object| read(object)).collect();
    }

    fn read_peers(&mut self, pods: &Cache, namespaces: &Cache) {
        let pods = pods.all();
        self.world.pods = pods.iter().filter_map(|pod| Some((pod.key(), Pod::read(pod)?))).collect();
        let namespaces = namespaces.all();
        let labels = |object: &Object| (object.meta().name.clone(), object.meta().labels.clone());
        self.world.namespaces = namespaces.iter().map(|object| labels(object)).collect();
    }

    fn note_policy(&mut self, event: &CacheEvent) {
        let object = event.object();
        match event {
            CacheEvent::Deleted(_) => self.world.policies.remove(&object.key()),
            _ => self.world.policies.insert(object.key(), Policy::read(object)),
        };
    }

    fn note_pod(&mut self, event: &CacheEvent) {
        let object = event.object();
        let pod = Pod::read(object).filter(|_| !matches!(event, CacheEvent::Deleted(_)));
        match pod {
            Some(pod) => self.world.pods.insert(object.key(), pod),
            None => self.world.pods.remove(&object.key()),
        };
    }

    fn note_namespace(&mut self, event: &CacheEvent) {
        let meta = event.object().meta();
        match event {
            CacheEvent::Deleted(_) => self.world.namespaces.remove(&meta.name),
            _ => self.world.namespaces.insert(meta.name.clone(), meta.labels.clone()),
        };
    }

    fn note_request(&mut self, request: Request) {
        match request {
            Request::Admit { id, pod, uid, addresses, admitted } => {
                self.attached.insert(id.clone(), (pod, uid, addresses));
                self.waiting.push((id, admitted));
            }
            Request::Forget(id) => {
                self.attached.remove(&id);
            }
        }
    }

    /// Brings the packet filter up to date and lets those pods in whose labels are known.
    async fn apply(&mut self, node: &str) -> Result<(), NetworkError> {
        let here = attached(&self.world, self.attached.values(), node);
        let desired = compile::compile(&self.world, &here);
        let Some(mut table) = self.table.take() else { return Err(NetworkError::Policy) };
        let work = move || {
            let applied = table.apply(desired);
            (table, applied)
        };
        let stopping = |error| NetworkError::Config(format!("the process is stopping: {error}"));
        let (table, applied) = tokio::task::spawn_blocking(work).await.map_err(stopping)?;
        self.table = Some(table);
        applied?;
        self.let_in();
        Ok(())
    }

    fn let_in(&mut self) {
        let (world, attached) = (&self.world, &self.attached);
        let is_known = |id: &SandboxId| {
            world.policies.is_empty()
                || attached
                    .get(id)
                    .is_some_and(|(key, uid, _)| world.pods.get(key).is_some_and(|pod| pod.uid == *uid))
        };
        let (ready, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(id, _)| is_known(id));
        self.waiting = waiting;
        for (_, admitted) in ready {
            // Whoever waited may have given up.
            let _receiver = admitted.send(());
        }
        self.waiting.retain(|(_, admitted)| !admitted.is_closed());
    }
}

/// The pods of this node with their addresses: those that were announced, and those that the API shows, which ran
/// before this process did.
fn attached<'a>(
    world: &World,
    announced: impl Iterator<Item = &'a (Key, String, Vec<IpAddr>)>,
    node: &str,
) -> Attached {
    let mut here = Attached::new();
    let mut taken = BTreeSet::new();
    for (key, uid, addresses) in announced {
        taken.extend(addresses.iter().copied());
        if world.pods.get(key).is_some_and(|pod| pod.uid == *uid) {
            here.insert(key.clone(), addresses.clone());
        }
    }
    for (key, pod) in world.pods.iter().filter(|(_, pod)| pod.node == node) {
        let free = pod.addresses.iter().filter(|address| !taken.contains(*address));
        let free: Vec<IpAddr> = free.copied().collect();
        if !free.is_empty() {
            here.entry(key.clone()).or_default().extend(free);
        }
    }
    here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_pod_has_its_address_and_not_the_one_that_had_it_before() {
        let pod = |uid: &str, address: &str| Pod {
            uid: uid.into(),
            node: "here".into(),
            addresses: vec![address.parse().unwrap()],
            ..Pod::default()
        };
        let mut world = World::default();
        world.pods.insert(Key::new("d", "old"), pod("1", "10.42.0.2"));
        world.pods.insert(Key::new("d", "runs"), pod("2", "10.42.0.3"));
        world.pods.insert(Key::new("d", "new"), Pod { addresses: vec![], ..pod("3", "10.42.0.9") });
        world.pods.insert(Key::new("d", "far"), Pod { node: "there".into(), ..pod("4", "10.42.1.2") });
        let addresses = vec!["10.42.0.2".parse().unwrap()];
        let announced = [(Key::new("d", "new"), "3".to_owned(), addresses.clone())];
        let here = attached(&world, announced.iter(), "here");
        assert_eq!(here.keys().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["new", "runs"]);
        assert_eq!(here[&Key::new("d", "new")], addresses);
        let stale = [(Key::new("d", "new"), "another".to_owned(), addresses)];
        assert!(!attached(&world, stale.iter(), "here").contains_key(&Key::new("d", "new")));
    }
}
