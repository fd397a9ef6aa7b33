//! What all pods of a node share.

use std::sync::Arc;

use client::{Cache, Client};
use containers::Runtime;
use env::Env;
use images::ImageService;
use k8s_openapi::api::core::v1::Service;
use tokio::sync::Semaphore;

use super::references::Watches;
use crate::machine::NodeFacts;
use crate::make::NodeSettings;
use crate::make::field::Surroundings;
use crate::probes::Prober;
use crate::volumes::Volumes;
use reconcile::events::Recorder;

/// See the module's documentation. Held in one `Arc`.
pub struct Shared {
    pub env: Env,
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn ImageService>,
    pub node_name: String,
    pub settings: NodeSettings,
    pub facts: NodeFacts,
    pub allocatable_storage_bytes: i64,
    pub max_pods: usize,
    pub shares_machine: bool,
    pub volumes: Volumes,
    pub watches: Watches,
    pub services: Cache,
    pub recorder: Recorder,
    /// Bounds how many containers are started at the same time.
    pub starts: Semaphore,
    pub prober: Prober,
    /// Told when an image was pulled, so that the disk is looked at.
    pub pulled: tokio::sync::Notify,
}

impl Shared {
    /// What fields of a pod refer to, with the pod's addresses.
    pub fn surroundings(&self, pod_ips: Vec<String>) -> Surroundings {
        Surroundings {
            pod_ips,
            host_ips: self.facts.host_ips.clone(),
            node_name: self.node_name.clone(),
            allocatable_cpu_millis: self.facts.allocatable_cpu_millis,
            allocatable_memory_bytes: self.facts.allocatable_memory_bytes,
            allocatable_storage_bytes: self.allocatable_storage_bytes,
        }
    }

    /// The services that matter to a namespace: its own and the cluster's.
    pub async fn services_for(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.services.synced().await;
        let mut objects = self.services.namespace(namespace);
        if namespace != "default" {
            objects.extend(self.services.get(&machinery::Key::new("default", "kubernetes")));
        }
        objects.iter().filter_map(|object| client::typed(object).ok()).collect()
    }
}
