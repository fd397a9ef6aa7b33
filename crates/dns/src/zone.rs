//! What is known of the cluster, ready to be asked: Services by name, names by address.
//!
//! Nothing is stored per name that could be asked for: a question is taken apart and leads to one Service.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::Key;

/// A port by which a Service or endpoint is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty for the only port.
    pub name: String,
    /// In lower case.
    pub protocol: String,
    pub number: u16,
}

/// A pod or other machine behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host name or its address with dashes.
    pub label: String,
    pub address: IpAddr,
    pub ports: Arc<[Port]>,
}

/// What a Service's own name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its addresses.
    Cluster(Vec<IpAddr>),
    /// Its endpoints.
    Headless,
    /// Another name.
    External(String),
}

/// A Service as DNS sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRecord {
    pub target: Target,
    pub ports: Vec<Port>,
    /// Those that are ready.
    pub endpoints: Vec<Endpoint>,
}

/// The name that an address has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub service: Key,
    /// The endpoint's label; `None` for the Service itself. A Service's own address comes first.
    pub endpoint: Option<String>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Zone {
    services: HashMap<Key, Arc<ServiceRecord>>,
    names: HashMap<IpAddr, BTreeSet<Owner>>,
    namespaces: BTreeSet<String>,
}

impl Zone {
    pub fn service(&self, key: &Key) -> Option<&Arc<ServiceRecord>> {
        self.services.get(key)
    }

    /// The first of the names that an address has.
    pub fn owner(&self, address: IpAddr) -> Option<&Owner> {
        self.names.get(&address).and_then(|owners| owners.first())
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    pub fn set_namespace(&mut self, namespace: &str, exists: bool) {
        match exists {
            true => self.namespaces.insert(namespace.to_owned()),
            false => self.namespaces.remove(namespace),
        };
    }

    /// Replaces what is known of a Service, all at once.
    pub fn set_service(&mut self, key: &Key, record: Option<ServiceRecord>) {
        if let Some(old) = self.services.remove(key) {
            for (address, owner) in names(key, &old) {
                self.forget(address, &owner);
            }
        }
        if let Some(record) = record {
            for (address, owner) in names(key, &record) {
                self.names.entry(address).or_default().insert(owner);
            }
            self.services.insert(key.clone(), Arc::new(record));
        }
    }

    fn forget(&mut self, address: IpAddr, owner: &Owner) {
        if let Some(owners) = self.names.get_mut(&address) {
            owners.remove(owner);
            if owners.is_empty() {
                self.names.remove(&address);
            }
        }
    }
}

fn names(key: &Key, record: &ServiceRecord) -> Vec<(IpAddr, Owner)> {
    let own = match &record.target {
        Target::Cluster(addresses) => addresses.as_slice(),
        _ => &[],
    };
    let own = own.iter().map(|address| (*address, Owner { service: key.clone(), endpoint: None }));
    let endpoints = record.endpoints.iter().map(|endpoint| {
        (endpoint.address, Owner { service: key.clone(), endpoint: Some(endpoint.label.clone()) })
    });
    own.chain(endpoints).collect()
}

/// A Service and its slices as DNS sees them; `None` when it has no name yet.
pub fn compile(service: &Service, slices: &[&EndpointSlice]) -> Option<ServiceRecord> {
    let spec = service.spec.as_ref()?;
    let target = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => Target::External(spec.external_name.clone()?),
        (_, Some("None")) => Target::Headless,
        (_, None | Some("")) => return None,
        (_, Some(single)) => {
            let several = spec.cluster_ips.iter().flatten().map(String::as_str);
            let addresses: BTreeSet<IpAddr> =
                several.chain([single]).filter_map(|ip| ip.parse().ok()).collect();
            Target::Cluster(addresses.into_iter().collect())
        }
    };
    let ports = spec.ports.iter().flatten();
    let ports = ports
        .filter_map(|port| make_port(port.name.as_deref(), port.protocol.as_deref(), port.port))
        .collect();
    let mut endpoints: Vec<Endpoint> = slices.iter().flat_map(|slice| ready_endpoints(slice)).collect();
    endpoints.sort_by(|a, b| (a.address, &a.label).cmp(&(b.address, &b.label)));
    endpoints.dedup();
    Some(ServiceRecord { target, ports, endpoints })
}

fn make_port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: u16::try_from(number).ok()?,
    })
}

fn ready_endpoints(slice: &EndpointSlice) -> Vec<Endpoint> {
    let ports = slice.ports.iter().flatten();
    let ports: Arc<[Port]> = ports
        .filter_map(|port| make_port(port.name.as_deref(), port.protocol.as_deref(), port.port?))
        .collect();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let each = ready.flat_map(|endpoint| {
        let addresses = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
        let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
        addresses.map(move |address| (address, hostname))
    });
    each.map(|(address, hostname)| Endpoint {
        label: hostname.map_or_else(|| dashed(address), str::to_ascii_lowercase),
        address,
        ports: ports.clone(),
    })
    .collect()
}

/// An address as a label: `10-42-0-5`.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that such a label stands for.
pub fn undashed(label: &str) -> Option<IpAddr> {
    let dotted = label.replace('-', ".");
    dotted.parse().ok().or_else(|| label.replace('-', ":").parse().ok())
}
