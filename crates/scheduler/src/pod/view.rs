//! The fields of a stored pod that scheduling reads. The rest is skipped while parsing, so that a pod costs a few
//! microseconds and no memory beyond what is kept of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

pub type Quantities = BTreeMap<String, Text>;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodView {
    pub metadata: MetaView,
    pub spec: SpecView,
    pub status: StatusView,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetaView {
    pub creation_timestamp: Option<jiff::Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpecView {
    pub node_name: Option<String>,
    pub priority: Option<i32>,
    pub preemption_policy: Option<String>,
    pub scheduler_name: Option<String>,
    pub scheduling_gates: Option<Vec<IgnoredAny>>,
    pub resource_claims: Option<Vec<IgnoredAny>>,
    pub containers: Option<Vec<ContainerView>>,
    pub init_containers: Option<Vec<ContainerView>>,
    pub resources: Option<ResourcesView>,
    pub overhead: Option<Quantities>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub affinity: Option<AffinityView>,
    pub tolerations: Option<Vec<Toleration>>,
    pub topology_spread_constraints: Option<Vec<SpreadView>>,
    pub volumes: Option<Vec<VolumeView>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerView {
    pub name: String,
    pub image: Option<String>,
    pub restart_policy: Option<String>,
    pub ports: Option<Vec<PortView>>,
    pub resources: Option<ResourcesView>,
}

impl ContainerView {
    /// An init container that stays.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortView {
    pub host_port: Option<i32>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub protocol: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ResourcesView {
    pub requests: Option<Quantities>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AffinityView {
    pub node_affinity: Option<NodeAffinity>,
    pub pod_affinity: Option<PodAffinityView>,
    pub pod_anti_affinity: Option<PodAffinityView>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodAffinityView {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<Vec<TermView>>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Option<Vec<WeightedView>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WeightedView {
    pub weight: i64,
    pub pod_affinity_term: TermView,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TermView {
    pub label_selector: Option<Value>,
    pub namespaces: Option<Vec<String>>,
    pub namespace_selector: Option<Value>,
    pub topology_key: String,
    pub match_label_keys: Option<Vec<String>>,
    pub mismatch_label_keys: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpreadView {
    pub max_skew: i64,
    pub topology_key: String,
    pub when_unsatisfiable: String,
    pub label_selector: Option<Value>,
    pub min_domains: Option<i64>,
    pub node_affinity_policy: Option<String>,
    pub node_taints_policy: Option<String>,
    pub match_label_keys: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeView {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimView>,
    pub ephemeral: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimView {
    pub claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusView {
    pub phase: Option<String>,
    pub nominated_node_name: Option<String>,
    pub start_time: Option<jiff::Timestamp>,
    pub conditions: Option<Vec<ConditionView>>,
    pub container_statuses: Option<Vec<ContainerStatusView>>,
    pub init_container_statuses: Option<Vec<ContainerStatusView>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConditionView {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatusView {
    pub name: String,
    pub resources: Option<ResourcesView>,
    pub allocated_resources: Option<Quantities>,
}
