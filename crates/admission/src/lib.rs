//! Admission: the ordered chain of plugins that may change or refuse a request before it is stored.
//!
//! Plugins read through the API itself, in their newest state; only what Services hold is kept in memory.

pub mod certificates;
pub mod chain;
pub mod limit_ranger;
pub mod lookup;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod pod_security;
pub mod pods;
pub mod priority;
pub mod quota;
pub mod role_escalation;
pub mod service_account;
pub mod services;
pub mod storage;

use std::sync::Arc;

use auth::Authorizer;
use client::Client;
use env::Env;

pub use chain::{Attributes, Chain, Operation, Plugin, Warnings};
pub use services::Ranges;

/// What the plugins need.
pub struct Dependencies {
    /// Access with the API server's own identity.
    pub client: Client,
    pub env: Env,
    pub authorizer: Arc<dyn Authorizer>,
    /// What Services are given.
    pub ranges: Ranges,
    /// Whether the controllers that take `kubernetes.io/pvc-protection` and `pv-protection` away are running;
    /// without them a protected claim could never be deleted.
    pub protects_storage: bool,
}

/// All built-in plugins in upstream's order.
pub fn default_chain(dependencies: Dependencies) -> Chain {
    let Dependencies { client, env, authorizer, ranges, protects_storage } = dependencies;
    let lookup = lookup::Lookup::new(client);
    let mut plugins: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(namespace_lifecycle::NamespaceLifecycle { lookup: lookup.clone() }),
        Arc::new(limit_ranger::LimitRanger { lookup: lookup.clone() }),
        Arc::new(service_account::ServiceAccount { lookup: lookup.clone(), env: env.clone() }),
        Arc::new(node_restriction::NodeRestriction { lookup: lookup.clone() }),
        Arc::new(pods::TaintNodesByCondition),
        Arc::new(pod_security::PodSecurity { lookup: lookup.clone() }),
        Arc::new(priority::Priority { lookup: lookup.clone() }),
        Arc::new(pods::DefaultTolerationSeconds),
        Arc::new(storage::DefaultStorageClass { lookup: lookup.clone() }),
    ];
    if protects_storage {
        plugins.push(Arc::new(storage::StorageObjectInUseProtection));
    }
    let last: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(storage::PersistentVolumeClaimResize { lookup: lookup.clone() }),
        Arc::new(pods::RuntimeClass { lookup: lookup.clone() }),
        Arc::new(certificates::CertificateApproval { authorizer: authorizer.clone() }),
        Arc::new(certificates::CertificateSigning { authorizer: authorizer.clone() }),
        Arc::new(certificates::CertificateSubjectRestriction),
        Arc::new(storage::DefaultIngressClass { lookup: lookup.clone() }),
        Arc::new(role_escalation::RoleEscalation { lookup: lookup.clone(), authorizer }),
        Arc::new(services::ServiceAllocator::new(lookup.clone(), env, ranges)),
        Arc::new(quota::ResourceQuota::new(lookup)),
    ];
    plugins.extend(last);
    Chain::new(plugins)
}
