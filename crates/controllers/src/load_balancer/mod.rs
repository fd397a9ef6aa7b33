//! Addresses of Services of the type `LoadBalancer`: from a pool, or else the nodes' own.
//!
//! Only the status is written here. That packets for an address of the pool come to a node is the nodes' care
//! (`network`'s announcer); what becomes of them there is the proxy's.

mod plan;

use std::collections::BTreeMap;
use std::net::IpAddr;

use client::{Cache, Caches, Patch, target_of, typed};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::{Key, Object};
use parking_lot::Mutex;
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan, Reference};
use serde_json::{Value, json};

use plan::{Claim, Wish};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where addresses come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancing {
    /// Ranges that nobody else uses; when there are none, Services get the nodes' own addresses.
    pub pool: Vec<IpNet>,
    /// TCP ports of the nodes' own addresses that no Service may take, such as the API server's.
    pub reserved_ports: Vec<u16>,
}

/// The controller.
pub struct LoadBalancers {
    services: Cache,
    nodes: Cache,
    slices: Cache,
    config: LoadBalancing,
    /// What was given and may not be seen in the cache yet.
    given: Mutex<BTreeMap<Key, Vec<IpAddr>>>,
}

impl LoadBalancers {
    pub fn new(caches: &Caches, config: LoadBalancing) -> Self {
        let (services, nodes, slices) =
            (caches.of::<Service>(), caches.of::<Node>(), caches.of::<EndpointSlice>());
        Self { services, nodes, slices, config, given: Mutex::default() }
    }

    /// The addresses that a Service is to have.
    fn addresses(&self, key: &Key, wish: &Wish) -> Result<Vec<IpAddr>, String> {
        if self.config.pool.is_empty() {
            plan::check_ports(key, wish, &self.claims(), &self.config.reserved_ports)?;
            let nodes = self.nodes.all();
            let nodes: Vec<_> = nodes.iter().filter_map(|node| typed::<Node>(node).ok()).collect();
            let local = wish.only_local.then(|| self.nodes_with_endpoints(key));
            return Ok(plan::node_addresses(&nodes, local.as_ref(), wish));
        }
        let mut given = self.given.lock();
        given.retain(|service, _| self.services.get(service).is_some());
        let mut taken: BTreeMap<IpAddr, Key> = BTreeMap::new();
        for (service, addresses) in given.iter().filter(|(service, _)| *service != key) {
            taken.extend(addresses.iter().map(|address| (*address, service.clone())));
        }
        for claim in self.claims().into_iter().filter(|claim| claim.service != *key) {
            taken.extend(claim.addresses.iter().map(|address| (*address, claim.service.clone())));
        }
        let addresses = plan::pool_addresses(&self.config.pool, wish, &taken)?;
        given.insert(key.clone(), addresses.clone());
        Ok(addresses)
    }

    /// What all Services that are ours have now.
    fn claims(&self) -> Vec<Claim> {
        let all = self.services.all();
        all.iter().filter_map(|object| Claim::read(&object.key(), &*typed::<Service>(object).ok()?)).collect()
    }

    fn nodes_with_endpoints(&self, key: &Key) -> std::collections::BTreeSet<String> {
        let slices = self.slices.namespace(&key.namespace);
        let own = slices.iter().filter(|slice| slice.meta().labels.get(SERVICE_NAME) == Some(&key.name));
        let own = own.filter_map(|slice| typed::<EndpointSlice>(slice).ok());
        own.flat_map(|slice| plan::ready_nodes(&slice)).collect()
    }
}

impl Controller for LoadBalancers {
    fn name(&self) -> &'static str {
        "service-lb-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::own(self.services.clone())];
        if self.config.pool.is_empty() {
            let (by_node, by_slice) = (self.services.clone(), self.services.clone());
            inputs.push(Input::new(self.nodes.clone(), move |_| balanced(&by_node)));
            inputs.push(Input::new(self.slices.clone(), move |slice| {
                let name = slice.meta().labels.get(SERVICE_NAME);
                let key = name.map(|name| Key::new(&*slice.meta().namespace, &**name));
                key.filter(|key| by_slice.get(key).is_some_and(|service| is_local(&service)))
                    .into_iter()
                    .collect()
            }));
        }
        inputs
    }

    fn plan(&self, key: &Key, _now: Timestamp) -> Plan {
        let Some(object) = self.services.get(key) else {
            self.given.lock().remove(key);
            return Plan::nothing();
        };
        let Ok(service) = typed::<Service>(&object) else { return Plan::nothing() };
        let Some(wish) = Wish::read(&service) else {
            self.given.lock().remove(key);
            return clear(&object, &service);
        };
        match self.addresses(key, &wish) {
            Ok(addresses) if addresses == wish.present => Plan::nothing(),
            Ok(addresses) => Plan { status: Some(publish(&object, &addresses)), ..Plan::nothing() },
            Err(problem) => {
                let about = Reference::new("v1", "Service", &object);
                let warning = Action::warning(about, "AllocationFailed", problem);
                let status = (!wish.present.is_empty()).then(|| publish(&object, &[]));
                Plan { actions: vec![warning], status, ..Plan::nothing() }
            }
        }
    }
}

/// A Service that is no balancer any more has no balancer's addresses.
fn clear(object: &Object, service: &Service) -> Plan {
    let is_balancer = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let has = status.is_some_and(|status| status.ingress.as_ref().is_some_and(|ingress| !ingress.is_empty()));
    let status = (has && !is_balancer).then(|| publish(object, &[]));
    Plan { status, ..Plan::nothing() }
}

fn publish(object: &Object, addresses: &[IpAddr]) -> Action {
    let ingress: Vec<Value> =
        addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
    let mut target = named(target_of::<Service>(""), object);
    target.subresource = "status".to_owned();
    let balancer = if ingress.is_empty() { Value::Null } else { json!(ingress) };
    Action::Patch { target, patch: Patch::Merge(json!({"status": {"loadBalancer": {"ingress": balancer}}})) }
}

fn balanced(services: &Cache) -> Vec<Key> {
    let all = services.all();
    let ours = all.iter().filter(|object| typed::<Service>(object).is_ok_and(|s| Wish::read(&s).is_some()));
    ours.map(|object| object.key()).collect()
}

fn is_local(service: &Object) -> bool {
    typed::<Service>(service).is_ok_and(|service| Wish::read(&service).is_some_and(|wish| wish.only_local))
}
